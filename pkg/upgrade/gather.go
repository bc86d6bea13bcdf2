package upgrade

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// gather makes the Snapshot of a resource from the caches and the last observation of its EMQX. It asks nobody.
func gather(caches *informers.Caches, emqx *v2beta1.EMQX, observation evacuate.Observation, now time.Time) (Snapshot, error) {
	s := Snapshot{Now: now, EMQX: emqx.DeepCopy(), Editor: editor(emqx), Observation: observation}
	var err error
	if s.Config, s.ConfigError = resources.ConfigOf(emqx); s.ConfigError == nil {
		if s.Revision, s.Intent, err = revisionOf(emqx, s.Config.Ports); err != nil {
			return s, err
		}
	}
	if s.ConfigHash, err = resources.Hash(emqx.Spec.Config.Data); err != nil {
		return s, err
	}
	if s.Sets, err = gatherSets(caches, emqx, s.Config); err != nil {
		return s, err
	}
	if set := realized(&s); set != nil {
		s.Revision = set.Revision
	}
	if s.Services, err = gatherServices(caches, &s); err != nil {
		return s, err
	}
	if s.Headless, err = headlessState(caches, emqx); err != nil {
		return s, err
	}
	s.ConfigMap = presence(&caches.ConfigMaps, emqx, emqx.ConfigMapName())
	s.CookieSecret = presence(&caches.Secrets, emqx, emqx.NodeCookieSecretName())
	s.KeysSecret = presence(&caches.Secrets, emqx, emqx.BootstrapAPIKeySecretName())
	return s, nil
}

// editor is the field manager that wrote the specification last.
func editor(emqx *v2beta1.EMQX) string {
	var name string
	var last time.Time
	for _, entry := range emqx.ManagedFields {
		if entry.Subresource == "" && entry.Time != nil && !entry.Time.Time.Before(last) {
			name, last = entry.Manager, entry.Time.Time
		}
	}
	return name
}

func gatherSets(caches *informers.Caches, emqx *v2beta1.EMQX, config resources.Config) ([]Set, error) {
	owned, err := caches.StatefulSets.ControlledBy(emqx.Namespace, emqx.UID)
	if err != nil {
		return nil, fmt.Errorf("list the sets of %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	slices.SortStableFunc(owned, func(a, b *appsv1.StatefulSet) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	var sets []Set
	for _, object := range owned {
		set, err := setOf(object, config)
		if err != nil {
			return nil, err
		}
		pods, err := caches.Pods.ControlledBy(emqx.Namespace, object.UID)
		if err != nil {
			return nil, fmt.Errorf("list the pods of %s/%s: %w", object.Namespace, object.Name, err)
		}
		for _, pod := range pods {
			set.Pods = append(set.Pods, podOf(emqx, pod))
		}
		slices.SortFunc(set.Pods, func(a, b Pod) int { return a.Ordinal - b.Ordinal })
		sets = append(sets, set)
	}
	return sets, nil
}

func setOf(object *appsv1.StatefulSet, config resources.Config) (Set, error) {
	set := Set{
		Name: object.Name, UID: object.UID, Revision: object.Labels[v2beta1.LabelPodTemplateHash],
		ConfigHash: object.Annotations[v2beta1.AnnotationConfigHash], Intent: object.Annotations[resources.AnnotationIntent],
		Deleting: !object.DeletionTimestamp.IsZero(), Replicas: 1, // Kubernetes' own default.
	}
	if object.Spec.Replicas != nil {
		set.Replicas = *object.Spec.Replicas
	}
	set.NodeCount = set.Replicas
	if count, err := strconv.ParseInt(object.Annotations[v2beta1.AnnotationNodeCount], 10, 32); err == nil {
		set.NodeCount = max(set.NodeCount, int32(count))
	}
	if since, ok := object.Annotations[v2beta1.AnnotationServingSince]; ok {
		var err error
		if set.ServingSince, err = time.Parse(time.RFC3339, since); err != nil {
			set.ServingSince = object.CreationTimestamp.Time // Unreadable is not never.
		}
	}
	if ports := object.Annotations[v2beta1.AnnotationServicePorts]; ports != "" {
		if err := json.Unmarshal([]byte(ports), &set.Ports); err != nil {
			return set, fmt.Errorf("read annotation %s of StatefulSet %s/%s: %w", v2beta1.AnnotationServicePorts, object.Namespace, object.Name, err)
		}
	} else {
		// emqx-operator 2.x noted nothing, and applied configuration to running nodes: they have that of the specification.
		set.Ports = resources.Ports{Dashboard: resources.DashboardPorts(object.Spec.Template), Listeners: config.Ports.Listeners}
	}
	for _, container := range object.Spec.Template.Spec.Containers {
		if container.Name == resources.EMQXContainer {
			set.Image = container.Image
		}
	}
	return set, nil
}

func podOf(emqx *v2beta1.EMQX, object *corev1.Pod) Pod {
	pod := Pod{
		Name: object.Name, UID: object.UID, IP: object.Status.PodIP, Node: emqx.CoreNodeName(object.Name),
		Deleting: !object.DeletionTimestamp.IsZero(), Trouble: trouble(object), Ordinal: -1,
	}
	if ordinal, err := strconv.Atoi(object.Name[strings.LastIndexByte(object.Name, '-')+1:]); err == nil {
		pod.Ordinal = ordinal
	}
	for _, condition := range object.Status.Conditions {
		isTrue := condition.Status == corev1.ConditionTrue
		switch condition.Type {
		case corev1.PodReady:
			pod.Ready = isTrue
		case corev1.ContainersReady:
			pod.ContainersReady = isTrue
		case v2beta1.ConditionOnServing:
			pod.OnServing = isTrue
		default: // Others decide nothing here.
		}
	}
	for _, status := range object.Status.ContainerStatuses {
		if status.Name == resources.EMQXContainer {
			pod.ContainerRunning = status.State.Running != nil
		}
	}
	return pod
}

// trouble is why a pod's containers do not run, in Kubernetes' words and, after a crash, in the last words of the
// container; empty when there is nothing to say.
func trouble(pod *corev1.Pod) string {
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if words := containerTrouble(status); words != "" {
			return "container " + status.Name + ": " + words
		}
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return condition.Reason + ": " + condition.Message
		}
	}
	return ""
}

func containerTrouble(status corev1.ContainerStatus) string {
	waiting, ended := status.State.Waiting, status.State.Terminated
	var words []string
	if waiting != nil && waiting.Reason != "ContainerCreating" && waiting.Reason != "PodInitializing" {
		words = append(words, waiting.Reason, waiting.Message)
	}
	if waiting != nil && ended == nil {
		ended = status.LastTerminationState.Terminated
	}
	if ended != nil && ended.ExitCode != 0 {
		words = append(words, fmt.Sprintf("exit code %d", ended.ExitCode), lastLine(ended.Message))
	}
	return strings.Join(slices.DeleteFunc(words, func(word string) bool { return word == "" }), ": ")
}

const maxLastLine = 300

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	return line[:min(len(line), maxLastLine)]
}

func gatherServices(caches *informers.Caches, s *Snapshot) (map[resources.ServiceKind]Service, error) {
	services := map[resources.ServiceKind]Service{}
	for _, kind := range resources.ServiceKinds() {
		object, ok := caches.Services.Get(cache.ObjectName{Namespace: s.EMQX.Namespace, Name: resources.ServiceName(s.EMQX, kind)})
		if !ok || !metav1.IsControlledBy(object, s.EMQX) {
			continue
		}
		service := Service{Revision: object.Spec.Selector[v2beta1.LabelPodTemplateHash], State: Outdated}
		if set := s.set(service.Revision); set != nil {
			desired, err := resources.Service(s.EMQX, kind, service.Revision, set.Ports)
			if err != nil {
				return nil, err
			}
			if service.State, err = stateOf(object, desired); err != nil {
				return nil, err
			}
		}
		var err error
		if service.Endpoints, err = endpointsOf(caches, object); err != nil {
			return nil, err
		}
		if service.Revision == "" {
			if service.Inheritance, err = inheritance(object); err != nil {
				return nil, fmt.Errorf("take over Service %s/%s: %w", object.Namespace, object.Name, err)
			}
		}
		services[kind] = service
	}
	return services, nil
}

func endpointsOf(caches *informers.Caches, service *corev1.Service) ([]Endpoint, error) {
	found, err := caches.EndpointSlices.ControlledBy(service.Namespace, service.UID)
	if err != nil {
		return nil, fmt.Errorf("list the EndpointSlices of %s/%s: %w", service.Namespace, service.Name, err)
	}
	var endpoints []Endpoint
	for _, slice := range found {
		for _, endpoint := range slice.Endpoints {
			if endpoint.TargetRef == nil {
				continue
			}
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			endpoints = append(endpoints, Endpoint{PodUID: endpoint.TargetRef.UID, Ready: ready})
		}
	}
	return endpoints, nil
}

func headlessState(caches *informers.Caches, emqx *v2beta1.EMQX) (ObjectState, error) {
	object, ok := caches.Services.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: emqx.HeadlessServiceName()})
	if !ok {
		return Missing, nil
	}
	return stateOf(object, resources.HeadlessService(emqx))
}

func stateOf(live, desired any) (ObjectState, error) {
	current, err := resources.Covers(live, desired)
	if err != nil || !current {
		return Outdated, err
	}
	return Current, nil
}

// presence is for objects of which only the metadata is kept: they are there, or not.
func presence(kind *informers.Cache[*metav1.PartialObjectMetadata], emqx *v2beta1.EMQX, name string) ObjectState {
	if _, ok := kind.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: name}); ok {
		return Current
	}
	return Missing
}
