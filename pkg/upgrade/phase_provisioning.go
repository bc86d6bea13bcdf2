package upgrade

import (
	"fmt"
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// provisioning builds the nodes of the update revision.
//
//	waits for  every pod of the update set to be Ready, every node of it to run in one cluster with all nodes that
//	           answer, its listeners to be up and clients to be welcome
//	does       writes the configuration, creates or enlarges the set, removes sets that never served
//	then       Switching
func provisioning(s Snapshot) Decision {
	update := s.updateSet()
	if update == nil {
		decision := wait(s, "the set of revision "+s.Revision+" to be created")
		decision.Actions = slices.Concat(retire(s), decision.Actions, []Action{ApplyConfigMap{}, CreateSet{Set: resources.CoreSet{
			Revision: s.Revision, Replicas: s.wantedReplicas(), Ports: s.Config.Ports, ConfigHash: s.ConfigHash, Intent: s.Intent,
		}}})
		return decision
	}
	if update.Replicas != s.wantedReplicas() {
		decision := wait(s, fmt.Sprintf("set %s to have %d nodes", update.Name, s.wantedReplicas()))
		decision.Actions = append(decision.Actions, ScaleSet{
			Name: update.Name, UID: update.UID, Replicas: s.wantedReplicas(), NodeCount: max(update.NodeCount, s.wantedReplicas()),
		})
		return decision
	}
	if missing := unready(s, *update); missing != "" {
		decision := wait(s, missing)
		decision.Actions = append(decision.Actions, retire(s)...)
		decision.After = soonest(decision.After, max(0, creationGrace-inPhase(s)))
		return decision
	}
	return advance(s, v2beta1.PhaseSwitching, fmt.Sprintf("all %d nodes of revision %s run in the cluster", update.Replicas, s.Revision))
}

// creationGrace is how long the creation of pods may take before something must be in its way, such as a quota or a pod
// security standard: only the set's events tell of it.
const creationGrace = 30 * time.Second

// unready says what a set lacks to take clients; empty when nothing.
func unready(s Snapshot, set Set) string {
	ready, first := 0, ""
	for ordinal := range int(set.Replicas) {
		lack := "is not created yet"
		if inPhase(s) > creationGrace {
			lack += "; the events of StatefulSet " + set.Name + " say why"
		}
		if i := slices.IndexFunc(set.Pods, func(p Pod) bool { return p.Ordinal == ordinal }); i >= 0 {
			lack = lacks(s, set, set.Pods[i])
		}
		if lack == "" {
			ready++
		} else if first == "" {
			first = fmt.Sprintf("%s-%d %s", set.Name, ordinal, lack)
		}
	}
	if first == "" {
		return ""
	}
	return fmt.Sprintf("nodes of revision %s to be ready: %d/%d: %s", set.Revision, ready, set.Replicas, first)
}

// lacks says what a pod of the update set lacks to take clients; empty when nothing.
func lacks(s Snapshot, set Set, pod Pod) string {
	node := s.node(pod)
	switch {
	case pod.Deleting:
		return "is being deleted"
	case pod.Trouble != "":
		return "has trouble: " + pod.Trouble
	case !pod.ContainersReady:
		return "is starting"
	case node.Unauthorized:
		return "does not know the operator's API key: " + node.Failure
	case !node.Known():
		return "does not answer: " + node.Failure
	case !node.Running():
		return "runs, but its EMQX is " + node.Info.Status
	case !node.Available:
		return "refuses clients, because an evacuation of it runs"
	}
	if missing := notSeen(s, pod, node); missing != "" {
		return "does not see " + missing + " in its cluster"
	}
	if !joined(s, pod) {
		return "has not been seen in the cluster by another member"
	}
	for _, id := range listeners(set) {
		if !node.Listeners[id] {
			return "does not run its listener " + id
		}
	}
	if !pod.Ready {
		return "waits for its readiness gate"
	}
	return ""
}

// notSeen names a node that answers and is not in one cluster with the given one; empty when there is none.
func notSeen(s Snapshot, pod Pod, node evacuate.NodeObservation) string {
	for _, other := range s.pods() {
		witness := s.node(other)
		if other.UID == pod.UID || !witness.Running() {
			continue
		}
		if !sees(node, other) || !sees(witness, pod) {
			return other.Node
		}
	}
	return ""
}

// retire removes sets that never served: without eviction, since they never had a client.
func retire(s Snapshot) []Action {
	var actions []Action
	for _, set := range s.outgoing() {
		if !s.served(set) && !set.Deleting {
			actions = append(actions, removeSet(s, set, 0)...)
		}
	}
	return actions
}
