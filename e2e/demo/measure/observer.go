package measure

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/informers/externalversions"
)

// StateChange is a change of the resource's STATUS, as a watch showed it.
type StateChange struct {
	At    time.Time     `json:"at"`
	State string        `json:"state"`
	Phase v2beta1.Phase `json:"phase"`
}

// podFacts is what the watch has shown of a pod.
type podFacts struct {
	name, revision, ip string
	created, ready     time.Time // ready is when its containers were first ready.
	gone               bool
}

// Observer keeps what watches show of an EMQX resource, its pods and sets.
type Observer struct {
	mu      sync.Mutex
	changed chan struct{} // Closed, and another put in its place, at each change.
	emqx    *v2beta1.EMQX
	states  []StateChange
	pods    map[string]*podFacts
	sets    map[string]bool
	// generationAt is when each generation was first seen.
	generationAt map[int64]time.Time
	// sessionsLeft is how many sessions each node had when it began to move sessions.
	sessionsLeft map[string]int64
	stop         []func()
}

// Observe starts to watch; Close ends it.
func Observe(ctx context.Context, target Target) (*Observer, error) {
	o := &Observer{
		changed: make(chan struct{}), pods: map[string]*podFacts{}, sets: map[string]bool{},
		generationAt: map[int64]time.Time{}, sessionsLeft: map[string]int64{},
	}
	ctx, cancel := context.WithCancel(ctx)
	resources := externalversions.NewSharedInformerFactoryWithOptions(target.EMQX, 0, externalversions.WithNamespace(target.Namespace),
		externalversions.WithTweakListOptions(func(options *metav1.ListOptions) {
			options.FieldSelector = fields.OneTermEqualSelector("metadata.name", target.Name).String()
		}))
	objects := informers.NewSharedInformerFactoryWithOptions(target.Kube, 0, informers.WithNamespace(target.Namespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) {
			options.LabelSelector = v2beta1.LabelInstance + "=" + target.Name
		}))
	handlers := map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		resources.Apps().V2beta1().EMQXes().Informer(): handle(o.sawEMQX, nil),
		objects.Core().V1().Pods().Informer():          handle(o.sawPod, o.lostPod),
		objects.Apps().V1().StatefulSets().Informer():  handle(o.sawSet, o.lostSet),
	}
	var synced []cache.InformerSynced
	for informer, handler := range handlers {
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			cancel()
			return nil, err
		}
		synced = append(synced, registration.HasSynced)
	}
	resources.Start(ctx.Done())
	objects.Start(ctx.Done())
	o.stop = []func(){cancel, resources.Shutdown, objects.Shutdown}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		o.Close()
		return nil, errors.New("the watches did not begin")
	}
	return o, nil
}

// Close ends the watches.
func (o *Observer) Close() {
	for _, stop := range o.stop {
		stop()
	}
}

// handle makes a handler of functions on the objects' own type.
func handle[T any](saw, lost func(T)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { call(saw, object) },
		UpdateFunc: func(_, object any) { call(saw, object) },
		DeleteFunc: func(object any) {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			call(lost, object)
		},
	}
}

func call[T any](f func(T), object any) {
	if typed, ok := object.(T); ok && f != nil {
		f(typed)
	}
}

// change runs f and tells everybody who waits.
func (o *Observer) change(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
	close(o.changed)
	o.changed = make(chan struct{})
}

// wait returns when the condition holds. The condition is called with the lock held.
func (o *Observer) wait(ctx context.Context, condition func() bool) error {
	for {
		o.mu.Lock()
		holds, changed := condition(), o.changed
		o.mu.Unlock()
		if holds {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// Ready waits until the resource is at rest at a generation, at least the given one.
func (o *Observer) Ready(ctx context.Context, generation int64) error {
	return o.wait(ctx, func() bool { return ready(o.emqx, generation) })
}

// Generation waits for a generation and returns when it was first seen.
func (o *Observer) Generation(ctx context.Context, generation int64) (at time.Time, err error) {
	err = o.wait(ctx, func() bool {
		at = o.generationAt[generation]
		return !at.IsZero()
	})
	return at, err
}

// More waits until Since would return more changes than the given number, and returns them.
func (o *Observer) More(ctx context.Context, begin time.Time, than int) (changes []StateChange, err error) {
	err = o.wait(ctx, func() bool {
		changes = changesSince(o.states, begin)
		return len(changes) > than
	})
	return changes, err
}

func (o *Observer) sawEMQX(emqx *v2beta1.EMQX) {
	now := time.Now()
	o.change(func() {
		o.emqx = emqx
		if _, known := o.generationAt[emqx.Generation]; !known {
			o.generationAt[emqx.Generation] = now
		}
		if last := len(o.states) - 1; emqx.Status.State != "" &&
			(last < 0 || o.states[last].State != emqx.Status.State || o.states[last].Phase != emqx.Status.Phase) {
			o.states = append(o.states, StateChange{At: now, State: emqx.Status.State, Phase: emqx.Status.Phase})
		}
		for i := range emqx.Status.NodeEvacuationsStatus {
			evacuation := &emqx.Status.NodeEvacuationsStatus[i]
			if _, known := o.sessionsLeft[evacuation.Node]; !known && evacuation.State == "evicting_sessions" && evacuation.Stats.CurrentSessions != nil {
				o.sessionsLeft[evacuation.Node] = int64(*evacuation.Stats.CurrentSessions)
			}
		}
	})
}

func (o *Observer) sawPod(pod *corev1.Pod) {
	now := time.Now()
	o.change(func() {
		facts := o.pods[pod.Name]
		if facts == nil || facts.gone {
			facts = &podFacts{name: pod.Name, revision: pod.Labels[v2beta1.LabelPodTemplateHash], created: now}
			o.pods[pod.Name] = facts
		}
		facts.ip = pod.Status.PodIP
		for i := range pod.Status.Conditions {
			condition := &pod.Status.Conditions[i]
			if condition.Type == corev1.ContainersReady && condition.Status == corev1.ConditionTrue && facts.ready.IsZero() {
				facts.ready = now
			}
		}
	})
}

func (o *Observer) lostPod(pod *corev1.Pod) {
	o.change(func() {
		if facts := o.pods[pod.Name]; facts != nil {
			facts.gone = true
		}
	})
}

func (o *Observer) sawSet(set *appsv1.StatefulSet)  { o.change(func() { o.sets[set.Name] = true }) }
func (o *Observer) lostSet(set *appsv1.StatefulSet) { o.change(func() { delete(o.sets, set.Name) }) }

// Latest returns the resource as last seen; nil before.
func (o *Observer) Latest() *v2beta1.EMQX {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.emqx
}

// Since returns the changes of STATUS from the last one before the given time on.
func (o *Observer) Since(begin time.Time) []StateChange {
	o.mu.Lock()
	defer o.mu.Unlock()
	return changesSince(o.states, begin)
}

func changesSince(changes []StateChange, begin time.Time) []StateChange {
	first := 0
	for i, change := range changes {
		if !change.At.After(begin) {
			first = i
		}
	}
	return slices.Clone(changes[first:])
}

// present returns the pods that are there.
func (o *Observer) present() []podFacts {
	o.mu.Lock()
	defer o.mu.Unlock()
	var pods []podFacts
	for _, facts := range o.pods {
		if !facts.gone {
			pods = append(pods, *facts)
		}
	}
	return pods
}

// ready says whether the resource is at rest at a generation, at least the given one.
func ready(emqx *v2beta1.EMQX, generation int64) bool {
	return emqx != nil && emqx.Generation >= generation && emqx.Status.ObservedGeneration >= generation && emqx.Status.State == "Ready"
}

// sessionsToMove is how many sessions the nodes had when they began to move sessions.
func (o *Observer) sessionsToMove() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	sum := int64(0)
	for _, sessions := range o.sessionsLeft {
		sum += sessions
	}
	return sum
}
