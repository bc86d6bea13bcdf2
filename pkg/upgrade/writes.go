package upgrade

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// writes remembers the newest version that was written for each key and kind, so that no decision is made from a cache
// that has not seen the operator's own last write. Of the resource itself it keeps what the API server answered, which is as
// good as what the cache will show: an evacuation is steered on while a watch lags.
type writes struct {
	mu        sync.Mutex
	all       map[cache.ObjectName]map[string]string
	resources map[cache.ObjectName]*v2beta1.EMQX
}

func newWrites() *writes {
	return &writes{all: map[cache.ObjectName]map[string]string{}, resources: map[cache.ObjectName]*v2beta1.EMQX{}}
}

// recordResource keeps a resource as it was answered. One that cannot be decoded is not: the cache knows what it was last.
func (w *writes) recordResource(key cache.ObjectName, written *v2beta1.EMQX) {
	if written.Undecodable() != "" {
		w.record(key, v2beta1.Kind, written.ResourceVersion)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resources[key] = written
}

// newest is a resource as the cache has it or, until that has caught up, as it was last written.
func (w *writes) newest(key cache.ObjectName, cached *v2beta1.EMQX) *v2beta1.EMQX {
	w.mu.Lock()
	defer w.mu.Unlock()
	written := w.resources[key]
	if written == nil {
		return cached
	}
	order, err := resourceversion.CompareResourceVersion(written.ResourceVersion, cached.ResourceVersion)
	if err == nil && order > 0 && written.UID == cached.UID {
		return written
	}
	delete(w.resources, key)
	return cached
}

// seen drops what was written of a resource when the cache is as new.
func (w *writes) seen(cached *v2beta1.EMQX) { w.newest(key(cached), cached) }

// record notes a version that was written. The newest counts: a write that changed nothing returns an old one.
func (w *writes) record(key cache.ObjectName, kind, version string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all[key] == nil {
		w.all[key] = map[string]string{}
	}
	if order, err := resourceversion.CompareResourceVersion(version, w.all[key][kind]); err != nil || order > 0 {
		w.all[key][kind] = version
	}
}

// stale returns a kind whose cache has not seen the last write yet, and forgets what has been seen.
func (w *writes) stale(key cache.ObjectName, seen func(kind, version string) bool) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for kind, version := range w.all[key] {
		if !seen(kind, version) {
			return kind, true
		}
		delete(w.all[key], kind)
	}
	delete(w.all, key)
	return "", false
}

// forget drops what is remembered of a key that is gone.
func (w *writes) forget(key cache.ObjectName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, key)
	delete(w.resources, key)
}

// told remembers when the status of each key was last written.
type told struct {
	mu  sync.Mutex
	all map[cache.ObjectName]time.Time
}

func newTold() *told { return &told{all: map[cache.ObjectName]time.Time{}} }

func (t *told) note(key cache.ObjectName, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[key] = at
}

// of is when the status of a key was last written; zero when not since the operator started.
func (t *told) of(key cache.ObjectName) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[key]
}

func (t *told) forget(key cache.ObjectName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, key)
}
