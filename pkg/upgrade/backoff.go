package upgrade

import (
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// The delays after failures. A key is never dropped.
const minFailureDelay, maxFailureDelay = 100 * time.Millisecond, time.Minute

// backoff remembers which keys failed, and until when each is not to be tried again.
type backoff struct {
	limiter workqueue.TypedRateLimiter[cache.ObjectName]
	mu      sync.Mutex
	until   map[cache.ObjectName]time.Time
}

func newBackoff() *backoff {
	return &backoff{
		limiter: workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](minFailureDelay, maxFailureDelay),
		until:   map[cache.ObjectName]time.Time{},
	}
}

// failed notes a failure and returns how long to wait.
func (b *backoff) failed(name cache.ObjectName, now time.Time) time.Duration {
	delay := b.limiter.When(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until[name] = now.Add(delay)
	return delay
}

// left is how long a key is not to be tried again, and whether it failed the last time.
func (b *backoff) left(name cache.ObjectName, now time.Time) (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(0, b.until[name].Sub(now)), b.limiter.NumRequeues(name) > 0
}

// cut ends the wait of a key; its failures are remembered.
func (b *backoff) cut(name cache.ObjectName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.until, name)
}

// forget drops what is remembered of a key.
func (b *backoff) forget(name cache.ObjectName) {
	b.limiter.Forget(name)
	b.cut(name)
}

// slots bound how many keys that failed before are looked at together: a webhook that hangs for some clusters must leave
// workers for the others.
type slots struct {
	mu    sync.Mutex
	taken int
}

// enter takes a slot, of half as many as there are workers; it reports false when all are taken.
func (s *slots) enter(workers int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= max(1, workers/2) {
		return false
	}
	s.taken++
	return true
}

func (s *slots) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
}
