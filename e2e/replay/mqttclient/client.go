// Package mqttclient is a small MQTT 3.1.1 and 5 client that notes every packet it gets, for replaying recordings
// and for tests. It acknowledges what it receives and never reconnects.
package mqttclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/emqx-bg/emqx-bg-operator/e2e/mqttws"
)

// Options says how to connect.
type Options struct {
	Address  string // host:port
	ClientID string
	Version  byte // 4 or 5
	Clean    bool
	Expiry   uint32 // seconds, MQTT 5 only
	// KeepAlive is in seconds; 0 is none.
	KeepAlive uint16
	// WebSocket connects by WebSocket; TLS does not check the certificate.
	WebSocket, TLS bool
	Will           *Will
	// Manual leaves received messages unacknowledged.
	Manual bool
	// ReceiveMaximum is how many messages the client takes in flight, MQTT 5 only; 0 says nothing.
	ReceiveMaximum uint16
	// OnPublish is called with every message, in the order of arrival. The message is acknowledged if it says so.
	OnPublish func(packets.Packet) bool
}

// Will is a last will.
type Will struct {
	Topic, Payload string
	QoS            byte
	Retain         bool
	Delay          uint32 // seconds
}

// Event is a packet that came, or the end of the connection.
type Event struct {
	At     time.Time
	Packet packets.Packet
	Closed bool
}

// Client is one connection.
type Client struct {
	o    Options
	conn net.Conn
	r    *bufio.Reader

	writeMu sync.Mutex
	mu      sync.Mutex
	events  []Event
	waiting map[uint16]chan packets.Packet
	nextID  uint16
	done    chan struct{}
}

// RefusedError is returned when CONNACK has another code than 0.
type RefusedError struct {
	Code            byte
	ServerReference string
}

// Error gives the code.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("connection refused with code 0x%02X", e.Code)
}

// ErrClosed is returned when the connection ended before the answer came.
var ErrClosed = errors.New("connection is closed")

// Connect opens a connection and waits for CONNACK. When it is refused, the client is returned too, for its events,
// with a *RefusedError.
func Connect(ctx context.Context, o Options) (*Client, error) {
	conn, err := dial(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("connect %s to %s: %w", o.ClientID, o.Address, err)
	}
	c := &Client{o: o, conn: conn, r: bufio.NewReader(conn), waiting: map[uint16]chan packets.Packet{}, done: make(chan struct{})}
	if err := c.handshake(ctx); err != nil {
		return c, fmt.Errorf("connect %s to %s: %w", o.ClientID, o.Address, err)
	}
	go c.read()
	return c, nil
}

func dial(ctx context.Context, o Options) (net.Conn, error) {
	var d net.Dialer
	if o.WebSocket {
		dialer := websocket.Dialer{
			NetDialContext: d.DialContext, Subprotocols: []string{"mqtt"}, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the stand-in's certificate is made at its start
		}
		scheme := "ws://"
		if o.TLS {
			scheme = "wss://"
		}
		ws, resp, err := dialer.DialContext(ctx, scheme+o.Address+"/mqtt", nil)
		if err != nil {
			return nil, err
		}
		_ = resp.Body.Close()
		return mqttws.New(ws), nil
	}
	if o.TLS {
		td := tls.Dialer{NetDialer: &d, Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // as above
		return td.DialContext(ctx, "tcp", o.Address)
	}
	return d.DialContext(ctx, "tcp", o.Address)
}

func (c *Client) handshake(ctx context.Context) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(30 * time.Second)
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return err
	}
	if err := c.write(c.connectPacket()); err != nil {
		return err
	}
	pk, err := c.readPacket()
	if err != nil {
		c.end()
		return errors.Join(ErrClosed, err)
	}
	c.note(Event{At: time.Now(), Packet: pk})
	if pk.ReasonCode != 0 {
		_, _ = io.Copy(io.Discard, c.r) // until the server closes
		c.end()
		return &RefusedError{Code: pk.ReasonCode, ServerReference: pk.Properties.ServerReference}
	}
	return c.conn.SetDeadline(time.Time{})
}

func (c *Client) connectPacket() packets.Packet {
	o := c.o
	pk := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Connect},
		ProtocolVersion: o.Version,
		Connect: packets.ConnectParams{
			ProtocolName: []byte("MQTT"), Clean: o.Clean, ClientIdentifier: o.ClientID, Keepalive: o.KeepAlive,
		},
		Properties: packets.Properties{
			SessionExpiryInterval: o.Expiry, SessionExpiryIntervalFlag: o.Expiry > 0, ReceiveMaximum: o.ReceiveMaximum,
		},
	}
	if w := o.Will; w != nil {
		pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, w.Topic, []byte(w.Payload)
		pk.Connect.WillQos, pk.Connect.WillRetain = w.QoS, w.Retain
		pk.Connect.WillProperties.WillDelayInterval = w.Delay
	}
	return pk
}

func (c *Client) note(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
}

// Events lists what came so far.
func (c *Client) Events() []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Event(nil), c.events...)
}

// SessionPresent is what CONNACK said.
func (c *Client) SessionPresent() bool {
	events := c.Events()
	return len(events) > 0 && events[0].Packet.SessionPresent
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// DisconnectCode is the code of the server's DISCONNECT; false when there was none.
func (c *Client) DisconnectCode() (byte, bool) {
	for _, e := range c.Events() {
		if e.Packet.FixedHeader.Type == packets.Disconnect {
			return e.Packet.ReasonCode, true
		}
	}
	return 0, false
}

func (c *Client) end() {
	_ = c.conn.Close()
	c.note(Event{At: time.Now(), Closed: true})
	c.mu.Lock()
	for id, ch := range c.waiting {
		close(ch)
		delete(c.waiting, id)
	}
	c.mu.Unlock()
	close(c.done)
}

// read notes and answers packets until the connection ends.
func (c *Client) read() {
	defer c.end()
	for {
		pk, err := c.readPacket()
		if err != nil {
			return
		}
		if pk.FixedHeader.Type == packets.Publish && c.o.OnPublish != nil {
			if !c.o.OnPublish(pk) {
				continue
			}
		} else {
			c.note(Event{At: time.Now(), Packet: pk})
		}
		if err := c.respond(pk); err != nil {
			return
		}
	}
}

func (c *Client) respond(pk packets.Packet) error {
	answer := packets.Packet{PacketID: pk.PacketID}
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if c.o.Manual || pk.FixedHeader.Qos == 0 {
			return nil
		}
		answer.FixedHeader.Type = packets.Puback
		if pk.FixedHeader.Qos == 2 {
			answer.FixedHeader.Type = packets.Pubrec
		}
	case packets.Pubrec:
		answer.FixedHeader = packets.FixedHeader{Type: packets.Pubrel, Qos: 1}
	case packets.Pubrel:
		answer.FixedHeader.Type = packets.Pubcomp
	case packets.Puback, packets.Pubcomp, packets.Suback, packets.Unsuback:
		c.mu.Lock()
		if ch := c.waiting[pk.PacketID]; ch != nil {
			ch <- pk
			delete(c.waiting, pk.PacketID)
		}
		c.mu.Unlock()
		return nil
	default:
		return nil
	}
	return c.write(answer)
}

// ask sends a packet with an id and waits for what ends its exchange.
func (c *Client) ask(ctx context.Context, pk packets.Packet) (packets.Packet, error) {
	reply := make(chan packets.Packet, 1)
	c.mu.Lock()
	for c.nextID++; c.nextID == 0 || c.waiting[c.nextID] != nil; {
		c.nextID++
	}
	pk.PacketID = c.nextID
	c.waiting[pk.PacketID] = reply
	c.mu.Unlock()
	if err := c.write(pk); err != nil {
		return packets.Packet{}, err
	}
	select {
	case got, ok := <-reply:
		if !ok {
			return packets.Packet{}, ErrClosed
		}
		return got, nil
	case <-c.done:
		return packets.Packet{}, ErrClosed
	case <-ctx.Done():
		return packets.Packet{}, context.Cause(ctx)
	}
}

// Subscribe waits for SUBACK and fails when the subscription is refused.
func (c *Client) Subscribe(ctx context.Context, filter string, qos byte) error {
	got, err := c.ask(ctx, packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1},
		Filters:     packets.Subscriptions{{Filter: filter, Qos: qos}},
	})
	if err != nil {
		return fmt.Errorf("subscribe %s to %s: %w", c.o.ClientID, filter, err)
	}
	if len(got.ReasonCodes) != 1 || got.ReasonCodes[0] > 2 {
		return fmt.Errorf("subscribe %s to %s: refused with %v", c.o.ClientID, filter, got.ReasonCodes)
	}
	return nil
}

// Publish sends a message and waits until it is acknowledged; QoS 0 is not.
func (c *Client) Publish(ctx context.Context, topic string, payload []byte, qos byte, retain bool) error {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Retain: retain}, TopicName: topic, Payload: payload,
	}
	if qos == 0 {
		return c.write(pk)
	}
	if _, err := c.ask(ctx, pk); err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	return nil
}

// Disconnect says goodbye and closes.
func (c *Client) Disconnect() {
	_ = c.write(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}}) // it may be gone already
	c.Close()
}

// Close ends the connection without DISCONNECT and waits until everything that came has been noted.
func (c *Client) Close() {
	_ = c.conn.Close()
	<-c.done
}

func (c *Client) write(pk packets.Packet) error {
	pk.ProtocolVersion = c.o.Version
	var buf bytes.Buffer
	if err := encode(&pk, &buf); err != nil {
		return fmt.Errorf("encode a packet: %w", err)
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if _, err := c.conn.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("send a packet: %w", err)
	}
	return nil
}
