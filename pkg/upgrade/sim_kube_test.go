package upgrade

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

var (
	setsResource       = appsv1.SchemeGroupVersion.WithResource("statefulsets")
	podsResource       = corev1.SchemeGroupVersion.WithResource("pods")
	configMapsResource = corev1.SchemeGroupVersion.WithResource("configmaps")
	secretsResource    = corev1.SchemeGroupVersion.WithResource("secrets")
	servicesResource   = corev1.SchemeGroupVersion.WithResource("services")
	slicesResource     = discoveryv1.SchemeGroupVersion.WithResource("endpointslices")
	emqxesResource     = v2beta1.SchemeGroupVersion.WithResource("emqxes")
)

const simNamespace = "sim"

// listOf reads all objects of a kind past the fake client, without its faults.
func listOf[T any](w *simWorld, resource schema.GroupVersionResource, kind string, into func(runtime.Object) []T) []T {
	list, err := w.kube.Tracker().List(resource, resource.GroupVersion().WithKind(kind), simNamespace)
	if err != nil {
		w.t.Fatalf("list %s: %v", kind, err)
	}
	return into(list)
}

func (w *simWorld) sets() []appsv1.StatefulSet {
	return listOf(w, setsResource, "StatefulSet", func(o runtime.Object) []appsv1.StatefulSet { return o.(*appsv1.StatefulSetList).Items })
}

func (w *simWorld) pods() []corev1.Pod {
	return listOf(w, podsResource, "Pod", func(o runtime.Object) []corev1.Pod { return o.(*corev1.PodList).Items })
}

func (w *simWorld) services() []corev1.Service {
	return listOf(w, servicesResource, "Service", func(o runtime.Object) []corev1.Service { return o.(*corev1.ServiceList).Items })
}

func (w *simWorld) slices() []discoveryv1.EndpointSlice {
	return listOf(w, slicesResource, "EndpointSlice", func(o runtime.Object) []discoveryv1.EndpointSlice {
		return o.(*discoveryv1.EndpointSliceList).Items
	})
}

func (w *simWorld) configMaps() []string {
	return listOf(w, configMapsResource, "ConfigMap", func(o runtime.Object) []string {
		var names []string
		for _, object := range o.(*corev1.ConfigMapList).Items {
			names = append(names, object.Name)
		}
		return names
	})
}

// stamp gives an object the next resource version and, when it is new, a UID and a time, which the fakes do not.
func (w *simWorld) stamp(object runtime.Object) {
	stamped := object.(metav1.Object)
	w.version++
	stamped.SetResourceVersion(strconv.Itoa(w.version))
	if stamped.GetUID() == "" {
		stamped.SetUID(w.uid())
		stamped.SetCreationTimestamp(metav1.NewTime(w.now()))
	}
}

func (w *simWorld) create(resource schema.GroupVersionResource, object runtime.Object, namespace string) error {
	w.stamp(object)
	return w.kube.Tracker().Create(resource, object, namespace)
}

func (w *simWorld) update(resource schema.GroupVersionResource, object runtime.Object, namespace string) error {
	w.stamp(object)
	return w.kube.Tracker().Update(resource, object, namespace)
}

// lose deletes an object as somebody does who should not.
func (w *simWorld) lose(resource schema.GroupVersionResource, name string) {
	if _, err := w.kube.Tracker().Get(resource, simNamespace, name); err != nil {
		return // It is lost already.
	}
	w.note("somebody deletes %s %s", resource.Resource, name)
	w.touch(resource, name)
	w.must(w.kube.Tracker().Delete(resource, simNamespace, name), "lose an object")
	if resource == secretsResource {
		w.must(w.meta.Tracker().Delete(resource, simNamespace, name), "lose an object's metadata")
	}
}

// touch gives an object that is about to be deleted the next resource version: the event of a deletion carries its own.
func (w *simWorld) touch(resource schema.GroupVersionResource, name string) {
	if object, err := w.kube.Tracker().Get(resource, simNamespace, name); err == nil {
		w.must(w.update(resource, object.DeepCopyObject(), simNamespace), "touch an object")
	}
}

func (w *simWorld) must(err error, what string) {
	if err != nil {
		w.t.Fatalf("simulated Kubernetes: %s: %v", what, err)
	}
}

// tickKube lets the controllers of Kubernetes do what they do, each now and then only.
func (w *simWorld) tickKube() {
	pods := w.pods()
	if w.rng.IntN(4) > 0 {
		w.tickSets(pods)
	}
	for i := range pods {
		w.tickPod(&pods[i])
	}
	if w.rng.IntN(4) > 0 {
		w.tickEndpoints(w.pods())
	}
}

// tickSets makes and removes pods as the StatefulSet controller does with parallel pod management.
func (w *simWorld) tickSets(pods []corev1.Pod) {
	for _, set := range w.sets() {
		have := map[int]corev1.Pod{}
		for _, pod := range pods {
			if metav1.IsControlledBy(&pod, &set) {
				have[ordinalOf(pod)] = pod
			}
		}
		for ordinal := range int(*set.Spec.Replicas) {
			if _, ok := have[ordinal]; !ok {
				w.createPod(&set, ordinal)
			}
		}
		for ordinal, pod := range have {
			if ordinal >= int(*set.Spec.Replicas) && pod.DeletionTimestamp.IsZero() {
				w.checkRemoval(pod, set)
				w.terminate(pod)
			}
		}
	}
	for _, pod := range pods { // Garbage collection.
		owned := slices.ContainsFunc(w.sets(), func(set appsv1.StatefulSet) bool { return metav1.IsControlledBy(&pod, &set) })
		if !owned && pod.DeletionTimestamp.IsZero() {
			w.violate("set of pod %s was deleted before its pods", pod.Name)
			w.terminate(pod)
		}
	}
}

func ordinalOf(pod corev1.Pod) int {
	ordinal, _ := strconv.Atoi(pod.Name[strings.LastIndexByte(pod.Name, '-')+1:])
	return ordinal
}

func (w *simWorld) createPod(set *appsv1.StatefulSet, ordinal int) {
	w.addresses++
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-%d", set.Name, ordinal), Namespace: simNamespace, UID: w.uid(), Labels: set.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))},
		},
		// Nobody reads more, and every look copies it.
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: resources.EMQXContainer, Image: set.Spec.Template.Spec.Containers[0].Image}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodPending, PodIP: fmt.Sprintf("10.0.%d.%d", w.addresses/250, w.addresses%250),
		},
	}
	w.must(w.create(podsResource, pod, simNamespace), "create a pod")
	w.startAt[pod.UID] = w.now().Add(time.Duration(500+w.rng.IntN(3000)) * time.Millisecond)
}

// tickPod is the kubelet of a pod.
func (w *simWorld) tickPod(pod *corev1.Pod) {
	node := w.nodes[w.nodeName(pod.Name)]
	mine := node != nil && node.ip == pod.Status.PodIP
	before := *pod.Status.DeepCopy()
	switch {
	case !pod.DeletionTimestamp.IsZero():
		if mine && !node.dead {
			w.checkLoss(pod, node)
			w.kill(node)
		}
		if !w.now().Before(w.startAt[pod.UID]) {
			w.touch(podsResource, pod.Name)
			w.must(w.kube.Tracker().Delete(podsResource, simNamespace, pod.Name), "delete a pod")
		}
		return
	case strings.Contains(imageOf(*pod), "bad"):
		w.setContainer(pod, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"}})
	case w.now().Before(w.startAt[pod.UID]):
		return
	case !mine || node.dead:
		var stored *simEvacuation
		if mine {
			stored = node.stored
		}
		w.nodes[w.nodeName(pod.Name)] = &simNode{
			name: w.nodeName(pod.Name), ip: pod.Status.PodIP, bootAt: w.now().Add(time.Duration(500+w.rng.IntN(1500)) * time.Millisecond), stored: stored,
		}
		w.readPassword()
		w.setContainer(pod, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})
	}
	node = w.nodes[w.nodeName(pod.Name)]
	ready := node != nil && node.up(w.now()) && !w.now().Before(node.frozen)
	pod.Status.Phase = corev1.PodRunning
	setCondition(pod, corev1.ContainersReady, ready)
	setCondition(pod, corev1.PodReady, ready && conditionOf(*pod, v2beta1.ConditionOnServing))
	if !reflect.DeepEqual(before, pod.Status) {
		w.must(w.update(podsResource, pod, simNamespace), "update a pod")
	}
}

// terminate begins the deletion of a pod. One that a stranger deletes may take clients along.
func (w *simWorld) terminate(pod corev1.Pod) {
	pod.DeletionTimestamp = ptr.To(metav1.NewTime(w.now()))
	w.startAt[pod.UID] = w.now().Add(time.Duration(w.rng.IntN(2000)) * time.Millisecond)
	w.must(w.update(podsResource, &pod, simNamespace), "terminate a pod")
}

func imageOf(pod corev1.Pod) string { return pod.Spec.Containers[0].Image }

func (w *simWorld) setContainer(pod *corev1.Pod, state corev1.ContainerState) {
	status := corev1.ContainerStatus{Name: resources.EMQXContainer, State: state}
	if state.Running != nil {
		status.ContainerID = "sim://" + string(w.uid())
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
}

func setCondition(pod *corev1.Pod, kind corev1.PodConditionType, value bool) {
	status := corev1.ConditionFalse
	if value {
		status = corev1.ConditionTrue
	}
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			pod.Status.Conditions[i].Status = status
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: status})
}

func conditionOf(pod corev1.Pod, kind corev1.PodConditionType) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == kind && c.Status == corev1.ConditionTrue
	})
}

// tickEndpoints is the EndpointSlice controller.
func (w *simWorld) tickEndpoints(pods []corev1.Pod) {
	existing := map[string]discoveryv1.EndpointSlice{}
	for _, slice := range w.slices() {
		owned := slices.ContainsFunc(w.services(), func(service corev1.Service) bool { return metav1.IsControlledBy(&slice, &service) })
		if !owned { // Garbage collection.
			w.touch(slicesResource, slice.Name)
			w.must(w.kube.Tracker().Delete(slicesResource, simNamespace, slice.Name), "delete a slice")
			continue
		}
		existing[slice.Name] = slice
	}
	for _, service := range w.services() {
		if service.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		want := w.sliceOf(service, pods)
		have, ok := existing[want.Name]
		switch {
		case !ok:
			w.must(w.create(slicesResource, want, simNamespace), "create a slice")
		case !reflect.DeepEqual(have.Endpoints, want.Endpoints):
			w.must(w.update(slicesResource, want, simNamespace), "update a slice")
		}
	}
}

func (w *simWorld) sliceOf(service corev1.Service, pods []corev1.Pod) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Name: service.Name + "-slice", Namespace: simNamespace,
		Labels:          labels.Merge(service.Labels, map[string]string{discoveryv1.LabelServiceName: service.Name}),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(&service, corev1.SchemeGroupVersion.WithKind("Service"))},
	}}
	selector := labels.SelectorFromSet(service.Spec.Selector)
	for _, pod := range pods {
		if selector.Matches(labels.Set(pod.Labels)) {
			ready := conditionOf(pod, corev1.PodReady) && pod.DeletionTimestamp.IsZero()
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{pod.Status.PodIP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod.Name, UID: pod.UID},
			})
		}
	}
	return slice
}

// pick is a ready endpoint of the listeners Service at random: the name of its node, or nothing.
func (w *simWorld) pick() string {
	var names []string
	for _, slice := range w.slices() {
		if slice.Labels[discoveryv1.LabelServiceName] != simName+"-listeners" {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if *endpoint.Conditions.Ready {
				names = append(names, w.nodeName(endpoint.TargetRef.Name))
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[w.rng.IntN(len(names))]
}

func (w *simWorld) nodeName(pod string) string { return "emqx@" + pod + "." + w.template.NodeDomain() }

func (w *simWorld) uid() types.UID {
	w.uids++
	return types.UID(fmt.Sprintf("uid-%d", w.uids))
}
