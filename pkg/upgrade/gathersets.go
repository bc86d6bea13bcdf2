package upgrade

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// gatherSets are the resource's sets with their pods, oldest first, and the pods that sets left behind.
func gatherSets(caches *informers.Caches, emqx *v2beta1.EMQX, config resources.Config) ([]machine.Set, error) {
	owned, err := caches.StatefulSets.ControlledBy(emqx.Namespace, emqx.UID)
	if err != nil {
		return nil, fmt.Errorf("list the sets of EMQX %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	lost, err := caches.StatefulSets.Claimed(emqx.Namespace, emqx.Name)
	if err != nil {
		return nil, fmt.Errorf("list the sets of EMQX %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	owned = append(owned, slices.DeleteFunc(lost, func(set *appsv1.StatefulSet) bool { return !abandoned(set) })...)
	slices.SortStableFunc(owned, func(a, b *appsv1.StatefulSet) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	var sets []machine.Set
	for _, object := range owned {
		set := setOf(emqx, object, config)
		pods, err := caches.Pods.ControlledBy(emqx.Namespace, object.UID)
		if err != nil {
			return nil, fmt.Errorf("list the pods of StatefulSet %s/%s: %w", object.Namespace, object.Name, err)
		}
		for _, pod := range pods {
			found := podOf(set, pod)
			found.Drained = caches.Drained(found.KubernetesNode)
			set.Pods = append(set.Pods, found)
		}
		set.PodsUnseen = object.Status.ObservedGeneration < object.Generation || int(object.Status.Replicas) > len(set.Pods)
		sets = append(sets, set)
	}
	orphans, err := caches.Pods.Claimed(emqx.Namespace, emqx.Name)
	if err != nil {
		return nil, fmt.Errorf("list the pods without a set of EMQX %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	sets = append(sets, orphanedSets(emqx, sets, orphans, config)...)
	for i := range sets {
		slices.SortFunc(sets[i].Pods, func(a, b machine.Pod) int { return a.Ordinal - b.Ordinal })
	}
	return sets, nil
}

// abandoned reports whether a set that nothing controls is one of ours whose owner was taken off: only a set that this
// operator made or adopted has its notes.
func abandoned(set *appsv1.StatefulSet) bool {
	return metav1.GetControllerOfNoCopy(set) == nil && set.Annotations[resources.AnnotationIntent] != ""
}

// orphanedSets are sets that have gone and left their pods. A set of the same name that exists takes its pods back by
// itself.
func orphanedSets(emqx *v2beta1.EMQX, existing []machine.Set, pods []*corev1.Pod, config resources.Config) []machine.Set {
	byName := map[string]*machine.Set{}
	for _, pod := range pods {
		name, ordinal, ok := cutOrdinal(pod.Name)
		revision, ours := emqx.CoreRevision(name)
		exists := slices.ContainsFunc(existing, func(set machine.Set) bool { return set.Name == name })
		if !ok || !ours || exists || metav1.GetControllerOfNoCopy(pod) != nil {
			continue
		}
		if byName[name] == nil {
			byName[name] = &machine.Set{
				Name: name, Role: machine.Core, Revision: revision, Orphaned: true, Deleting: true, Domain: emqx.NodeDomain(),
				Ports: config.Ports,
			}
		}
		set := byName[name]
		set.Replicas = max(set.Replicas, int32(ordinal)+1) //nolint:gosec // An ordinal of a pod.
		set.NodeCount = set.Replicas
		set.Pods = append(set.Pods, podOf(*set, pod))
	}
	var sets []machine.Set
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		sets = append(sets, *byName[name])
	}
	return sets
}

// servicePorts are those that were read last from the notes of sets.
var servicePorts = resources.NewDecoded[resources.Ports](256) //nolint:gochecknoglobals // Only what a look costs depends on it.

func setOf(emqx *v2beta1.EMQX, object *appsv1.StatefulSet, config resources.Config) machine.Set {
	revision, _ := emqx.CoreRevision(object.Name)
	set := machine.Set{
		Name: object.Name, UID: object.UID, ResourceVersion: object.ResourceVersion, Role: machine.Core, Revision: revision,
		ConfigHash: object.Annotations[v2beta1.AnnotationConfigHash], Intent: object.Annotations[resources.AnnotationIntent],
		CookieDigest: object.Annotations[resources.AnnotationCookieDigest], Template: object.Annotations[v2beta1.AnnotationRevision],
		Deleting: !object.DeletionTimestamp.IsZero(), Finalizers: object.Finalizers, Domain: emqx.NodeDomain(), Replicas: 1, // Kubernetes' own default.
	}
	for name, value := range resources.CoreRevisionLabels(emqx, revision) {
		set.Mislabelled = set.Mislabelled || object.Labels[name] != value
	}
	set.Mislabelled = set.Mislabelled || !metav1.IsControlledBy(object, emqx)
	if object.Spec.Replicas != nil {
		set.Replicas = *object.Spec.Replicas
	}
	set.Asked = number(object, v2beta1.AnnotationReplicas)
	set.NodeCount = max(set.Replicas, number(object, v2beta1.AnnotationNodeCount))
	if since, ok := object.Annotations[v2beta1.AnnotationServingSince]; ok {
		var err error
		if set.ServingSince, err = time.Parse(time.RFC3339Nano, since); err != nil {
			set.ServingSince = object.CreationTimestamp.Time // Unreadable is not never.
		}
	}
	var err error
	if set.Ports, err = servicePorts.Of(object.Annotations[v2beta1.AnnotationServicePorts]); err != nil {
		// emqx-operator 2.x noted nothing, and applied configuration to running nodes: they have that of the specification.
		// Where somebody made the note unreadable, that is the best that is known, too.
		set.Ports = resources.Ports{Dashboard: resources.DashboardPorts(object.Spec.Template), Listeners: config.Ports.Listeners}
	}
	readTemplate(&set, object.Spec.Template.Spec)
	return set
}

// number is what an annotation says; zero when it is no number.
func number(object metav1.Object, annotation string) int32 {
	value, err := strconv.ParseInt(object.GetAnnotations()[annotation], 10, 32)
	if err != nil {
		return 0
	}
	return int32(value)
}

// readTemplate takes over what a set was made with.
func readTemplate(set *machine.Set, spec corev1.PodSpec) {
	for _, container := range slices.Concat(spec.Containers, spec.InitContainers) {
		for _, port := range container.Ports {
			set.PortNames = append(set.PortNames, port.Name)
		}
		if container.Name != resources.EMQXContainer {
			continue
		}
		set.Image = container.Image
		for _, variable := range container.Env {
			if variable.Name == resources.NodeDomainEnv && variable.Value != "" {
				set.Domain = variable.Value
			}
		}
	}
	for _, volume := range spec.Volumes {
		set.LiveKeys = set.LiveKeys || volume.Name == resources.APIKeysVolume
		if volume.Name == resources.BootstrapConfigVolume && volume.ConfigMap != nil {
			set.ConfigMap = volume.ConfigMap.Name
		}
	}
}

func podOf(set machine.Set, object *corev1.Pod) machine.Pod {
	pod := machine.Pod{
		Name: object.Name, UID: object.UID, IP: object.Status.PodIP, Node: set.NodeName(object.Name), Role: set.Role, Revision: set.Revision,
		Deleting: !object.DeletionTimestamp.IsZero(), Finalizers: object.Finalizers, Trouble: trouble(object), Ordinal: -1,
		Template: object.Annotations[v2beta1.AnnotationRevision], OneNodeLicence: saysOneNode(object), KubernetesNode: object.Spec.NodeName,
		LetGo: object.Labels[v2beta1.LabelLetGo] != "", Created: object.CreationTimestamp.Time,
	}
	if _, ordinal, ok := cutOrdinal(object.Name); ok {
		pod.Ordinal = ordinal
	}
	for _, condition := range object.Status.Conditions {
		isTrue := condition.Status == corev1.ConditionTrue
		switch condition.Type {
		case corev1.PodReady:
			if pod.Ready = isTrue; isTrue {
				pod.StartTime = startTime(object, condition)
			}
		case corev1.ContainersReady:
			pod.ContainersReady = isTrue
		case v2beta1.ConditionDSReplicationSite:
			pod.SiteCondition = metav1.ConditionStatus(condition.Status)
		case v2beta1.ConditionOnServing:
			pod.OnServing = isTrue
			pod.GateContainer, _ = strings.CutPrefix(condition.Reason, gatePrefix)
		default: // Others decide nothing here.
		}
	}
	for _, status := range object.Status.ContainerStatuses {
		if status.Name == resources.EMQXContainer {
			pod.ContainerRunning, pod.Container = status.State.Running != nil && !ended(object), shortID(status.ContainerID)
			if running := status.State.Running; running != nil {
				pod.ContainerStarted = running.StartedAt.Time
			}
		}
	}
	if pod.ContainerRunning {
		pod.UnreachableSince = unreachableSince(object)
	}
	return pod
}

// startTime is how long a pod took until it was ready. One that was made long before was ready before, and nobody knows when
// first.
func startTime(pod *corev1.Pod, ready corev1.PodCondition) time.Duration {
	took := ready.LastTransitionTime.Sub(pod.CreationTimestamp.Time)
	if took < 0 || took > 10*time.Minute {
		return 0
	}
	return took
}

// cutOrdinal splits the name of a pod into that of its set and its ordinal.
func cutOrdinal(pod string) (set string, ordinal int, ok bool) {
	i := strings.LastIndexByte(pod, '-')
	if i < 0 {
		return "", 0, false
	}
	ordinal, err := strconv.Atoi(pod[i+1:])
	return pod[:i], ordinal, err == nil && ordinal >= 0
}

// shortID is an ID of a container as people know it: containerd://5d8c… without the runtime, and not longer than needed.
func shortID(id string) string {
	id = id[strings.LastIndexByte(id, '/')+1:]
	return id[:min(len(id), 12)]
}
