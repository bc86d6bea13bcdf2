package session

import (
	"sort"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Snapshot is a session on its way to another node.
type Snapshot struct {
	Subscriptions []packets.Subscription `json:"subs,omitempty"`
	Inflight      []flight               `json:"inflight,omitempty"`
	Queue         []Delivery             `json:"queue,omitempty"`
	AwaitingRel   []uint16               `json:"awaitingRel,omitempty"`
	LastID        uint16                 `json:"lastId"`
	Dropped       int                    `json:"dropped,omitempty"`
}

// Export copies the session.
func (s *Session) Export() Snapshot {
	snap := Snapshot{Subscriptions: s.Subscriptions(), LastID: s.lastID, Dropped: s.dropped}
	snap.Inflight = append(snap.Inflight, s.inflight...)
	snap.Queue = s.queued()
	for id := range s.awaitingRel {
		snap.AwaitingRel = append(snap.AwaitingRel, id)
	}
	return snap
}

// queued lists both queues in the order of arrival.
func (s *Session) queued() []Delivery {
	all := append(append(make([]waiting, 0, s.QueueLen()), s.acked...), s.plain...)
	sort.Slice(all, func(i, j int) bool { return all[i].seq < all[j].seq })
	out := make([]Delivery, len(all))
	for i, w := range all {
		out[i] = w.delivery
	}
	return out
}

// Import makes a session from a snapshot.
func Import(snap Snapshot) *Session {
	s := New(0)
	for _, sub := range snap.Subscriptions {
		s.Subscribe(sub)
	}
	s.inflight = append(s.inflight, snap.Inflight...)
	for _, d := range snap.Queue {
		s.Enqueue(d)
	}
	for _, id := range snap.AwaitingRel {
		s.AwaitRel(id)
	}
	s.lastID, s.dropped = snap.LastID, snap.Dropped
	return s
}

// Merge queues what arrived while the session was on its way: first what came to the old node, then what came to
// the new one alone. covered holds, by publishing node, the last message the old node has seen; it has had every
// earlier one that matches the session. What one publisher sent stays in order, because the old node has everything
// up to a point and the new node everything from before that point on.
func (s *Session) Merge(old, fresh []Delivery, covered map[string]uint64) {
	for _, d := range old {
		s.Enqueue(d)
	}
	for _, d := range fresh {
		if d.Shared || d.Message.Seq > covered[d.Message.Node] {
			s.Enqueue(d)
		}
	}
}
