package broker

import (
	"errors"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

// phase is where a channel is in its life.
type phase int

const (
	arriving phase = iota // its session is being fetched from another node; deliveries are set aside
	active                // the session is here
	leaving               // another node is fetching the session; deliveries are set aside for it
	gone                  // the session is not here any more
)

// never is the session expiry interval that stands for no expiry.
const never uint32 = 0xFFFFFFFF

// will is a client's last will.
type will struct {
	message *session.Message
	delay   time.Duration
}

// channel is a client's place on this node.
type channel struct {
	b  *Broker
	id string

	mu      sync.Mutex
	phase   phase
	sess    *session.Session
	conn    *mqtt.Client // nil while the client is away
	ready   bool         // CONNACK is out: packets may follow
	pumping bool
	stash   []session.Delivery // set aside while arriving or leaving
	movedTo string             // when leaving or gone: where the session went
	covered map[string]uint64  // by publishing node: up to where the old node has delivered to the session
	pending []session.Delivery // retained messages that go out after SUBACK
	present bool               // what CONNACK says about the session
	limits  Limits             // those when the client connected

	version    int64 // of its registration
	order      uint64
	expiry     uint32 // seconds
	expiresAt  time.Time
	will       *will
	willAt     time.Time
	info       Info
	recv, send [3]uint64 // messages by QoS
}

// Info is what a client said and did when it connected.
type Info struct {
	Listener   string
	Proto      byte // 3, 4 or 5; 0 for a session that was moved here
	CleanStart bool
	Username   string
	HasUser    bool
	Keepalive  uint16
	IP         string
	Port       int
	Created    time.Time
	Connected  time.Time
	Left       time.Time
}

// deliver hands a delivery to the session. It does not block.
func (ch *channel) deliver(d session.Delivery) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if !d.Shared && d.Message.Seq <= ch.covered[d.Message.Node] {
		return // it came with the session, and only now by the direct way
	}
	switch ch.phase {
	case active:
		ch.sess.Enqueue(d)
		ch.startPumpLocked()
	case arriving, leaving:
		ch.stash = append(ch.stash, d)
	case gone:
	}
}

// startPumpLocked makes sure that what may be sent is sent. A channel has no goroutine while it is idle.
func (ch *channel) startPumpLocked() {
	if ch.pumping || ch.conn == nil || !ch.ready || ch.phase != active || ch.sess.QueueLen() == 0 {
		return
	}
	ch.pumping = true
	go ch.pump()
}

const pumpBatch = 32

func (ch *channel) pump() {
	var batch []packets.Packet
	for {
		ch.mu.Lock()
		batch = batch[:0]
		conn := ch.conn
		if conn != nil && ch.ready && ch.phase == active {
			now := time.Now().Unix()
			for len(batch) < pumpBatch {
				pk, ok := ch.sess.Next(now)
				if !ok {
					break
				}
				ch.send[pk.FixedHeader.Qos]++
				batch = append(batch, pk)
			}
		}
		if len(batch) == 0 {
			ch.pumping = false
			ch.mu.Unlock()
			return
		}
		ch.mu.Unlock()
		for _, pk := range batch {
			if !ch.write(conn, pk) {
				ch.mu.Lock()
				ch.pumping = false
				ch.startPumpIfReplacedLocked(conn)
				ch.mu.Unlock()
				return
			}
		}
	}
}

// startPumpIfReplacedLocked goes on with a new connection when the old one broke under the pump.
func (ch *channel) startPumpIfReplacedLocked(broken *mqtt.Client) {
	if ch.conn != broken {
		ch.startPumpLocked()
	}
}

// write sends a packet and reports whether the connection is still good. A packet the client calls too large is
// dropped.
func (ch *channel) write(conn *mqtt.Client, pk packets.Packet) bool {
	err := conn.WritePacket(pk)
	if err == nil {
		ch.b.metrics.sent(pk)
		return true
	}
	if errors.Is(err, packets.ErrPacketTooLarge) {
		ch.mu.Lock()
		ch.sess.Done(pk.PacketID)
		ch.mu.Unlock()
		return true
	}
	conn.Stop(err)
	return false
}

// attachLocked gives the channel a connection.
func (ch *channel) attachLocked(cl *mqtt.Client, pk packets.Packet, present bool) {
	ch.conn, ch.ready, ch.present, ch.limits = cl, false, present, *ch.b.limits.Load()
	ch.order = ch.b.connSeq.Add(1)
	ch.expiry = ch.b.expiryOf(cl)
	ch.expiresAt, ch.willAt = time.Time{}, time.Time{}
	ch.sess.SetWindow(int(cl.Properties.Props.ReceiveMaximum))
	ch.will = ch.b.willOf(cl)
	now := time.Now()
	created := ch.info.Created
	if created.IsZero() {
		created = now
	}
	ch.info = Info{
		Listener: cl.Net.Listener, Proto: cl.Properties.ProtocolVersion, CleanStart: pk.Connect.Clean,
		Username: string(pk.Connect.Username), HasUser: pk.Connect.UsernameFlag, Keepalive: pk.Connect.Keepalive,
		Created: created, Connected: now,
	}
	if addr, ok := cl.Net.Conn.RemoteAddr().(*net.TCPAddr); ok {
		ch.info.IP, ch.info.Port = addr.IP.String(), addr.Port
	}
}

func (ch *channel) tooLarge(cl *mqtt.Client, pk packets.Packet) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.conn == cl && uint32(pk.FixedHeader.Remaining)+1 > ch.limits.MaxPacketBytes //nolint:gosec // at most largestPacket
}

// detachLocked takes the connection away and starts the clocks of session and will. It returns the will when it is
// due at once.
func (ch *channel) detachLocked(withWill bool) *will {
	ch.conn, ch.ready, ch.pending = nil, false, nil
	now := time.Now()
	ch.info.Left = now
	if ch.expiry != never {
		ch.expiresAt = now.Add(time.Duration(ch.expiry) * time.Second)
	}
	w := ch.will
	if !withWill || w == nil {
		ch.will = nil
		return nil
	}
	if w.delay == 0 || ch.expiry == 0 {
		ch.will = nil
		return w
	}
	ch.willAt = now.Add(w.delay)
	return nil
}

// kick disconnects the client and tells MQTT 5 clients the reason code. The session stays. The channel that it returns is
// closed when that is done.
func (ch *channel) kick(cl *mqtt.Client, code byte, serverReference string) <-chan struct{} {
	done := make(chan struct{})
	if cl == nil {
		close(done)
		return done
	}
	go func() {
		defer close(done)
		// A client that takes nothing must not keep its connection because DISCONNECT cannot be written.
		force := time.AfterFunc(2*time.Second, func() { cl.Stop(packets.ErrUnspecifiedError) })
		defer force.Stop()
		if cl.Properties.ProtocolVersion == 5 {
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: code}
			pk.Properties.ServerReference = serverReference
			_ = cl.WritePacket(pk) // it is being closed either way
		}
		cl.Stop(packets.Code{Code: code, Reason: "disconnected by the server"})
	}()
	return done
}

// evict disconnects the client and keeps its session, or ends it when the session does not outlive a connection. It
// reports whether there was a connection.
func (ch *channel) evict(code byte, serverReference string) bool {
	ch.mu.Lock()
	cl := ch.conn
	if cl == nil || ch.phase != active {
		ch.mu.Unlock()
		return false
	}
	due := ch.detachLocked(true)
	expiry := ch.expiry
	ch.mu.Unlock()
	ch.kick(cl, code, serverReference)
	ch.b.publishWill(due)
	if expiry == 0 {
		ch.b.endSession(ch)
	}
	return true
}

// shutDown drops the connection because the node stops.
func (ch *channel) shutDown() <-chan struct{} {
	ch.mu.Lock()
	cl := ch.conn
	ch.phase = gone
	ch.conn = nil
	ch.mu.Unlock()
	return ch.kick(cl, packets.ErrServerShuttingDown.Code, "")
}

func (ch *channel) endWithListener(id string) {
	ch.mu.Lock()
	if ch.info.Listener != id || ch.phase != active {
		ch.mu.Unlock()
		return
	}
	cl, w, version := ch.conn, ch.will, ch.version
	ch.conn, ch.ready = nil, false
	ch.removeLocked()
	ch.mu.Unlock()
	if cl != nil {
		cl.Stop(packets.ErrServerShuttingDown)
	}
	ch.b.unregister(ch.id, version)
	ch.b.publishWill(w)
}

// expiryOf is a connection's session expiry interval in seconds.
func (b *Broker) expiryOf(cl *mqtt.Client) uint32 {
	if cl.Properties.ProtocolVersion == 5 {
		return cl.Properties.Props.SessionExpiryInterval
	}
	if cl.Properties.Clean {
		return 0
	}
	return uint32(min(b.cfg.SessionExpiry/time.Second, math.MaxUint32)) //nolint:gosec // it is in range
}

// willOf takes the will from the library, whose deliveries bypass the sessions.
func (b *Broker) willOf(cl *mqtt.Client) *will {
	w := cl.Properties.Will
	cl.Properties.Will = mqtt.Will{}
	if w.Flag == 0 || w.TopicName == "" || strings.ContainsAny(w.TopicName, "+#") {
		return nil
	}
	return &will{
		message: &session.Message{
			Topic: w.TopicName, Payload: w.Payload, QoS: w.Qos, Retain: w.Retain, Origin: cl.ID, User: w.User,
		},
		delay: time.Duration(w.WillDelayInterval) * time.Second,
	}
}

func (b *Broker) publishWill(w *will) {
	if w == nil {
		return
	}
	m := *w.message
	b.publish(&m)
}

// endSession removes a channel with everything that belongs to it.
func (b *Broker) endSession(ch *channel) {
	ch.mu.Lock()
	if ch.phase != active || ch.conn != nil {
		ch.mu.Unlock()
		return
	}
	due := ch.will
	ch.removeLocked()
	version := ch.version
	ch.mu.Unlock()
	b.unregister(ch.id, version)
	b.publishWill(due)
}

// removeLocked takes the channel out of all tables. It is done under the channel's lock, so that whoever finds the
// channel gone may make a new one for the same client at once.
func (ch *channel) removeLocked() {
	ch.phase = gone
	ch.will = nil
	b := ch.b
	for _, sub := range ch.sess.Subscriptions() {
		b.index.Unsubscribe(sub.Filter, ch.id)
		b.routes.remove(sub.Filter)
	}
	b.mu.Lock()
	if b.channels[ch.id] == ch {
		delete(b.channels, ch.id)
	}
	b.mu.Unlock()
}

func (b *Broker) all() []*channel {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make([]*channel, 0, len(b.channels))
	for _, ch := range b.channels {
		all = append(all, ch)
	}
	return all
}
