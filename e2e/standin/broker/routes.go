package broker

import (
	"encoding/json"
	"math/rand/v2"
	"sort"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

// routes knows which node has subscriptions to which filters: this node's with a count, the others' as they tell.
type routes struct {
	b     *Broker
	mu    sync.Mutex
	local map[string]int
	peers map[string]map[string]int // by node: filter and number of subscribers
	index *mqtt.TopicsIndex         // the other nodes' filters, with the node's name as client id
}

func newRoutes(b *Broker) *routes {
	return &routes{b: b, local: map[string]int{}, peers: map[string]map[string]int{}, index: mqtt.NewTopicsIndex()}
}

// routeMsg is a node's number of subscribers to a filter; zero removes the route.
type routeMsg struct {
	Filter string `json:"f"`
	Count  int    `json:"c"`
}

// add counts a subscription of this node and tells whether the other nodes had to hear of it.
func (r *routes) add(filter string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.local[filter]++
	n := r.local[filter]
	if n > 1 && !mqtt.IsSharedFilter(filter) {
		return false
	}
	r.b.castAll(topicRoute, []routeMsg{{Filter: filter, Count: n}})
	return true
}

func (r *routes) remove(filter string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.local[filter] == 0 {
		return
	}
	r.local[filter]--
	n := r.local[filter]
	if n == 0 {
		delete(r.local, filter)
	}
	if n > 0 && !mqtt.IsSharedFilter(filter) {
		return
	}
	r.b.castAll(topicRoute, []routeMsg{{Filter: filter, Count: n}})
}

// tell gives a node that has just connected all routes of this node.
func (r *routes) tell(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]routeMsg, 0, len(r.local))
	for filter, n := range r.local {
		list = append(list, routeMsg{Filter: filter, Count: n})
	}
	if len(list) > 0 {
		r.b.castTo(node, topicRoute, list)
	}
}

func (r *routes) learn(node string, list []routeMsg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peers[node] == nil {
		r.peers[node] = map[string]int{}
	}
	for _, m := range list {
		if m.Count > 0 {
			r.peers[node][m.Filter] = m.Count
			r.index.Subscribe(node, packets.Subscription{Filter: m.Filter})
			continue
		}
		delete(r.peers[node], m.Filter)
		r.index.Unsubscribe(m.Filter, node)
	}
}

func (r *routes) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for filter := range r.peers[node] {
		r.index.Unsubscribe(filter, node)
	}
	delete(r.peers, node)
}

// topics is the number of filters this node knows, here and elsewhere.
func (r *routes) topics() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]struct{}{}
	for filter := range r.local {
		all[filter] = struct{}{}
	}
	for _, filters := range r.peers {
		for filter := range filters {
			all[filter] = struct{}{}
		}
	}
	return len(all)
}

// pick chooses a node for a shared filter at random, weighted by its subscribers.
func (r *routes) pick(filter string, nodes map[string]packets.Subscription, here int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(nodes))
	total := here
	for node := range nodes {
		names = append(names, node)
		total += r.peers[node][filter]
	}
	if total == 0 {
		return ""
	}
	sort.Strings(names)
	lot := rand.IntN(total) //nolint:gosec // a lot, no secret
	if lot < here {
		return r.b.bus.Self()
	}
	lot -= here
	for _, node := range names {
		n := r.peers[node][filter]
		if lot < n {
			return node
		}
		lot -= n
	}
	return ""
}

// publication is a message on its way to another node.
type publication struct {
	Message *session.Message `json:"m"`
	Plain   bool             `json:"p,omitempty"` // for ordinary subscriptions
	Shared  []string         `json:"s,omitempty"` // for one member of each of these groups
	Nodes   []string         `json:"t,omitempty"` // everybody it was sent to, when that is more than one
}

// publish routes a message that entered the cluster here, at once or when it is due.
func (b *Broker) publish(m *session.Message) {
	if topic, wait, later := delayOf(m.Topic, time.Now()); later {
		m.Topic = topic
		b.delayed.add(m, wait, func() { b.publish(m) })
		return
	}
	b.flow.RLock()
	defer b.flow.RUnlock()
	m.Version = b.nextVersion()
	if m.Retain {
		b.retained.store(m)
		b.castAll(topicRetain, []*session.Message{m})
	}
	remote := b.routes.index.Subscribers(m.Topic)
	here := b.index.Subscribers(m.Topic)
	targets := map[string]*publication{}
	target := func(node string) *publication {
		if targets[node] == nil {
			targets[node] = &publication{Message: m}
		}
		return targets[node]
	}
	for node := range remote.Subscriptions {
		target(node).Plain = true
	}
	var mine []string
	for filter, nodes := range remote.Shared {
		if node := b.routes.pick(filter, nodes, len(here.Shared[filter])); node == b.bus.Self() {
			mine = append(mine, filter)
		} else if node != "" {
			p := target(node)
			p.Shared = append(p.Shared, filter)
		}
	}
	for filter := range here.Shared {
		if _, elsewhere := remote.Shared[filter]; !elsewhere {
			mine = append(mine, filter)
		}
	}
	sent := plainTargets(targets)
	b.send(m, targets, sent)
	b.deliver(m, here, sent)
	b.deliverShared(m, here, mine)
}

// plainTargets lists the other nodes whose ordinary subscriptions get a message.
func plainTargets(targets map[string]*publication) []string {
	var nodes []string
	for node, p := range targets {
		if p.Plain {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// send numbers the message and queues it for the other nodes, in one step: a node's messages arrive in the order of
// their numbers.
func (b *Broker) send(m *session.Message, targets map[string]*publication, plain []string) {
	b.seqMu.Lock()
	defer b.seqMu.Unlock()
	b.seq++
	m.Node, m.Seq = b.bus.Self(), b.seq
	for node, p := range targets {
		if len(plain) > 1 {
			p.Nodes = plain
		}
		body, err := json.Marshal(p)
		if err != nil {
			b.log.Error("encode a message", "topic", m.Topic, "error", err)
			continue
		}
		if err := b.bus.CastRaw(node, topicPublish, body, true); err != nil {
			b.metrics.Dropped.Add(1)
			b.log.Warn("message not forwarded", "topic", m.Topic, "node", node, "error", err)
		} else {
			b.metrics.Forwarded.Add(1)
		}
	}
}

// receive delivers a message another node sent.
func (b *Broker) receive(node string, p publication) {
	b.flow.RLock()
	defer b.flow.RUnlock()
	b.marks.set(node, p.Message.Seq)
	here := b.index.Subscribers(p.Message.Topic)
	if p.Plain {
		b.deliver(p.Message, here, p.Nodes)
	}
	b.deliverShared(p.Message, here, p.Shared)
}

func (b *Broker) deliver(m *session.Message, subs *mqtt.Subscribers, targets []string) {
	for id, sub := range subs.Subscriptions {
		if sub.NoLocal && m.Origin == id {
			continue
		}
		if isGhost(id) {
			b.haunt(id, session.Delivery{
				Message: m, QoS: min(m.QoS, sub.Qos), Retain: m.Retain && sub.RetainAsPublished, SubscriptionIDs: identifiers(sub),
			}, targets)
			continue
		}
		if ch := b.channel(id); ch != nil {
			ch.deliver(session.Delivery{
				Message: m, QoS: min(m.QoS, sub.Qos), Retain: m.Retain && sub.RetainAsPublished, SubscriptionIDs: identifiers(sub),
			})
		}
	}
}

// deliverShared gives the message to one member of each group.
func (b *Broker) deliverShared(m *session.Message, subs *mqtt.Subscribers, filters []string) {
	for _, filter := range filters {
		members := subs.Shared[filter]
		ids := make([]string, 0, len(members))
		for id := range members {
			ids = append(ids, id)
		}
		for _, i := range rand.Perm(len(ids)) { //nolint:gosec // a lot, no secret
			sub := members[ids[i]]
			d := session.Delivery{
				Message: m, QoS: min(m.QoS, sub.Qos), SubscriptionIDs: identifiers(sub), Shared: true,
			}
			if isGhost(ids[i]) {
				b.haunt(ids[i], d, nil)
				break
			}
			if ch := b.channel(ids[i]); ch != nil {
				ch.deliver(d)
				break
			}
		}
	}
}

func identifiers(sub packets.Subscription) []int {
	var ids []int
	if len(sub.Identifiers) == 0 && sub.Identifier > 0 {
		return []int{sub.Identifier}
	}
	for _, id := range sub.Identifiers {
		if id > 0 {
			ids = append(ids, id)
		}
	}
	sort.Ints(ids)
	return ids
}

// marks is, by node, the number of the last message received from it.
type marks struct {
	mu   sync.Mutex
	last map[string]uint64
}

func (m *marks) set(node string, seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		m.last = map[string]uint64{}
	}
	m.last[node] = seq
}

func (m *marks) copy() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := make(map[string]uint64, len(m.last)+1)
	for node, seq := range m.last {
		c[node] = seq
	}
	return c
}
