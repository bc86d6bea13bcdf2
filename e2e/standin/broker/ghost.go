package broker

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

// ghost stands in for a session that has moved on while some node was frozen and could not be told. When that node
// goes on, it may still send messages here by what it knew; the ghost sends them after the session.
type ghost struct {
	client string
	target string
	subs   []packets.Subscription
}

// ghosts are those of a node, by their names as subscribers.
type ghosts struct {
	mu    sync.Mutex
	all   map[string]*ghost
	late  map[string]*syncer // by new node and frozen node
	count int
}

// ghostMark tells a ghost's name from a client id: no client id has this character in front.
const ghostMark = "\x00ghost "

// leaveGhost is called under the flow lock, before the session's own subscriptions are removed.
func (b *Broker) leaveGhost(client, target string, subs []packets.Subscription, missing []string) {
	g := &ghost{client: client, target: target, subs: subs}
	b.ghosts.mu.Lock()
	if b.ghosts.all == nil {
		b.ghosts.all, b.ghosts.late = map[string]*ghost{}, map[string]*syncer{}
	}
	b.ghosts.count++
	name := fmt.Sprintf("%s%d", ghostMark, b.ghosts.count)
	b.ghosts.all[name] = g
	b.ghosts.mu.Unlock()
	for _, sub := range subs {
		b.index.Subscribe(name, sub)
		b.routes.add(sub.Filter)
	}
	b.log.Debug("ghost", "client", client, "target", target, "missing", missing)
	go func() {
		for _, node := range missing {
			b.lateSync(target, node).wait()
		}
		b.ghosts.mu.Lock()
		delete(b.ghosts.all, name)
		b.ghosts.mu.Unlock()
		for _, sub := range subs {
			b.index.Unsubscribe(sub.Filter, name)
			b.routes.remove(sub.Filter)
		}
	}()
}

type nodeMsg struct {
	Node string `json:"node"`
}

// lateSync waits until a frozen node has heard of the new place from the new node, and until what it had sent here
// before that has arrived; or until it is down.
func (b *Broker) lateSync(target, frozen string) *syncer {
	b.ghosts.mu.Lock()
	defer b.ghosts.mu.Unlock()
	key := target + " " + frozen
	if b.ghosts.late[key] == nil {
		b.ghosts.late[key] = newSyncer(func() []string {
			for _, err := range []error{
				b.bus.Call(b.ctx, target, topicSyncWith, nodeMsg{Node: frozen}, nil),
				b.bus.Call(b.ctx, frozen, topicSync, struct{}{}, nil),
			} {
				if err != nil {
					b.log.Debug("late sync", "target", target, "node", frozen, "error", err)
				}
			}
			return nil
		})
	}
	return b.ghosts.late[key]
}

// haunt forwards a message to the session that a ghost stands for, unless its new node got it itself.
func (b *Broker) haunt(name string, d session.Delivery, targets []string) {
	b.ghosts.mu.Lock()
	g := b.ghosts.all[name]
	b.ghosts.mu.Unlock()
	if g == nil {
		return
	}
	if !d.Shared && (d.Message.Node == g.target || slices.Contains(targets, g.target)) {
		return
	}
	b.forward(g.target, forwarded{ID: g.client, Delivery: d})
}

// forwarded is a message that is sent after a session.
type forwarded struct {
	ID       string           `json:"id"`
	Delivery session.Delivery `json:"d"`
	Hops     int              `json:"hops,omitempty"`
}

func (b *Broker) forward(node string, f forwarded) {
	if err := b.bus.Cast(node, topicForward, f, false); err != nil {
		b.metrics.Dropped.Add(1)
		b.log.Warn("message not sent after a session", "client", f.ID, "node", node, "error", err)
	}
}

// takeForwarded delivers such a message, or sends it on.
func (b *Broker) takeForwarded(f forwarded) {
	if ch := b.channel(f.ID); ch != nil {
		ch.deliver(f.Delivery)
		return
	}
	next := b.registry.nodeOf(f.ID)
	if next == "" || next == b.bus.Self() || f.Hops == maxHops {
		return
	}
	f.Hops++
	b.forward(next, f)
}

func isGhost(name string) bool { return strings.HasPrefix(name, ghostMark) }
