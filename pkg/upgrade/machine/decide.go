package machine

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// Decide is the state machine: the guards in their order, else the handler of the phase; then what is kept up in every
// phase; then the pod that leaves its Kubernetes node; then what is said of keys and deadlines; then the Rebalance whose turn it is.
func Decide(s Snapshot) Decision {
	decision, guarded := guard(s)
	if decision.Gone {
		return decision
	}
	if !guarded {
		decision = handle(s)
	}
	decision.Groups = append(upkeep(s), decision.Groups...)
	decision.After = soonest(decision.After, vouching(s))
	decision = drain(s, decision)
	decision = keysProblem(s, decision)
	decision = deadline(s, decision)
	return rebalance(s, decision)
}

// handle runs the handler of the phase.
func handle(s Snapshot) Decision {
	switch s.phase() {
	case v2beta1.PhasePending:
		return pending(s)
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
	}
	return pending(s)
}

// stay is the decision to remain in the phase, with what EMQX shall be like.
func stay(s Snapshot, goal evacuate.Goal) Decision {
	decision := Decision{Phase: s.phase(), Upgrade: s.upgradeStatus(), Goal: goal}
	if !agree(s) {
		decision.After = time.Second
	}
	for pod := range s.eachPod() {
		if left, tolerated := s.tolerance(pod); tolerated {
			decision.After = soonest(decision.After, max(0, left))
		}
	}
	resume(s, &decision.Upgrade)
	return decision
}

// wait remains in the phase and says for what.
func wait(s Snapshot, goal evacuate.Goal, lack Lack) Decision {
	decision := stay(s, goal)
	decision.Waiting = lack
	return decision
}

// do remains in the phase, says for what, and does something for it.
func do(s Snapshot, goal evacuate.Goal, lack Lack, groups ...Group) Decision {
	decision := wait(s, goal, lack)
	decision.Groups = groups
	return decision
}

// advance enters another phase. The handler's part is done: it does nothing else by the same decision.
func advance(s Snapshot, goal evacuate.Goal, phase v2beta1.Phase, why string) Decision {
	decision := stay(s, goal)
	decision.Phase, decision.Why = phase, why
	decision.Upgrade.PhaseStartedTime = at(s.Now)
	decision.Upgrade.PausedSeconds = 0
	hold(s, &decision.Upgrade, Lack{})
	return decision
}

// AtOnce is when to look again as soon as the cache shows what a decision has the resource remember: no other event will come.
const AtOnce = time.Millisecond

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

// resume ends a pause: its time counts neither for the phase nor for the evacuation.
func resume(s Snapshot, upgrade *v2beta1.UpgradeStatus) {
	if since := upgrade.PausedTime; since != nil {
		paused := s.Now.Sub(since.Time)
		upgrade.PausedSeconds += int64(paused / time.Second)
		upgrade.PausedTime = nil
		moveOn(upgrade, paused)
	}
}

// hold notes since when, and why, evictions are stopped; with no lack it ends that. Its time does not count for the
// evacuation.
func hold(s Snapshot, upgrade *v2beta1.UpgradeStatus, lack Lack) {
	switch {
	case !lack.None() && upgrade.HeldTime == nil:
		upgrade.HeldTime = at(s.Now)
	case lack.None() && upgrade.HeldTime != nil:
		moveOn(upgrade, s.Now.Sub(upgrade.HeldTime.Time))
		upgrade.HeldTime = nil
	}
	upgrade.HeldReason = lack.Reason
}

// moveOn moves the time when the evacuation began on by time that does not count.
func moveOn(upgrade *v2beta1.UpgradeStatus, by time.Duration) {
	if upgrade.EvacuationStartedTime != nil {
		upgrade.EvacuationStartedTime = at(upgrade.EvacuationStartedTime.Add(by))
	}
}

// at is a time as the resource keeps it: microseconds, as the API server returns it.
func at(t time.Time) *metav1.MicroTime {
	micro := metav1.NewMicroTime(t.Truncate(time.Microsecond))
	return &micro
}

// soonest is the shorter of two times to wait, of which zero is none.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
