package upgrade

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
)

// readings keeps what was read of Secrets for each cluster, once for each Source: of Secrets only metadata is cached. The zero value
// is ready for use.
type readings[Source comparable, Value any] struct {
	mu  sync.Mutex
	all map[cache.ObjectName]reading[Source, Value]
}

// reading is what was read last for one cluster; its zero value is that of a cluster for which nothing was.
type reading[Source comparable, Value any] struct {
	// source tells what was read from all else that could be.
	source Source
	value  Value
	// failed is when it could not be read; zero when it was.
	failed time.Time
}

// readingRetry is how long what could not be read is left alone: what is not known holds nothing up.
const readingRetry = 30 * time.Second

// last is what was read last for a cluster.
func (r *readings[Source, Value]) last(name cache.ObjectName) reading[Source, Value] {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[name]
}

// refresh reads a source for a cluster, unless that is what was read last. read is given what that was, and
// what it returns is kept even when it fails.
func (r *readings[Source, Value]) refresh(name cache.ObjectName, source Source, now time.Time, read func(last reading[Source, Value]) (Value, error)) error {
	last := r.last(name)
	if last.source == source && (last.failed.IsZero() || now.Sub(last.failed) < readingRetry) {
		return nil
	}
	next := reading[Source, Value]{source: source}
	var err error
	if next.value, err = read(last); err != nil {
		next.failed = now
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[cache.ObjectName]reading[Source, Value]{}
	}
	r.all[name] = next
	return err
}

func (r *readings[Source, Value]) forget(name cache.ObjectName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, name)
}

// secretVersion tells one version of a Secret from every other Secret and version.
type secretVersion struct {
	Name            string
	UID             types.UID
	ResourceVersion string
}

// versionOf is that of a Secret as it is cached; only its name when there is none.
func versionOf(caches *informers.Caches, namespace, name string) secretVersion {
	version := secretVersion{Name: name}
	if secret, exists := caches.Secrets.Get(cache.ObjectName{Namespace: namespace, Name: name}); exists {
		version.UID, version.ResourceVersion = secret.UID, secret.ResourceVersion
	}
	return version
}
