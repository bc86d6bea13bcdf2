package machine

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// A Kubernetes node that is drained gives up its pods one by one. The budget refuses their eviction; the operator moves clients
// and sessions to the other nodes of the set, as in an upgrade, and lets the pod go; its set makes it again on another Kubernetes
// node. While an upgrade moves clients, what leaves goes anyway, and what stays is moved afterwards.

// moves reports whether the operator moves pods off Kubernetes nodes that are drained: it knows of them, and the specification does not
// say itself how many pods may be evicted.
func (s *Snapshot) moves() bool { return s.NodesWatched && !resources.BudgetSaid(s.EMQX) }

// drained is the pod that is to leave its Kubernetes node now, with its set; nil when there is none, or the time is not now. The
// next leaves when all others of its set serve.
func (s *Snapshot) drained() (*Pod, *Set) {
	if !s.moves() || s.updateStrategy().Paused {
		return nil, nil
	}
	switch s.phase() {
	case v2beta1.PhasePending, v2beta1.PhaseProvisioning, v2beta1.PhaseDone:
	case v2beta1.PhaseSwitching, v2beta1.PhaseEvacuating, v2beta1.PhaseScalingDown:
		return nil, nil
	}
	set := s.set(s.currentRevision())
	if set == nil || set.foreign() || set.Replicas < 2 {
		return nil, nil
	}
	var next *Pod
	for i := range set.Pods {
		pod := &set.Pods[i]
		switch {
		case !pod.Drained || pod.Deleting:
		case s.noted(*pod):
			return pod, set // It is on its way.
		case next == nil && len(set.Pods) == int(set.Replicas) && s.othersServe(*set, *pod):
			next = pod
		}
	}
	if next == nil {
		return nil, nil
	}
	return next, set
}

// noted reports whether the resource remembers that a pod leaves its Kubernetes node.
func (s *Snapshot) noted(pod Pod) bool {
	drain := s.EMQX.Status.Drain
	return drain != nil && drain.PodUID == pod.UID
}

// moving is the pod that is moved off its Kubernetes node, which the resource remembers; nil for none.
func (s *Snapshot) moving() (*Pod, *Set) {
	if pod, set := s.drained(); pod != nil && s.noted(*pod) {
		return pod, set
	}
	return nil, nil
}

// isMoving reports whether a pod is moved off its Kubernetes node.
func (s *Snapshot) isMoving(pod Pod) bool {
	moving, _ := s.moving()
	return moving != nil && moving.UID == pod.UID
}

// othersServe reports whether all other pods of a set take clients.
func (s *Snapshot) othersServe(set Set, but Pod) bool {
	return !slices.ContainsFunc(set.Pods, func(pod Pod) bool {
		node := s.node(pod)
		return pod.UID != but.UID && (!pod.Ready || pod.Deleting || !node.Running() || !node.Available)
	})
}

// others are the pods of a set but for one.
func others(set Set, but Pod) []Pod {
	return slices.DeleteFunc(slices.Clone(set.Pods), func(pod Pod) bool { return pod.UID == but.UID })
}

// drain has the decision move a pod off its Kubernetes node, one step at a time: the number of clients is noted, the pod leaves
// the Services, its clients and sessions are moved, then what it holds of durable storage, and it may be evicted.
func drain(s Snapshot, decision Decision) Decision {
	pod, set := s.drained()
	if pod == nil || decision.Phase != s.phase() || decision.Gone {
		return decision
	}
	decision.Goal.Busy = true
	waits := func(lack Lack) Decision {
		lack.Reason = "NodeDrained"
		lack.Message = fmt.Sprintf("pod %s to leave Kubernetes node %s, which is drained: %s", pod.Name, pod.KubernetesNode, lack.Message)
		decision.Waiting = lack
		return decision
	}
	if !s.noted(*pod) {
		live, _ := liveClients(s)
		decision.Drain = &v2beta1.DrainStatus{
			PodName: pod.Name, PodUID: pod.UID, KubernetesNode: pod.KubernetesNode, StartedTime: *at(s.Now), ClientsTotal: live, ClientsTotalTime: at(s.Now),
		}
		decision.After = AtOnce
		return waits(Lack{Message: "the number of clients to be noted"})
	}
	decision.Drain = s.EMQX.Status.Drain.DeepCopy()
	if led := s.ledTo(*pod); !led.None() {
		return waits(led)
	}
	order, stopped := drainOrder(s, *pod, *set, decision.Drain)
	for i := range decision.Goal.Nodes {
		if decision.Goal.Nodes[i].Name == pod.Node {
			decision.Goal.Nodes[i].Order = order
		}
	}
	decision.After = soonest(decision.After, nextLook(s))
	left := occupied(s, *pod)
	if left.None() && !hasVolume(*set) {
		left = holdingSince(s, *pod, decision.Drain.StartedTime.Time)
	}
	switch {
	case !stopped.None():
		return waits(stopped)
	case !left.None():
		left.Message = "its node " + left.Message
		return waits(left)
	}
	if decision.Drain.EmptyTime == nil {
		decision.Drain.EmptyTime = at(s.Now)
	}
	if !pod.LetGo {
		decision.Groups = append(decision.Groups, Group{LetGo{Name: pod.Name, UID: pod.UID, LetGo: true, Forget: !hasVolume(*set) && s.Observation.Storage.Enabled}})
		return waits(Lack{Message: "it to be let go"})
	}
	// Who drains asks again every few seconds, and takes a pod of the same name that was made meanwhile for the one that was to go.
	if left := evictedWithin - s.Now.Sub(decision.Drain.EmptyTime.Time); left > 0 {
		decision.After = soonest(decision.After, left)
		return waits(Lack{Message: "its eviction, which is allowed now, or its deletion half a minute later"})
	}
	decision.Groups = append(decision.Groups, Group{DeletePod{Name: pod.Name, UID: pod.UID}})
	return waits(Lack{Message: "it to be gone"})
}

// evictedWithin is how long a pod that may be evicted is left to who drains its Kubernetes node, before the operator deletes it: the
// Kubernetes node may only have been cordoned.
const evictedWithin = 30 * time.Second

// ledTo says that Services still lead to a pod.
func (s *Snapshot) ledTo(pod Pod) Lack {
	if pod.OnServing {
		return Lack{Message: "its readiness gate to be closed"}
	}
	for kind, service := range s.Services {
		if slices.ContainsFunc(service.Endpoints, func(e Endpoint) bool { return e.PodUID == pod.UID && e.Ready }) {
			return Lack{Message: fmt.Sprintf("Service %s to lead to others alone", resources.ServiceName(s.EMQX, kind))}
		}
	}
	return Lack{}
}

// drainOrder is what the node of a pod that leaves its Kubernetes node is told, and why no connection of it may be evicted now. What
// is remembered of the clients follows them, as in an upgrade.
func drainOrder(s Snapshot, pod Pod, set Set, drain *v2beta1.DrainStatus) (evacuate.Order, Lack) {
	upgrade := v2beta1.UpgradeStatus{ClientsTotal: drain.ClientsTotal, ClientsTotalTime: drain.ClientsTotalTime, HeldTime: drain.HeldTime, HeldReason: drain.HeldReason}
	follow(s, &upgrade)
	pace := pace(s, upgrade, []Pod{pod})
	recipients := recipientsOf(s, others(set, pod))
	stopped := anySilent(s, upgrade.HeldReason)
	if stopped.None() {
		stopped = anyDonor(s)
	}
	switch {
	case !stopped.None():
	case len(recipients) == 0:
		stopped = Lack{"NoRecipients", "a node that stays to answer and to take clients"}
	case pace.Hold && s.node(pod).Info.LiveConnections.Value > 0:
		stopped = Lack{clientsAway, fmt.Sprintf("evicted clients to come back: %d of %d are away, evictions are stopped", pace.Away, upgrade.ClientsTotal)}
	}
	hold(s, &upgrade, stopped)
	drain.ClientsTotal, drain.ClientsTotalTime, drain.HeldTime, drain.HeldReason = upgrade.ClientsTotal, upgrade.ClientsTotalTime, upgrade.HeldTime, upgrade.HeldReason
	order, planned := planOf(s, []Pod{pod}, recipients, pace.Tick, !stopped.None())[pod.Node]
	if !planned {
		return evacuate.Order{Intent: evacuate.Observe}, stopped
	}
	return order, stopped
}

// hasVolume reports whether the data of a set's nodes outlives their pods.
func hasVolume(set Set) bool {
	runs, err := decodeIntent(set.Intent, nil)
	return err == nil && runs.VolumeClaim != nil
}

// drainEvents tell which pod begins to leave its Kubernetes node.
func drainEvents(old, after v2beta1.EMQXStatus) []Event {
	if after.Drain == nil || old.Drain != nil && old.Drain.PodUID == after.Drain.PodUID {
		return nil
	}
	return []Event{{corev1.EventTypeNormal, "NodeDrained", "Drain", fmt.Sprintf("Kubernetes node %s is drained: clients and sessions are moved off pod %s, which is then made again elsewhere",
		after.Drain.KubernetesNode, after.Drain.PodName)}}
}
