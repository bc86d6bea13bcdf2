package machine

import (
	"fmt"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// guard is the decision of the first guard that takes it out of the hands of the phase; false when none does. The last of
// DESIGN's guards, DeadlineExceeded, changes no decision, it only says more: see deadline.
func guard(s Snapshot) (Decision, bool) {
	for _, guard := range []func(Snapshot) (Decision, bool){deleted, invalid, superseded, paused} {
		if decision, ok := guard(s); ok {
			return decision, true
		}
	}
	return Decision{}, false
}

// deleted: the resource is on its way out, and what it owns goes with it.
func deleted(s Snapshot) (Decision, bool) {
	if s.EMQX.DeletionTimestamp.IsZero() {
		return Decision{}, false
	}
	lack := Lack{"Deleting", "the resource to be gone"}
	if len(s.EMQX.Finalizers) > 0 {
		lack.Message += ", which its finalizers keep: " + strings.Join(s.EMQX.Finalizers, ", ")
	}
	return Decision{Gone: true, Phase: s.phase(), Upgrade: s.upgradeStatus(), Waiting: lack}, true
}

// invalid: the specification cannot be carried out, or what it needs was lost. The last good state keeps serving;
// evacuations are stopped.
func invalid(s Snapshot) (Decision, bool) {
	if lack := former(s); !lack.None() {
		return wait(s, serve(s), lack), true
	}
	problem := problemOf(s)
	if problem == nil {
		return Decision{}, false
	}
	decision := wait(s, serve(s), Lack{problem.Reason, "a person to do what the condition Stalled says"})
	decision.Stalled = problem
	return decision, true
}

// former says which object of a deleted resource of the same name is still there. It goes by itself.
func former(s Snapshot) Lack {
	for _, taken := range s.Taken {
		if taken.Former {
			return Lack{"FormerResourceLeft", fmt.Sprintf("%s %s of the deleted EMQX of the same name to be gone", taken.Kind, taken.Name)}
		}
	}
	return Lack{}
}

// problemOf says what only a person can mend before the specification can be carried out, nil when it can be.
func problemOf(s Snapshot) *Lack {
	for _, rule := range []func(Snapshot) *Lack{undecodable, nameTaken, cookieLost, cookieChanged, configProblem, specProblem, unsupported, licenceAllowsOneNode, upgradePath,
		formerClaims} {
		if problem := rule(s); problem != nil {
			return problem
		}
	}
	return nil
}

// nameTaken: something that is not ours has a name that the cluster needs. It is never overwritten.
func nameTaken(s Snapshot) *Lack {
	for _, taken := range s.Taken {
		if taken.Former {
			continue
		}
		owner := "nothing controls it"
		if taken.Owner != "" {
			owner = "it belongs to " + taken.Owner
		}
		return &Lack{"NameTaken", fmt.Sprintf("%s %s/%s stands in the way: the cluster needs an object of this name, and %s; remove it, or give this resource another name",
			taken.Kind, s.EMQX.Namespace, taken.Name, owner)}
	}
	return nil
}

func configProblem(s Snapshot) *Lack {
	if s.ConfigError != nil {
		return &Lack{"InvalidConfig", "spec.config.data: " + s.ConfigError.Error()}
	}
	return nil
}

// unsupported: what this version cannot do.
func unsupported(s Snapshot) *Lack {
	spec := s.EMQX.Spec
	say := func(format string, args ...any) *Lack {
		return &Lack{"Unsupported", fmt.Sprintf(format, args...)}
	}
	switch {
	case s.Config.DurableSessions:
		return say("spec.config.data: durable_sessions.enable: this version does not move durable storage off the nodes that leave; set it to false")
	case s.target(Core).Replicas < 1:
		return say("spec.coreTemplate.spec.replicas: a cluster needs at least one core node")
	case spec.ReplicantTemplate != nil && (spec.ReplicantTemplate.Spec.Replicas == nil || *spec.ReplicantTemplate.Spec.Replicas > 0):
		return say("spec.replicantTemplate: this version runs clusters of core nodes; set its replicas to 0 or remove it")
	case spec.UpdateStrategy.Promotion == v2beta1.PromotionManual:
		return say("spec.updateStrategy.promotion: this version knows Automatic only; paused holds an upgrade")
	case spec.UpdateStrategy.OnDeadline == v2beta1.DeadlineRollback:
		return say("spec.updateStrategy.onDeadline: this version knows Hold only; to go back, change the specification back")
	}
	for _, role := range s.roles() {
		if set := s.targetSet(role); set != nil && surplusServes(s, *set) {
			return say("spec.coreTemplate.spec.replicas: this version cannot take core nodes away: set it to %d or more, or change it together with the pods", set.Replicas)
		}
	}
	return nil
}

// superseded: the specification changed while an upgrade was under way, which starts over with it. Evacuations are
// stopped at once: other nodes may leave.
func superseded(s Snapshot) (Decision, bool) {
	switch s.phase() {
	case v2beta1.PhaseProvisioning, v2beta1.PhaseSwitching, v2beta1.PhaseEvacuating, v2beta1.PhaseScalingDown:
		if to := s.upgradeStatus().To; to != s.target(Core).Revision && s.EMQX.Status.Upgrade != nil {
			why := fmt.Sprintf("the specification changed: revision %s instead of %s", s.target(Core).Revision, to)
			if s.target(Core).Replacement == to {
				why = "the licence allows one node: revision " + to + " cannot be built beside the one that serves"
			}
			return advance(s, serve(s), v2beta1.PhasePending, why), true
		}
	case v2beta1.PhasePending, v2beta1.PhaseDone:
	}
	return Decision{}, false
}

// paused: the user holds the cluster. Serving goes on, evacuations are stopped, nothing new begins.
func paused(s Snapshot) (Decision, bool) {
	if !s.updateStrategy().Paused {
		return Decision{}, false
	}
	decision := wait(s, serve(s), Lack{"Paused", "spec.updateStrategy.paused to be removed"})
	decision.Paused = true
	// The pause goes on: what stay has taken for its end is put back. A hold ends where a pause begins: no time is to be
	// taken off twice.
	decision.Upgrade = s.upgradeStatus()
	hold(s, &decision.Upgrade, Lack{})
	if decision.Upgrade.PausedTime == nil {
		decision.Upgrade.PausedTime = at(s.Now)
	}
	return decision, true
}

// deadline is DeadlineExceeded: new nodes that are not ready in time are reported as Stalled, and waited for.
func deadline(s Snapshot, decision Decision) Decision {
	if s.phase() != v2beta1.PhaseProvisioning || decision.Phase != v2beta1.PhaseProvisioning || decision.Paused || decision.Stalled != nil {
		return decision
	}
	limit := 10 * time.Minute
	if seconds := s.updateStrategy().ProgressDeadlineSeconds; seconds != nil {
		limit = time.Duration(*seconds) * time.Second
	}
	left := limit - inPhase(s)
	if left > 0 {
		decision.After = soonest(decision.After, left)
		return decision
	}
	decision.Stalled = &Lack{
		Reason: "ProgressDeadlineExceeded",
		Message: fmt.Sprintf("the nodes of revision %s are not ready after %s: %s; correct the specification, or wait",
			s.target(Core).Revision, limit, decision.Waiting.Message),
	}
	return decision
}
