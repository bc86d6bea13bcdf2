package machine

import (
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// done keeps the steady state.
//
//	waits for  the specification or the world to change
//	does       nothing of its own: what was lost or changed is put back in every phase
//	then       Pending
func done(s Snapshot) Decision {
	if why := difference(s); why != "" {
		decision := advance(s, serve(s), v2beta1.PhasePending, why)
		if set := s.targetSet(Core); set != nil && s.target(Core).Replacement != "" {
			decision.Notices = inPlaceNotices(s, *set)
		}
		return decision
	}
	set := s.targetSet(Core)
	decision := stay(s, serve(s))
	switch lack := unready(s, *set); lack.Reason {
	case nodeSilent, nodeNotAsked, unauthorized, forbidden, untrusted:
		// Its pod is ready. Unknown is not down: it is said, and turns no condition.
		decision.Unknown = lack
	default:
		decision.Waiting = lack
	}
	if decision.Waiting.None() && len(set.Pods) > int(s.target(Core).Replicas) {
		decision.Waiting = Lack{"PodsLeft", "pods of set " + set.Name + " that nobody asked for to be gone"}
	}
	decision.Notices = notices(s, *set)
	_, left := keysNotLoaded(s)
	decision.After = soonest(decision.After, left)
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
