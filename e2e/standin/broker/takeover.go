package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

// handedOver is what the old node tells when the takeover begins.
type handedOver struct {
	Found   bool             `json:"found"`
	MovedTo string           `json:"movedTo,omitempty"`
	Session session.Snapshot `json:"session"`
	Expiry  uint32           `json:"expiry"`
	Created time.Time        `json:"created"`
	Info    Info             `json:"info"`
}

// leftBehind is what the old node tells when the takeover ends.
type leftBehind struct {
	Pending []session.Delivery `json:"pending,omitempty"`
	Covered map[string]uint64  `json:"covered"`
}

const maxHops = 3

// fetch takes a session over from another node. The channel it returns is active and has no connection. It returns
// nil without an error when there is no such session any more.
func (b *Broker) fetch(ctx context.Context, id, owner string) (*channel, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeouts.Takeover)
	defer cancel()
	var got handedOver
	for hop := 0; ; hop++ {
		if err := b.bus.Call(ctx, owner, topicTakeover, idMsg{ID: id}, &got); err != nil {
			return nil, fmt.Errorf("begin: %w", err)
		}
		if got.Found {
			break
		}
		if got.MovedTo == "" || got.MovedTo == b.bus.Self() || hop == maxHops {
			return nil, nil
		}
		owner = got.MovedTo
	}
	ch := b.create(id)
	ch.mu.Lock()
	ch.sess = session.Import(got.Session)
	ch.expiry = got.Expiry
	ch.info = Info{Created: got.Created, Connected: got.Info.Connected, Left: got.Info.Left, Username: got.Info.Username,
		HasUser: got.Info.HasUser, Keepalive: got.Info.Keepalive, IP: got.Info.IP, Port: got.Info.Port}
	subs := ch.sess.Subscriptions()
	ch.mu.Unlock()
	for _, sub := range subs {
		b.index.Subscribe(id, sub)
		b.routes.add(sub.Filter)
	}
	if len(subs) > 0 {
		b.sync()
	}
	var rest leftBehind
	err := b.bus.Call(ctx, owner, topicTakeoverEnd, idMsg{ID: id}, &rest)
	if err != nil { // the old node died in between: what it had set aside is lost, the session is not
		b.log.Warn("takeover ended early", "client", id, "from", owner, "error", err)
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.sess.Merge(rest.Pending, ch.stash, rest.Covered)
	ch.stash, ch.covered = nil, rest.Covered
	ch.phase = active
	return ch, nil
}

// beginTakeover hands the session to another node and sets aside what arrives from now on.
func (b *Broker) beginTakeover(id, node string) handedOver {
	ch := b.channel(id)
	if ch == nil {
		return handedOver{MovedTo: b.registry.nodeOf(id)}
	}
	ch.mu.Lock()
	if ch.phase != active {
		moved := ch.movedTo
		ch.mu.Unlock()
		return handedOver{MovedTo: moved}
	}
	cl, w := ch.conn, ch.will
	if cl != nil && ch.expiry == 0 {
		// Nothing to hand over: such a session ends with its connection, and the client has a new one.
		ch.conn, ch.ready = nil, false
		ch.removeLocked()
		ch.mu.Unlock()
		ch.kick(cl, packets.ErrSessionTakenOver.Code, "")
		b.publishWill(w)
		return handedOver{}
	}
	proto := ch.info.Proto
	if cl != nil {
		ch.detachLocked(false)
	}
	ch.will = nil
	ch.phase, ch.movedTo = leaving, node
	got := handedOver{
		Found: true, Session: ch.sess.Export(), Expiry: ch.expiry, Created: ch.info.Created, Info: ch.info,
	}
	ch.mu.Unlock()
	ch.kick(cl, packets.ErrSessionTakenOver.Code, "")
	if cl != nil && w != nil && proto == 5 && w.delay == 0 {
		b.publishWill(w)
	}
	b.metrics.TakenOver.Add(1)
	return got
}

// endTakeover gives out what was set aside and forgets the session. Every other node has confirmed by now that it
// knows the new place, so that what follows the sync goes there.
func (b *Broker) endTakeover(id, node string) (leftBehind, error) {
	ch := b.channel(id)
	if ch == nil {
		return leftBehind{}, fmt.Errorf("end the takeover of client %s: %w", id, errNoSession)
	}
	missing := b.sync()
	b.flow.Lock()
	covered := b.marks.copy()
	b.seqMu.Lock()
	covered[b.bus.Self()] = b.seq
	b.seqMu.Unlock()
	ch.mu.Lock()
	if ch.phase != leaving || ch.movedTo != node {
		ch.mu.Unlock()
		b.flow.Unlock()
		return leftBehind{}, fmt.Errorf("end the takeover of client %s: %w", id, errNoSession)
	}
	for node, seq := range ch.covered { // what came with the session may not have come here yet
		covered[node] = max(covered[node], seq)
	}
	pending := ch.stash
	ch.stash = nil
	ch.phase = gone
	if len(missing) > 0 { // they may still send by older knowledge
		b.leaveGhost(id, node, ch.sess.Subscriptions(), missing)
	}
	b.flow.Unlock()
	ch.removeLocked()
	ch.mu.Unlock()
	return leftBehind{Pending: pending, Covered: covered}, nil
}

// restore keeps a session whose new node went down before it had it.
func (ch *channel) restore() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.phase != leaving {
		return
	}
	ch.phase, ch.movedTo = active, ""
	for _, d := range ch.stash {
		ch.sess.Enqueue(d)
	}
	ch.stash = nil
}

// ErrDiscarded is returned by MoveSession when the session cannot be moved and was given up.
var ErrDiscarded = errors.New("session discarded")

// MoveSession hands a session of this node to another node, where it waits for its client. An error other than
// ErrDiscarded leaves the session here; keep does so for every error.
func (b *Broker) MoveSession(ctx context.Context, id, recipient string, keep bool) error {
	var answer adoptAnswer
	err := b.bus.Call(ctx, recipient, topicAdopt, idMsg{ID: id}, &answer)
	switch {
	case err != nil:
		return fmt.Errorf("move the session of client %s to %s: %w", id, recipient, err)
	case answer.Error != "" && keep:
		return fmt.Errorf("move the session of client %s to %s: %s", id, recipient, answer.Error)
	case answer.Error != "":
		b.discard(id)
		return fmt.Errorf("move the session of client %s to %s: %s: %w", id, recipient, answer.Error, ErrDiscarded)
	default:
		return nil
	}
}

type adoptAnswer struct {
	Error string `json:"error,omitempty"`
}

// adopt takes over the session of a client that is away, and starts its expiry again.
func (b *Broker) adopt(ctx context.Context, id, from string) adoptAnswer {
	claim, err := b.claim(ctx, id)
	if err != nil {
		return adoptAnswer{Error: err.Error()}
	}
	defer claim.drop()
	if claim.owner != "" && claim.owner != from {
		return adoptAnswer{} // its client took it elsewhere a moment ago
	}
	ch, err := b.fetch(ctx, id, from)
	if err != nil {
		return adoptAnswer{Error: err.Error()}
	}
	if ch == nil {
		return adoptAnswer{}
	}
	ch.mu.Lock()
	ch.order = b.connSeq.Add(1)
	if ch.expiry != never {
		ch.expiresAt = time.Now().Add(time.Duration(ch.expiry) * time.Second)
	}
	ch.mu.Unlock()
	claim.register(ch)
	return adoptAnswer{}
}

// Kick ends a client's session for an administrator, and reports whether it was here.
func (b *Broker) Kick(id string) bool { return b.end(id, packets.ErrAdministrativeAction) }

// discard gives up a session.
func (b *Broker) discard(id string) {
	if b.end(id, packets.ErrSessionTakenOver) {
		b.metrics.Discarded.Add(1)
	}
}

// end takes a session away, whatever it is doing, and tells its client why.
func (b *Broker) end(id string, code packets.Code) bool {
	ch := b.channel(id)
	if ch == nil {
		return false
	}
	ch.mu.Lock()
	if ch.phase == gone {
		ch.mu.Unlock()
		return false
	}
	cl, version := ch.conn, ch.version
	ch.conn, ch.ready = nil, false
	ch.removeLocked()
	ch.mu.Unlock()
	ch.kick(cl, code.Code, "")
	b.unregister(id, version)
	return true
}
