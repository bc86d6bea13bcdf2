package broker

import (
	"sort"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Metrics counts what the broker did since it started.
type Metrics struct {
	Connects, Connected, Disconnected                atomic.Int64
	Created, Resumed, TakenOver, Discarded           atomic.Int64
	Received, Sent, Forwarded, Dropped, ReceivedQoS1 atomic.Int64
	maxSessions                                      atomic.Int64
}

func (m *Metrics) received(pk packets.Packet) {
	m.Received.Add(1)
	if pk.FixedHeader.Qos == 1 {
		m.ReceivedQoS1.Add(1)
	}
}

func (m *Metrics) sent(pk packets.Packet) {
	if pk.FixedHeader.Type == packets.Publish {
		m.Sent.Add(1)
	}
}

func (m *Metrics) sessions(n int) {
	for {
		most := m.maxSessions.Load()
		if int64(n) <= most || m.maxSessions.CompareAndSwap(most, int64(n)) {
			return
		}
	}
}

// Metrics gives the broker's counters, which go on counting.
func (b *Broker) Metrics() *Metrics { return &b.metrics }

// Figures is how much of everything there is now.
type Figures struct {
	Connections     int // sessions on this node, of connected clients and of absent ones
	Live            int // connected clients
	ClusterSessions int // sessions in the cluster
	Topics          int // filters known
	Subscriptions   int
	Shared          int
	Retained        int
	Delayed         int // messages on this node that are not due
	MaxSessions     int // the most cluster sessions seen
}

// Figures counts sessions, clients and subscriptions.
func (b *Broker) Figures() Figures {
	f := Figures{
		ClusterSessions: b.ClusterSessions(), Topics: b.routes.topics(), Retained: b.retained.size(), Delayed: b.delayed.size(),
		MaxSessions: int(b.metrics.maxSessions.Load()),
	}
	for _, ch := range b.all() {
		ch.mu.Lock()
		f.Connections++
		if ch.conn != nil {
			f.Live++
		}
		for _, sub := range ch.sess.Subscriptions() {
			f.Subscriptions++
			if mqtt.IsSharedFilter(sub.Filter) {
				f.Shared++
			}
		}
		ch.mu.Unlock()
	}
	return f
}

// Live is the number of connected clients.
func (b *Broker) Live() int {
	n := 0
	for _, ch := range b.all() {
		ch.mu.Lock()
		if ch.conn != nil {
			n++
		}
		ch.mu.Unlock()
	}
	return n
}

// Sessions is the number of sessions on this node, of connected clients and of absent ones.
func (b *Broker) Sessions() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.channels)
}

// ClusterSessions is the number of sessions in the cluster.
func (b *Broker) ClusterSessions() int { return b.registry.size() }

// OnListener counts the sessions whose client connected by a listener of this node; EMQX counts absent ones too.
func (b *Broker) OnListener(id string) int {
	n := 0
	for _, ch := range b.all() {
		ch.mu.Lock()
		if ch.info.Listener == id {
			n++
		}
		ch.mu.Unlock()
	}
	return n
}

// Client describes one session for the API.
type Client struct {
	ID            string
	Connected     bool
	Info          Info
	Expiry        uint32 // seconds
	Subscriptions int
	Queue         int
	Inflight      int
	AwaitingRel   int
	Dropped       int
	Recv, Send    [3]uint64 // messages by QoS
}

// ClientList lists the sessions on this node by client id, the last first, as EMQX does.
func (b *Broker) ClientList() []Client {
	all := b.all()
	list := make([]Client, 0, len(all))
	for _, ch := range all {
		ch.mu.Lock()
		list = append(list, Client{
			ID: ch.id, Connected: ch.conn != nil, Info: ch.info, Expiry: ch.expiry,
			Subscriptions: ch.sess.SubscriptionCount(), Queue: ch.sess.QueueLen(), Inflight: ch.sess.InflightLen(),
			AwaitingRel: ch.sess.AwaitingRelLen(), Dropped: ch.sess.Dropped(), Recv: ch.recv, Send: ch.send,
		})
		ch.mu.Unlock()
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID > list[j].ID })
	return list
}

// EvictConnections disconnects up to n clients, those first who connected first, and tells how many.
func (b *Broker) EvictConnections(n int, serverReference string) int {
	type live struct {
		ch    *channel
		order uint64
	}
	var lives []live
	for _, ch := range b.all() {
		ch.mu.Lock()
		if ch.conn != nil && ch.phase == active {
			lives = append(lives, live{ch, ch.order})
		}
		ch.mu.Unlock()
	}
	sort.Slice(lives, func(i, j int) bool { return lives[i].order < lives[j].order })
	evicted := 0
	for _, l := range lives {
		if evicted == n {
			break
		}
		if l.ch.evict(packets.ErrUseAnotherServer.Code, serverReference) {
			evicted++
		}
	}
	return evicted
}

// SessionIDs lists up to n sessions on this node in the order in which they came; absent restricts it to sessions
// of clients that are away.
func (b *Broker) SessionIDs(n int, absent bool) []string {
	type known struct {
		id    string
		order uint64
	}
	var all []known
	for _, ch := range b.all() {
		ch.mu.Lock()
		if ch.phase == active && (!absent || ch.conn == nil) {
			all = append(all, known{ch.id, ch.order})
		}
		ch.mu.Unlock()
	}
	sort.Slice(all, func(i, j int) bool { return all[i].order < all[j].order })
	ids := make([]string, 0, min(n, len(all)))
	for _, k := range all[:min(n, len(all))] {
		ids = append(ids, k.id)
	}
	return ids
}

// Persistent reports whether the session outlives its connection.
func (c Client) Persistent() bool { return c.Expiry > 0 }
