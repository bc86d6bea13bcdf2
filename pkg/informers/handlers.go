package informers

import (
	"fmt"
	"runtime/debug"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Wake is called with the key of the EMQX resource that must be looked at, and the kind of the object that woke it.
type Wake func(key cache.ObjectName, kind string)

// Handle adds the handlers of the table. It is called once, before Run. panicked is told of a panic in a handler, which
// costs one event and not the operator.
//
//	kind                 created   updated when                                         deleted   wakes
//	EMQX                 yes       spec, metadata, phase or deletion changed            yes       itself
//	Rebalance            yes       spec, finalizers, status or deletion changed         yes       the one that it names, whether there is one or not
//	StatefulSet          yes       spec or its observation, metadata, pods or deletion  yes       its controller, or who claims its name
//	Pod                  yes       conditions, containers, labels or deletion changed   yes       its set's controller, or its label's instance
//	Service              yes       spec or metadata changed                             yes       its controller, or who claims its name
//	EndpointSlice        yes       UID, endpoints or owner changed                      yes       its Service's controller
//	PodDisruptionBudget  yes       spec or metadata changed                             yes       its controller, or who claims its name
//	VolumeClaim          yes       replaced, or labels, owner or deletion changed       yes       its label's instance
//	ConfigMap            yes       replaced by another of its name, or metadata changed yes       its controller, or who claims its name
//	Secret               yes       it was written, or as a ConfigMap                    yes       its controller, or who claims its name, and who reads it
//	Node                 yes       it begins to be drained, or is no more               yes       whoever has a pod on it
func (c *Caches) Handle(wake Wake, panicked func()) error {
	for _, err := range []error{
		handle(c, &c.EMQXes, "EMQX", specOrPhaseChanged, c.itself, wake, panicked),
		handle(c, &c.Rebalances, v2beta1.KindRebalance, rebalanceChanged, c.named, wake, panicked),
		handle(c, &c.StatefulSets, "StatefulSet", setChanged, c.claimantOf, wake, panicked),
		handle(c, &c.Pods, "Pod", podChanged, c.setsController, wake, panicked),
		handle(c, &c.Services, "Service", serviceChanged, c.claimantOf, wake, panicked),
		handle(c, &c.EndpointSlices, "EndpointSlice", endpointsChanged, c.servicesController, wake, panicked),
		handle(c, &c.Budgets, "PodDisruptionBudget", budgetChanged, c.claimantOf, wake, panicked),
		handle(c, &c.ConfigMaps, "ConfigMap", replacedOrHandedOver, c.claimantOf, wake, panicked),
		handle(c, &c.Claims, "PersistentVolumeClaim", replacedOrHandedOver, c.claimantOf, wake, panicked),
		handleEach(c, &c.Secrets, "Secret", secretChanged, c.usersOf, wake, panicked),
		handleEach(c, &c.Nodes, "Node", drainChanged, c.tenantsOf, wake, panicked),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// Follow has seen be called with each state of an EMQX resource that comes into the cache. It is called before Run.
func (c *Caches) Follow(seen func(*v2beta1.EMQX)) error {
	for _, informer := range c.EMQXes.informers {
		_, err := cache.NewTypedSharedIndexInformer[*v2beta1.EMQX](informer).AddTypedEventHandler(cache.TypedResourceEventHandlerFuncs[*v2beta1.EMQX]{
			UpdateFunc: func(_, after *v2beta1.EMQX) { seen(after) },
		})
		if err != nil {
			return fmt.Errorf("follow EMQX resources: %w", err)
		}
	}
	return nil
}

// object is what a watch tells of.
type object interface {
	cache.Object
	metav1.Object
}

// handle adds the handlers of one row, whose objects wake one key each.
func handle[T object](c *Caches, kind *Cache[T], name string, updated predicate[T], owner func(metav1.Object) (cache.ObjectName, bool), wake Wake, panicked func()) error {
	return handleEach(c, kind, name, updated, func(object metav1.Object) []cache.ObjectName {
		if key, ok := owner(object); ok {
			return []cache.ObjectName{key}
		}
		return nil
	}, wake, panicked)
}

// handleEach adds the handlers of one row.
func handleEach[T object](c *Caches, kind *Cache[T], name string, updated predicate[T], owners func(metav1.Object) []cache.ObjectName, wake Wake, panicked func()) error {
	woken := func(object metav1.Object) {
		for _, key := range owners(object) {
			wake(key, name)
		}
	}
	guarded := func(handler func()) {
		defer func() {
			if value := recover(); value != nil {
				klog.Background().Error(fmt.Errorf("the operator has a bug: %v", value), "Recovered from a panic in a handler", "kind", name, "stack", string(debug.Stack()))
				panicked()
			}
		}()
		handler()
	}
	for _, informer := range kind.informers {
		registration, err := cache.NewTypedSharedIndexInformer[T](informer).AddTypedEventHandler(cache.TypedResourceEventHandlerFuncs[T]{
			AddFunc: func(created T) { guarded(func() { woken(created) }) },
			UpdateFunc: func(before, after T) {
				guarded(func() {
					if updated(before, after) {
						woken(after)
					}
				})
			},
			DeleteFunc: func(deleted cache.DeletedObject[T]) {
				// The store of an informer always has a copy of what it deletes; without one nobody could be woken.
				if deleted.FinalStateUnknown == nil || deleted.FinalStateUnknown.Obj != nil {
					guarded(func() { woken(deleted.OptionalObj) })
				}
			},
		})
		if err != nil {
			return fmt.Errorf("add the handlers of %s: %w", name, err)
		}
		c.registrations = append(c.registrations, registration.HasSyncedChecker())
	}
	return nil
}

func (c *Caches) itself(object metav1.Object) (cache.ObjectName, bool) {
	return cache.MetaObjectToName(object), true
}

// named is the EMQX resource that a Rebalance names.
func (c *Caches) named(object metav1.Object) (cache.ObjectName, bool) {
	rebalance, ok := object.(*v2beta1.Rebalance)
	if !ok {
		return cache.ObjectName{}, false
	}
	return clusterOf(rebalance), true
}

// controllerOf is the EMQX resource that controls an object.
func controllerOf(object metav1.Object) (cache.ObjectName, bool) {
	controller := metav1.GetControllerOfNoCopy(object)
	if controller == nil || controller.Kind != v2beta1.Kind || controller.APIVersion != v2beta1.SchemeGroupVersion.String() {
		return cache.ObjectName{}, false
	}
	return cache.ObjectName{Namespace: object.GetNamespace(), Name: controller.Name}, true
}

// claimantOf is the EMQX resource that controls an object or, for others, the one that the object belongs to or whose way
// it stands in, if there is one.
func (c *Caches) claimantOf(object metav1.Object) (cache.ObjectName, bool) {
	if key, ok := controllerOf(object); ok {
		return key, true
	}
	key := cache.ObjectName{Namespace: object.GetNamespace(), Name: claimant(object)}
	if key.Name == "" {
		return key, false
	}
	_, exists := c.EMQXes.Get(key)
	return key, exists
}

// setsController is the EMQX resource that controls the set that controls a pod, or that a pod without a set belongs to. A
// pod whose set is going wakes nobody: the set's going did. One that the operator's finalizer keeps wakes its resource, whether there
// is one or not.
func (c *Caches) setsController(object metav1.Object) (cache.ObjectName, bool) {
	if held(object) {
		return cache.ObjectName{Namespace: object.GetNamespace(), Name: object.GetLabels()[v2beta1.LabelInstance]}, true
	}
	controller := metav1.GetControllerOfNoCopy(object)
	if controller == nil {
		return c.claimantOf(object)
	}
	if controller.Kind != "StatefulSet" {
		return cache.ObjectName{}, false
	}
	set, ok := c.StatefulSets.Get(cache.ObjectName{Namespace: object.GetNamespace(), Name: controller.Name})
	if !ok || set.UID != controller.UID {
		return cache.ObjectName{}, false
	}
	return c.claimantOf(set)
}

// usersOf are the EMQX resource that a Secret belongs to, and those that read it.
func (c *Caches) usersOf(secret metav1.Object) []cache.ObjectName {
	var keys []cache.ObjectName
	if key, ok := c.claimantOf(secret); ok {
		keys = append(keys, key)
	}
	readers, err := c.EMQXes.indexed(secret.GetNamespace(), secretIndex, secret.GetNamespace()+"/"+secret.GetName())
	if err != nil {
		return keys // There is such an index.
	}
	for _, reader := range readers {
		if key := cache.MetaObjectToName(reader); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// tenantsOf are the EMQX resources that have a pod on a Kubernetes node.
func (c *Caches) tenantsOf(node metav1.Object) []cache.ObjectName {
	var keys []cache.ObjectName
	for _, informer := range c.Pods.informers {
		pods, err := informer.GetIndexer().ByIndex(nodeIndex, node.GetName())
		if err != nil {
			continue // There is such an index.
		}
		for _, pod := range pods {
			if pod, ok := pod.(*corev1.Pod); ok {
				if key, ok := c.setsController(pod); ok && !slices.Contains(keys, key) {
					keys = append(keys, key)
				}
			}
		}
	}
	return keys
}

// servicesController is the EMQX resource that controls the Service that an EndpointSlice belongs to. No decision is made
// from those of the headless Service.
func (c *Caches) servicesController(object metav1.Object) (cache.ObjectName, bool) {
	service, ok := c.Services.Get(cache.ObjectName{Namespace: object.GetNamespace(), Name: object.GetLabels()[discoveryv1.LabelServiceName]})
	if !ok || !metav1.IsControlledBy(object, service) || service.Spec.ClusterIP == corev1.ClusterIPNone {
		return cache.ObjectName{}, false
	}
	return controllerOf(service)
}
