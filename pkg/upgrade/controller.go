package upgrade

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/scheme"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// Events are written by the recorder of client-go. One that repeats itself it patches; ours hardly ever do, since each
// tells of another version of the resource.
//
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// The status is the only part of the resource that the operator writes.
//
// +kubebuilder:rbac:groups=apps.emqx.io,resources=emqxes/status,verbs=patch

// Config is what a Controller is made of. All fields but EMQXAPI, Workers and MaxConcurrentUpgrades are required.
type Config struct {
	// Kube and EMQX are how objects are written.
	Kube kubernetes.Interface
	EMQX versioned.Interface
	// Caches are what is known of Kubernetes. The controller adds its handlers; the caller runs them.
	Caches *informers.Caches
	// Registry is where counters and histograms are registered; Gather tells the gauges.
	Registry prometheus.Registerer
	// Workers is how many keys are worked on at once; zero means 8.
	Workers int
	// MaxConcurrentUpgrades is how many clusters may be upgraded at the same time; zero means any number.
	MaxConcurrentUpgrades int
	// EMQXAPI is how EMQX nodes are reached; nil means HTTP.
	EMQXAPI evacuate.API
}

// Controller brings EMQX clusters to what their resources ask for.
type Controller struct {
	config   Config
	queue    workqueue.TypedDelayingInterface[cache.ObjectName]
	backoff  *backoff
	fleet    *fleet
	writes   *writes
	told     *told
	executor *executor
	metrics  *metrics
	gauges   *gauges
	recorder events.EventRecorder

	mu      sync.Mutex
	running map[cache.ObjectName]time.Time // Syncs under way, by when they began.

	configs *configs
	cookies *cookies
	keyring *keyring
	trusted *authorities
	queued  *queued
	failing slots
}

const (
	// staleDelay is how long a sync is put off when a cache has not seen the last write: events come in milliseconds.
	staleDelay = 50 * time.Millisecond
	// observationBatch is how long answers of nodes are collected before they are looked at.
	observationBatch = 50 * time.Millisecond
	// busyDelay is how long a key that failed before is put off while as many like it are looked at as may be.
	busyDelay = time.Second
	// syncTimeout bounds the writes of one sync together: a webhook that hangs holds no worker for longer.
	syncTimeout    = 15 * time.Second
	defaultWorkers = 8
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
		told:    newTold(),
		running: map[cache.ObjectName]time.Time{},
		configs: newConfigs(),
		cookies: newCookies(config.Kube),
		trusted: newAuthorities(config.Kube),
		queue:   workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[cache.ObjectName]{Name: "emqx"}),
		backoff: newBackoff(),
	}
	c.queued = newQueued(config.Caches, config.MaxConcurrentUpgrades, c.queue.Add)
	if config.EMQXAPI == nil {
		c.config.EMQXAPI = emqx.NewClient(c.metrics.emqxRequest)
	}
	c.fleet = &fleet{
		kube: config.Kube, api: c.config.EMQXAPI, drivers: map[cache.ObjectName]*member{}, logger: klog.Background(),
		wake: c.wakeBatched, panicked: func() { c.metrics.panics.WithLabelValues("driver").Inc() },
		turns: evacuate.NewTurns(),
	}
	c.executor = &executor{kube: config.Kube, emqx: config.EMQX, writes: c.writes, observe: c.metrics.action, tell: c.tell, taken: c.fleet.taken}
	c.keyring = newKeyring(config.Kube, c.fleet.taken)
	c.gauges = newGauges(config.Caches, c.fleet)
	if err := config.Caches.Follow(c.writes.seen); err != nil {
		return nil, err
	}
	if err := config.Caches.Handle(c.wake, func() { c.metrics.panics.WithLabelValues("handler").Inc() }); err != nil {
		return nil, err
	}
	return c, nil
}

// tell tells an event about an object.
func (c *Controller) tell(regarding runtime.Object, event machine.Event) {
	c.metrics.eventsWritten.Inc()
	c.recorder.Eventf(regarding, nil, event.Type, event.Reason, event.Action, "%s", event.Message)
}

// Gather computes the gauges of clusters and nodes, which no registry has: it is a prometheus.Gatherer.
func (c *Controller) Gather() ([]*dto.MetricFamily, error) { return c.gauges.Gather() }

// Describe names what Gather tells.
func (c *Controller) Describe(descriptions chan<- *prometheus.Desc) { c.gauges.Describe(descriptions) }

// wake has a key looked at. What changed in Kubernetes may have mended what failed.
func (c *Controller) wake(name cache.ObjectName, kind string) {
	c.metrics.wakes.WithLabelValues(kind).Inc()
	c.backoff.cut(name)
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
	result, after, err := c.guarded(func() (string, time.Duration, error) { return c.look(ctx, name) })
	c.metrics.syncs.WithLabelValues(result).Inc()
	logger.V(4).Info("Synced", "result", result, "after", after)
	switch {
	case err != nil:
		delay := c.backoff.failed(name, time.Now())
		logger.Error(err, "Sync failed, it will be tried again", "after", delay)
		c.queue.AddAfter(name, delay)
	case after > 0:
		c.queue.AddAfter(name, after)
	}
	return true
}

// look is a sync or, while what failed is not to be tried again yet, only its part that needs no API server: evacuations
// follow the clients that come back whatever else is refused.
func (c *Controller) look(ctx context.Context, name cache.ObjectName) (string, time.Duration, error) {
	wait, failed := c.backoff.left(name, time.Now())
	if wait == 0 && failed && !c.failing.enter(c.config.Workers) {
		wait = busyDelay // As many keys like it are looked at as may be: a webhook that hangs leaves workers for the others.
	} else if wait == 0 && failed {
		defer c.failing.leave()
	}
	if wait > 0 {
		return "steered", c.steer(name, wait), nil
	}
	began := time.Now()
	c.track(name, began)
	defer c.track(name, time.Time{})
	result, after, err := c.sync(ctx, name)
	c.metrics.syncSeconds.Observe(time.Since(began).Seconds())
	if err == nil {
		c.backoff.forget(name)
	}
	return result, after, err
}

// releaseStrays lets go of pods that the operator's finalizer keeps and that are none of a cluster's any more: their resource, or their
// set, has gone.
func (c *Controller) releaseStrays(ctx context.Context, name cache.ObjectName, s machine.Snapshot) []error {
	held, err := c.config.Caches.Held(name)
	if err != nil {
		return []error{fmt.Errorf("look for pods of EMQX %s that are kept: %w", name, err)}
	}
	var failures []error
	for _, pod := range held {
		if s.Has(pod.UID) {
			continue
		}
		if err := c.executor.release(ctx, pod); err != nil {
			failures = append(failures, fmt.Errorf("let pod %s/%s go, whose cluster is gone: %w", pod.Namespace, pod.Name, err))
		}
	}
	return failures
}

// steer hands the driver what EMQX shall be like, and nothing else. It returns when the key is looked at again: after the given
// wait, and before when time alone may change what EMQX shall be like: a look at the nodes that does not come stops evictions.
func (c *Controller) steer(name cache.ObjectName, wait time.Duration) time.Duration {
	cached, exists := c.config.Caches.EMQXes.Get(name)
	if !exists {
		return wait
	}
	emqx := c.writes.newest(name, cached)
	driver := c.fleet.driver(emqx)
	snapshot, err := c.gather(emqx, driver)
	if err != nil {
		return wait // The sync that is waited for will say so.
	}
	decision := machine.Decide(snapshot)
	if decision.Gone {
		return wait
	}
	driver.Pursue(decision.Goal)
	if decision.After <= machine.AtOnce { // That waits for a status, which is not written here.
		return wait
	}
	return min(wait, decision.After)
}

// guarded has a panic be an error of its key: it must not end the operator for all others.
func (c *Controller) guarded(work func() (string, time.Duration, error)) (result string, after time.Duration, err error) {
	defer func() {
		if value := recover(); value != nil {
			c.metrics.panics.WithLabelValues("sync").Inc()
			result, after, err = "error", 0, fmt.Errorf("the operator has a bug: %v\n%s", value, debug.Stack())
		}
	}()
	return work()
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
	cached, exists := c.config.Caches.EMQXes.Get(name)
	unknown, isUnknown := c.config.Caches.Unknown(name)
	if !exists && !isUnknown {
		c.forget(name)
		failures := append(c.releaseStrays(ctx, name, machine.Snapshot{}), c.unattended(ctx, name, machine.NoEMQX(name.Name))...)
		if slices.ContainsFunc(failures, overtaken) {
			return "stale", staleDelay, errors.Join(slices.DeleteFunc(failures, overtaken)...)
		}
		return "gone", 0, errors.Join(failures...)
	}
	if kind, stale := c.writes.stale(name, func(kind, version string) bool { return c.seen(kind, name.Namespace, version) }); stale {
		c.metrics.stale.WithLabelValues(kind).Inc()
		return "stale", c.steer(name, staleDelay), nil // A watch may lag for long; clients that come back are not waited for.
	}
	if isUnknown {
		c.forget(name)
		return "undecodable", 0, errors.Join(append(c.unattended(ctx, name, machine.UnreadableEMQX(name.Name)), c.tellUnknown(ctx, unknown))...)
	}
	emqx := c.writes.newest(name, cached)
	driver := c.fleet.driver(emqx)
	c.trusted.read(ctx, c.config.Caches, emqx, time.Now())
	snapshot, err := c.gather(emqx, driver)
	if err != nil {
		return "error", 0, fmt.Errorf("look at EMQX %s: %w", name, err)
	}
	if snapshot.CookieInDoubt() {
		c.cookies.read(ctx, c.config.Caches, emqx, snapshot.Now)
		snapshot.Cookie = c.cookies.of(c.config.Caches, emqx)
	}
	if snapshot.KeysInDoubt() {
		c.keyring.read(ctx, c.config.Caches, emqx, snapshot.KeyScopes(), snapshot.Now)
		snapshot.Keys = c.keyring.of(c.config.Caches, emqx, snapshot.KeyScopes())
	}
	decision := c.queued.decide(&snapshot)
	if decision.Gone {
		c.fleet.drop(name)
		return c.finish(ctx, snapshot, decision, c.releaseStrays(ctx, name, machine.Snapshot{}), c.unattended(ctx, name, machine.LeavingEMQX(name.Name)))
	}
	driver.Pursue(decision.Goal)
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	failures := append(c.executor.execute(ctx, snapshot, decision.Groups), c.releaseStrays(ctx, name, snapshot)...)
	return c.finish(ctx, snapshot, decision, failures, c.executor.execute(ctx, snapshot, each(decision.Rebalances)))
}

// finish writes the status and tells how a sync ended, with the errors of actions that failed. What is aside of the cluster is not in its
// status. That an object was not as it was seen is no error: it is looked at again.
func (c *Controller) finish(ctx context.Context, s machine.Snapshot, decision machine.Decision, failures, aside []error) (string, time.Duration, error) {
	stale := slices.ContainsFunc(failures, overtaken) || slices.ContainsFunc(aside, overtaken)
	failures, aside = slices.DeleteFunc(failures, overtaken), slices.DeleteFunc(aside, overtaken)
	told := make([]machine.Failure, 0, len(failures))
	for _, failure := range failures {
		told = append(told, machine.Failure{Message: failure.Error(), Final: final(failure)})
	}
	again, err := c.tellStatus(ctx, s, decision, told)
	failures = append(failures, aside...)
	if err != nil {
		failures = append(failures, err)
	}
	if again > 0 && (decision.After == 0 || again < decision.After) {
		decision.After = again
	}
	switch {
	case len(failures) > 0:
		return "error", 0, errors.Join(failures...)
	case stale:
		return "stale", staleDelay, nil
	case decision.Gone:
		return "gone", 0, nil
	}
	return "ok", decision.After, nil
}

// seen reports whether the cache of a kind is as new as a version that was written.
func (c *Controller) seen(kind, namespace, version string) bool {
	switch kind {
	case v2beta1.Kind:
		return c.config.Caches.EMQXes.Seen(namespace, version)
	case v2beta1.KindRebalance:
		return c.config.Caches.Rebalances.Seen(namespace, version)
	case "StatefulSet":
		return c.config.Caches.StatefulSets.Seen(namespace, version)
	case "Service":
		return c.config.Caches.Services.Seen(namespace, version)
	case "PodDisruptionBudget":
		return c.config.Caches.Budgets.Seen(namespace, version)
	case "Pod":
		return c.config.Caches.Pods.Seen(namespace, version)
	case "ConfigMap":
		return c.config.Caches.ConfigMaps.Seen(namespace, version)
	case "PersistentVolumeClaim":
		return c.config.Caches.Claims.Seen(namespace, version)
	case "Secret":
		return c.config.Caches.Secrets.Seen(namespace, version)
	}
	return true
}

// forget drops what is kept of a resource that is gone.
func (c *Controller) forget(name cache.ObjectName) {
	c.fleet.drop(name)
	c.writes.forget(name)
	c.told.forget(name)
	c.gauges.forget(name)
	c.configs.forget(name)
	c.cookies.forget(name)
	c.keyring.forget(name)
	c.trusted.forget(name)
	c.queued.forget(name)
	c.backoff.forget(name)
	c.metrics.forget(name)
}
