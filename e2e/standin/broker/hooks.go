package broker

import (
	"context"
	"errors"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

var errRefused = errors.New("connection refused")

// hook is where the library meets the sessions.
type hook struct {
	mqtt.HookBase
	b *Broker
}

// ID names the hook.
func (h *hook) ID() string { return "sessions" }

// Provides lists the events the hook takes part in.
func (h *hook) Provides(event byte) bool {
	switch event {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnSessionEstablish,
		mqtt.OnSessionEstablished, mqtt.OnDisconnect, mqtt.OnPacketRead, mqtt.OnPacketEncode,
		mqtt.OnPacketProcessed, mqtt.OnSubscribed, mqtt.OnUnsubscribed, mqtt.OnPublish:
		return true
	default:
		return false
	}
}

// OnConnectAuthenticate lets everybody in: EMQX has no authentication by default.
func (h *hook) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

// OnACLCheck allows every topic.
func (h *hook) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

// OnConnect turns clients down while the node is being evacuated, before anything else is looked at, and when the
// licence allows no more sessions.
func (h *hook) OnConnect(cl *mqtt.Client, _ packets.Packet) error {
	h.b.metrics.Connects.Add(1)
	if r := h.b.refusal.Load(); r != nil {
		return h.refuse(cl, packets.ErrUseAnotherServer, r.ServerReference)
	}
	if limit := h.b.cfg.MaxSessions; limit != nil && !h.b.registry.has(cl.ID) && h.b.counted.Load() >= int64(limit()) {
		return h.refuse(cl, packets.ErrQuotaExceeded, "")
	}
	return nil
}

func (h *hook) refuse(cl *mqtt.Client, code packets.Code, serverReference string) error {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ReasonCode: code.Code}
	if cl.Properties.ProtocolVersion < 5 {
		pk.ReasonCode = packets.Err3ServerUnavailable.Code
	}
	pk.Properties.ServerReference = serverReference
	return errors.Join(errRefused, cl.WritePacket(pk))
}

// OnSessionEstablish finds or makes the client's session before CONNACK is sent.
func (h *hook) OnSessionEstablish(cl *mqtt.Client, pk packets.Packet) {
	ctx, cancel := context.WithTimeout(h.b.ctx, h.b.cfg.Timeouts.claim())
	defer cancel()
	err := h.b.connect(ctx, cl, pk)
	h.b.server.Clients.Delete(cl.ID) // else the library would take an old connection's state over
	if err != nil {
		h.b.log.Warn("connect", "client", cl.ID, "error", err)
		cl.Stop(err)
	}
}

// OnSessionEstablished comes after CONNACK: now packets may follow.
func (h *hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	ch := h.b.channelOf(cl)
	if ch == nil {
		return
	}
	h.b.metrics.Connected.Add(1)
	ch.mu.Lock()
	var again []packets.Packet
	if ch.conn == cl {
		again = ch.sess.Resend()
	}
	ch.mu.Unlock()
	for _, pk := range again {
		if !ch.write(cl, pk) {
			return
		}
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.conn == cl {
		ch.ready = true
		ch.startPumpLocked()
	}
}

// OnDisconnect comes when a connection that got CONNACK has ended, for whatever reason.
func (h *hook) OnDisconnect(cl *mqtt.Client, cause error, _ bool) {
	h.b.release(cl, cause != nil)
}

// release ends a connection's hold on its channel.
func (b *Broker) release(cl *mqtt.Client, withWill bool) {
	b.metrics.Disconnected.Add(1)
	b.mu.Lock()
	ch := b.conns[cl]
	delete(b.conns, cl)
	b.mu.Unlock()
	b.server.UnsubscribeClient(cl) // the library's own table, which nobody reads
	if current, ok := b.server.Clients.Get(cl.ID); ok && current == cl {
		b.server.Clients.Delete(cl.ID)
	}
	if ch == nil {
		return
	}
	ch.mu.Lock()
	if ch.conn != cl || ch.phase == gone {
		ch.mu.Unlock()
		return
	}
	ch.expiry = b.expiryOf(cl) // DISCONNECT may have changed it
	due := ch.detachLocked(withWill)
	expiry := ch.expiry
	ch.mu.Unlock()
	b.publishWill(due)
	if expiry == 0 {
		b.endSession(ch)
	}
}

// OnPacketEncode gives CONNACK and DISCONNECT EMQX's properties.
func (h *hook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	switch pk.FixedHeader.Type {
	case packets.Connack:
		pk.Properties.ReasonString = ""
		if pk.ReasonCode != 0 {
			pk.Properties.ReceiveMaximum = 0
			return pk
		}
		limits := *h.b.limits.Load()
		if ch := h.b.channelOf(cl); ch != nil {
			ch.mu.Lock()
			pk.SessionPresent = ch.conn == cl && ch.present
			limits = ch.limits
			ch.mu.Unlock()
		}
		p := &pk.Properties
		p.ReceiveMaximum, p.TopicAliasMaximum, p.MaximumPacketSize = limits.ReceiveMaximum, topicAliasMaximum, limits.MaxPacketBytes
		if limits.MaxQoS < 2 {
			p.MaximumQos, p.MaximumQosFlag = limits.MaxQoS, true
		}
		p.RetainAvailable, p.RetainAvailableFlag = 1, true
		p.WildcardSubAvailable, p.WildcardSubAvailableFlag = 1, true
		p.SubIDAvailable, p.SubIDAvailableFlag = 1, true
		p.SharedSubAvailable, p.SharedSubAvailableFlag = 1, true
	case packets.Disconnect:
		pk.Properties.ReasonString = ""
	}
	return pk
}

// OnPacketRead hides acknowledgements from the library: it keeps what was sent and what was received under the same ids,
// so a client that does both would lose messages. The library gets a PUBACK instead that it does not know and ignores.
// A packet that is larger than the client was told ends its connection.
func (h *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if ch := h.b.channelOf(cl); ch != nil && ch.tooLarge(cl, pk) {
		<-ch.kick(cl, packets.ErrPacketTooLarge.Code, "")
		return pk, packets.ErrRejectPacket
	}
	switch pk.FixedHeader.Type {
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
	default:
		return pk, nil
	}
	if ch := h.b.channelOf(cl); ch != nil {
		ch.acknowledge(cl, pk)
	}
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}}, nil
}

func (ch *channel) acknowledge(cl *mqtt.Client, pk packets.Packet) {
	ch.mu.Lock()
	if ch.conn != cl {
		ch.mu.Unlock()
		return
	}
	answer := packets.Packet{PacketID: pk.PacketID}
	known := true
	switch pk.FixedHeader.Type {
	case packets.Puback, packets.Pubcomp:
		ch.sess.Done(pk.PacketID)
	case packets.Pubrec:
		if pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
			ch.sess.Done(pk.PacketID)
			break
		}
		known = ch.sess.Received(pk.PacketID)
		answer.FixedHeader = packets.FixedHeader{Type: packets.Pubrel, Qos: 1}
	case packets.Pubrel:
		known = ch.sess.Release(pk.PacketID)
		answer.FixedHeader = packets.FixedHeader{Type: packets.Pubcomp}
	}
	ch.startPumpLocked()
	ch.mu.Unlock()
	if answer.FixedHeader.Type == 0 {
		return
	}
	if !known {
		answer.ReasonCode = packets.ErrPacketIdentifierNotFound.Code
	}
	_ = cl.WritePacket(answer) // a broken connection is noticed by its reader
}

// OnSubscribed enters the granted subscriptions, before SUBACK is sent: when the client hears of it, every node
// knows.
func (h *hook) OnSubscribed(cl *mqtt.Client, pk packets.Packet, codes []byte) {
	ch := h.b.channelOf(cl)
	if ch == nil {
		return
	}
	fresh := false
	for i, sub := range pk.Filters {
		if i >= len(codes) || codes[i] > packets.CodeGrantedQos2.Code {
			continue
		}
		fresh = ch.subscribe(cl, sub) || fresh
	}
	if fresh {
		h.b.sync()
	}
}

// subscribe enters one subscription and reports whether other nodes had to hear of it.
func (ch *channel) subscribe(cl *mqtt.Client, sub packets.Subscription) bool {
	b := ch.b
	retained := b.retainedFor(sub.Filter)
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.conn != cl || ch.phase != active {
		return false
	}
	isNew := ch.sess.Subscribe(sub)
	b.index.Subscribe(ch.id, sub)
	if sub.RetainHandling == 0 || (sub.RetainHandling == 1 && isNew) {
		for _, m := range retained {
			ch.pending = append(ch.pending, session.Delivery{
				Message: m, QoS: min(m.QoS, sub.Qos), Retain: true, SubscriptionIDs: identifiers(sub),
			})
		}
	}
	return isNew && b.routes.add(sub.Filter)
}

// OnPacketProcessed sends retained messages once SUBACK is out.
func (h *hook) OnPacketProcessed(cl *mqtt.Client, pk packets.Packet, _ error) {
	if pk.FixedHeader.Type != packets.Subscribe {
		return
	}
	ch := h.b.channelOf(cl)
	if ch == nil {
		return
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.conn != cl {
		return
	}
	for _, d := range ch.pending {
		ch.sess.Enqueue(d)
	}
	ch.pending = nil
	ch.startPumpLocked()
}

// OnUnsubscribed removes subscriptions at the client's wish.
func (h *hook) OnUnsubscribed(cl *mqtt.Client, pk packets.Packet) {
	if pk.PacketID == 0 { // the library cleaning up its own table
		return
	}
	ch := h.b.channelOf(cl)
	if ch == nil {
		return
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.conn != cl || ch.phase != active {
		return
	}
	for _, sub := range pk.Filters {
		if ch.sess.Unsubscribe(sub.Filter) {
			h.b.index.Unsubscribe(sub.Filter, ch.id)
			h.b.routes.remove(sub.Filter)
		}
	}
}

// OnPublish routes a client's message and acknowledges it; the library has nothing left to do.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	ch := h.b.channelOf(cl)
	if ch == nil {
		return pk, packets.ErrRejectPacket
	}
	h.b.metrics.received(pk)
	answer := packets.Packet{PacketID: pk.PacketID}
	ch.mu.Lock()
	if ch.conn != cl {
		ch.mu.Unlock()
		return pk, packets.ErrRejectPacket // it has been taken over; the client sends again what was not acknowledged
	}
	ch.recv[pk.FixedHeader.Qos]++
	fresh, full := true, false
	if pk.FixedHeader.Qos == 2 {
		fresh, full = ch.sess.AwaitRel(pk.PacketID)
	}
	ch.mu.Unlock()
	if full {
		ch.kick(cl, packets.ErrReceiveMaximum.Code, "")
		return pk, packets.ErrRejectPacket
	}
	if fresh {
		h.b.publish(messageOf(cl, pk))
	}
	switch pk.FixedHeader.Qos {
	case 1:
		answer.FixedHeader.Type = packets.Puback
	case 2:
		answer.FixedHeader.Type = packets.Pubrec
	default:
		return pk, packets.ErrRejectPacket
	}
	_ = cl.WritePacket(answer) // a broken connection is noticed by its reader
	return pk, packets.ErrRejectPacket
}

func messageOf(cl *mqtt.Client, pk packets.Packet) *session.Message {
	p := pk.Properties
	m := &session.Message{
		Topic: pk.TopicName, Payload: pk.Payload, QoS: pk.FixedHeader.Qos, Retain: pk.FixedHeader.Retain, Origin: cl.ID,
		PayloadFormat: p.PayloadFormat, HasFormat: p.PayloadFormatFlag, ContentType: p.ContentType,
		ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, User: p.User,
	}
	if p.MessageExpiryInterval > 0 {
		m.Expiry = time.Now().Unix() + int64(p.MessageExpiryInterval)
	}
	return m
}
