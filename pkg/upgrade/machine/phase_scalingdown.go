package machine

import "github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"

// scalingDown removes the leaving nodes.
//
//	waits for  their pods, their membership in EMQX and their sets to be gone
//	does       takes one node away at a time, the highest ordinal of the oldest set first, after another look whether it
//	           is empty; has EMQX forget it; removes sets that have no pods left
//	then       Done
func scalingDown(s Snapshot) Decision {
	if s.targetSet(Core) == nil || elsewhere(s) {
		return advance(s, serve(s), v2beta1.PhasePending, "the Services do not lead to revision "+s.serviceRevision()+" any more")
	}
	if lack := membersLeft(s); len(s.leavingSets()) == 0 && lack.None() {
		return finish(s, "no leaving set is left")
	} else if len(s.leavingSets()) == 0 {
		return wait(s, serve(s), lack)
	}
	// What has been evacuated keeps refusing clients until it is gone; what got clients again is evacuated again.
	upgrade, leaving := s.upgradeStatus(), s.leaving()
	if len(leaving) > 0 {
		follow(s, &upgrade)
	}
	pace := pace(s, upgrade, leaving)
	held := holdReason(s, upgrade, pace)
	decision := stay(s, evacuation(s, plan(s, pace.Tick, !held.None())))
	if len(leaving) > 0 {
		decision.Upgrade.ClientsTotal, decision.Upgrade.ClientsTotalTime = upgrade.ClientsTotal, upgrade.ClientsTotalTime
		hold(s, &decision.Upgrade, held)
		if !held.None() {
			decision.After = soonest(decision.After, nextLook(s)) // Time alone can end it.
		}
	}
	removing := false
	for _, set := range s.leavingSets() {
		group, lack := shrink(s, set, removing)
		if len(group) > 0 {
			decision.Groups = append(decision.Groups, group)
		}
		removing = removing || set.Replicas > 0 || len(s.remaining(set)) > 0
		if decision.Waiting.None() {
			decision.Waiting = lack
		}
	}
	return decision
}

// membersLeft says which node that has left Kubernetes is still a member of EMQX, when no set is left to wait for.
func membersLeft(s Snapshot) Lack {
	for _, name := range absent(s) {
		if !s.Observation.Left[name] {
			lack := Lack{"MembersLeft", "EMQX to forget node " + name}
			if s.Observation.Failure != "" {
				lack.Message += ": " + s.Observation.Failure
			}
			return lack
		}
	}
	return Lack{}
}
