package simulation

import (
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	emqxclient "github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
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
	w.awaitForeign()
	if otherImage {
		w.edit("another image, while no operator runs", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:1.1" })
	}
}

// inheritMidway has emqx-operator 2.x be in the middle of an upgrade of the cluster when the operator comes: new nodes are there, or
// some of them, that serve beside the old as soon as they are ready; once all do, the old are evacuated.
func (w *world) inheritMidway() {
	const before = "6b7d8c9f5"
	w.happen("an adoption in mid-upgrade")
	replicas := *w.names.Spec.CoreTemplate.Spec.Replicas
	w.edit("the image before", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:0.9" })
	w.buildForeign(before, replicas)
	w.awaitForeign()
	w.edit("an upgrade of emqx-operator 2.x", func(spec *v2beta1.EMQXSpec) { spec.Image = w.names.Spec.Image })
	w.foreignSet(w.resource(), foreignRevision, replicas)
	for end := w.now().Add(w.upTo(15 * time.Second)); w.now().Before(end); w.desk.pass(tick) {
		w.tickBrokers()
		w.tickPopulation()
		w.tickKubernetes()
		w.openGates()
	}
	emqx := w.resource().DeepCopy()
	emqx.Status.CoreNodesStatus = v2beta1.EMQXNodesStatus{Replicas: replicas, CurrentRevision: before, UpdateRevision: foreignRevision}
	w.kube.put(emqxes, emqx)
	var from, to []*broker
	for _, b := range ordered(w.brokers) {
		switch {
		case strings.Contains(b.name, before):
			from = append(from, b)
		case b.joined:
			to = append(to, b)
		}
	}
	if len(to) < int(replicas) {
		return
	}
	for _, b := range from {
		b.evac = &evacuation{state: emqxclient.StateWaitingHealthCheck, conn: 1, sess: 1, initial: int32(w.live(b)), initSes: int32(w.sessions(b)), byHand: w.now()}
		for _, recipient := range to {
			b.evac.recipients = append(b.evac.recipients, recipient.name)
		}
		b.stored = b.evac
	}
}

// openGates does what emqx-operator 2.x does with pods whose containers are ready.
func (w *world) openGates() {
	for _, pod := range all[*corev1.Pod](w.kube, pods) {
		if isTrue(pod, corev1.ContainersReady) && !isTrue(pod, v2beta1.ConditionOnServing) {
			w.setStatus(pod, func(status *corev1.PodStatus) { setCondition(status, v2beta1.ConditionOnServing, true) })
		}
	}
}

// awaitForeign has time pass until the cluster serves, and connects clients to it.
func (w *world) awaitForeign() {
	for !w.serves() {
		w.tickBrokers()
		w.tickKubernetes()
		w.openGates()
		w.desk.pass(tick)
	}
	for w.connectAll(); w.count(func(g *group) bool { return g.node == nil }) > 0; w.desk.pass(tick) {
		w.tickBrokers()
		w.tickPopulation()
	}
}

// serves reports whether both Services lead to all nodes.
func (w *world) serves() bool {
	return every(resources.ServiceKinds(), func(kind resources.ServiceKind) bool {
		return len(w.endpointsOf(resources.ServiceName(w.names, kind))) == int(*w.names.Spec.CoreTemplate.Spec.Replicas)
	})
}

// foreignSet makes a set as emqx-operator 2.x does, without the annotations of this operator.
func (w *world) foreignSet(owner *v2beta1.EMQX, revision string, replicas int32) {
	set, err := resources.StatefulSet(owner, resources.CoreSet{Revision: revision, Replicas: replicas, ConfigMap: owner.ConfigMapName(), Ports: resources.Ports{
		Dashboard: []resources.Port{{Name: "dashboard", Number: 18083, Protocol: corev1.ProtocolTCP}},
	}})
	if err != nil {
		w.t.Fatalf("render a set: %v", err)
	}
	set.Annotations = nil
	w.kube.put(statefulSets, set)
}

// buildForeign makes what emqx-operator 2.x makes: Services that select all core nodes, and sets without the annotations
// of this operator.
func (w *world) buildForeign(revision string, replicas int32) {
	owner := w.resource()
	w.foreignSet(owner, revision, replicas)
	if replicas == 0 {
		return
	}
	w.kube.put(secrets, resources.BootstrapAPIKeySecret(owner, resources.KeysData{Own: resources.OperatorKey{Secret: "password of emqx-operator 2.x"}}))
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
