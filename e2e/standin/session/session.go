package session

import (
	"math"
	"sort"

	"github.com/mochi-mqtt/server/v2/packets"
)

// EMQX's default limits.
const (
	MaxInflight    = 32
	MaxQueue       = 1000
	MaxAwaitingRel = 100
)

// flight is one message sent and not yet acknowledged.
type flight struct {
	ID       uint16   `json:"id"`
	Delivery Delivery `json:"d"`
	Released bool     `json:"rel,omitempty"` // QoS 2: PUBREC came, PUBREL is out
}

// waiting is one message in the queue, with its place in the order of arrival.
type waiting struct {
	seq      uint64
	delivery Delivery
}

// Session is one client's session. The zero value is not usable; see New.
type Session struct {
	subscriptions map[string]packets.Subscription
	inflight      []flight  // in the order of sending
	acked         []waiting // QoS 1 and 2, in the order of arrival
	plain         []waiting // QoS 0, in the order of arrival
	awaitingRel   map[uint16]struct{}
	window        int
	lastID        uint16
	nextSeq       uint64
	dropped       int
}

// New is a session without subscriptions whose client takes window messages in flight; 0 stands for MaxInflight.
func New(window int) *Session {
	s := &Session{}
	s.SetWindow(window)
	return s
}

// SetWindow adapts the session to a client that has just connected.
func (s *Session) SetWindow(window int) {
	if window <= 0 || window > MaxInflight {
		window = MaxInflight
	}
	s.window = window
}

// Subscribe adds or replaces a subscription and tells whether its filter is new.
func (s *Session) Subscribe(sub packets.Subscription) bool {
	if s.subscriptions == nil {
		s.subscriptions = map[string]packets.Subscription{}
	}
	_, existed := s.subscriptions[sub.Filter]
	s.subscriptions[sub.Filter] = sub
	return !existed
}

// Unsubscribe removes a subscription and tells whether there was one.
func (s *Session) Unsubscribe(filter string) bool {
	_, existed := s.subscriptions[filter]
	delete(s.subscriptions, filter)
	return existed
}

// Subscriptions lists the subscriptions by filter.
func (s *Session) Subscriptions() []packets.Subscription {
	subs := make([]packets.Subscription, 0, len(s.subscriptions))
	for _, sub := range s.subscriptions {
		subs = append(subs, sub)
	}
	sort.Slice(subs, func(i, j int) bool { return subs[i].Filter < subs[j].Filter })
	return subs
}

// SubscriptionCount is the number of subscriptions.
func (s *Session) SubscriptionCount() int { return len(s.subscriptions) }

// QueueLen is the number of messages that wait to be sent.
func (s *Session) QueueLen() int { return len(s.acked) + len(s.plain) }

// InflightLen is the number of messages sent and not acknowledged.
func (s *Session) InflightLen() int { return len(s.inflight) }

// AwaitingRelLen is the number of QoS 2 messages received and not released.
func (s *Session) AwaitingRelLen() int { return len(s.awaitingRel) }

// Dropped is the number of messages that a full queue has cost so far.
func (s *Session) Dropped() int { return s.dropped }

// Enqueue adds a delivery. A full queue loses its oldest message.
func (s *Session) Enqueue(d Delivery) {
	if s.QueueLen() >= MaxQueue {
		s.dropOldest()
	}
	w := waiting{seq: s.nextSeq, delivery: d}
	s.nextSeq++
	if d.QoS == 0 {
		s.plain = append(s.plain, w)
	} else {
		s.acked = append(s.acked, w)
	}
}

func (s *Session) dropOldest() {
	s.dropped++
	if len(s.acked) == 0 || (len(s.plain) > 0 && s.plain[0].seq < s.acked[0].seq) {
		s.plain = pop(s.plain)
		return
	}
	s.acked = pop(s.acked)
}

// pop removes the first element and lets go of the array when it was the last.
func pop(q []waiting) []waiting {
	q[0] = waiting{}
	if len(q) == 1 {
		return nil
	}
	return q[1:]
}

// Next takes the next packet that may be sent at now (unix seconds). QoS 0 passes a full window; expired messages
// are left out.
func (s *Session) Next(now int64) (packets.Packet, bool) {
	for {
		open := len(s.acked) > 0 && len(s.inflight) < s.window
		switch {
		case len(s.plain) > 0 && (!open || s.plain[0].seq < s.acked[0].seq):
			d := s.plain[0].delivery
			s.plain = pop(s.plain)
			if expired(d, now) {
				continue
			}
			return d.Packet(0, false), true
		case open:
			d := s.acked[0].delivery
			s.acked = pop(s.acked)
			if expired(d, now) {
				continue
			}
			id := s.freeID()
			s.inflight = append(s.inflight, flight{ID: id, Delivery: d})
			return d.Packet(id, false), true
		default:
			return packets.Packet{}, false
		}
	}
}

func expired(d Delivery, now int64) bool { return d.Message.Expiry > 0 && d.Message.Expiry < now }

// freeID is the next packet id that is not in flight. The window is far smaller than the space, so there is one.
func (s *Session) freeID() uint16 {
	for {
		if s.lastID == math.MaxUint16 {
			s.lastID = 0
		}
		s.lastID++
		if s.find(s.lastID) < 0 {
			return s.lastID
		}
	}
}

func (s *Session) find(id uint16) int {
	for i := range s.inflight {
		if s.inflight[i].ID == id {
			return i
		}
	}
	return -1
}

// Done ends the flight of a message: PUBACK, PUBCOMP, or an error in PUBREC. It tells whether the id was in flight.
func (s *Session) Done(id uint16) bool {
	i := s.find(id)
	if i < 0 {
		return false
	}
	s.inflight = append(s.inflight[:i], s.inflight[i+1:]...)
	if len(s.inflight) == 0 {
		s.inflight = nil
	}
	return true
}

// Received notes a PUBREC and tells whether the id was in flight.
func (s *Session) Received(id uint16) bool {
	i := s.find(id)
	if i < 0 {
		return false
	}
	s.inflight[i].Released = true
	return true
}

// Resend lists the packets that a client who comes back gets again, in the order of their first sending.
func (s *Session) Resend() []packets.Packet {
	out := make([]packets.Packet, 0, len(s.inflight))
	for _, f := range s.inflight {
		if f.Released {
			out = append(out, packets.Packet{
				FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: f.ID,
			})
			continue
		}
		out = append(out, f.Delivery.Packet(f.ID, true))
	}
	return out
}

// AwaitRel notes a received QoS 2 message. fresh is false for one that is known already, full when there is no room.
func (s *Session) AwaitRel(id uint16) (fresh, full bool) {
	if _, known := s.awaitingRel[id]; known {
		return false, false
	}
	if len(s.awaitingRel) >= MaxAwaitingRel {
		return false, true
	}
	if s.awaitingRel == nil {
		s.awaitingRel = map[uint16]struct{}{}
	}
	s.awaitingRel[id] = struct{}{}
	return true, false
}

// Release notes a PUBREL and tells whether the id was waiting for it.
func (s *Session) Release(id uint16) bool {
	_, known := s.awaitingRel[id]
	delete(s.awaitingRel, id)
	return known
}
