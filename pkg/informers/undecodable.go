package informers

import (
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// decoded remembers what could be decoded of each EMQX resource last. It stands in for what cannot be, so that a cluster
// goes on being served by the last specification that could be read.
//
// The cache itself cannot be asked: when a resource comes, the one before it may still be on its way into the cache.
type decoded struct {
	mu   sync.Mutex
	last map[cache.ObjectName]*v2beta1.EMQX
}

// transform is called with each resource that comes, in the order in which they come; with one that was completed already,
// it does nothing.
func (d *decoded) transform(object any) (any, error) {
	emqx, ok := object.(*v2beta1.EMQX)
	if !ok {
		return object, nil // It was missed when it was deleted, and came before.
	}
	trimEMQX(emqx)
	d.mu.Lock()
	defer d.mu.Unlock()
	name := cache.MetaObjectToName(emqx)
	if emqx.Undecodable() == "" {
		d.last[name] = emqx
		return emqx, nil
	}
	if last, ok := d.last[name]; ok && last.UID == emqx.UID {
		// With the generation, what the operator says of the resource is said of the specification that it knows.
		emqx.Spec, emqx.Generation = last.Spec, last.Generation
		if emqx.Status.Phase == "" {
			emqx.Status = last.Status
		}
		d.last[name] = emqx
	}
	return emqx, nil
}

// trimEMQX drops what no decision is made from: of the managed fields it matters who wrote the specification, and when.
func trimEMQX(emqx *v2beta1.EMQX) {
	var writers []metav1.ManagedFieldsEntry
	for _, fields := range emqx.ManagedFields {
		if fields.Subresource == "" {
			writers = append(writers, metav1.ManagedFieldsEntry{Manager: fields.Manager, Time: fields.Time})
		}
	}
	emqx.ManagedFields = writers
	delete(emqx.Annotations, corev1.LastAppliedConfigAnnotation)
}

func (d *decoded) forget(deleted *v2beta1.EMQX) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := cache.MetaObjectToName(deleted)
	if last, ok := d.last[name]; ok && last.UID == deleted.UID {
		delete(d.last, name)
	}
}

// addEMQXes makes the cache of EMQX resources.
func (c *Caches) addEMQXes(namespace string, informer cache.SharedIndexInformer) error {
	known := &decoded{last: map[cache.ObjectName]*v2beta1.EMQX{}}
	if err := informer.SetTransform(known.transform); err != nil {
		return err
	}
	c.EMQXes.hidden = (*v2beta1.EMQX).Unknown
	registration, err := cache.NewTypedSharedIndexInformer[*v2beta1.EMQX](informer).AddTypedEventHandler(cache.TypedResourceEventHandlerFuncs[*v2beta1.EMQX]{
		AddFunc:    func(emqx *v2beta1.EMQX) { logUndecodable("", emqx) },
		UpdateFunc: func(before, after *v2beta1.EMQX) { logUndecodable(before.Undecodable(), after) },
		DeleteFunc: func(deleted cache.DeletedObject[*v2beta1.EMQX]) {
			if emqx := deleted.OptionalObj; emqx != nil {
				known.forget(emqx)
			}
		},
	})
	if err != nil {
		return err
	}
	c.registrations = append(c.registrations, registration.HasSyncedChecker())
	return c.EMQXes.add(namespace, informer, bySecret)
}

// logUndecodable says once when a resource can no longer be decoded, and when it can be again.
func logUndecodable(before string, emqx *v2beta1.EMQX) {
	logger := klog.Background().WithValues("emqx", cache.MetaObjectToName(emqx).String())
	switch now := emqx.Undecodable(); {
	case now == before:
	case now != "":
		logger.Error(errors.New(now), "An EMQX resource cannot be decoded", "lastSpecificationKnown", !emqx.Unknown())
	default:
		logger.Info("An EMQX resource can be decoded again")
	}
}

// Undecodable are the EMQX resources that could not be decoded, those that nothing else is known of included.
func (c *Caches) Undecodable() []*v2beta1.EMQX {
	var found []*v2beta1.EMQX
	for _, informer := range c.EMQXes.informers {
		for _, object := range informer.GetIndexer().List() {
			if emqx, ok := object.(*v2beta1.EMQX); ok && emqx.Undecodable() != "" {
				found = append(found, emqx)
			}
		}
	}
	return found
}

// Unknown is an EMQX resource that could not be decoded, and of which no earlier state is known; false when there is no
// such resource of this name.
func (c *Caches) Unknown(name cache.ObjectName) (*v2beta1.EMQX, bool) {
	emqx, ok := c.EMQXes.get(name)
	return emqx, ok && emqx.Unknown()
}
