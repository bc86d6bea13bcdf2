package scale

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/informers/externalversions"
)

// watcher follows the EMQX resources.
type watcher struct {
	mu   sync.Mutex
	seen map[string]seen
}

// seen is what a resource was last like.
type seen struct {
	generation, observed int64
	state                string
	// ready is when it was first seen Ready at its generation; zero while it is not.
	ready time.Time
}

// watch follows until ctx ends.
func watch(ctx context.Context, client versioned.Interface) (*watcher, error) {
	w := &watcher{seen: map[string]seen{}}
	factory := externalversions.NewSharedInformerFactory(client, 0)
	informer := factory.Apps().V2beta1().EMQXes().Informer()
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    w.see,
		UpdateFunc: func(_, object any) { w.see(object) },
	})
	if err != nil {
		return nil, fmt.Errorf("watch the EMQX resources: %w", err)
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil, fmt.Errorf("watch the EMQX resources: %w", context.Cause(ctx))
	}
	return w, nil
}

func (w *watcher) see(object any) {
	emqx, ok := object.(*v2beta1.EMQX)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := seen{generation: emqx.Generation, observed: emqx.Status.ObservedGeneration, state: emqx.Status.State}
	if now.state == "Ready" && now.observed == now.generation {
		now.ready = time.Now()
		if before := w.seen[emqx.Name]; before.generation == now.generation && !before.ready.IsZero() {
			now.ready = before.ready
		}
	}
	w.seen[emqx.Name] = now
}

// ready tells when each of the resources became Ready at a generation, or a later one, of those that did.
func (w *watcher) ready(generations map[string]int64) map[string]time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := make(map[string]time.Time, len(generations))
	for name, generation := range generations {
		if now := w.seen[name]; now.generation >= generation && !now.ready.IsZero() {
			at[name] = now.ready
		}
	}
	return at
}

// state is what a resource was last seen as, at a generation; empty when that was not seen yet.
func (w *watcher) state(name string, generation int64) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.seen[name]; now.observed >= generation {
		return now.state
	}
	return ""
}
