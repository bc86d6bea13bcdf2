package informers

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Wake is called with the key of the EMQX resource that must be looked at, and the kind of the object that woke it.
type Wake func(key cache.ObjectName, kind string)

// Handle adds the handlers of the table. It is called once, before Run.
//
//	kind           created   updated when                                         deleted   wakes
//	EMQX           yes       spec, metadata, phase or deletion changed            yes       itself
//	StatefulSet    yes       spec, metadata, number of pods or deletion changed   yes       its controller
//	Pod            yes       conditions, containers, address or deletion changed  yes       its set's controller
//	Service        yes       spec or metadata changed                             yes       its controller
//	EndpointSlice  yes       endpoints changed                                    yes       its Service's controller
//	ConfigMap      yes       replaced by another of its name, or labels changed   yes       its controller, or its label's instance
//	Secret         yes       replaced by another of its name, or labels changed   yes       its controller, or its label's instance
func (c *Caches) Handle(wake Wake) error {
	for _, err := range []error{
		handle(c, &c.EMQXes, "EMQX", specOrPhaseChanged, c.itself, wake),
		handle(c, &c.StatefulSets, "StatefulSet", setChanged, controllerOf, wake),
		handle(c, &c.Pods, "Pod", podChanged, c.setsController, wake),
		handle(c, &c.Services, "Service", serviceChanged, controllerOf, wake),
		handle(c, &c.EndpointSlices, "EndpointSlice", endpointsChanged, c.servicesController, wake),
		handle(c, &c.ConfigMaps, "ConfigMap", replacedOrRelabelled, instanceOf, wake),
		handle(c, &c.Secrets, "Secret", replacedOrRelabelled, instanceOf, wake),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// handle adds the handlers of one row.
func handle[T interface {
	cache.Object
	metav1.Object
}](c *Caches, kind *Cache[T], name string, updated predicate[T], owner func(metav1.Object) (cache.ObjectName, bool), wake Wake) error {
	woken := func(object metav1.Object) {
		if key, ok := owner(object); ok {
			wake(key, name)
		}
	}
	for _, informer := range kind.informers {
		registration, err := cache.NewTypedSharedIndexInformer[T](informer).AddTypedEventHandler(cache.TypedResourceEventHandlerFuncs[T]{
			AddFunc: func(created T) { woken(created) },
			UpdateFunc: func(before, after T) {
				if updated(before, after) {
					woken(after)
				}
			},
			DeleteFunc: func(deleted cache.DeletedObject[T]) {
				// The store of an informer always has a copy of what it deletes; without one nobody could be woken.
				if deleted.FinalStateUnknown == nil || deleted.FinalStateUnknown.Obj != nil {
					woken(deleted.OptionalObj)
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

// controllerOf is the EMQX resource that controls an object.
func controllerOf(object metav1.Object) (cache.ObjectName, bool) {
	controller := metav1.GetControllerOfNoCopy(object)
	if controller == nil || controller.Kind != v2beta1.Kind || controller.APIVersion != v2beta1.SchemeGroupVersion.String() {
		return cache.ObjectName{}, false
	}
	return cache.ObjectName{Namespace: object.GetNamespace(), Name: controller.Name}, true
}

// instanceOf is the EMQX resource that controls an object or, when nothing controls it because a person made it anew, the
// one that its label names.
func instanceOf(object metav1.Object) (cache.ObjectName, bool) {
	instance := object.GetLabels()[v2beta1.LabelInstance]
	if metav1.GetControllerOfNoCopy(object) == nil && instance != "" {
		return cache.ObjectName{Namespace: object.GetNamespace(), Name: instance}, true
	}
	return controllerOf(object)
}

// setsController is the EMQX resource that controls the set that controls a pod. A pod whose set has gone wakes nobody:
// the set's going did.
func (c *Caches) setsController(object metav1.Object) (cache.ObjectName, bool) {
	controller := metav1.GetControllerOfNoCopy(object)
	if controller == nil || controller.Kind != "StatefulSet" {
		return cache.ObjectName{}, false
	}
	set, ok := c.StatefulSets.Get(cache.ObjectName{Namespace: object.GetNamespace(), Name: controller.Name})
	if !ok || set.UID != controller.UID {
		return cache.ObjectName{}, false
	}
	return controllerOf(set)
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
