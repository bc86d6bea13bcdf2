package informers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
	emqxinformers "github.com/emqx-bg/emqx-bg-operator/pkg/generated/informers/externalversions"
)

// The operator reads what it watches; the verbs are those of its informers.
//
// +kubebuilder:rbac:groups=apps.emqx.io,resources=emqxes;rebalances,verbs=list;watch
// +kubebuilder:rbac:groups=apps,resources=statefulsets,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=pods;services;configmaps;secrets,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=list;watch
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=list;watch
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=nodes,verbs=list;watch

// Clients are how the informers reach the API server.
type Clients struct {
	Kube kubernetes.Interface
	// EMQX is made by NewEMQXClient.
	EMQX     versioned.Interface
	Metadata metadata.Interface
}

// Caches are what the operator knows of Kubernetes.
type Caches struct {
	EMQXes         Cache[*v2beta1.EMQX]
	Rebalances     Cache[*v2beta1.Rebalance]
	StatefulSets   Cache[*appsv1.StatefulSet]
	Pods           Cache[*corev1.Pod]
	Services       Cache[*corev1.Service]
	EndpointSlices Cache[*discoveryv1.EndpointSlice]
	Budgets        Cache[*policyv1.PodDisruptionBudget]
	ConfigMaps     Cache[*metav1.PartialObjectMetadata]
	Secrets        Cache[*metav1.PartialObjectMetadata]
	Claims         Cache[*metav1.PartialObjectMetadata]
	// Nodes are those of Kubernetes; nothing is known of them where they may not be watched, see WatchNodes.
	Nodes Cache[*corev1.Node]

	start         []func(stop <-chan struct{})
	shutdown      []func()
	registrations []cache.DoneChecker
}

// The resources that only the metadata is kept of.
var (
	configMapsResource = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	secretsResource    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	claimsResource     = schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumeclaims"}
)

// New makes the caches for the given namespaces, none meaning all. They are empty until Run.
func New(clients Clients, namespaces []string) (*Caches, error) {
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	c := &Caches{}
	for _, namespace := range namespaces {
		if err := c.addNamespace(clients, namespace); err != nil {
			return nil, fmt.Errorf("watch namespace %q: %w", namespace, err)
		}
	}
	return c, nil
}

// WatchNodes has Nodes watched, too. It is called before Handle. They belong to no namespace, and whoever works in one may not
// be allowed to.
func (c *Caches) WatchNodes(kube kubernetes.Interface) error {
	factory := informers.NewSharedInformerFactoryWithOptions(kube, noResync, informers.WithTransform(trim))
	c.start = append(c.start, factory.Start)
	c.shutdown = append(c.shutdown, factory.Shutdown)
	if err := c.Nodes.add(metav1.NamespaceAll, factory.Core().V1().Nodes().Informer()); err != nil {
		return fmt.Errorf("watch Nodes: %w", err)
	}
	return nil
}

// NodesWatched reports whether Nodes are watched.
func (c *Caches) NodesWatched() bool { return len(c.Nodes.informers) > 0 }

// Drained reports whether a Kubernetes node is drained: it is to get no pods, and those that it has are to go.
func (c *Caches) Drained(name string) bool {
	node, exists := c.Nodes.Get(cache.ObjectName{Name: name})
	return exists && drained(node)
}

// drained reports whether a node was cordoned, as kubectl drain and all that do as it does begin, or tainted by an autoscaler
// that is about to remove it.
func drained(node *corev1.Node) bool {
	return node.Spec.Unschedulable || slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == "karpenter.sh/disrupted" || taint.Key == "ToBeDeletedByClusterAutoscaler"
	})
}

// noResync: nothing is repaired by looking again now and then. What the handlers miss is a bug of theirs.
const noResync = time.Duration(0)

func (c *Caches) addNamespace(clients Clients, namespace string) error {
	labelled := func(options *metav1.ListOptions) {
		options.LabelSelector = v2beta1.LabelManagedBy + "=" + v2beta1.ManagedBy
	}
	emqx := emqxinformers.NewSharedInformerFactoryWithOptions(clients.EMQX, noResync, emqxinformers.WithNamespace(namespace))
	pods := informers.NewSharedInformerFactoryWithOptions(clients.Kube, noResync, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(labelled), informers.WithTransform(trim))
	// Sets, Services, budgets, Secrets and ConfigMaps are looked at whether they have our labels or not: one that lost them is to get
	// them back, and one that is somebody else's may have a name that a cluster needs.
	kube := informers.NewSharedInformerFactoryWithOptions(clients.Kube, noResync, informers.WithNamespace(namespace), informers.WithTransform(trim))
	meta := metadatainformer.NewFilteredSharedInformerFactory(clients.Metadata, noResync, namespace, nil)
	claims := metadatainformer.NewFilteredSharedInformerFactory(clients.Metadata, noResync, namespace, labelled)
	c.start = append(c.start, emqx.Start, pods.Start, kube.Start, meta.Start)
	c.start = append(c.start, claims.Start)
	c.shutdown = append(c.shutdown, emqx.Shutdown, pods.Shutdown, kube.Shutdown, meta.Shutdown)
	c.shutdown = append(c.shutdown, claims.Shutdown)

	for _, err := range []error{
		c.addEMQXes(namespace, emqx.Apps().V2beta1().EMQXes().Informer()),
		c.Rebalances.add(namespace, emqx.Apps().V2beta1().Rebalances().Informer(), byCluster),
		emqx.Apps().V2beta1().Rebalances().Informer().SetTransform(trim),
		c.StatefulSets.add(namespace, kube.Apps().V1().StatefulSets().Informer(), byController, byClaim),
		c.Pods.add(namespace, pods.Core().V1().Pods().Informer(), byController, byClaim, byNode, byHeld),
		c.Services.add(namespace, kube.Core().V1().Services().Informer()),
		c.EndpointSlices.add(namespace, pods.Discovery().V1().EndpointSlices().Informer(), byController),
		c.Budgets.add(namespace, kube.Policy().V1().PodDisruptionBudgets().Informer()),
		c.ConfigMaps.add(namespace, meta.ForResource(configMapsResource).Informer(), byController),
		c.Secrets.add(namespace, meta.ForResource(secretsResource).Informer()),
		c.Claims.add(namespace, claims.ForResource(claimsResource).Informer(), byClaim),
		claims.ForResource(claimsResource).Informer().SetTransform(trimClaim),
		meta.ForResource(configMapsResource).Informer().SetTransform(trim),
		meta.ForResource(secretsResource).Informer().SetTransform(trim),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// Run starts the watches and waits until the caches, and the handlers that were added, have seen all there is. It
// returns the error of ctx when that ends first. The watches end with ctx; Wait waits for their end.
func (c *Caches) Run(ctx context.Context) error {
	for _, start := range c.start {
		start(ctx.Done())
	}
	if !cache.WaitFor(ctx, "caches", c.registrations...) {
		return fmt.Errorf("fill the caches: %w", context.Cause(ctx))
	}
	return nil
}

// Wait waits until all watches have ended.
func (c *Caches) Wait() {
	for _, shutdown := range c.shutdown {
		shutdown()
	}
}

// Synced reports whether the caches have been filled.
func (c *Caches) Synced() bool {
	for _, registration := range c.registrations {
		select {
		case <-registration.Done():
		default:
			return false
		}
	}
	return true
}

// Cache is what is known of one kind, over the namespaces that are watched.
type Cache[T cache.Object] struct {
	informers map[string]cache.SharedIndexInformer
	// hidden tells which objects are kept and not returned; nil for none.
	hidden func(T) bool
}

func (c *Cache[T]) add(namespace string, informer cache.SharedIndexInformer, indexers ...cache.Indexers) error {
	if c.informers == nil {
		c.informers = map[string]cache.SharedIndexInformer{}
	}
	c.informers[namespace] = informer
	for _, indexer := range indexers {
		if err := informer.AddIndexers(indexer); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache[T]) informer(namespace string) cache.SharedIndexInformer {
	if informer, ok := c.informers[namespace]; ok {
		return informer
	}
	return c.informers[metav1.NamespaceAll]
}

// Get returns an object, and false when there is none or its namespace is not watched. It must not be changed.
func (c *Cache[T]) Get(name cache.ObjectName) (T, bool) {
	object, ok := c.get(name)
	if ok && c.hidden != nil && c.hidden(object) {
		var none T
		return none, false
	}
	return object, ok
}

func (c *Cache[T]) get(name cache.ObjectName) (T, bool) {
	var none T
	informer := c.informer(name.Namespace)
	if informer == nil {
		return none, false
	}
	object, exists, err := informer.GetIndexer().GetByKey(name.String())
	if err != nil || !exists {
		return none, false
	}
	typed, ok := object.(T)
	return typed, ok
}

// List returns all objects, of all namespaces that are watched. They must not be changed.
func (c *Cache[T]) List() []T {
	var objects []T
	for _, informer := range c.informers {
		for _, object := range informer.GetIndexer().List() {
			if typed, ok := object.(T); ok && (c.hidden == nil || !c.hidden(typed)) {
				objects = append(objects, typed)
			}
		}
	}
	return objects
}

// ControlledBy returns the objects in a namespace whose controller has the given UID, by name. They must not be changed.
func (c *Cache[T]) ControlledBy(namespace string, controller types.UID) ([]T, error) {
	return c.indexed(namespace, controllerIndex, string(controller))
}

// Claimed returns the objects in a namespace that nothing controls and that, by their label or their name, belong to the
// EMQX resource of the given name, by name. They must not be changed.
func (c *Cache[T]) Claimed(namespace, resource string) ([]T, error) {
	return c.indexed(namespace, claimIndex, namespace+"/"+resource)
}

// Held returns the pods that the operator's finalizer keeps and that belong to the EMQX resource of the given name, or belonged to one
// that is gone. They must not be changed.
func (c *Caches) Held(name cache.ObjectName) ([]*corev1.Pod, error) {
	return c.Pods.indexed(name.Namespace, heldIndex, name.String())
}

// RebalancesOf returns the Rebalances that name an EMQX resource, whether there is one or not, by name. They must not be changed.
func (c *Caches) RebalancesOf(name cache.ObjectName) ([]*v2beta1.Rebalance, error) {
	return c.Rebalances.indexed(name.Namespace, clusterIndex, name.String())
}

func (c *Cache[T]) indexed(namespace, index, value string) ([]T, error) {
	informer := c.informer(namespace)
	if informer == nil {
		return nil, fmt.Errorf("namespace %q is not watched", namespace)
	}
	found, err := informer.GetIndexer().ByIndex(index, value)
	if err != nil {
		return nil, err
	}
	objects := make([]T, 0, len(found))
	for _, object := range found {
		if typed, ok := object.(T); ok {
			objects = append(objects, typed)
		}
	}
	slices.SortFunc(objects, func(a, b T) int { return strings.Compare(a.GetName(), b.GetName()) })
	return objects, nil
}

// Seen reports whether the cache is as new as a resource version that was written to a namespace. Versions that are no
// numbers, as fakes have them, are never waited for.
func (c *Cache[T]) Seen(namespace, version string) bool {
	informer := c.informer(namespace)
	if informer == nil {
		return true
	}
	order, err := resourceversion.CompareResourceVersion(informer.GetIndexer().LastStoreSyncResourceVersion(), version)
	return err != nil || order >= 0
}
