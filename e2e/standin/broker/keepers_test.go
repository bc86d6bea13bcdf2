package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/lock"
)

// fakeBus is a cluster of this node and others, of which one may be frozen.
type fakeBus struct {
	others []string

	mu     sync.Mutex
	frozen map[string]chan struct{} // closed when the node answers again or is given up
}

var errGivenUp = errors.New("given up")

func (f *fakeBus) Self() string     { return "a" }
func (f *fakeBus) Linked() []string { return f.Others() }
func (f *fakeBus) Others() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.others)
}

func (f *fakeBus) ice(node string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.frozen[node]
}

func (f *fakeBus) Responsive(node string) bool                { return f.ice(node) == nil }
func (f *fakeBus) Cast(string, string, any, bool) error       { return nil }
func (f *fakeBus) CastRaw(string, string, []byte, bool) error { return nil }
func (f *fakeBus) Call(ctx context.Context, node, _ string, _, _ any) error {
	ice := f.ice(node)
	if ice == nil {
		return nil
	}
	select {
	case <-ice:
		return errGivenUp
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *fakeBus) freeze(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = map[string]chan struct{}{node: make(chan struct{})}
}

func (f *fakeBus) giveUp(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.others = slices.DeleteFunc(f.others, func(other string) bool { return other == node })
	close(f.frozen[node])
	delete(f.frozen, node)
}

func clusterOf(others ...string) (*Broker, *fakeBus) {
	bus := &fakeBus{others: others}
	return &Broker{
		bus: bus, ctx: context.Background(), log: slog.New(slog.DiscardHandler), registry: newRegistry(),
		clients: lock.New(), local: lock.New(), cfg: Config{Timeouts: Timeouts{}.withDefaults()},
	}, bus
}

// clientOf finds a client whose lock the node keeps, or does not.
func clientOf(b *Broker, node string, kept bool) string {
	for i := 0; ; i++ {
		if id := fmt.Sprintf("client-%d", i); slices.Contains(b.keepers(id), node) == kept {
			return id
		}
	}
}

func TestKeepersAreMoreThanHalfAndThreeAtMost(t *testing.T) {
	for size, want := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 9: 3} {
		var others []string
		for i := 1; i < size; i++ {
			others = append(others, fmt.Sprintf("n%d", i))
		}
		b, _ := clusterOf(others...)
		require.Len(t, b.keepers("x"), want, "of %d nodes", size)
	}
	b, _ := clusterOf("b", "c")
	count := map[string]int{}
	for i := range 3000 {
		for _, node := range b.keepers(fmt.Sprintf("client-%d", i)) {
			count[node]++
		}
	}
	for _, node := range []string{"a", "b", "c"} {
		require.InDelta(t, 2000, count[node], 200, node)
	}
}

// A frozen member costs whoever it keeps the lock of 30 seconds when the lock is taken and 30 when it is given back, as
// recorded, until it is given up; and nobody else.
func TestFrozenKeeperIsWaitedFor(t *testing.T) {
	lock := func(t *testing.T, b *Broker, id string) (taken, given time.Duration) {
		t.Helper()
		begun := time.Now()
		claim, err := b.claim(context.Background(), id)
		require.NoError(t, err)
		taken = time.Since(begun)
		claim.drop()
		return taken, time.Since(begun)
	}
	for _, c := range []struct {
		reason       string
		kept         bool
		givenUp      time.Duration // after this
		taken, given time.Duration
	}{
		{reason: "not a keeper"},
		{reason: "frozen for long", kept: true, taken: 30 * time.Second, given: time.Minute},
		{reason: "given up in between", kept: true, givenUp: 20 * time.Second, taken: 20 * time.Second, given: 20 * time.Second},
		{reason: "given up at the end", kept: true, givenUp: 45 * time.Second, taken: 30 * time.Second, given: 45 * time.Second},
	} {
		t.Run(c.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, bus := clusterOf("b", "c")
				id := clientOf(b, "c", c.kept)
				bus.freeze("c")
				if c.givenUp > 0 {
					time.AfterFunc(c.givenUp, func() { bus.giveUp("c") })
				}
				taken, given := lock(t, b, id)
				require.Equal(t, c.taken, taken)
				require.Equal(t, c.given, given)
			})
		})
	}
}

// Who gives a lock back keeps nobody from taking it while it waits for the keepers.
func TestLockIsFreeWhileKeepersAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, bus := clusterOf("b", "c")
		id := clientOf(b, "c", true)
		first, err := b.claim(context.Background(), id)
		require.NoError(t, err)
		bus.freeze("c")
		begun := time.Now()
		go first.drop()
		_, err = b.claim(context.Background(), id)
		require.NoError(t, err)
		require.Equal(t, 30*time.Second, time.Since(begun))
		synctest.Wait()
	})
}
