package broker

import (
	"encoding/json"
	"sync"
)

// row says where a client's session is. Of two rows the one with the higher version is right.
type row struct {
	ID      string `json:"id"`
	Node    string `json:"node"`
	Version int64  `json:"version"` // unix nanoseconds
}

// registry is every session of the cluster by client id, as far as this node has heard.
type registry struct {
	mu   sync.RWMutex
	rows map[string]row
}

func newRegistry() *registry { return &registry{rows: map[string]row{}} }

// put enters a row unless a newer one is known, and reports whether it did.
func (r *registry) put(n row) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.rows[n.ID]
	if known && (old.Version > n.Version || (old.Version == n.Version && old.Node >= n.Node)) {
		return false
	}
	r.rows[n.ID] = n
	return true
}

// remove deletes the row unless a newer one has replaced it.
func (r *registry) remove(n row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, known := r.rows[n.ID]; known && old.Version <= n.Version {
		delete(r.rows, n.ID)
	}
}

func (r *registry) removeNode(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, old := range r.rows {
		if old.Node == node {
			delete(r.rows, id)
		}
	}
}

func (r *registry) nodeOf(id string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.rows[id].Node
}

func (r *registry) has(id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, known := r.rows[id]
	return known
}

func (r *registry) size() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.rows)
}

func (r *registry) of(node string) []row {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var rows []row
	for _, n := range r.rows {
		if n.Node == node {
			rows = append(rows, n)
		}
	}
	return rows
}

// announce enters a row of this node here and everywhere. The lock keeps its order with tellSessions.
func (b *Broker) announce(n row) {
	b.registryOrder.Lock()
	defer b.registryOrder.Unlock()
	b.registry.put(n)
	b.metrics.sessions(b.registry.size())
	b.castAll(topicRegister, []row{n})
}

func (b *Broker) unregister(id string, version int64) {
	b.registryOrder.Lock()
	defer b.registryOrder.Unlock()
	n := row{ID: id, Node: b.bus.Self(), Version: version}
	b.registry.remove(n)
	b.castAll(topicUnregister, n)
}

// tellSessions gives a node that has just connected all sessions of this node.
func (b *Broker) tellSessions(node string) {
	b.registryOrder.Lock()
	defer b.registryOrder.Unlock()
	if rows := b.registry.of(b.bus.Self()); len(rows) > 0 {
		b.castTo(node, topicRegister, rows)
	}
}

// learn takes a row from another node. When the client's session here is older, it has been replaced.
func (b *Broker) learn(n row) {
	if !b.registry.put(n) || n.Node == b.bus.Self() {
		return
	}
	b.metrics.sessions(b.registry.size())
	ch := b.channel(n.ID)
	if ch == nil {
		return
	}
	ch.mu.Lock()
	stale := ch.phase == active && ch.version != 0 && ch.version < n.Version
	ch.mu.Unlock()
	if stale {
		b.log.Warn("two sessions of one client, the older is discarded", "client", n.ID, "newer", n.Node)
		b.answerDiscard(n.ID)
	}
}

func (b *Broker) castAll(topic string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		b.log.Error("encode a cast", "topic", topic, "error", err)
		return
	}
	for _, node := range b.bus.Linked() {
		b.noteCast(node, topic, b.bus.CastRaw(node, topic, body, false))
	}
}

func (b *Broker) castTo(node, topic string, v any) {
	b.noteCast(node, topic, b.bus.Cast(node, topic, v, false))
}

func (b *Broker) noteCast(node, topic string, err error) {
	if err != nil {
		b.log.Debug("cast", "topic", topic, "node", node, "error", err) // it gets everything when it connects again
	}
}
