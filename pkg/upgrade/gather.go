package upgrade

import (
	"fmt"
	"slices"
	"time"

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

// gather makes the Snapshot of a resource from what is known. It asks nobody.
func (c *Controller) gather(emqx *v2beta1.EMQX, driver *evacuate.Driver) (machine.Snapshot, error) {
	caches := c.config.Caches
	s, err := gather(caches, emqx, c.configs.of(emqx), c.cookies.of(caches, emqx), driver.Observation(), time.Now())
	if err != nil {
		return s, err
	}
	s.Keys, s.Trust = c.keyring.of(caches, emqx, s.KeyScopes()), c.trusted.of(emqx)
	return s, nil
}

// gather makes the Snapshot of a resource from the caches and the last observation of its EMQX. It asks nobody.
func gather(caches *informers.Caches, emqx *v2beta1.EMQX, config parsedConfig, cookie machine.Cookie, observation evacuate.Observation, now time.Time) (machine.Snapshot, error) {
	s := machine.Snapshot{
		Now: now, EMQX: emqx.DeepCopy(), Editor: editor(emqx), Cookie: cookie, Observation: observation, NodesWatched: caches.NodesWatched(),
		Config: config.config, ConfigError: config.err, ConfigHash: config.hash, Wanted: map[machine.Role]machine.Target{},
	}
	var err error
	if s.Sets, err = gatherSets(caches, emqx, s.Config); err != nil {
		return s, err
	}
	if err := gatherServices(caches, config, &s); err != nil {
		return s, err
	}
	if s.ConfigError == nil {
		if s.Wanted[machine.Core], err = machine.TargetOf(&s); err != nil {
			return s, err
		}
	}
	if err := gatherBudget(caches, &s); err != nil {
		return s, err
	}
	if s.Claims, err = gatherClaims(caches, emqx); err != nil {
		return s, err
	}
	if s.Rebalances, err = gatherRebalances(caches, key(emqx)); err != nil {
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
	if set != nil && resources.SameBudget(object, s.EMQX, s.BudgetRevision(*set)) {
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
