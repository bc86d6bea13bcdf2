package machine

import (
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// The marks of a drain on pods: a label that takes a pod out of the budget, so that it may be evicted, and a finalizer that keeps it,
// ended, until EMQX has forgotten its node.

// keepDrained lets go of pods that never served, on Kubernetes nodes that are drained: there is nothing to move.
func keepDrained(s Snapshot) []Group {
	var groups []Group
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			if !pod.LetGo && !pod.Deleting && lettable(s, set, pod) {
				groups = append(groups, Group{LetGo{Name: pod.Name, UID: pod.UID, LetGo: true}})
			}
		}
	}
	return groups
}

// lettable reports whether a pod on a Kubernetes node that is drained never served, and is not about to.
func lettable(s Snapshot, set Set, pod Pod) bool {
	return s.moves() && pod.Drained && !set.Orphaned && !s.served(set) && !aboutToServe(s, set) && s.Observation.Storage.Holds(pod.Node) == 0
}

// aboutToServe reports whether nothing is lacking of a target set.
func aboutToServe(s Snapshot, set Set) bool {
	return set.Revision == s.target(set.Role).Revision && unready(s, set).None()
}

// untilForgotten reports whether a pod stays, once it has ended, until EMQX has forgotten its node: a node with another disk under
// the same name would have no site of durable storage.
func untilForgotten(pod Pod) bool { return slices.Contains(pod.Finalizers, v2beta1.FinalizerForgotten) }

// toForget are the nodes of pods that have ended, and whose successors are to have sites of their own.
func toForget(s Snapshot) []string {
	var names []string
	for pod := range s.eachPod() {
		if pod.Deleting && untilForgotten(pod) && !pod.ContainerRunning && s.Observation.Storage.Holds(pod.Node) == 0 {
			names = append(names, pod.Node)
		}
	}
	return names
}

// releasePods takes the marks of a drain off pods whose nodes EMQX has forgotten, or whom nobody is left to remember, and off those
// that do not leave after all.
func releasePods(s Snapshot) []Group {
	var groups []Group
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			forgotten := untilForgotten(pod) && pod.Deleting && !pod.ContainerRunning && (s.Observation.Left[pod.Node] || !s.anyRuns())
			stays := (untilForgotten(pod) || pod.LetGo) && !pod.Deleting && !s.isMoving(pod) && !lettable(s, set, pod) && !s.diskLost(set, pod)
			if forgotten || stays {
				groups = append(groups, Group{LetGo{Name: pod.Name, UID: pod.UID}})
			}
		}
	}
	return groups
}
