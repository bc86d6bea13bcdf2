package upgrade

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Decide is the state machine: guards first, in their order, then the handler of the phase.
func Decide(s Snapshot) Decision {
	for _, guard := range guards() {
		if decision, ok := guard(s); ok {
			return decision
		}
	}
	return withDeadline(s, handle(s))
}

// handle runs the handler of the phase.
func handle(s Snapshot) Decision {
	switch s.EMQX.Status.Phase {
	case v2beta1.PhaseProvisioning:
		return provisioning(s)
	case v2beta1.PhaseSwitching:
		return switching(s)
	case v2beta1.PhaseEvacuating:
		return evacuating(s)
	case v2beta1.PhaseScalingDown:
		return scalingDown(s)
	case v2beta1.PhaseDone:
		return done(s)
	case v2beta1.PhasePending:
		return pending(s)
	default:
		return pending(s) // A new resource has no phase yet.
	}
}

// stay is the decision to remain in the phase, to keep up what is there and to have every node serve.
func stay(s Snapshot) Decision {
	phase := s.EMQX.Status.Phase
	if phase == "" {
		phase = v2beta1.PhasePending
	}
	decision := Decision{Phase: phase, Upgrade: s.upgradeStatus(), Actions: upkeep(s), Goal: servingGoal(s)}
	decision.Upgrade.WaitingFor = ""
	if !agree(s) {
		decision.After = time.Second
	}
	unpause(s, &decision)
	return decision
}

// wait remains in the phase and says for what.
func wait(s Snapshot, what string) Decision {
	decision := stay(s)
	decision.Waiting = what
	return decision
}

// advance enters another phase. Nothing else may be done by the same decision.
func advance(s Snapshot, phase v2beta1.Phase, why string) Decision {
	decision := stay(s)
	decision.Actions = nil
	decision.Goal = nil
	decision.Phase, decision.Why = phase, why
	decision.Upgrade.PhaseStartedTime = at(s.Now)
	decision.Upgrade.PausedSeconds = 0
	return decision
}

// atOnce looks again as soon as the cache shows what this decision has the resource remember: no other event will come.
const atOnce = time.Millisecond

// unpause adds the time of a pause that is over to the account of the phase.
func unpause(s Snapshot, decision *Decision) {
	if since := decision.Upgrade.PausedTime; since != nil {
		decision.Upgrade.PausedSeconds += int64(s.Now.Sub(since.Time) / time.Second)
		decision.Upgrade.PausedTime = nil
	}
}

// inPhase is how long the phase has lasted, without the time when it was paused.
func inPhase(s Snapshot) time.Duration {
	upgrade := s.EMQX.Status.Upgrade
	if upgrade == nil || upgrade.PhaseStartedTime == nil {
		return 0
	}
	elapsed := s.Now.Sub(upgrade.PhaseStartedTime.Time) - time.Duration(upgrade.PausedSeconds)*time.Second
	if upgrade.PausedTime != nil {
		elapsed -= s.Now.Sub(upgrade.PausedTime.Time)
	}
	return elapsed
}

// at is a time as the resource keeps it: microseconds, as the API server returns it.
func at(t time.Time) *metav1.MicroTime {
	micro := metav1.NewMicroTime(t.Truncate(time.Microsecond))
	return &micro
}
