package machine

import (
	"fmt"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// evacuating moves connections and sessions off the leaving nodes.
//
//	waits for  every leaving node to have no client and no session, and to be past the moving of connections; and for not
//	           more clients to be away than may be
//	does       has them evacuated together, the rates split among them, to the nodes that stay, as fast as clients come
//	           back; stops while too many are away, a member is silent, or the Services do not lead to the target alone
//	then       ScalingDown
func evacuating(s Snapshot) Decision {
	if s.targetSet(Core) == nil || elsewhere(s) {
		return advance(s, serve(s), v2beta1.PhasePending, "the Services do not lead to revision "+s.serviceRevision()+" any more")
	}
	if decision, ok := retreat(s); ok {
		return decision
	}
	upgrade := s.upgradeStatus()
	if upgrade.ClientsTotalTime == nil {
		decision := wait(s, serve(s), Lack{"ClientsNotNoted", "the number of clients to be noted"})
		noteClients(s, &decision.Upgrade)
		decision.After = AtOnce
		return decision
	}
	follow(s, &upgrade)
	pace := pace(s, upgrade, s.leaving())
	held, left := holdReason(s, upgrade, pace), notEmpty(s)
	goal := evacuation(s, plan(s, pace.Tick, !held.None()))
	if left.None() && pace.Away <= max(1, maxUnavailable(s, upgrade.ClientsTotal)) {
		decision := advance(s, goal, v2beta1.PhaseScalingDown, "no client and no session is left on the leaving nodes")
		return decision
	}
	decision := wait(s, goal, left)
	decision.After = nextLook(s)
	decision.Upgrade.ClientsTotal, decision.Upgrade.ClientsTotalTime = upgrade.ClientsTotal, upgrade.ClientsTotalTime
	decision.Upgrade.LimitedBy = v2beta1.LimitedByRate
	if pace.ByLimit {
		decision.Upgrade.LimitedBy = v2beta1.LimitedByClients
	}
	decision.Upgrade.ConnEvictRate = pace.Tick
	hold(s, &decision.Upgrade, held)
	if !held.None() {
		decision.Waiting = held
	}
	return decision
}

// notEmpty says which leaving nodes are not empty yet.
func notEmpty(s Snapshot) Lack {
	count, first := 0, Lack{}
	for _, pod := range s.leaving() {
		if lack := occupied(s, pod); !lack.None() {
			count++
			// A node that blocks says more than one that is on its way.
			if first.None() || first.Reason == "ClientsLeft" && lack.Reason != "ClientsLeft" {
				first = Lack{lack.Reason, pod.Node + " " + lack.Message}
			}
		}
	}
	if count > 0 {
		first.Message = fmt.Sprintf("%d leaving nodes to be empty: %s", count, first.Message)
	}
	return first
}
