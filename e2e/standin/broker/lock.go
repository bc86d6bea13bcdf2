package broker

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"
)

// lockTable is a set of named locks that are held by tokens and waited for in order.
type lockTable struct {
	mu   sync.Mutex
	held map[string]*lockState
}

type lockState struct {
	token   string
	node    string
	waiters []*lockWaiter
}

type lockWaiter struct {
	token string
	node  string
	ready chan struct{}
}

func newLockTable() *lockTable { return &lockTable{held: map[string]*lockState{}} }

// acquire waits until token holds the lock on name for node, or ctx ends.
func (t *lockTable) acquire(ctx context.Context, name, token, node string) error {
	t.mu.Lock()
	s := t.held[name]
	if s == nil {
		t.held[name] = &lockState{token: token, node: node}
		t.mu.Unlock()
		return nil
	}
	w := &lockWaiter{token: token, node: node, ready: make(chan struct{})}
	s.waiters = append(s.waiters, w)
	t.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		t.release(name, token)
		return fmt.Errorf("wait for the lock: %w", context.Cause(ctx))
	}
}

// release gives the lock back, or stops waiting for it.
func (t *lockTable) release(name, token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.held[name]
	if s == nil {
		return
	}
	if s.token == token {
		t.passLocked(name, s)
		return
	}
	for i, w := range s.waiters {
		if w.token == token {
			s.waiters = append(s.waiters[:i], s.waiters[i+1:]...)
			return
		}
	}
}

func (t *lockTable) passLocked(name string, s *lockState) {
	if len(s.waiters) == 0 {
		delete(t.held, name)
		return
	}
	next := s.waiters[0]
	s.waiters = s.waiters[1:]
	s.token, s.node = next.token, next.node
	close(next.ready)
}

// releaseNode gives back what a node that went down held or waited for.
func (t *lockTable) releaseNode(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, s := range t.held {
		kept := s.waiters[:0]
		for _, w := range s.waiters {
			if w.node != node {
				kept = append(kept, w)
			}
		}
		s.waiters = kept
		if s.node == node {
			t.passLocked(name, s)
		}
	}
}

type lockMsg struct {
	ID    string        `json:"id"`
	Token string        `json:"token"`
	Wait  time.Duration `json:"wait"`
}

type lockAnswer struct {
	Owner string `json:"owner"`
}

type unlockMsg struct {
	ID    string `json:"id"`
	Token string `json:"token"`
	Row   *row   `json:"row,omitempty"`
}

// homeOf chooses the node that keeps a client's lock: of those that answer, the one with the highest hash of name and
// client. A node that leaves changes nothing for the clients of the others.
func (b *Broker) homeOf(id string, skip map[string]bool) string {
	self := b.bus.Self()
	best, bid := self, rank(self, id)
	for _, node := range b.bus.Others() {
		if skip[node] || !b.bus.Responsive(node) {
			continue
		}
		if r := rank(node, id); r > bid || (r == bid && node < best) {
			best, bid = node, r
		}
	}
	return best
}

func rank(node, id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node)) // a hash never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(id))
	x := h.Sum64() // FNV alone ranks names that differ at the front alike
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// keepers lists the members that keep a client's lock: more than half of those that run, and three at most, chosen by the
// client id. A frozen one is among them until it is given up.
func (b *Broker) keepers(id string) []string {
	nodes := append(b.bus.Others(), b.bus.Self())
	slices.SortFunc(nodes, func(x, y string) int { return cmp.Compare(rank(y, id), rank(x, id)) })
	return nodes[:min(len(nodes)/2+1, 3)]
}

// askKeepers waits until every keeper of a client's lock has answered, is down, or has been silent for Timeouts.Member.
// EMQX asks all of them, at once, when the lock is taken and again when it is given back, and goes on without those
// that do not answer. Here the home decides who has the lock, and the keepers' part is the wait.
func (b *Broker) askKeepers(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeouts.Member)
	defer cancel()
	var wg sync.WaitGroup
	for _, node := range b.keepers(id) {
		if node == b.bus.Self() {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := b.bus.Call(ctx, node, topicKeeper, struct{}{}, nil); err != nil {
				b.log.Debug("keeper of a lock", "client", id, "node", node, "error", err)
			}
		}()
	}
	wg.Wait()
}

func (b *Broker) lockAt(ctx context.Context, home, id, token string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeouts.Lock)
	defer cancel()
	if home == b.bus.Self() {
		return b.grant(ctx, id, token, home)
	}
	var answer lockAnswer
	err := b.callResponsive(ctx, home, topicLock, lockMsg{ID: id, Token: token, Wait: b.cfg.Timeouts.Lock}, &answer)
	return answer.Owner, err
}

// grant waits for a lock whose home is here and tells where the client's session is.
func (b *Broker) grant(ctx context.Context, id, token, node string) (string, error) {
	if err := b.clients.acquire(ctx, id, token, node); err != nil {
		return "", err
	}
	return b.registry.nodeOf(id), nil
}

func (b *Broker) unlockAt(home string, m unlockMsg) {
	if home == b.bus.Self() {
		b.unlock(m)
		return
	}
	if err := b.bus.Cast(home, topicUnlock, m, false); err != nil {
		b.log.Debug("unlock", "client", m.ID, "home", home, "error", err)
	}
}

func (b *Broker) unlock(m unlockMsg) {
	if m.Row != nil {
		b.learn(*m.Row)
	}
	b.clients.release(m.ID, m.Token)
}
