package upgrade

import (
	"fmt"
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// servingGoal has every node serve.
func servingGoal(s Snapshot) *evacuate.Goal {
	return goalOf(s, func(Pod) evacuate.NodeGoal { return evacuate.NodeGoal{Intent: evacuate.Serve} })
}

// evacuationGoal has the outgoing nodes evacuated as planned. A node that the plan leaves out serves until it is its
// turn; one that does not answer is left as it is, since it is not known what it would be told to do.
func evacuationGoal(s Snapshot, plan map[string]evacuate.Evacuation) *evacuate.Goal {
	return goalOf(s, func(pod Pod) evacuate.NodeGoal {
		evacuation, planned := plan[pod.Node]
		switch {
		case s.isUpdate(pod):
			return evacuate.NodeGoal{Intent: evacuate.Serve}
		case planned:
			return evacuate.NodeGoal{Intent: evacuate.Evacuate, Evacuation: evacuation}
		case !s.node(pod).Known():
			return evacuate.NodeGoal{Intent: evacuate.Observe}
		default:
			return evacuate.NodeGoal{Intent: evacuate.Serve}
		}
	})
}

func goalOf(s Snapshot, nodeGoal func(Pod) evacuate.NodeGoal) *evacuate.Goal {
	goal := &evacuate.Goal{Busy: s.EMQX.Status.Phase != v2beta1.PhaseDone || !settled(s), Absent: absent(s)}
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			url := apiURL(set, pod)
			if url == "" {
				continue
			}
			node := nodeGoal(pod)
			node.Node = evacuate.Node{Name: pod.Node, URL: url}
			if set.Revision == s.Revision && beforeSwitch(s) {
				node.Listeners = listeners(set)
			}
			goal.Nodes = append(goal.Nodes, node)
		}
	}
	return goal
}

// beforeSwitch tells whether the listeners of the update revision still matter to a decision.
func beforeSwitch(s Snapshot) bool {
	return s.EMQX.Status.Phase == v2beta1.PhaseProvisioning || s.EMQX.Status.Phase == v2beta1.PhaseSwitching
}

// apiURL is where a pod's node is asked; empty while the pod has no address.
func apiURL(set Set, pod Pod) string {
	if pod.IP == "" || len(set.Ports.Dashboard) == 0 {
		return ""
	}
	port := set.Ports.Dashboard[0]
	return evacuate.URL(pod.IP, port.Number, port.Name != "dashboard")
}

// listeners are the MQTT listeners that a set's configuration opens, as EMQX names them.
func listeners(set Set) []string {
	var ids []string
	for _, port := range set.Ports.Listeners {
		if port.Listener != "" {
			ids = append(ids, port.Listener)
		}
	}
	return ids
}

// absent are the nodes whose pods have left and that EMQX shall forget: those of outgoing sets, from the number of pods
// asked for up to the largest number there ever was.
func absent(s Snapshot) []string {
	var names []string
	for _, set := range s.outgoing() {
		for ordinal := set.Replicas; ordinal < set.NodeCount; ordinal++ {
			pod := fmt.Sprintf("%s-%d", set.Name, ordinal)
			exists := slices.ContainsFunc(set.Pods, func(p Pod) bool { return p.Name == pod })
			if !exists {
				names = append(names, s.EMQX.CoreNodeName(pod))
			}
		}
	}
	return names
}

// settled reports whether nothing is under way: every pod is ready, and every node answers and sees the others.
func settled(s Snapshot) bool {
	for _, pod := range s.pods() {
		if !pod.Ready || pod.Deleting || !s.node(pod).Running() {
			return false
		}
	}
	return agree(s)
}

// isUpdate reports whether a pod belongs to the update revision.
func (s *Snapshot) isUpdate(pod Pod) bool {
	set := s.updateSet()
	return set != nil && slices.ContainsFunc(set.Pods, func(p Pod) bool { return p.UID == pod.UID })
}
