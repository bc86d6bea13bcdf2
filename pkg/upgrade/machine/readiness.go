package machine

import (
	"fmt"
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// creationGrace is how long the creation of pods may take before something must be in its way, such as a quota or a pod
// security standard: only the set's events tell of it.
const creationGrace = 30 * time.Second

// Reasons why a node is not ready, the most telling first: of several nodes that lack something, the first of these is
// told.
const (
	podTrouble     = "PodTrouble"
	podMissing     = "PodMissing"
	podDeleting    = "PodDeleting"
	unauthorized   = string(evacuate.Unauthorized)
	forbidden      = string(evacuate.Forbidden)
	untrusted      = string(evacuate.Untrusted)
	podStarting    = "PodStarting"
	nodeSilent     = "NodeSilent"
	nodeNotRunning = "NodeNotRunning"
	nodeEvacuated  = "NodeEvacuated"
	nodeApart      = "NodeApart"
	listenerDown   = "ListenerDown"
	gateClosed     = "GateClosed"
	nodeNotAsked   = "NodeNotAsked"
	nodesNotReady  = "NodesNotReady"
	memberSilent   = "MemberSilent"
)

func tellingFirst() []string {
	return []string{podTrouble, podMissing, podDeleting, unauthorized, forbidden, untrusted, podStarting, nodeSilent, nodeNotRunning, nodeEvacuated,
		nodeApart, listenerDown, gateClosed, nodeNotAsked}
}

// unready says what a set lacks to take clients.
func unready(s Snapshot, set Set) Lack {
	ready := 0
	var told Lack
	for ordinal := range int(s.target(set.Role).Replicas) {
		lack := Lack{podMissing, "is not created yet"}
		if inPhase(s) > creationGrace {
			lack.Message += "; the events of StatefulSet " + set.Name + " say why"
		}
		if i := slices.IndexFunc(set.Pods, func(p Pod) bool { return p.Ordinal == ordinal }); i >= 0 {
			lack = lacks(s, set, set.Pods[i])
		}
		rank := slices.Index(tellingFirst(), lack.Reason)
		switch {
		case lack.None():
			ready++
		case told.None() || rank < slices.Index(tellingFirst(), told.Reason):
			told = Lack{lack.Reason, fmt.Sprintf("%s-%d %s", set.Name, ordinal, lack.Message)}
		}
	}
	if !told.None() {
		told.Message = fmt.Sprintf("nodes of revision %s to be ready: %d/%d: %s", set.Revision, ready, s.target(set.Role).Replicas, told.Message)
	}
	return told
}

// lacks says what a pod lacks to take clients.
func lacks(s Snapshot, set Set, pod Pod) Lack {
	node := s.node(pod)
	switch {
	case pod.Deleting && untilForgotten(pod):
		return Lack{podDeleting, startsAnew(s, pod)}
	case pod.Deleting:
		return Lack{podDeleting, "is being deleted" + kept(pod.Finalizers)}
	case pod.Trouble != "":
		return Lack{podTrouble, "has trouble: " + pod.Trouble + suspectPort(s)}
	case !pod.ContainersReady:
		return Lack{podStarting, "is starting" + suspectPort(s)}
	case node.Refusal != "":
		return refused(s, node)
	case notAsked(node):
		return Lack{nodeNotAsked, "has not been asked yet"}
	case !node.Known():
		return Lack{nodeSilent, "does not answer" + silence(s, pod)}
	case !node.Running():
		return Lack{nodeNotRunning, "runs, but its EMQX is " + node.Info.Status}
	case node.Donation != nil && s.phase() == v2beta1.PhaseDone:
		// It refuses clients, and nothing is wrong with it. It is stopped before anything needs it.
	case node.Donation != nil:
		return Lack{nodeEvacuated, "refuses clients, because it gives some to the rebalance that " + node.Donation.Coordinator + " coordinates"}
	case !node.Available && s.leftAlone(pod):
		return Lack{nodeEvacuated, "is evacuated by somebody else: it is left alone until an upgrade or a drain needs it; `emqx ctl rebalance stop` in pod " + pod.Name + " ends that"}
	case !node.Available:
		return Lack{nodeEvacuated, "refuses clients, because an evacuation of it runs"}
	}
	if missing := notSeen(s, pod, node); missing != "" {
		return Lack{nodeApart, "does not see " + missing + " in its cluster"}
	}
	if !joined(s, pod) {
		return Lack{nodeApart, "has not been seen in the cluster by another member"}
	}
	for _, id := range listeners(set) {
		if beforeSwitch(s) && !node.Listeners[id] {
			return Lack{listenerDown, "does not run its listener " + id}
		}
	}
	if !pod.Ready {
		return Lack{gateClosed, "waits for its readiness gate"}
	}
	return Lack{}
}

// refused says why a node that answers tells nothing, and what helps.
func refused(s Snapshot, node evacuate.NodeObservation) Lack {
	lack := Lack{Reason: string(node.Refusal)}
	secret := s.EMQX.BootstrapAPIKeySecretName()
	switch node.Refusal {
	case evacuate.Unauthorized:
		lack.Message = fmt.Sprintf("does not know the operator's API key: %s; a core node reads Secret %s when it starts and tells the others: "+
			"delete one pod, or put back the key that they know", node.Failure, secret)
	case evacuate.Forbidden:
		lack.Message = fmt.Sprintf("does not let the operator's API key do what it has to: %s; somebody changed the key in EMQX: "+
			"a core node that starts gives it back what Secret %s says, so delete one pod", node.Failure, secret)
	case evacuate.Untrusted:
		lack.Message = "cannot be asked: " + node.Failure +
			"; spec.apiTLS says whom the operator trusts: the Secret with the CA in caSecretName and the name of the certificate in serverName, or insecureSkipVerify"
	}
	return lack
}

// notAsked reports whether nothing was heard of a node because it was never asked.
func notAsked(node evacuate.NodeObservation) bool { return node.Seen.IsZero() && node.Failure == "" }

// servingSilent says which node that may have clients is silent without being known to be gone: messages to its clients would
// be lost by a switch.
func servingSilent(s Snapshot) Lack {
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			if s.served(set) && silent(s, pod) {
				return Lack{memberSilent, fmt.Sprintf("node %s, which may have clients, to answer: it is silent%s; deleting its pod %s ends the wait",
					pod.Node, silence(s, pod), pod.Name)}
			}
		}
	}
	return Lack{}
}

// anySilent says which member of the cluster is silent without being known to be gone, whoever it is. While one is frozen,
// clients cannot come back, on whatever node. heldFor is why evictions are held already: such a hold stands until an operator
// that has just begun has asked all nodes.
func anySilent(s Snapshot, heldFor string) Lack {
	for pod := range s.eachPod() {
		switch {
		case silent(s, pod):
			return Lack{memberSilent, fmt.Sprintf("node %s to answer: it is silent%s, and while a member is, clients cannot come back; deleting its pod %s ends the wait",
				pod.Node, silence(s, pod), pod.Name)}
		case heldFor == memberSilent && pod.ContainerRunning && notAsked(s.node(pod)):
			return Lack{memberSilent, fmt.Sprintf("node %s to answer: it has not been asked yet", pod.Node)}
		}
	}
	return Lack{}
}

// silent reports whether a pod's node is a member of the cluster that does not answer and is not known to be gone: EMQX
// itself counts it as stopped, or its container has ended. When nobody answers who could tell, one that was let serve is.
func silent(s Snapshot, pod Pod) bool {
	node := s.node(pod)
	if !pod.ContainerRunning || node.Known() || node.Refusal != "" || notAsked(node) {
		return false
	}
	listed, witnesses := s.listed(pod)
	return listed || witnesses == 0 && pod.OnServing
}

// notSeen names a node that answers and is not in one cluster with the given one; empty when there is none.
func notSeen(s Snapshot, pod Pod, node evacuate.NodeObservation) string {
	for other := range s.eachPod() {
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

// agree reports whether all nodes that answer see each other. While they do not, time alone can show who is right.
func agree(s Snapshot) bool {
	for pod := range s.eachPod() {
		if node := s.node(pod); node.Running() && notSeen(s, pod, node) != "" {
			return false
		}
	}
	return true
}

func sees(node evacuate.NodeObservation, pod Pod) bool {
	return slices.Contains(node.Members, pod.Node)
}

// blind reports whether this operator has not yet asked nodes that one before it told of: until it has, the last words
// stand.
func blind(s Snapshot) bool {
	return slices.ContainsFunc(s.pods(), func(pod Pod) bool {
		return pod.ContainerRunning && pod.IP != "" && notAsked(s.node(pod)) &&
			slices.ContainsFunc(s.EMQX.Status.CoreNodes, func(told v2beta1.EMQXNode) bool { return told.PodUID == pod.UID })
	})
}
