package broker

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"sync"
	"time"
)

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
	if err := b.clients.Acquire(ctx, id, token, node); err != nil {
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
	b.clients.Release(m.ID, m.Token)
}
