package upgrade

import (
	"fmt"
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// scalingDown removes the outgoing nodes.
//
//	waits for  their pods, their membership in EMQX and their sets to be gone
//	does       takes one node away at a time, the highest ordinal of the oldest set first, after another look whether it
//	           is empty; has EMQX forget it; removes sets that have no pods left
//	then       Done
func scalingDown(s Snapshot) Decision {
	update := s.updateSet()
	if update == nil || !switched(s) {
		return advance(s, v2beta1.PhasePending, "the Services do not lead to revision "+s.Revision+" any more")
	}
	outgoing := s.outgoing()
	if len(outgoing) == 0 {
		return finish(s, "no outgoing set is left")
	}
	// What has been evacuated keeps refusing clients until it is gone.
	decision := wait(s, "")
	decision.Goal = evacuationGoal(s, plan(s, *update))
	removing := false
	for _, set := range outgoing {
		actions, waiting := shrink(s, set, removing)
		decision.Actions = append(decision.Actions, actions...)
		removing = removing || set.Replicas > 0 || len(set.Pods) > 0
		if decision.Waiting == "" {
			decision.Waiting = waiting
		}
	}
	return decision
}

// shrink takes the next step in removing a set, and says what it waits for. With others, another set is losing a node
// at the moment and this one keeps its own.
func shrink(s Snapshot, set Set, others bool) ([]Action, string) {
	if set.Deleting {
		return nil, "set " + set.Name + " to be gone"
	}
	if !s.served(set) {
		return removeSet(s, set, 0), "set " + set.Name + ", which never served, to be gone"
	}
	if set.Replicas == 0 && len(set.Pods) == 0 {
		waiting := "EMQX to forget the nodes of set " + set.Name
		if s.Observation.Failure != "" {
			waiting += ": " + s.Observation.Failure
		}
		return removeSet(s, set, 0), waiting
	}
	if others || slices.ContainsFunc(set.Pods, func(p Pod) bool { return p.Ordinal >= int(set.Replicas) }) {
		return nil, "a pod of set " + set.Name + " to be gone"
	}
	// The next to go is the one with the highest ordinal. One that does not exist has nothing to lose.
	next := int(set.Replicas) - 1
	if i := slices.IndexFunc(set.Pods, func(p Pod) bool { return p.Ordinal == next }); i >= 0 {
		if lack := occupied(s, set.Pods[i]); lack != "" {
			return nil, "an outgoing node to be empty: " + set.Pods[i].Node + " " + lack
		}
	}
	return removeSet(s, set, set.Replicas-1), fmt.Sprintf("pod %s-%d to be gone", set.Name, next)
}

// removeSet takes a set down to the given number of pods, and away when it has none and EMQX has forgotten its nodes.
func removeSet(s Snapshot, set Set, replicas int32) []Action {
	switch {
	case set.Replicas != replicas:
		return []Action{ScaleSet{Name: set.Name, UID: set.UID, Replicas: replicas, NodeCount: set.NodeCount}}
	case replicas == 0 && len(set.Pods) == 0 && forgotten(s, set):
		return []Action{DeleteSet{Name: set.Name, UID: set.UID}}
	}
	return nil
}

// forgotten reports whether EMQX has forgotten all nodes that a set ever had.
func forgotten(s Snapshot, set Set) bool {
	for ordinal := range int(set.NodeCount) {
		if !s.Observation.Left[s.EMQX.CoreNodeName(fmt.Sprintf("%s-%d", set.Name, ordinal))] {
			return false
		}
	}
	return true
}
