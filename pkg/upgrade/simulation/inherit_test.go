package simulation

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// foreignRevision is what emqx-operator 2.x called the revision of the cluster that it built.
const foreignRevision = "5d8c7f6b9"

// inherit has emqx-operator 2.x build the cluster, and clients connect to it, before the operator comes. With another
// image the specification was changed while no operator ran; with history a set of an earlier revision was kept.
func (w *world) inherit(history, otherImage bool) {
	w.happen("an adoption")
	w.buildForeign(foreignRevision, *w.names.Spec.CoreTemplate.Spec.Replicas)
	if history {
		w.buildForeign("6b7d8c9f5", 0)
	}
	for !w.serves() {
		w.tickBrokers()
		w.tickKubernetes()
		for _, pod := range all[*corev1.Pod](w.kube, pods) {
			if isTrue(pod, corev1.ContainersReady) && !isTrue(pod, v2beta1.ConditionOnServing) {
				w.setStatus(pod, func(status *corev1.PodStatus) { setCondition(status, v2beta1.ConditionOnServing, true) })
			}
		}
		w.desk.pass(tick)
	}
	for w.connectAll(); w.count(func(g *group) bool { return g.node == nil }) > 0; w.desk.pass(tick) {
		w.tickBrokers()
		w.tickPopulation()
	}
	if otherImage {
		w.edit("another image, while no operator runs", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:1.1" })
	}
}

// serves reports whether both Services lead to all nodes.
func (w *world) serves() bool {
	return every(resources.ServiceKinds(), func(kind resources.ServiceKind) bool {
		return len(w.endpointsOf(resources.ServiceName(w.names, kind))) == int(*w.names.Spec.CoreTemplate.Spec.Replicas)
	})
}

// buildForeign makes what emqx-operator 2.x makes: Services that select all core nodes, and sets without the annotations
// of this operator.
func (w *world) buildForeign(revision string, replicas int32) {
	owner := w.resource()
	set, err := resources.StatefulSet(owner, resources.CoreSet{Revision: revision, Replicas: replicas, ConfigMap: owner.ConfigMapName(), Ports: resources.Ports{
		Dashboard: []resources.Port{{Name: "dashboard", Number: 18083, Protocol: corev1.ProtocolTCP}},
	}})
	if err != nil {
		w.t.Fatalf("render a set: %v", err)
	}
	set.Annotations = nil
	w.kube.put(statefulSets, set)
	if replicas == 0 {
		return
	}
	w.kube.put(secrets, resources.BootstrapAPIKeySecret(owner, nil, "password of emqx-operator 2.x"))
	w.kube.put(secrets, resources.NodeCookieSecret(owner, "cookie of emqx-operator 2.x"))
	for _, kind := range resources.ServiceKinds() {
		w.kube.put(services, foreignService(owner, kind))
	}
	w.kube.put(budgets, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{
			Name: owner.CoreBudgetName(), Namespace: namespace, Labels: resources.Labels(owner),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, v2beta1.SchemeGroupVersion.WithKind(v2beta1.Kind))},
		},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: resources.CoreLabels(owner)},
		},
	})
	emqx := owner.DeepCopy()
	emqx.Status = v2beta1.EMQXStatus{
		Conditions:      []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Ready", LastTransitionTime: metav1.NewTime(w.now())}},
		CoreNodesStatus: v2beta1.EMQXNodesStatus{Replicas: replicas, CurrentRevision: revision, UpdateRevision: revision},
	}
	w.kube.put(emqxes, emqx)
}

func foreignService(owner *v2beta1.EMQX, kind resources.ServiceKind) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: resources.ServiceName(owner, kind), Namespace: namespace, Labels: resources.Labels(owner),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, v2beta1.SchemeGroupVersion.WithKind(v2beta1.Kind))},
		},
		Spec: corev1.ServiceSpec{
			Selector: resources.CoreLabels(owner),
			Ports:    []corev1.ServicePort{{Name: string(kind), Port: 18083, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(18083)}},
		},
	}
}

// checkAdopted is that the operator took over what it found as it stood: not a pod was made or lost, and no client was
// moved.
func (w *world) checkAdopted() {
	if away := w.count(func(g *group) bool { return g.node == nil }); away > 0 {
		w.violate("%d clients were disconnected while the cluster was adopted", away)
	}
	sets := all[*appsv1.StatefulSet](w.kube, statefulSets)
	if len(sets) != 1 || sets[0].Labels[v2beta1.LabelPodTemplateHash] != foreignRevision || ptr.Deref(sets[0].Spec.Replicas, 0) != *w.names.Spec.CoreTemplate.Spec.Replicas {
		w.violate("after the adoption there are %d sets, the first is %s", len(sets), sets[0].Name)
	}
	for _, kind := range resources.ServiceKinds() {
		service, exists := get[*corev1.Service](w.kube, services, resources.ServiceName(w.names, kind))
		if !exists || service.Spec.Selector[v2beta1.LabelPodTemplateHash] != foreignRevision {
			w.violate("Service %s does not select the revision that was adopted", resources.ServiceName(w.names, kind))
		}
	}
	w.checkBudgetEnd(w.resource(), foreignRevision)
	if created := w.requests["create statefulsets"]; created > 0 {
		w.violate("%d sets were made", created)
	}
}
