package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

var (
	statefulSets       = appsv1.SchemeGroupVersion.WithResource("statefulsets")
	pods               = corev1.SchemeGroupVersion.WithResource("pods")
	services           = corev1.SchemeGroupVersion.WithResource("services")
	configMaps         = corev1.SchemeGroupVersion.WithResource("configmaps")
	secrets            = corev1.SchemeGroupVersion.WithResource("secrets")
	endpointSlices     = discoveryv1.SchemeGroupVersion.WithResource("endpointslices")
	budgets            = policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")
	volumeClaims       = corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims")
	machines           = corev1.SchemeGroupVersion.WithResource("nodes")
	emqxes             = v2beta1.SchemeGroupVersion.WithResource("emqxes")
	rebalanceResources = v2beta1.SchemeGroupVersion.WithResource("rebalances")
)

const namespace = "sim"

// object is what the API server keeps. It is never changed, only replaced.
type object interface {
	runtime.Object
	metav1.Object
}

// apiserver keeps the objects of one namespace.
type apiserver struct {
	w           *world
	version     int
	uids        int
	undelivered bool // Some watch may have something to tell.
	collections map[schema.GroupVersionResource]*collection
	ordered     []*collection
}

type collection struct {
	resource schema.GroupVersionResource
	objects  map[string]object
	sorted   []object // By name; nil after a change.
	changes  []change // All there ever were, in order.
	watches  []*watching
}

// change is one of an object. Before is nil for one that is new, after for one that is gone.
type change struct {
	before, after object
	version       int
}

func newAPIServer(w *world) *apiserver {
	s := &apiserver{w: w, collections: map[schema.GroupVersionResource]*collection{}}
	for _, resource := range []schema.GroupVersionResource{statefulSets, pods, services, configMaps, secrets, endpointSlices, budgets, emqxes, volumeClaims, machines, rebalanceResources} {
		c := &collection{resource: resource, objects: map[string]object{}}
		s.collections[resource], s.ordered = c, append(s.ordered, c)
	}
	return s
}

// get returns an object; false when there is none.
func get[T object](s *apiserver, resource schema.GroupVersionResource, name string) (T, bool) {
	found, ok := s.collections[resource].objects[name].(T)
	return found, ok
}

// all returns the objects of a kind, by name.
func all[T object](s *apiserver, resource schema.GroupVersionResource) []T {
	sorted := s.collections[resource].list()
	found := make([]T, len(sorted))
	for i, o := range sorted {
		found[i] = o.(T)
	}
	return found
}

func (c *collection) list() []object {
	if c.sorted == nil {
		c.sorted = make([]object, 0, len(c.objects))
		for _, o := range c.objects {
			c.sorted = append(c.sorted, o)
		}
		slices.SortFunc(c.sorted, func(a, b object) int { return strings.Compare(a.GetName(), b.GetName()) })
	}
	return c.sorted
}

// put makes or replaces an object, which becomes the API server's own.
func (s *apiserver) put(resource schema.GroupVersionResource, o object) {
	c := s.collections[resource]
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	if o.GetUID() == "" {
		o.SetUID(s.uid())
		o.SetCreationTimestamp(metav1.NewTime(s.w.now()))
	}
	before := c.objects[o.GetName()]
	c.objects[o.GetName()] = o
	s.record(c, change{before: before, after: o, version: s.version})
}

// remove deletes an object for good. The event of a deletion has a version of its own.
func (s *apiserver) remove(resource schema.GroupVersionResource, name string) {
	c := s.collections[resource]
	before, ok := c.objects[name]
	if !ok {
		return
	}
	s.version++
	last := before.DeepCopyObject().(object)
	last.SetResourceVersion(strconv.Itoa(s.version))
	delete(c.objects, name)
	s.record(c, change{before: last, version: s.version})
}

func (s *apiserver) record(c *collection, changed change) {
	c.sorted, s.undelivered = nil, true
	c.changes = append(c.changes, changed)
}

func (s *apiserver) uid() types.UID {
	s.uids++
	return types.UID(fmt.Sprintf("uid-%d", s.uids))
}

// watching is a watch that an informer of the operator has open.
type watching struct {
	by   *operator
	of   *collection
	view view
	next int // Which change of the collection comes next.

	events chan watch.Event
	ended  chan struct{} // Closed by the informer.
	end    sync.Once
	broken bool // Closed by the API server.
}

// view is which objects a client sees, and as what.
type view struct {
	selector labels.Selector // Nil for all.
	project  func(object) runtime.Object
}

func (v view) shows(o object) bool {
	return o != nil && (v.selector == nil || v.selector.Matches(labels.Set(o.GetLabels())))
}

// Stop is called by the informer.
func (w *watching) Stop() { w.end.Do(func() { close(w.ended) }) }

// ResultChan is read by the informer.
func (w *watching) ResultChan() <-chan watch.Event { return w.events }

// deliver hands out the next change, unless the watch lags, and reports whether there was one.
func (w *watching) deliver() bool {
	for w.next < len(w.of.changes) && !w.broken && !w.by.lags(w.of.resource) {
		changed := w.of.changes[w.next]
		w.next++
		event := watch.Event{Type: watch.Modified}
		switch before, after := w.view.shows(changed.before), w.view.shows(changed.after); {
		case before && after:
			event.Object = w.view.project(changed.after)
		case after:
			event.Type, event.Object = watch.Added, w.view.project(changed.after)
		case before:
			// What is no longer selected is told with the version of the change, and as it was.
			last := changed.before.DeepCopyObject().(object)
			last.SetResourceVersion(strconv.Itoa(changed.version))
			event.Type, event.Object = watch.Deleted, w.view.project(last)
		default:
			continue
		}
		select {
		case w.events <- event:
			return true
		case <-w.ended:
			return false
		}
	}
	return false
}

// breakOff ends a watch from the side of the API server.
func (w *watching) breakOff() {
	if !w.broken {
		w.broken = true
		close(w.events)
	}
}

// deliver hands out all that the watches have to tell, one change after the other: what comes of one is seen before the
// next is told.
func (s *apiserver) deliver() {
	for s.undelivered {
		s.undelivered = false
		for _, c := range s.ordered {
			c.watches = slices.DeleteFunc(c.watches, (*watching).isOver)
			for _, w := range c.watches {
				if w.deliver() {
					s.undelivered = true
					synctest.Wait()
				}
			}
		}
	}
}

func (w *watching) isOver() bool {
	select {
	case <-w.ended:
		return true
	default:
		return w.broken
	}
}

// list is how an informer begins. It is held while the operator is cut off from what it would list.
func (s *apiserver) list(ctx context.Context, by *operator, resource schema.GroupVersionResource, v view) (items []runtime.Object, meta metav1.ListMeta, err error) {
	asked := s.w.desk.ask(ctx, by, true, "list "+resource.Resource, func() time.Duration {
		if by.dead {
			err = errDead
			return 0
		}
		if held := by.relist[resource].Sub(s.w.now()); held > 0 {
			return held
		}
		for _, o := range s.collections[resource].list() {
			if v.shows(o) {
				items = append(items, v.project(o))
			}
		}
		meta.ResourceVersion = strconv.Itoa(s.version)
		return 0
	})
	return items, meta, errors.Join(asked, err)
}

// watch opens a watch from a version on.
func (s *apiserver) watch(ctx context.Context, by *operator, resource schema.GroupVersionResource, v view, options metav1.ListOptions) (opened watch.Interface, err error) {
	asked := s.w.desk.ask(ctx, by, true, "watch "+resource.Resource, func() time.Duration {
		from, wrong := strconv.Atoi(options.ResourceVersion)
		c := s.collections[resource]
		switch {
		case by.dead:
			err = errDead
		case wrong != nil:
			err = fmt.Errorf("watch from version %q: %w", options.ResourceVersion, wrong)
		case from < by.expired[resource]:
			err = apierrors.NewResourceExpired("simulated: too old a version")
		default:
			next, _ := slices.BinarySearchFunc(c.changes, from+1, func(changed change, version int) int { return changed.version - version })
			w := &watching{by: by, of: c, view: v, next: next, events: make(chan watch.Event, 1000), ended: make(chan struct{})}
			c.watches, s.undelivered = append(c.watches, w), true
			opened = w
		}
		return 0
	})
	return opened, errors.Join(asked, err)
}

var errDead = errors.New("simulated: the operator is dead")

// writeLatency is how long every write takes.
const writeLatency = 5 * time.Millisecond

// write is an order of the operator to the API server: it may fail, be slow, be refused, or be carried out without an
// answer.
func (s *apiserver) write(ctx context.Context, by *operator, verb string, resource schema.GroupVersionResource, name string, details string, carryOut func() error) error {
	var err error
	what := verb + " " + resource.Resource
	under, slow := false, false
	asked := s.w.desk.ask(ctx, by, false, what+" "+name, func() time.Duration {
		w := s.w
		switch {
		case by.dead:
			err = errDead
			return 0
		case by.asleep.After(w.now()):
			return by.asleep.Sub(w.now())
		case !under:
			under = true
			return writeLatency
		case !w.calm && !slow && w.once("slow write", 150):
			slow = true
			w.happen("a slow write")
			took := time.Duration(1+w.rng.IntN(12)) * time.Second
			w.truth.blind(w.now().Add(took)) // What it is about may have changed by then.
			return took
		}
		w.requests[what]++
		w.note("operator %d: %s %s %s", by.life, what, name, details)
		switch {
		case w.refused == what && !w.calm:
			w.note("… which is refused")
			w.happen("a write refused for good")
			err = apierrors.NewForbidden(resource.GroupResource(), name, errors.New("simulated: a policy"))
		case !w.calm && w.once("lost write", 60):
			w.note("… which fails")
			w.happen("a lost write")
			err = apierrors.NewServerTimeout(resource.GroupResource(), verb, 1)
		default:
			if err = carryOut(); err == nil && !w.calm && w.once("lost answer", 60) {
				w.note("… whose answer is lost")
				w.happen("a write whose answer was lost")
				err = apierrors.NewServerTimeout(resource.GroupResource(), verb, 1)
			}
		}
		if by.killAfter > 0 {
			if by.killAfter--; by.killAfter == 0 {
				w.happen("a kill of the operator")
				w.kill(by)
			}
		}
		return 0
	})
	return errors.Join(asked, err)
}

// checkPreconditions refuses what is not as it was seen.
func checkPreconditions(resource schema.GroupVersionResource, existing object, uid types.UID, version string) error {
	if uid != "" && uid != existing.GetUID() || version != "" && version != existing.GetResourceVersion() {
		return apierrors.NewConflict(resource.GroupResource(), existing.GetName(), errors.New("it is not as it was seen"))
	}
	return nil
}
