package machine

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// An evacuation that somebody else started on a node that stays is left alone while nothing is under way: who did that has a reason
// for it, and it is said which node it is. What is under way needs all nodes that stay, and an evacuation of them is stopped. The
// operator's own are told from others by what the resource remembers: evacuationsToStop.

// leftAlone reports whether an evacuation of a pod's node would be somebody else's, and may go on.
func (s *Snapshot) leftAlone(pod Pod) bool {
	return s.phase() == v2beta1.PhaseDone && !s.leaves(pod) && !s.node(pod).Ordered() &&
		!slices.Contains(s.EMQX.Status.EvacuationsToStop, pod.Node) && !s.anyDrained()
}

// anyDrained reports whether a pod is to leave its Kubernetes node, now or when others serve.
func (s *Snapshot) anyDrained() bool {
	return s.moves() && slices.ContainsFunc(s.pods(), func(pod Pod) bool { return pod.Drained })
}

// evacuationsToStop are the nodes that serve and whose evacuation is not left alone, until each has told that it has none. One that
// was evacuated for its Kubernetes node and comes back with its volume has one again.
func evacuationsToStop(s Snapshot, d Decision) []string {
	old := s.EMQX.Status
	told := map[string]bool{}
	for _, evacuation := range old.NodeEvacuationsStatus {
		told[evacuation.Node] = true
	}
	pods := s.byNode()
	names := slices.DeleteFunc(s.keptNodes(), func(name string) bool {
		listed := slices.Contains(old.EvacuationsToStop, name)
		pod, exists := pods[name]
		return !exists && !listed || exists && !toStop(s, d, pod, listed, told[name])
	})
	slices.Sort(names)
	return names
}

// toStop reports whether the evacuation of a node that has a pod is not left alone. It is listed when the resource says so, and told of
// when an evacuation of it was.
func toStop(s Snapshot, d Decision, pod Pod, listed, told bool) bool {
	node := s.node(pod)
	none := node.Running() && node.Evacuation == nil && !node.Ordered()
	switch {
	case d.Drain != nil && d.Drain.PodUID == pod.UID:
		return true
	case none, s.leaves(pod) && (d.Phase == v2beta1.PhaseEvacuating || d.Phase == v2beta1.PhaseScalingDown):
		return false
	case listed:
		return true
	case s.phase() == v2beta1.PhaseDone && d.Phase == v2beta1.PhaseDone && !s.anyDrained():
		return node.Ordered()
	}
	return node.Evacuation != nil || told
}

// byHandEvents tell of evacuations that somebody else started and that do not go on.
func byHandEvents(old, after v2beta1.EMQXStatus) []Event {
	var nodes []string
	for _, evacuation := range old.NodeEvacuationsStatus {
		if !slices.Contains(old.EvacuationsToStop, evacuation.Node) && slices.Contains(after.EvacuationsToStop, evacuation.Node) {
			nodes = append(nodes, evacuation.Node)
		}
	}
	if old.Phase != v2beta1.PhaseDone || len(nodes) == 0 {
		return nil
	}
	return []Event{{corev1.EventTypeWarning, "EvacuationStopped", "Evacuate", "somebody else's evacuation of node " + strings.Join(nodes, ", ") +
		" is stopped, since all nodes that stay are needed now"}}
}
