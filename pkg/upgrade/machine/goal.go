package machine

import (
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// serve has every node serve. While nothing is under way that means to leave alone what others do to it.
func serve(s Snapshot) evacuate.Goal {
	return goalOf(s, func(pod Pod) evacuate.Order {
		if s.leftAlone(pod) {
			return evacuate.Order{Intent: evacuate.Observe}
		}
		return evacuate.Order{Intent: evacuate.Serve}
	})
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
	goal := evacuate.Goal{Busy: s.phase() != v2beta1.PhaseDone || !settled(s), Absent: absent(s), Storage: storageGoal(s), Keys: keysGoal(s)}
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			url, trust := apiOf(s, set, pod)
			if url == "" {
				continue
			}
			node := evacuate.NodeGoal{Order: order(pod), Life: pod.Container, Focus: focus(s, pod)}
			node.Name, node.URL, node.Trust = pod.Node, url, trust
			node.Licence = s.asksLicence(set)
			node.Delayed = s.leaves(pod)
			if !s.leaves(pod) && beforeSwitch(s) {
				node.Listeners = listeners(set)
			}
			goal.Nodes = append(goal.Nodes, node)
		}
	}
	return goal
}

// focus is what matters of a node each second: of nodes that leave their clients, and their evacuations once these are ordered; of
// those that stay whether they take clients, until the Services lead to them, and from then on their clients.
func focus(s Snapshot, pod Pod) evacuate.Focus {
	leaves := s.leaves(pod)
	switch s.phase() {
	case v2beta1.PhaseSwitching:
		if leaves {
			return evacuate.FocusClients
		}
	case v2beta1.PhaseEvacuating, v2beta1.PhaseScalingDown:
		if leaves {
			return evacuate.FocusEvacuation
		}
		return evacuate.FocusClients
	case v2beta1.PhasePending, v2beta1.PhaseProvisioning, v2beta1.PhaseDone:
	}
	return evacuate.FocusAll
}

// beforeSwitch tells whether the listeners of the nodes that stay still matter to a decision.
func beforeSwitch(s Snapshot) bool {
	return s.phase() == v2beta1.PhaseProvisioning || s.phase() == v2beta1.PhaseSwitching
}

// apiOf is where a pod's node is asked, and whom to trust there; empty while the pod has no address. Where there is a choice, it is
// plain HTTP, unless the specification says whom to trust.
func apiOf(s Snapshot, set Set, pod Pod) (string, emqx.Trust) {
	if pod.IP == "" || len(set.Ports.Dashboard) == 0 {
		return "", emqx.Trust{}
	}
	port := set.Ports.Dashboard[0]
	if s.EMQX.Spec.APITLS != nil {
		port = set.Ports.Dashboard[len(set.Ports.Dashboard)-1] // HTTPS comes after HTTP.
	}
	if port.Name == "dashboard" {
		return evacuate.URL(pod.IP, port.Number, false), emqx.Trust{}
	}
	return evacuate.URL(pod.IP, port.Number, true), s.Trust
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
