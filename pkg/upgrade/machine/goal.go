package machine

import (
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// serve has every node serve.
func serve(s Snapshot) evacuate.Goal {
	return goalOf(s, func(Pod) evacuate.Order { return evacuate.Order{Intent: evacuate.Serve} })
}

// evacuation has the leaving nodes do what the plan says, and those that stay serve. A leaving node that is in no plan has
// nothing to lose.
func evacuation(s Snapshot, plan map[string]evacuate.Order) evacuate.Goal {
	return goalOf(s, func(pod Pod) evacuate.Order {
		if order, planned := plan[pod.Node]; planned && s.leaves(pod) {
			return order
		}
		if s.leaves(pod) {
			return evacuate.Order{Intent: evacuate.Observe}
		}
		return evacuate.Order{Intent: evacuate.Serve}
	})
}

func goalOf(s Snapshot, order func(Pod) evacuate.Order) evacuate.Goal {
	goal := evacuate.Goal{Busy: s.phase() != v2beta1.PhaseDone || !settled(s), Absent: absent(s), Storage: storageGoal(s)}
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			url := apiURL(set, pod)
			if url == "" {
				continue
			}
			node := evacuate.NodeGoal{Order: order(pod), Life: pod.Container, Focus: focus(s, pod)}
			node.Name, node.URL = pod.Node, url
			if !s.leaves(pod) && beforeSwitch(s) {
				node.Listeners = listeners(set)
			}
			goal.Nodes = append(goal.Nodes, node)
		}
	}
	return goal
}

// focus is what matters of a node each second: while clients are moved, those of all nodes, and the evacuations.
func focus(s Snapshot, pod Pod) evacuate.Focus {
	switch {
	case s.phase() != v2beta1.PhaseEvacuating:
		return evacuate.FocusAll
	case s.leaves(pod):
		return evacuate.FocusEvacuation
	}
	return evacuate.FocusClients
}

// beforeSwitch tells whether the listeners of the nodes that stay still matter to a decision.
func beforeSwitch(s Snapshot) bool {
	return s.phase() == v2beta1.PhaseProvisioning || s.phase() == v2beta1.PhaseSwitching
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

// settled reports whether nothing is under way: every pod is ready, and every node answers and sees the others. That a node
// has not been asked yet is no reason to ask all of them every second: it is asked at once anyway, and after a start of the
// operator that goes for every node of every cluster.
func settled(s Snapshot) bool {
	for pod := range s.eachPod() {
		if node := s.node(pod); !pod.Ready || pod.Deleting || !node.Running() && !notAsked(node) {
			return false
		}
	}
	return agree(s)
}
