package upgrade

import (
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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
func (w *simWorld) inherit(history, otherImage bool) {
	w.mu.Lock()
	w.buildForeign(foreignRevision, *w.template.Spec.CoreTemplate.Spec.Replicas)
	if history {
		w.buildForeign("6b7d8c9f5", 0)
	}
	w.mu.Unlock()
	serving := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.tickEMQX()
		w.tickKube()
		for _, pod := range w.pods() {
			if conditionOf(pod, corev1.ContainersReady) && !conditionOf(pod, v2beta1.ConditionOnServing) {
				setCondition(&pod, v2beta1.ConditionOnServing, true)
				w.must(w.update(podsResource, &pod, simNamespace), "open a gate")
			}
		}
		ready := 0
		for _, slice := range w.slices() {
			for _, endpoint := range slice.Endpoints {
				if *endpoint.Conditions.Ready {
					ready++
				}
			}
		}
		return ready == 2*int(*w.template.Spec.CoreTemplate.Spec.Replicas) // Of two Services.
	}
	for !serving() {
		synctest.Wait()
		time.Sleep(simTick)
	}
	w.connectAll()
	if otherImage {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.edit("another image, while no operator runs", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:1.1" })
	}
}

// buildForeign makes what emqx-operator 2.x makes: Services that select all core nodes, and sets without the annotations
// of this operator.
func (w *simWorld) buildForeign(revision string, replicas int32) {
	set, err := resources.StatefulSet(w.template, resources.CoreSet{Revision: revision, Replicas: replicas, ConfigMap: w.template.ConfigMapName(), Ports: resources.Ports{
		Dashboard: []resources.Port{{Name: "dashboard", Number: 18083, Protocol: corev1.ProtocolTCP}},
	}})
	w.must(err, "render a set")
	set.Annotations = nil
	w.must(w.create(setsResource, set, simNamespace), "create a set")
	if replicas == 0 {
		return
	}
	keys := resources.BootstrapAPIKeySecret(w.template, nil, "password of emqx-operator 2.x")
	cookie := resources.NodeCookieSecret(w.template, "cookie of emqx-operator 2.x")
	for _, secret := range []*corev1.Secret{keys, cookie} {
		w.must(w.create(secretsResource, secret, simNamespace), "create a Secret")
		w.mirror(secretsResource, secret)
	}
	for _, kind := range resources.ServiceKinds() {
		w.must(w.create(servicesResource, w.foreignService(kind), simNamespace), "create a Service")
	}
	emqx := w.resource().DeepCopy()
	emqx.Status = v2beta1.EMQXStatus{
		Conditions:      []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Ready", LastTransitionTime: metav1.NewTime(w.now())}},
		CoreNodesStatus: v2beta1.EMQXNodesStatus{Replicas: replicas, CurrentRevision: revision, UpdateRevision: revision},
	}
	w.stamp(emqx)
	w.must(w.emqx.Tracker().Update(emqxesResource, emqx, simNamespace), "write a status")
}

func (w *simWorld) foreignService(kind resources.ServiceKind) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: resources.ServiceName(w.template, kind), Namespace: simNamespace, Labels: resources.Labels(w.template),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(w.template, v2beta1.SchemeGroupVersion.WithKind(v2beta1.Kind))},
		},
		Spec: corev1.ServiceSpec{
			Selector: resources.CoreLabels(w.template),
			Ports:    []corev1.ServicePort{{Name: string(kind), Port: 18083, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(18083)}},
		},
	}
}

// checkAdopted is that the operator took over what it found as it stood: not a pod was made or lost, and no client was
// moved.
func (w *simWorld) checkAdopted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.clients {
		if c.node == nil || c.node.dead {
			w.violate("a client was disconnected while the cluster was adopted")
		}
	}
	sets := w.sets()
	if len(sets) != 1 || sets[0].Labels[v2beta1.LabelPodTemplateHash] != foreignRevision || ptr.Deref(sets[0].Spec.Replicas, 0) != *w.template.Spec.CoreTemplate.Spec.Replicas {
		w.violate("after the adoption the sets are %v", namesOf(sets))
	}
	for _, service := range w.services() {
		if service.Spec.ClusterIP != corev1.ClusterIPNone && service.Spec.Selector[v2beta1.LabelPodTemplateHash] != foreignRevision {
			w.violate("Service %s does not select the revision that was adopted", service.Name)
		}
	}
	if created := w.requests["create statefulsets"]; created > 0 {
		w.violate("%d sets were made", created)
	}
}

func namesOf(sets []appsv1.StatefulSet) []string {
	var names []string
	for _, set := range sets {
		names = append(names, set.Name)
	}
	return names
}
