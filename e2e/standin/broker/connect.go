package broker

import (
	"context"
	"errors"
	"fmt"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

// connect gives a client that has just connected its session: a new one, the one that is here, or the one another
// node has.
func (b *Broker) connect(ctx context.Context, cl *mqtt.Client, pk packets.Packet) error {
	claim, err := b.claim(ctx, cl.ID)
	if err != nil {
		return err
	}
	defer claim.drop()
	clean := pk.Connect.Clean
	ch := b.channel(cl.ID)
	if ch != nil && !ch.resume(cl, pk, clean) {
		ch = nil
	}
	if ch == nil && claim.owner != "" && claim.owner != b.bus.Self() {
		if clean {
			b.discardRemote(ctx, claim.owner, cl.ID)
		} else if ch, err = b.fetch(ctx, cl.ID, claim.owner); err != nil {
			b.log.Warn("takeover failed, the client gets a new session", "client", cl.ID, "from", claim.owner, "error", err)
		}
		if ch != nil {
			ch.mu.Lock()
			ch.attachLocked(cl, pk, true)
			ch.mu.Unlock()
			b.metrics.Resumed.Add(1)
		}
	}
	if ch == nil {
		ch = b.create(cl.ID)
		ch.mu.Lock()
		ch.attachLocked(cl, pk, false)
		ch.phase = active
		ch.mu.Unlock()
		b.metrics.Created.Add(1)
	}
	if err := b.enter(ch, cl); err != nil {
		return err
	}
	claim.register(ch)
	return nil
}

// resume lets a connection take over the session that is on this node. It reports false when the session is none
// to resume, because the client wants a new one or the old one has just ended.
func (ch *channel) resume(cl *mqtt.Client, pk packets.Packet, clean bool) bool {
	ch.mu.Lock()
	if ch.phase != active {
		ch.mu.Unlock()
		return false
	}
	old, w := ch.conn, ch.will
	if clean || ch.expiry == 0 { // a session that ends with its connection cannot be taken over
		ch.conn, ch.ready = nil, false
		ch.removeLocked()
		ch.mu.Unlock()
		ch.kick(old, packets.ErrSessionTakenOver.Code, "")
		if old != nil {
			ch.b.publishWill(w)
		}
		ch.b.metrics.Discarded.Add(1)
		return false
	}
	takenOver := old != nil && ch.info.Proto == 5 && w != nil && w.delay == 0
	ch.attachLocked(cl, pk, true)
	ch.mu.Unlock()
	ch.b.metrics.Resumed.Add(1)
	if old != nil {
		ch.kick(old, packets.ErrSessionTakenOver.Code, "")
	}
	if takenOver {
		ch.b.publishWill(w)
	}
	return true
}

// create enters a new channel that is still arriving.
func (b *Broker) create(id string) *channel {
	if old := b.channel(id); old != nil { // it waited for a node that has given up
		old.mu.Lock()
		if old.phase != gone {
			old.removeLocked()
		}
		old.mu.Unlock()
	}
	ch := &channel{b: b, id: id, sess: session.New(0)}
	b.mu.Lock()
	b.channels[id] = ch
	b.mu.Unlock()
	return ch
}

// enter notes whose connection it is.
func (b *Broker) enter(ch *channel, cl *mqtt.Client) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errStopping
	}
	b.conns[cl] = ch
	return nil
}

// claim is the right to decide on a client's session.
type claim struct {
	b     *Broker
	id    string
	owner string // where the session is; empty: nowhere
	home  string
	token string
	local func()
}

// claim locks a client id, first among the connects on this node, then at the id's home. Meanwhile the other keepers
// of the lock are asked, too.
func (b *Broker) claim(ctx context.Context, id string) (*claim, error) {
	token := fmt.Sprintf("%s/%d", b.bus.Self(), b.nextVersion())
	if err := b.local.Acquire(ctx, id, token, b.bus.Self()); err != nil {
		return nil, fmt.Errorf("lock client %s: %w", id, err)
	}
	c := &claim{b: b, id: id, token: token, local: func() { b.local.Release(id, token) }}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		b.askKeepers(ctx, id)
	}()
	defer func() { <-asked }()
	skip := map[string]bool{}
	for {
		c.home = b.homeOf(id, skip)
		owner, err := b.lockAt(ctx, c.home, id, token)
		if err == nil {
			c.owner = owner
			if c.owner == "" {
				c.owner = b.registry.nodeOf(id)
			}
			return c, nil
		}
		b.unlockAt(c.home, unlockMsg{ID: id, Token: token})
		if ctx.Err() != nil || c.home == b.bus.Self() {
			c.local()
			return nil, fmt.Errorf("lock client %s: %w", id, err)
		}
		skip[c.home] = true // it is freezing or going; until then the next in line is home
	}
}

// register makes the channel the client's one and only, for all nodes, and gives the lock back.
func (c *claim) register(ch *channel) {
	ch.mu.Lock()
	ch.version = c.b.nextVersion()
	r := row{ID: c.id, Node: c.b.bus.Self(), Version: ch.version}
	ch.mu.Unlock()
	c.b.announce(r)
	c.release(&r)
}

// drop gives the lock back, unless register has.
func (c *claim) drop() {
	if c.token != "" {
		c.release(nil)
	}
}

// release returns when the keepers have heard of it. Those who wait for the lock do not wait for that.
func (c *claim) release(r *row) {
	c.b.unlockAt(c.home, unlockMsg{ID: c.id, Token: c.token, Row: r})
	c.token = ""
	c.local()
	c.b.askKeepers(c.b.ctx, c.id)
}

func (b *Broker) discardRemote(ctx context.Context, owner, id string) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeouts.Takeover/2)
	defer cancel()
	if err := b.bus.Call(ctx, owner, topicDiscard, idMsg{ID: id}, nil); err != nil {
		b.log.Warn("discard a session elsewhere", "client", id, "node", owner, "error", err)
	}
}

// answerDiscard ends the session here because its client wants a new one elsewhere.
func (b *Broker) answerDiscard(id string) {
	ch := b.channel(id)
	if ch == nil {
		return
	}
	ch.mu.Lock()
	if ch.phase != active {
		ch.mu.Unlock()
		return
	}
	old, w := ch.conn, ch.will
	ch.conn, ch.ready = nil, false
	ch.removeLocked()
	ch.mu.Unlock()
	b.metrics.Discarded.Add(1)
	ch.kick(old, packets.ErrSessionTakenOver.Code, "")
	if old != nil {
		b.publishWill(w)
	}
}

// errNoSession is returned when the other node has no session of the client.
var errNoSession = errors.New("no_session")
