package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/nodes"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Config is what Controllers are made of.
type Config struct {
	// Kube has full rights.
	Kube kubernetes.Interface
	// Fleet gets the nodes of the pods.
	Fleet *nodes.Fleet
	// Addresses is the network of the pods' addresses, in 127.0.0.0/8.
	Addresses netip.Prefix
	// Start is how long a pod takes to be scheduled and its node to boot; Stop is how long it takes to end.
	Start, Stop time.Duration
	// Failed is told of what could not be done and is tried again.
	Failed func(error)
}

// Controllers act on the objects of all EMQX clusters.
type Controllers struct {
	config Config
	queue  workqueue.TypedRateLimitingInterface[cache.ObjectName]
	shared informers.SharedInformerFactory

	sets, pods, services, slices cache.SharedIndexInformer
	registrations                []cache.InformerSynced

	mu        sync.Mutex
	kubelets  map[cache.ObjectName]map[types.UID]*kubelet // By cluster.
	secrets   map[cache.ObjectName]map[string]string
	addresses addresses
}

// workers is how many clusters are acted on at once.
const workers = 16

// New makes controllers that do nothing until Run.
func New(config Config) (*Controllers, error) {
	c := &Controllers{
		config: config, kubelets: map[cache.ObjectName]map[types.UID]*kubelet{}, secrets: map[cache.ObjectName]map[string]string{},
		addresses: addresses{prefix: config.Addresses, next: config.Addresses.Addr()},
		queue:     workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](10*time.Millisecond, time.Second)),
		shared: informers.NewSharedInformerFactoryWithOptions(config.Kube, 0, informers.WithTransform(trim),
			informers.WithTweakListOptions(func(options *metav1.ListOptions) {
				options.LabelSelector = v2beta1.LabelManagedBy + "=" + v2beta1.ManagedBy
			})),
	}
	c.sets = c.shared.Apps().V1().StatefulSets().Informer()
	c.pods = c.shared.Core().V1().Pods().Informer()
	c.services = c.shared.Core().V1().Services().Informer()
	c.slices = c.shared.Discovery().V1().EndpointSlices().Informer()
	for _, informer := range []cache.SharedIndexInformer{c.sets, c.pods, c.services, c.slices} {
		if err := informer.AddIndexers(cache.Indexers{byCluster: func(object any) ([]string, error) {
			return []string{clusterOf(object).String()}, nil
		}}); err != nil {
			return nil, fmt.Errorf("index by cluster: %w", err)
		}
		registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { c.queue.Add(clusterOf(object)) },
			UpdateFunc: func(_, object any) { c.queue.Add(clusterOf(object)) },
			DeleteFunc: func(object any) { c.queue.Add(clusterOf(object)) },
		})
		if err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
		c.registrations = append(c.registrations, registration.HasSynced)
	}
	return c, nil
}

const byCluster = "cluster"

// trim drops what nobody here reads.
func trim(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return object, nil
}

// clusterOf is the EMQX resource that an object belongs to.
func clusterOf(object any) cache.ObjectName {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	o, ok := object.(metav1.Object)
	if !ok {
		return cache.ObjectName{}
	}
	return cache.ObjectName{Namespace: o.GetNamespace(), Name: o.GetLabels()[v2beta1.LabelInstance]}
}

// Run acts until ctx ends.
func (c *Controllers) Run(ctx context.Context) error {
	c.shared.StartWithContext(ctx)
	defer c.shared.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), c.registrations...) {
		return fmt.Errorf("fill the caches of the controllers: %w", context.Cause(ctx))
	}
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for c.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	c.queue.ShutDown()
	group.Wait()
	return nil
}

func (c *Controllers) next(ctx context.Context) bool {
	name, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(name)
	after, err := c.reconcile(ctx, name)
	switch {
	case ctx.Err() != nil:
	case apierrors.IsConflict(err):
		c.queue.AddRateLimited(name) // The cache is behind.
		return true
	case err != nil:
		c.config.Failed(fmt.Errorf("act on cluster %s: %w", name, err))
		c.queue.AddRateLimited(name)
		return true
	case after > 0:
		c.queue.AddAfter(name, after)
	}
	c.queue.Forget(name)
	return true
}

// cluster is what there is of a cluster.
type cluster struct {
	name     cache.ObjectName
	sets     []*appsv1.StatefulSet
	pods     []*corev1.Pod
	services []*corev1.Service
	slices   []*discoveryv1.EndpointSlice
}

func listed[T any](informer cache.SharedIndexInformer, name cache.ObjectName) ([]T, error) {
	found, err := informer.GetIndexer().ByIndex(byCluster, name.String())
	if err != nil {
		return nil, fmt.Errorf("list what is known of %s: %w", name, err)
	}
	list := make([]T, 0, len(found))
	for _, object := range found {
		if typed, ok := object.(T); ok {
			list = append(list, typed)
		}
	}
	return list, nil
}

func (c *Controllers) gather(name cache.ObjectName) (*cluster, error) {
	found := &cluster{name: name}
	var problems [4]error
	found.sets, problems[0] = listed[*appsv1.StatefulSet](c.sets, name)
	found.pods, problems[1] = listed[*corev1.Pod](c.pods, name)
	found.services, problems[2] = listed[*corev1.Service](c.services, name)
	found.slices, problems[3] = listed[*discoveryv1.EndpointSlice](c.slices, name)
	return found, errors.Join(problems[:]...)
}

// reconcile does one step of everything, and returns when there is more to do without an event.
func (c *Controllers) reconcile(ctx context.Context, name cache.ObjectName) (time.Duration, error) {
	found, err := c.gather(name)
	if err != nil {
		return 0, err
	}
	var after time.Duration
	var problems []error
	for _, pod := range found.pods {
		wait, err := c.runPod(ctx, found, pod)
		if wait > 0 && (after == 0 || wait < after) {
			after = wait
		}
		problems = append(problems, err)
	}
	c.forget(found)
	problems = append(problems, c.runSets(ctx, found), c.runEndpoints(ctx, found))
	return after, errors.Join(problems...)
}

// addresses gives each pod one of its own. An address is given again only when all others were.
type addresses struct {
	prefix netip.Prefix
	next   netip.Addr
	taken  map[netip.Addr]bool
}

// reserved is how many addresses at the beginning of the network are the control plane's and the benchmark's.
const reserved = 256

func (a *addresses) take() (netip.Addr, error) {
	if a.taken == nil {
		a.taken = map[netip.Addr]bool{}
		for range reserved {
			a.next = a.next.Next()
		}
	}
	for range 1 << 16 {
		address := a.next
		if a.next = a.next.Next(); !a.prefix.Contains(a.next) {
			a.next = a.prefix.Addr()
			for range reserved {
				a.next = a.next.Next()
			}
		}
		if last := address.As4()[3]; !a.taken[address] && last != 0 && last != 255 {
			a.taken[address] = true
			return address, nil
		}
	}
	return netip.Addr{}, errors.New("take an address for a pod: all are in use")
}

func (a *addresses) give(address netip.Addr) { delete(a.taken, address) }

// ordinal is the last part of a pod's name.
func ordinal(pod string) string { return pod[strings.LastIndexByte(pod, '-')+1:] }
