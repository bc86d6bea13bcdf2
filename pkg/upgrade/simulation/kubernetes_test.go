package simulation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// host is a machine that runs pods.
type host struct {
	name string
	// down is until when its kubelet says nothing; zero for never. Off is that the machine itself is off, with what ran.
	down, since time.Time
	off         bool
	// cordoned is that it is drained, and evicted when an eviction was asked for last.
	cordoned bool
	evicted  time.Time
}

func (h *host) isDown(now time.Time) bool { return now.Before(h.down) }

const (
	// unreachableAfter is how long a kubelet says nothing before its pods are not Ready any more, and evictedAfter before
	// they are deleted: shorter than Kubernetes' defaults, and possible.
	unreachableAfter, evictedAfter = 10 * time.Second, 30 * time.Second
)

// tickKubernetes lets the controllers of Kubernetes do what they do, each now and then only.
func (w *world) tickKubernetes() {
	w.collectGarbage()
	w.tickDrains()
	w.tickClaims()
	if w.rng.IntN(4) > 0 {
		w.tickSets()
	}
	for _, pod := range all[*corev1.Pod](w.kube, pods) {
		w.tickPod(pod)
	}
	if w.rng.IntN(4) > 0 {
		w.tickEndpoints()
	}
}

// deleted is what a deletion does to an object that the API server has.
func (w *world) deleted(resource schema.GroupVersionResource, o object) {
	switch o := o.(type) {
	case *corev1.Pod:
		if w.inPlace(o) {
			w.replaced[o.UID] = true
		}
		w.terminate(o, nil)
	case *corev1.PersistentVolumeClaim:
		w.deleteClaim(o)
	case *appsv1.StatefulSet:
		w.checkDeletion(o)
		w.kube.remove(resource, o.Name)
	default:
		w.kube.remove(resource, o.GetName())
	}
}

// collectGarbage deletes what has lost its owner, sooner or later.
func (w *world) collectGarbage() {
	owners := map[types.UID]bool{}
	if emqx := w.resource(); emqx != nil {
		owners[emqx.UID] = true
	}
	for _, set := range all[*appsv1.StatefulSet](w.kube, statefulSets) {
		owners[set.UID] = true
	}
	for _, service := range all[*corev1.Service](w.kube, services) {
		owners[service.UID] = true
	}
	for _, resource := range []schema.GroupVersionResource{statefulSets, services, configMaps, secrets, endpointSlices, budgets, pods} {
		for _, o := range w.kube.collections[resource].list() {
			controller := metav1.GetControllerOfNoCopy(o)
			if controller == nil || owners[controller.UID] || !o.GetDeletionTimestamp().IsZero() || w.rng.IntN(3) > 0 {
				continue
			}
			if pod, ok := o.(*corev1.Pod); ok {
				w.strangers[pod.UID] = true // Whoever deleted the set answers for it: see checkDeletion.
				w.terminate(pod, nil)
				continue
			}
			w.kube.remove(resource, o.GetName())
		}
	}
}

// tickSets makes and removes pods as the StatefulSet controller does with parallel pod management.
func (w *world) tickSets() {
	existing := all[*corev1.Pod](w.kube, pods)
	for _, set := range all[*appsv1.StatefulSet](w.kube, statefulSets) {
		have := map[int]bool{}
		for _, pod := range existing {
			if !metav1.IsControlledBy(pod, set) {
				continue
			}
			ordinal := ordinalOf(pod.Name)
			have[ordinal] = true
			if ordinal >= int(*set.Spec.Replicas) && pod.DeletionTimestamp.IsZero() {
				w.checkRemoval(pod, set)
				w.terminate(pod, nil)
			}
		}
		for ordinal := range int(*set.Spec.Replicas) {
			if _, taken := get[*corev1.Pod](w.kube, pods, fmt.Sprintf("%s-%d", set.Name, ordinal)); !taken && !have[ordinal] && w.claims(set, ordinal) {
				w.createPod(set, ordinal)
			}
		}
		w.observeSet(set)
	}
}

// observeSet writes the status of a set: the pods that there are, and that its specification has been seen.
func (w *world) observeSet(set *appsv1.StatefulSet) {
	count := int32(0)
	for _, pod := range all[*corev1.Pod](w.kube, pods) {
		if metav1.IsControlledBy(pod, set) {
			count++
		}
	}
	if set.Status.Replicas != count || set.Status.ObservedGeneration != set.Generation {
		set = set.DeepCopy()
		set.Status.Replicas, set.Status.ObservedGeneration = count, set.Generation
		w.kube.put(statefulSets, set)
	}
}

func ordinalOf(pod string) int {
	ordinal, _ := strconv.Atoi(pod[strings.LastIndexByte(pod, '-')+1:])
	return ordinal
}

func (w *world) createPod(set *appsv1.StatefulSet, ordinal int) {
	w.addresses++
	container := set.Spec.Template.Spec.Containers[0]
	domain := container.Env[slices.IndexFunc(container.Env, func(v corev1.EnvVar) bool { return v.Name == resources.NodeDomainEnv })]
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-%d", set.Name, ordinal), Namespace: namespace, Labels: set.Spec.Template.Labels, Annotations: set.Spec.Template.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))},
		},
		// Nobody reads more.
		Spec: corev1.PodSpec{
			NodeName:   w.placeFor().name,
			Containers: []corev1.Container{{Name: resources.EMQXContainer, Image: container.Image, Env: []corev1.EnvVar{domain}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending, PodIP: fmt.Sprintf("10.0.%d.%d", w.addresses/250, w.addresses%250)},
	}
	w.kube.put(pods, pod)
	w.startAt[pod.UID] = w.now().Add(time.Duration(500+w.rng.IntN(3000)) * time.Millisecond)
}

// placeFor is the machine that the next pod is on.
func (w *world) placeFor() *host {
	place := w.machines[w.addresses%len(w.machines)]
	if place.cordoned {
		place = w.machines[(w.addresses+1)%len(w.machines)] // One at a time is drained.
	}
	return place
}

func (w *world) machineOf(pod *corev1.Pod) *host {
	i := slices.IndexFunc(w.machines, func(h *host) bool { return h.name == pod.Spec.NodeName })
	return w.machines[i]
}

// tickPod is the kubelet of a pod, and the node controller while that says nothing.
func (w *world) tickPod(pod *corev1.Pod) {
	if machine := w.machineOf(pod); machine.isDown(w.now()) {
		w.tickLostPod(pod, machine)
		return
	}
	b := w.brokers[pod.Name]
	mine := b != nil && b.ip == pod.Status.PodIP
	switch {
	case !pod.DeletionTimestamp.IsZero():
		if mine && !b.dead {
			w.checkLoss(pod, b)
			w.die(b)
		}
		switch over := !w.now().Before(w.startAt[pod.UID]); {
		case over && len(pod.Finalizers) == 0:
			w.kube.remove(pods, pod.Name)
		case over && pod.Status.Phase != corev1.PodSucceeded:
			w.happen("a pod that stays until its node is forgotten")
			w.setStatus(pod, func(status *corev1.PodStatus) { status.Phase = corev1.PodSucceeded })
		}
		return
	case w.now().Before(w.unschedulable) && len(pod.Status.ContainerStatuses) == 0:
		if w.startAt[pod.UID].Before(w.unschedulable) {
			w.startAt[pod.UID] = w.unschedulable
			w.setStatus(pod, func(status *corev1.PodStatus) {
				status.Conditions = append(status.Conditions, corev1.PodCondition{
					Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "no machine has room",
				})
			})
		}
		return
	case strings.Contains(pod.Spec.Containers[0].Image, "bad"):
		if len(pod.Status.ContainerStatuses) == 0 {
			w.setStatus(pod, func(status *corev1.PodStatus) {
				status.ContainerStatuses = []corev1.ContainerStatus{{Name: resources.EMQXContainer, State: corev1.ContainerState{
					Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"},
				}}}
			})
		}
		return
	case w.now().Before(w.startAt[pod.UID]):
		return
	case mine && b.dead && w.backsOff(pod, b):
		return
	case !mine || b.dead:
		ended := lastWords(b)
		w.restarts[pod.UID]++
		b = w.boot(pod, mine)
		w.setStatus(pod, func(status *corev1.PodStatus) {
			status.Conditions = slices.DeleteFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
			status.ContainerStatuses = []corev1.ContainerStatus{{
				Name: resources.EMQXContainer, LastTerminationState: ended, ContainerID: "sim://" + string(w.kube.uid()), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(w.now())}},
			}}
		})
		pod, _ = get[*corev1.Pod](w.kube, pods, pod.Name)
	}
	w.setReady(pod, b.up(w.now()) && !w.now().Before(b.frozen))
}

// backsOff reports whether a container that ended is not started again yet: the second time at once, and then as kubelets do.
func (w *world) backsOff(pod *corev1.Pod, b *broker) bool {
	again := w.restarts[pod.UID] - 1
	if again < 1 || !w.now().Before(b.diedAt.Add(min(10*time.Second<<min(again-1, 5), 5*time.Minute))) {
		return false
	}
	if pod.Status.ContainerStatuses[0].State.Running != nil {
		w.happen("a container that is started again later and later")
		w.setStatus(pod, func(status *corev1.PodStatus) {
			status.ContainerStatuses[0].LastTerminationState = lastWords(b)
			status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
			setCondition(status, corev1.ContainersReady, false)
			setCondition(status, corev1.PodReady, false)
		})
	}
	return true
}

// tickLostPod is what happens to a pod whose kubelet says nothing.
func (w *world) tickLostPod(pod *corev1.Pod, machine *host) {
	if b := w.brokers[pod.Name]; machine.off && b != nil && b.ip == pod.Status.PodIP && !b.dead {
		w.die(b)
	}
	lost := w.now().Sub(machine.since)
	if lost > unreachableAfter && isTrue(pod, corev1.PodReady) {
		w.setStatus(pod, func(status *corev1.PodStatus) { setCondition(status, corev1.PodReady, false) })
	}
	if lost > evictedAfter && pod.DeletionTimestamp.IsZero() {
		w.note("pod %s is evicted from a lost machine", pod.Name)
		w.happen("a pod evicted from a lost machine")
		w.strangers[pod.UID] = true
		w.terminate(pod, func(status *corev1.PodStatus) {
			status.Conditions = append(status.Conditions, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager", Message: "the machine is unreachable",
			})
		})
	}
}

func (w *world) setStatus(pod *corev1.Pod, change func(*corev1.PodStatus)) {
	pod = pod.DeepCopy()
	change(&pod.Status)
	w.kube.put(pods, pod)
}

// setReady is what a probe and the gate make of a pod.
func (w *world) setReady(pod *corev1.Pod, containers bool) {
	ready := containers && isTrue(pod, v2beta1.ConditionOnServing)
	if pod.Status.Phase == corev1.PodRunning && isTrue(pod, corev1.ContainersReady) == containers && isTrue(pod, corev1.PodReady) == ready {
		return
	}
	w.setStatus(pod, func(status *corev1.PodStatus) {
		status.Phase = corev1.PodRunning
		setCondition(status, corev1.ContainersReady, containers)
		setCondition(status, corev1.PodReady, ready)
	})
}

// terminate begins the deletion of a pod.
func (w *world) terminate(pod *corev1.Pod, change func(*corev1.PodStatus)) {
	if !pod.DeletionTimestamp.IsZero() {
		return
	}
	pod = pod.DeepCopy()
	pod.DeletionTimestamp = ptr.To(metav1.NewTime(w.now()))
	if change != nil {
		change(&pod.Status)
	}
	w.startAt[pod.UID] = w.now().Add(time.Duration(w.rng.IntN(2000)) * time.Millisecond)
	w.kube.put(pods, pod)
}

func setCondition(status *corev1.PodStatus, kind corev1.PodConditionType, value bool) {
	condition := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse}
	if value {
		condition.Status = corev1.ConditionTrue
	}
	i := slices.IndexFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
	if i < 0 {
		status.Conditions = append(status.Conditions, condition)
		return
	}
	status.Conditions[i] = condition
}

func isTrue(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == kind && c.Status == corev1.ConditionTrue
	})
}

// slicesPerService: a Service with many endpoints has several slices, which change one after the other.
const slicesPerService = 2

// tickEndpoints is the EndpointSlice controller.
func (w *world) tickEndpoints() {
	for _, service := range all[*corev1.Service](w.kube, services) {
		if service.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		for part := range slicesPerService {
			if w.rng.IntN(4) == 0 {
				continue
			}
			want := w.sliceOf(service, part)
			have, ok := get[*discoveryv1.EndpointSlice](w.kube, endpointSlices, want.Name)
			if (!ok && len(want.Endpoints) > 0) || ok && (!slices.EqualFunc(have.Endpoints, want.Endpoints, sameEndpoint) || !metav1.IsControlledBy(have, service)) {
				w.kube.put(endpointSlices, want)
			}
		}
	}
}

func sameEndpoint(a, b discoveryv1.Endpoint) bool {
	return a.TargetRef.UID == b.TargetRef.UID && *a.Conditions.Ready == *b.Conditions.Ready && slices.Equal(a.Addresses, b.Addresses)
}

func (w *world) sliceOf(service *corev1.Service, part int) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprintf("%s-slice-%d", service.Name, part), Namespace: namespace,
		Labels:          labels.Merge(service.Labels, map[string]string{discoveryv1.LabelServiceName: service.Name}),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(service, corev1.SchemeGroupVersion.WithKind("Service"))},
	}}
	selector := labels.SelectorFromSet(service.Spec.Selector)
	for _, pod := range all[*corev1.Pod](w.kube, pods) {
		if ordinalOf(pod.Name)%slicesPerService != part || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		ready := isTrue(pod, corev1.PodReady) && pod.DeletionTimestamp.IsZero()
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{pod.Status.PodIP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod.Name, UID: pod.UID},
		})
	}
	return slice
}

// endpointsOf are the ready endpoints of a Service, by the names of their pods.
func (w *world) endpointsOf(service string) []string {
	var found []string
	for _, slice := range all[*discoveryv1.EndpointSlice](w.kube, endpointSlices) {
		if slice.Labels[discoveryv1.LabelServiceName] != service {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if *endpoint.Conditions.Ready {
				found = append(found, endpoint.TargetRef.Name)
			}
		}
	}
	return found
}

// doors are the pods that clients are led to: by the listeners Service or, when the user wants none, by one
// of his own that leads to every pod which is ready.
func (w *world) doors() []string {
	var found []string
	if emqx := w.resource(); emqx != nil && !resources.ServiceEnabled(emqx, resources.Listeners) {
		for _, pod := range all[*corev1.Pod](w.kube, pods) {
			if isTrue(pod, corev1.PodReady) && pod.DeletionTimestamp.IsZero() {
				found = append(found, pod.Name)
			}
		}
		return found
	}
	return w.endpointsOf(w.names.ListenersServiceName())
}
