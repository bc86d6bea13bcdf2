package upgrade

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/scheme"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
)

// The status is the only part of the resource that the operator writes.
//
// +kubebuilder:rbac:groups=apps.emqx.io,resources=emqxes/status,verbs=patch

// Config is what a Controller is made of. All fields but EMQXAPI and Workers are required.
type Config struct {
	// Kube and EMQX are how objects are written.
	Kube kubernetes.Interface
	EMQX versioned.Interface
	// Caches are what is known of Kubernetes. The controller adds its handlers; the caller runs them.
	Caches *informers.Caches
	// Registry is where metrics are registered.
	Registry prometheus.Registerer
	// Workers is how many keys are worked on at once; zero means 4.
	Workers int
	// EMQXAPI is how EMQX nodes are reached; nil means HTTP.
	EMQXAPI evacuate.API
}

// Controller brings EMQX clusters to what their resources ask for.
type Controller struct {
	config   Config
	queue    workqueue.TypedRateLimitingInterface[cache.ObjectName]
	fleet    *fleet
	writes   *writes
	executor *executor
	metrics  *metrics
	gauges   *gauges
	recorder events.EventRecorder

	mu      sync.Mutex
	running map[cache.ObjectName]time.Time // Syncs under way, by when they began.
}

const (
	// staleDelay is how long a sync is put off when a cache has not seen the last write: events come in milliseconds.
	staleDelay = 50 * time.Millisecond
	// observationBatch is how long answers of nodes are collected before they are looked at.
	observationBatch = 50 * time.Millisecond
	// The queue's delays after failures. A key is never dropped.
	minFailureDelay, maxFailureDelay = 100 * time.Millisecond, time.Minute
	defaultWorkers                   = 4
)

// New returns a controller whose handlers are added to the caches. It does nothing until Run.
func New(config Config) (*Controller, error) {
	if config.Workers == 0 {
		config.Workers = defaultWorkers
	}
	c := &Controller{
		config:  config,
		metrics: newMetrics(config.Registry),
		writes:  newWrites(),
		running: map[cache.ObjectName]time.Time{},
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](minFailureDelay, maxFailureDelay),
			workqueue.TypedRateLimitingQueueConfig[cache.ObjectName]{Name: "emqx"}),
	}
	if config.EMQXAPI == nil {
		c.config.EMQXAPI = evacuate.NewClient(c.metrics.emqxRequest)
	}
	c.fleet = &fleet{
		kube: config.Kube, api: c.config.EMQXAPI, drivers: map[cache.ObjectName]*member{}, logger: klog.Background(),
		wake: c.wakeBatched,
	}
	c.executor = &executor{kube: config.Kube, writes: c.writes, observe: c.metrics.action, password: c.fleet.password}
	c.gauges = newGauges(config.Caches, c.fleet)
	if err := config.Registry.Register(c.gauges); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := config.Caches.Handle(c.wake); err != nil {
		return nil, err
	}
	return c, nil
}

// wake has a key looked at.
func (c *Controller) wake(name cache.ObjectName, kind string) {
	c.metrics.wakes.WithLabelValues(kind).Inc()
	c.queue.Add(name)
}

// wakeBatched has a key looked at soon: the nodes of a cluster answer one right after the other.
func (c *Controller) wakeBatched(name cache.ObjectName) {
	c.metrics.wakes.WithLabelValues("Observation").Inc()
	c.queue.AddAfter(name, observationBatch)
}

// Run works until ctx ends, then finishes the syncs that are under way and ends the drivers. The caches must have been
// filled before, and must go on until Run returns.
func (c *Controller) Run(ctx context.Context) {
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: c.config.Kube.EventsV1()})
	// Events are told until the last sync has ended.
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRecording()
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(recording); err != nil {
		klog.FromContext(ctx).Error(err, "Events cannot be recorded")
	}
	c.recorder = broadcaster.NewRecorder(scheme.Scheme, FieldManager)

	c.gauges.working.Store(true)
	defer c.gauges.working.Store(false)
	var workers sync.WaitGroup
	for range c.config.Workers {
		workers.Go(func() {
			for c.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	c.queue.ShutDown()
	workers.Wait()
	c.fleet.shutdown()
}

// next looks at the next key; it reports false when the queue was shut down.
func (c *Controller) next(ctx context.Context) bool {
	name, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(name)
	logger := klog.FromContext(ctx).WithValues("emqx", name.String())
	// A sync that began is finished, so that its status tells what it did; each of its requests has a deadline.
	ctx = klog.NewContext(context.WithoutCancel(ctx), logger)
	began := time.Now()
	c.track(name, began)
	result, after, err := c.sync(ctx, name)
	c.track(name, time.Time{})
	c.metrics.syncs.WithLabelValues(result).Inc()
	c.metrics.syncSeconds.Observe(time.Since(began).Seconds())
	logger.V(4).Info("Synced", "result", result, "after", after)
	if err != nil {
		logger.Error(err, "Sync failed, it will be tried again")
		c.queue.AddRateLimited(name)
		return true
	}
	c.queue.Forget(name)
	if after > 0 {
		c.queue.AddAfter(name, after)
	}
	return true
}

// maxSyncDuration is what no sync can take: every request in it has a deadline.
const maxSyncDuration = 5 * time.Minute

// track notes when a sync began; a zero time tells that it has ended.
func (c *Controller) track(name cache.ObjectName, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if began.IsZero() {
		delete(c.running, name)
		return
	}
	c.running[name] = began
}

// Stuck says which sync does not end, for the liveness probe; nil when all is well.
func (c *Controller) Stuck(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, began := range c.running {
		if took := now.Sub(began); took > maxSyncDuration {
			return fmt.Errorf("the sync of EMQX %s has not ended for %s", name, took.Round(time.Second))
		}
	}
	return nil
}

// sync is one look at one resource: gather, decide, execute, status. It returns its result for metrics and when to look
// again.
func (c *Controller) sync(ctx context.Context, name cache.ObjectName) (string, time.Duration, error) {
	emqx, exists := c.config.Caches.EMQXes.Get(name)
	if !exists {
		c.forget(name)
		return "gone", 0, nil
	}
	if kind, stale := c.writes.stale(name, func(kind, version string) bool { return c.seen(kind, name.Namespace, version) }); stale {
		c.metrics.stale.WithLabelValues(kind).Inc()
		return "stale", staleDelay, nil
	}
	driver := c.fleet.driver(emqx)
	snapshot, err := gather(c.config.Caches, emqx, driver.Observation(), time.Now())
	if err != nil {
		return "error", 0, fmt.Errorf("look at EMQX %s: %w", name, err)
	}
	decision := Decide(snapshot)
	if decision.Gone {
		c.forget(name)
		return "gone", 0, nil
	}
	if decision.Goal != nil {
		driver.Pursue(*decision.Goal)
	}
	failure := c.executor.execute(ctx, snapshot, decision.Actions)
	if failure != nil {
		// What was decided has not happened.
		decision.Phase, decision.Why = snapshot.EMQX.Status.Phase, ""
	}
	if err := c.writeStatus(ctx, snapshot, decision, failure); err != nil {
		return "error", 0, err
	}
	if failure != nil {
		return "error", 0, failure
	}
	return "ok", decision.After, nil
}

// writeStatus writes the status if it differs, and then tells of what changed.
func (c *Controller) writeStatus(ctx context.Context, s Snapshot, decision Decision, failure error) error {
	status := statusOf(s, decision, failure)
	if equality.Semantic.DeepEqual(status, s.EMQX.Status) {
		return nil
	}
	apply, err := applyStatus(s.EMQX, status)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := c.renewStatus(ctx, s.EMQX); err != nil {
		return err
	}
	applied, err := c.config.EMQX.AppsV2beta1().EMQXes(s.EMQX.Namespace).ApplyStatus(ctx, apply, force(true))
	if err != nil {
		return fmt.Errorf("write the status of EMQX %s: %w", key(s.EMQX), err)
	}
	c.writes.record(key(s.EMQX), "EMQX", applied.ResourceVersion)
	c.metrics.statusWrites.Inc()
	c.metrics.transition(s.EMQX, decision.Phase, s.Now)
	told := eventsOf(s.EMQX, decision, status)
	c.metrics.eventsWritten.Add(float64(len(told)))
	record(c.recorder, s.EMQX, told)
	if s.EMQX.Status.Phase != decision.Phase {
		klog.FromContext(ctx).Info("Entered a phase", "from", s.EMQX.Status.Phase, "to", decision.Phase, "why", decision.Why)
	}
	return nil
}

// renewStatus begins a status anew that another operator wrote.
func (c *Controller) renewStatus(ctx context.Context, emqx *v2beta1.EMQX) error {
	patch, err := renewal(emqx)
	if err == nil && patch != nil {
		options := metav1.PatchOptions{FieldManager: FieldManager}
		_, err = c.config.EMQX.AppsV2beta1().EMQXes(emqx.Namespace).Patch(ctx, emqx.Name, types.JSONPatchType, patch, options, "status")
	}
	if err != nil {
		return fmt.Errorf("begin the status of EMQX %s anew: %w", key(emqx), err)
	}
	return nil
}

// seen reports whether the cache of a kind is as new as a version that was written.
func (c *Controller) seen(kind, namespace, version string) bool {
	switch kind {
	case v2beta1.Kind:
		return c.config.Caches.EMQXes.Seen(namespace, version)
	case "StatefulSet":
		return c.config.Caches.StatefulSets.Seen(namespace, version)
	case "Service":
		return c.config.Caches.Services.Seen(namespace, version)
	case "Pod":
		return c.config.Caches.Pods.Seen(namespace, version)
	case "ConfigMap":
		return c.config.Caches.ConfigMaps.Seen(namespace, version)
	case "Secret":
		return c.config.Caches.Secrets.Seen(namespace, version)
	}
	return true
}

// forget drops what is kept of a resource that is gone.
func (c *Controller) forget(name cache.ObjectName) {
	c.fleet.drop(name)
	c.writes.forget(name)
	c.metrics.forget(name)
}
