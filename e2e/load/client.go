package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"k8s.io/utils/ptr"
)

// client is one MQTT client of the load.
type client struct {
	index       int
	topic       string
	ledger      *ledger
	manager     *autopaho.ConnectionManager
	connected   atomic.Bool
	subscribed  chan struct{} // Closed once its subscription was acknowledged.
	disconnects atomic.Int64
	cutOff      atomic.Int64 // When it was cut off, in nanoseconds since 1970; zero while it is connected.
	resets      atomic.Int64 // It came back and the broker had no session for it.
}

const (
	sessionExpirySeconds = 3600
	connectTimeout       = 10 * time.Second
	keepAliveSeconds     = 60
	// receiveMaximum is how many messages a client takes before it has acknowledged them. The library has a buffer of that
	// size for each connection: with its default of 65,535 that is half a megabyte, and a thousand clients that come
	// back at once keep the machine busy with it.
	receiveMaximum uint16 = 32
	// The first try of a client that was cut off comes within a quarter of a second, so that not all come at once; later ones
	// back off.
	firstDelay, maxDelay = 250 * time.Millisecond, 10 * time.Second
)

// backoff is full jitter over a delay that doubles or, for slow clients, the delay that all of them have.
func (l *Load) backoff(attempt int) time.Duration {
	if l.config.ReturnDelay > 0 && attempt == 0 {
		return l.config.ReturnDelay
	}
	ceiling := min(maxDelay, firstDelay<<min(attempt, 10))
	return rand.N(ceiling) //nolint:gosec // Jitter needs no secrecy.
}

// connect starts a client, which from now on comes back by itself. It is up when subscribed is closed.
func (l *Load) connect(ctx context.Context, c *client) error {
	server, err := url.Parse("mqtt://" + l.config.Address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", l.config.Address, err)
	}
	first := true
	c.manager, err = autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{server}, KeepAlive: keepAliveSeconds, SessionExpiryInterval: sessionExpirySeconds,
		AttemptConnection: func(ctx context.Context, _ autopaho.ClientConfig, server *url.URL) (net.Conn, error) {
			// MQTT has a keep-alive of its own, and a connection costs four system calls less.
			dialer := net.Dialer{Timeout: connectTimeout, KeepAlive: -1}
			return dialer.DialContext(ctx, "tcp", server.Host)
		},
		ConnectPacketBuilder: func(connect *paho.Connect, _ *url.URL) (*paho.Connect, error) {
			connect.Properties.ReceiveMaximum = ptr.To(receiveMaximum)
			return connect, nil
		},
		CleanStartOnInitialConnection: true, ReconnectBackoff: l.backoff, ConnectTimeout: connectTimeout,
		OnConnectionUp: func(manager *autopaho.ConnectionManager, connack *paho.Connack) {
			if !first && !connack.SessionPresent {
				c.resets.Add(1)
			}
			l.returned(c)
			needed := first || !connack.SessionPresent
			first = false
			c.connected.Store(true)
			if needed {
				go l.subscribe(ctx, c, manager)
			}
		},
		OnConnectionDown: func() bool {
			c.connected.Store(false)
			c.disconnects.Add(1)
			c.cutOff.Store(time.Now().UnixNano())
			return true
		},
		ClientConfig: paho.ClientConfig{
			ClientID: fmt.Sprintf("%s-%d", l.config.Prefix, c.index),
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(received paho.PublishReceived) (bool, error) {
				if payload := received.Packet.Payload; len(payload) >= 8 {
					c.ledger.receive(binary.BigEndian.Uint64(payload))
					l.received.Add(1)
				}
				return true, nil
			}},
		},
	})
	if err != nil {
		return fmt.Errorf("connect client %d to %s: %w", c.index, l.config.Address, err)
	}
	return nil
}

// subscribe asks for the client's topic until the broker agrees.
func (l *Load) subscribe(ctx context.Context, c *client, manager *autopaho.ConnectionManager) {
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, connectTimeout)
		_, err := manager.Subscribe(bounded, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: c.topic, QoS: 1}}})
		cancel()
		if err == nil {
			select {
			case <-c.subscribed:
			default:
				close(c.subscribed)
			}
			return
		}
		if !c.connected.Load() {
			return // It is asked again when the connection is up again.
		}
	}
}

// Publish sends a message of the caller's through the first client, and waits until a broker has acknowledged it. It is not counted.
func (l *Load) Publish(ctx context.Context, topic string, payload []byte) error {
	bounded, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if _, err := l.clients[0].manager.Publish(bounded, &paho.Publish{Topic: topic, QoS: 1, Payload: payload}); err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	return nil
}

// send publishes the next number for a client through another one, until a broker has acknowledged it.
func (l *Load) send(ctx context.Context, to *client) {
	number := to.ledger.take()
	payload := binary.BigEndian.AppendUint64(nil, number)
	for ctx.Err() == nil {
		from := l.clients[rand.IntN(len(l.clients))] //nolint:gosec // Any will do.
		if !from.connected.Load() {
			if l.connectedCount() == 0 {
				select {
				case <-ctx.Done():
				case <-time.After(sampleInterval):
				}
			}
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, connectTimeout)
		_, err := from.manager.Publish(bounded, &paho.Publish{Topic: to.topic, QoS: 1, Payload: payload})
		cancel()
		if err == nil {
			to.ledger.acknowledge(number)
			l.acked.Add(1)
			return
		}
	}
}
