package upgrade

import (
	"fmt"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// done keeps the steady state.
//
//	waits for  the specification or the world to change
//	does       puts back what was lost or changed
//	then       Pending
func done(s Snapshot) Decision {
	if why := difference(s); why != "" {
		return advance(s, v2beta1.PhasePending, why)
	}
	decision := stay(s)
	update := s.updateSet()
	for _, kind := range resources.ServiceKinds() {
		if s.Services[kind].Revision == "" && resources.ServiceEnabled(s.EMQX, kind) {
			decision.Actions = append(decision.Actions, pointService(s, kind, *update)...)
		}
	}
	if lack := unready(s, *update); lack != "" && !settled(s) {
		decision.Waiting = lack
	}
	decision.Notices = notices(s, *update)
	return decision
}

// finish ends an upgrade.
func finish(s Snapshot, why string) Decision {
	decision := advance(s, v2beta1.PhaseDone, why)
	if decision.Upgrade.StartedTime != nil && decision.Upgrade.FinishedTime == nil {
		decision.Upgrade.FinishedTime = at(s.Now)
	}
	decision.Upgrade.HeldTime = nil
	if update := s.updateSet(); update != nil {
		decision.Notices = notices(s, *update)
	}
	return decision
}

// notices tells of fields that are accepted and have no effect.
func notices(s Snapshot, update Set) []Problem {
	var told []Problem
	ignored := func(field, instead string) {
		told = append(told, Problem{Reason: "FieldHasNoEffect", Message: fmt.Sprintf("%s has no effect: %s", field, instead)})
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
	if spec.Config.Mode == v2beta1.ConfigModeReplace {
		ignored("spec.config.mode", "configuration reaches the nodes with the next revision")
	}
	if update.ConfigHash != s.ConfigHash {
		told = append(told, Problem{
			Reason:  "ConfigNotApplied",
			Message: "spec.config.data differs from what the nodes run with: this version does not apply configuration to running nodes; it reaches them with the next revision",
		})
	}
	return told
}
