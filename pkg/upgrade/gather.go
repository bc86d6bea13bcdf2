package upgrade

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// gather makes the Snapshot of a resource from the caches and the last observation of its EMQX. It asks nobody.
func gather(caches *informers.Caches, emqx *v2beta1.EMQX, config parsedConfig, cookie machine.Cookie, observation evacuate.Observation, now time.Time) (machine.Snapshot, error) {
	s := machine.Snapshot{
		Now: now, EMQX: emqx.DeepCopy(), Editor: editor(emqx), Cookie: cookie, Observation: observation,
		Config: config.config, ConfigError: config.err, ConfigHash: config.hash, Wanted: map[machine.Role]machine.Target{},
	}
	var err error
	if s.Sets, err = gatherSets(caches, emqx, s.Config); err != nil {
		return s, err
	}
	if s.ConfigError == nil {
		if s.Wanted[machine.Core], err = machine.TargetOf(emqx, s.Config.Ports, s.Sets); err != nil {
			return s, err
		}
	}
	if err := gatherServices(caches, config, &s); err != nil {
		return s, err
	}
	if err := gatherBudget(caches, &s); err != nil {
		return s, err
	}
	if s.Claims, err = gatherClaims(caches, emqx); err != nil {
		return s, err
	}
	explain(caches, &s)
	gatherOthers(caches, config, &s)
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
			set.Pods = append(set.Pods, podOf(set, pod))
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

func setOf(emqx *v2beta1.EMQX, object *appsv1.StatefulSet, config resources.Config) machine.Set {
	revision, _ := emqx.CoreRevision(object.Name)
	set := machine.Set{
		Name: object.Name, UID: object.UID, ResourceVersion: object.ResourceVersion, Role: machine.Core, Revision: revision,
		ConfigHash: object.Annotations[v2beta1.AnnotationConfigHash], Intent: object.Annotations[resources.AnnotationIntent],
		CookieDigest: object.Annotations[resources.AnnotationCookieDigest],
		Deleting:     !object.DeletionTimestamp.IsZero(), Finalizers: object.Finalizers, Domain: emqx.NodeDomain(), Replicas: 1, // Kubernetes' own default.
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
	if err := json.Unmarshal([]byte(object.Annotations[v2beta1.AnnotationServicePorts]), &set.Ports); err != nil {
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
		if volume.Name == resources.BootstrapConfigVolume && volume.ConfigMap != nil {
			set.ConfigMap = volume.ConfigMap.Name
		}
	}
}

func podOf(set machine.Set, object *corev1.Pod) machine.Pod {
	pod := machine.Pod{
		Name: object.Name, UID: object.UID, IP: object.Status.PodIP, Node: set.NodeName(object.Name), Role: set.Role, Revision: set.Revision,
		Deleting: !object.DeletionTimestamp.IsZero(), Finalizers: object.Finalizers, Trouble: trouble(object), Ordinal: -1,
	}
	if _, ordinal, ok := cutOrdinal(object.Name); ok {
		pod.Ordinal = ordinal
	}
	for _, condition := range object.Status.Conditions {
		isTrue := condition.Status == corev1.ConditionTrue
		switch condition.Type {
		case corev1.PodReady:
			pod.Ready = isTrue
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

func gatherServices(caches *informers.Caches, config parsedConfig, s *machine.Snapshot) error {
	s.Services = map[resources.ServiceKind]machine.Service{}
	for _, kind := range resources.ServiceKinds() {
		object, ok := caches.Services.Get(cache.ObjectName{Namespace: s.EMQX.Namespace, Name: resources.ServiceName(s.EMQX, kind)})
		if !ok {
			continue
		}
		if !metav1.IsControlledBy(object, s.EMQX) && foreign(s, "Service", object, resources.ServiceEnabled(s.EMQX, kind)) {
			s.Services[kind] = machine.Service{State: machine.Unavailable}
			continue
		}
		service, err := serviceOf(caches, config, s, kind, object)
		if err != nil {
			return err
		}
		s.Services[kind] = service
	}
	return nil
}

func serviceOf(caches *informers.Caches, config parsedConfig, s *machine.Snapshot, kind resources.ServiceKind, object *corev1.Service) (machine.Service, error) {
	service := machine.Service{Revision: object.Spec.Selector[v2beta1.LabelPodTemplateHash], State: machine.Outdated,
		Ours: object.Annotations[resources.AnnotationAppliedHash] != ""}
	for _, set := range s.Sets {
		if set.Revision != service.Revision || set.Revision == "" || set.Orphaned {
			continue
		}
		var err error
		service.State, err = config.compare(object, set.Name+" "+set.ResourceVersion, func() (*applycore.ServiceApplyConfiguration, error) {
			return resources.Service(s.EMQX, kind, service.Revision, set.Ports)
		})
		if err != nil {
			return service, err
		}
	}
	var err error
	if service.Endpoints, err = endpointsOf(caches, object); err != nil {
		return service, err
	}
	if service.Revision == "" {
		if service.Inheritance, err = inheritance(object); err != nil {
			return service, fmt.Errorf("take over Service %s/%s: %w", object.Namespace, object.Name, err)
		}
	}
	return service, nil
}

func endpointsOf(caches *informers.Caches, service *corev1.Service) ([]machine.Endpoint, error) {
	found, err := caches.EndpointSlices.ControlledBy(service.Namespace, service.UID)
	if err != nil {
		return nil, fmt.Errorf("list the EndpointSlices of Service %s/%s: %w", service.Namespace, service.Name, err)
	}
	var endpoints []machine.Endpoint
	for _, slice := range found {
		endpoints = append(endpoints, endpointsIn(slice)...)
	}
	return endpoints, nil
}

func endpointsIn(slice *discoveryv1.EndpointSlice) []machine.Endpoint {
	var endpoints []machine.Endpoint
	for _, endpoint := range slice.Endpoints {
		if endpoint.TargetRef == nil {
			continue
		}
		ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
		endpoints = append(endpoints, machine.Endpoint{PodUID: endpoint.TargetRef.UID, Ready: ready})
	}
	return endpoints
}

// gatherBudget tells how the PodDisruptionBudget stands. One that is somebody else's is said as soon as it will be in the way,
// and not in the middle of an upgrade.
func gatherBudget(caches *informers.Caches, s *machine.Snapshot) error {
	object, ok := caches.Budgets.Get(cache.ObjectName{Namespace: s.EMQX.Namespace, Name: s.EMQX.CoreBudgetName()})
	if !ok {
		return nil
	}
	set := s.Protected()
	needed := resources.BudgetWanted(s.EMQX, s.Wanted[machine.Core].Replicas) || set != nil && s.BudgetWanted(*set)
	if !metav1.IsControlledBy(object, s.EMQX) && foreign(s, "PodDisruptionBudget", object, needed) {
		s.Budget.State = machine.Unavailable
		return nil
	}
	s.Budget = machine.Budget{State: machine.Outdated, UID: object.UID}
	if object.Spec.Selector != nil {
		s.Budget.Revision = object.Spec.Selector.MatchLabels[v2beta1.LabelPodTemplateHash]
	}
	if set != nil && resources.SameBudget(object, s.EMQX, set.Revision) {
		s.Budget.State = machine.Current
	}
	if s.Budget.Revision == "" {
		var err error
		if s.Budget.Inheritance, err = inheritance(object); err != nil {
			return fmt.Errorf("take over PodDisruptionBudget %s/%s: %w", object.Namespace, object.Name, err)
		}
	}
	return nil
}

// gatherOthers tells how the objects stand that belong to no revision, or are only there or not.
func gatherOthers(caches *informers.Caches, config parsedConfig, s *machine.Snapshot) {
	emqx := s.EMQX
	s.Headless = machine.Missing
	if object, ok := caches.Services.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: emqx.HeadlessServiceName()}); ok {
		s.Headless = machine.Unavailable
		if metav1.IsControlledBy(object, emqx) || !foreign(s, "Service", object, true) {
			s.Headless, _ = config.compare(object, "", func() (*applycore.ServiceApplyConfiguration, error) { // What cannot be compared is outdated.
				return resources.HeadlessService(emqx), nil
			})
		}
	}
	s.CookieSecret = presence(s, "Secret", &caches.Secrets, emqx.NodeCookieSecretName())
	s.KeysSecret = presence(s, "Secret", &caches.Secrets, emqx.BootstrapAPIKeySecretName())
	s.ConfigMaps = map[string]machine.ObjectState{}
	for _, name := range configMapsOf(caches, s) {
		if state := presence(s, "ConfigMap", &caches.ConfigMaps, name); state != machine.Missing {
			s.ConfigMaps[name] = state
		}
	}
	name := emqx.CoreSetName(s.Wanted[machine.Core].Revision)
	ours := slices.ContainsFunc(s.Sets, func(set machine.Set) bool { return set.Name == name })
	if object, ok := caches.StatefulSets.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: name}); ok && !ours {
		foreign(s, "StatefulSet", object, true)
	}
}

// configMapsOf are the names of the ConfigMaps that the sets and the target need, and of those that are the resource's.
func configMapsOf(caches *informers.Caches, s *machine.Snapshot) []string {
	var names []string
	for _, set := range s.Sets {
		names = append(names, set.ConfigMap)
	}
	if revision := s.Wanted[machine.Core].Revision; revision != "" {
		names = append(names, s.EMQX.RevisionConfigMapName(revision))
	}
	owned, err := caches.ConfigMaps.ControlledBy(s.EMQX.Namespace, s.EMQX.UID)
	if err == nil {
		for _, object := range owned {
			names = append(names, object.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// foreign notes an object that has a name which the cluster needs and that is not the cluster's. One that a person made
// again, with our labels and without an owner, is taken for ours.
func foreign(s *machine.Snapshot, kind string, object metav1.Object, needed bool) bool {
	controller := metav1.GetControllerOfNoCopy(object)
	if controller == nil && object.GetLabels()[v2beta1.LabelInstance] == s.EMQX.Name {
		return false
	}
	if !needed {
		return true
	}
	taken := machine.Taken{Kind: kind, Name: object.GetName()}
	if controller != nil {
		taken.Owner = controller.Kind + " " + controller.Name
		taken.Former = controller.Kind == v2beta1.Kind && controller.Name == s.EMQX.Name
	}
	s.Taken = append(s.Taken, taken)
	return true
}

// presence is for objects of which only the metadata is kept: they are there, or not. A Secret that a person made again
// has no owner, and need not have our labels.
func presence(s *machine.Snapshot, kind string, objects *informers.Cache[*metav1.PartialObjectMetadata], name string) machine.ObjectState {
	object, ok := objects.Get(cache.ObjectName{Namespace: s.EMQX.Namespace, Name: name})
	switch {
	case !ok:
		return machine.Missing
	case metav1.IsControlledBy(object, s.EMQX), metav1.GetControllerOfNoCopy(object) == nil && kind == "Secret":
		return machine.Current
	case foreign(s, kind, object, true):
		return machine.Unavailable
	}
	return machine.Current
}
