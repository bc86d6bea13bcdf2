package simulation

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// Machines are drained one at a time: cordoned first, then those who drain ask again and again for the eviction of the pods, as
// kubectl does, until none is left. Every second world has an operator that may watch Nodes.

// evictEvery is how often kubectl asks again for an eviction that was refused.
const evictEvery = 5 * time.Second

type nodesClient = client[*corev1.Node, *corev1.NodeList, *applycore.NodeApplyConfiguration]

type restOfNodes struct{ typedcore.NodeInterface }

func (c coreClient) Nodes() typedcore.NodeInterface {
	return struct {
		restOfNodes
		nodesClient
	}{nodesClient: nodesClient{by: c.by, resource: machines, fresh: func() *corev1.Node { return &corev1.Node{} },
		listOf: func(meta metav1.ListMeta, items []*corev1.Node) *corev1.NodeList {
			return &corev1.NodeList{ListMeta: meta, Items: values(items)}
		}}}
}

// cordon tells the API server whether a machine takes pods.
func (w *world) cordon(h *host, cordoned bool) {
	h.cordoned, h.evicted = cordoned, w.now()
	w.kube.put(machines, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: h.name, UID: "machine"}, Spec: corev1.NodeSpec{Unschedulable: cordoned}})
}

// drained is the machine that is drained; nil for none.
func (w *world) drained() *host {
	if i := slices.IndexFunc(w.machines, func(h *host) bool { return h.cordoned }); i >= 0 {
		return w.machines[i]
	}
	return nil
}

// drain begins to drain a machine, unless one is drained already, or off.
func (w *world) drain() bool {
	h := w.machines[w.rng.IntN(len(w.machines))]
	if w.drained() != nil || h.isDown(w.now()) {
		return false
	}
	w.note("%s is drained", h.name)
	w.cordon(h, true)
	return true
}

// podsOn are the pods on a machine.
func (w *world) podsOn(h *host) []*corev1.Pod {
	return slices.DeleteFunc(all[*corev1.Pod](w.kube, pods), func(pod *corev1.Pod) bool { return pod.Spec.NodeName != h.name })
}

// tickDrains is who drains a machine: asks for evictions, and has the machine take pods again when it has none.
func (w *world) tickDrains() {
	h := w.drained()
	if h == nil {
		return
	}
	left := w.podsOn(h)
	switch {
	case len(left) == 0:
		w.note("%s has given up its pods", h.name)
		w.happen("a drain to its end")
		w.cordon(h, false)
	case w.now().Sub(h.evicted) >= evictEvery:
		h.evicted = w.now()
		for _, pod := range left {
			switch {
			case !pod.DeletionTimestamp.IsZero():
			case pod.Labels[v2beta1.LabelLetGo] != "":
				w.note("pod %s is evicted", pod.Name)
				w.happen("a pod that was let go of is evicted")
				w.terminate(pod, nil)
			case !w.refusesEviction():
				w.evictPod(pod)
				return
			}
		}
	}
}

// refusesEviction reports whether the API server refuses all evictions, because of the budget.
func (w *world) refusesEviction() bool {
	budget, exists := get[*policyv1.PodDisruptionBudget](w.kube, budgets, w.names.CoreBudgetName())
	return exists && budget.Spec.MinAvailable != nil && *budget.Spec.MinAvailable == intstr.FromInt32(resources.RefuseAll)
}

// moves reports whether the operator moves pods off machines that are drained.
func (w *world) moves() bool {
	emqx := w.resource()
	return w.watchesNodes && emqx != nil && !resources.BudgetSaid(emqx)
}

// isDrained reports whether a pod is on a machine that is drained.
func (w *world) isDrained(pod string) bool {
	found, exists := get[*corev1.Pod](w.kube, pods, pod)
	return exists && w.machineOf(found).cordoned
}
