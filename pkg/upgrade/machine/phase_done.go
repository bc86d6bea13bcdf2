package machine

import (
	"fmt"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// done keeps the steady state.
//
//	waits for  the specification or the world to change
//	does       nothing of its own: what was lost or changed is put back in every phase
//	then       Pending
func done(s Snapshot) Decision {
	if why := difference(s); why != "" {
		return advance(s, serve(s), v2beta1.PhasePending, why)
	}
	set := s.targetSet(Core)
	decision := stay(s, serve(s))
	switch lack := unready(s, *set); lack.Reason {
	case nodeSilent, nodeNotAsked, unauthorized:
		// Its pod is ready. Unknown is not down: it is said, and turns no condition.
		decision.Unknown = lack
	default:
		decision.Waiting = lack
	}
	if decision.Waiting.None() && len(set.Pods) > int(s.target(Core).Replicas) {
		decision.Waiting = Lack{"PodsLeft", "pods of set " + set.Name + " that nobody asked for to be gone"}
	}
	decision.Notices = notices(s, *set)
	return decision
}

// finish ends an upgrade.
func finish(s Snapshot, why string) Decision {
	decision := advance(s, serve(s), v2beta1.PhaseDone, why)
	if decision.Upgrade.StartedTime != nil && decision.Upgrade.FinishedTime == nil {
		decision.Upgrade.FinishedTime = at(s.Now)
	}
	decision.Upgrade.LimitedBy, decision.Upgrade.ConnEvictRate = "", 0
	if set := s.targetSet(Core); set != nil {
		decision.Notices = notices(s, *set)
	}
	return decision
}

const fieldHasNoEffect = "FieldHasNoEffect"

// notices tells of fields that are accepted and have no effect.
func notices(s Snapshot, set Set) []Lack {
	var told []Lack
	ignored := func(field, instead string) {
		told = append(told, Lack{fieldHasNoEffect, fmt.Sprintf("%s has no effect: %s", field, instead)})
	}
	spec := s.EMQX.Spec
	if core := spec.CoreTemplate.Spec; core.MinAvailable != nil || core.MaxUnavailable != nil {
		ignored("spec.coreTemplate.spec.minAvailable/maxUnavailable", "this version makes no PodDisruptionBudgets")
	}
	if spec.RevisionHistoryLimit != nil {
		ignored("spec.revisionHistoryLimit", "sets of earlier revisions leave with their pods")
	}
	if spec.UpdateStrategy.PromotedRevision != "" {
		ignored("spec.updateStrategy.promotedRevision", "this version promotes automatically")
	}
	if field := ignoredSelector(s); field != "" {
		ignored(field, "the Service selects the nodes that serve")
	}
	if spec.Config.Mode == v2beta1.ConfigModeReplace {
		ignored("spec.config.mode", "configuration reaches the nodes with the next revision")
	}
	for _, unknown := range s.Config.Unknown {
		told = append(told, Lack{"ConfigNotKnown", unknown + ": ports that it opens, or closes, must be named in spec.listenersServiceTemplate"})
	}
	if set.ConfigHash != s.ConfigHash {
		told = append(told, Lack{
			Reason:  "ConfigNotApplied",
			Message: "spec.config.data differs from what the nodes run with: this version does not apply configuration to running nodes; it reaches them with the next revision",
		})
	}
	return told
}
