package standin_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin"
)

// inbox collects what a client receives.
type inbox struct {
	mu   sync.Mutex
	list []packets.Packet
	hold bool // leave everything unacknowledged
}

func (b *inbox) take(pk packets.Packet) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, pk)
	return !b.hold
}

func (b *inbox) payloads() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []string{}
	for _, pk := range b.list {
		out = append(out, string(pk.Payload))
	}
	return out
}

func (b *inbox) receive(o *mqttclient.Options) { o.OnPublish = b.take }

func cleanClient(o *mqttclient.Options) { o.Clean, o.Expiry = true, 0 }

func numbered(from, to int) []string {
	list := []string{}
	for i := from; i <= to; i++ {
		list = append(list, strconv.Itoa(i))
	}
	return list
}

func publishNumbers(t *testing.T, c *mqttclient.Client, topic string, from, to int, qos byte) {
	t.Helper()
	for i := from; i <= to; i++ {
		require.NoError(t, c.Publish(shortContext(t), topic, []byte(strconv.Itoa(i)), qos, false))
	}
}

// Everything MQTT must do between two nodes, each case with clients of its own.
func TestMQTTBetweenNodes(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	pub := h.mustConnect(2, "publisher", cleanClient)

	t.Run("retained messages are on every node and can be removed", func(t *testing.T) {
		h := h.in(t)
		ctx := shortContext(t)
		require.NoError(t, pub.Publish(ctx, "kept/a", []byte("1"), 1, true))
		require.NoError(t, pub.Publish(ctx, "kept/b", []byte("2"), 1, true))
		require.NoError(t, pub.Publish(ctx, "kept/b", nil, 1, true))
		h.eventually("replicated", func() bool {
			return h.get(1, "/api/v5/nodes/"+h.name(1)+"/stats").object()["retained.count"] == float64(1)
		})
		box := &inbox{}
		c := h.mustConnect(1, "late", box.receive)
		require.NoError(t, c.Subscribe(ctx, "kept/#", 1))
		h.eventually("it comes", func() bool { return len(box.payloads()) == 1 })
		require.True(t, box.list[0].FixedHeader.Retain)
		require.Equal(t, []string{"1"}, box.payloads())
	})

	t.Run("a delayed message waits on its node, and comes when it is due", func(t *testing.T) {
		h := h.in(t)
		delayed := func(i int) any { return h.get(i, "/api/v5/nodes/"+h.name(i)+"/stats").object()["delayed.count"] }
		box := &inbox{}
		c := h.mustConnect(1, "patient", box.receive)
		require.NoError(t, c.Subscribe(shortContext(t), "later/#", 1))
		require.NoError(t, pub.Publish(shortContext(t), "$delayed/3600/later/never", []byte("never"), 1, false))
		require.NoError(t, pub.Publish(shortContext(t), "$delayed/1/later/soon", []byte("soon"), 1, false))
		require.NoError(t, pub.Publish(shortContext(t), "$delayed/soon/later", []byte("no number"), 1, false))
		require.EqualValues(t, 2, delayed(2))
		require.EqualValues(t, 0, delayed(1), "it is on no other node")
		h.eventually("it comes", func() bool { return len(box.payloads()) == 1 })
		require.Equal(t, "later/soon", box.list[0].TopicName)
		require.EqualValues(t, 1, delayed(2))
	})

	t.Run("QoS 2 comes once and in order", func(t *testing.T) {
		h := h.in(t)
		box := &inbox{}
		c := h.mustConnect(1, "exact", box.receive)
		require.NoError(t, c.Subscribe(shortContext(t), "exact", 2))
		publishNumbers(t, pub, "exact", 1, 50, 2)
		h.eventually("all come", func() bool { return len(box.payloads()) >= 50 })
		require.Equal(t, numbered(1, 50), box.payloads())
	})

	t.Run("at most 32 are in flight, fewer if the client says so", func(t *testing.T) {
		h := h.in(t)
		for _, want := range []uint16{0, 5} {
			box := &inbox{hold: true}
			name := fmt.Sprintf("window-%d", want)
			c := h.mustConnect(1, name, func(o *mqttclient.Options) { box.receive(o); o.ReceiveMaximum = want })
			require.NoError(t, c.Subscribe(shortContext(t), name, 1))
			publishNumbers(t, pub, name, 1, 40, 1)
			limit := int(want)
			if want == 0 {
				limit = 32
			}
			h.eventually("the window fills", func() bool { return len(box.payloads()) == limit })
			h.eventually("the rest waits", func() bool {
				list := h.get(1, "/api/v5/clients?clientid="+name).object()["data"].([]any)
				return len(list) == 1 && list[0].(map[string]any)["mqueue_len"] == float64(40-limit)
			})
			require.Len(t, box.payloads(), limit)
			c.Close()
			again := &inbox{}
			c = h.mustConnect(1, name, func(o *mqttclient.Options) { again.receive(o); o.ReceiveMaximum = want })
			require.True(t, c.SessionPresent())
			h.eventually("everything comes in the end", func() bool { return len(again.payloads()) == 40 })
			require.Equal(t, numbered(1, 40), again.payloads())
			require.True(t, again.list[0].FixedHeader.Dup, "what was in flight is marked")
			require.False(t, again.list[39].FixedHeader.Dup, "what was queued is not")
		}
	})

	t.Run("a full queue loses its oldest messages", func(t *testing.T) {
		h := h.in(t)
		c := h.mustConnect(1, "lazy", nil)
		require.NoError(t, c.Subscribe(shortContext(t), "lazy", 1))
		c.Disconnect()
		h.eventually("it is away", func() bool {
			return h.get(1, "/api/v5/clients/lazy").object()["connected"] == false
		})
		publishNumbers(t, pub, "lazy", 1, 1010, 1)
		box := &inbox{}
		h.mustConnect(2, "lazy", box.receive)
		h.eventually("the queue comes", func() bool { return len(box.payloads()) == 1000 })
		require.Equal(t, numbered(11, 1010), box.payloads())
	})

	t.Run("shared subscriptions get each message once, over all nodes", func(t *testing.T) {
		h := h.in(t)
		boxes := make([]*inbox, 6)
		for i := range boxes {
			boxes[i] = &inbox{}
			c := h.mustConnect(1+i%2, fmt.Sprintf("worker-%d", i), boxes[i].receive)
			require.NoError(t, c.Subscribe(shortContext(t), "$share/workers/jobs/#", 1))
		}
		publishNumbers(t, pub, "jobs/x", 1, 600, 1)
		count := func() int {
			n := 0
			for _, b := range boxes {
				n += len(b.payloads())
			}
			return n
		}
		h.eventually("all are done", func() bool { return count() >= 600 })
		require.Equal(t, 600, count())
		for i, b := range boxes {
			require.Greater(t, len(b.payloads()), 40, "worker %d has a fair share", i)
		}
	})

	t.Run("a will is published when the connection breaks and not when it is ended", func(t *testing.T) {
		h := h.in(t)
		box := &inbox{}
		watcher := h.mustConnect(2, "watcher", box.receive)
		require.NoError(t, watcher.Subscribe(shortContext(t), "will/#", 1))
		dying := h.mustConnect(1, "dying", func(o *mqttclient.Options) {
			o.Will = &mqttclient.Will{Topic: "will/dying", Payload: "gone", QoS: 1}
		})
		leaving := h.mustConnect(1, "leaving", func(o *mqttclient.Options) {
			o.Will = &mqttclient.Will{Topic: "will/leaving", Payload: "never", QoS: 1}
		})
		leaving.Disconnect()
		dying.Close()
		h.eventually("the will comes", func() bool { return len(box.payloads()) > 0 })
		require.NoError(t, pub.Publish(shortContext(t), "will/end", []byte("end"), 1, false))
		h.eventually("the end comes", func() bool { return len(box.payloads()) == 2 })
		require.Equal(t, []string{"gone", "end"}, box.payloads())
	})

	t.Run("the old connection is told of the takeover", func(t *testing.T) {
		h := h.in(t)
		first := h.mustConnect(1, "twice", nil)
		second := h.mustConnect(2, "twice", nil)
		require.True(t, second.SessionPresent())
		<-first.Done()
		code, told := first.DisconnectCode()
		require.True(t, told)
		require.Equal(t, byte(0x8E), code)
	})

	t.Run("a clean start ends the session elsewhere", func(t *testing.T) {
		h := h.in(t)
		c := h.mustConnect(1, "fresh", nil)
		require.NoError(t, c.Subscribe(shortContext(t), "fresh", 1))
		next := h.mustConnect(2, "fresh", func(o *mqttclient.Options) { o.Clean = true })
		require.False(t, next.SessionPresent())
		<-c.Done()
		list := h.get(1, "/api/v5/clients?clientid=fresh").object()["data"].([]any)
		require.Len(t, list, 1)
		require.Equal(t, h.name(2), list[0].(map[string]any)["node"])
		require.EqualValues(t, 0, list[0].(map[string]any)["subscriptions_cnt"])
	})

	t.Run("MQTT 3.1.1 keeps a session without clean_session", func(t *testing.T) {
		h := h.in(t)
		old := func(o *mqttclient.Options) { o.Version, o.Expiry = 4, 0 }
		c := h.mustConnect(1, "v4", old)
		require.NoError(t, c.Subscribe(shortContext(t), "v4", 1))
		c.Close()
		publishNumbers(t, pub, "v4", 1, 3, 1)
		box := &inbox{}
		c = h.mustConnect(2, "v4", func(o *mqttclient.Options) { old(o); box.receive(o) })
		require.True(t, c.SessionPresent())
		h.eventually("the queue comes", func() bool { return len(box.payloads()) == 3 })
		require.Equal(t, numbered(1, 3), box.payloads())
	})

	t.Run("a session ends when its time is over", func(t *testing.T) {
		h := h.in(t)
		c := h.mustConnect(1, "brief", func(o *mqttclient.Options) { o.Expiry = 1 })
		c.Close()
		h.eventually("it is gone everywhere", func() bool {
			return len(h.get(2, "/api/v5/clients?clientid=brief").object()["data"].([]any)) == 0
		})
	})

	t.Run("WebSocket, TLS and both", func(t *testing.T) {
		h := h.in(t)
		for _, o := range []struct {
			name, port string
			web, tls   bool
		}{{"ws", ":8083", true, false}, {"ssl", ":8883", false, true}, {"wss", ":8084", true, true}} {
			box := &inbox{}
			c := h.mustConnect(1, "by-"+o.name, func(m *mqttclient.Options) {
				m.Address, m.WebSocket, m.TLS = h.address(1)+o.port, o.web, o.tls
				box.receive(m)
			})
			require.NoError(t, c.Subscribe(shortContext(t), o.name, 1))
			publishNumbers(t, pub, o.name, 1, 3, 1)
			h.eventually("messages come by "+o.name, func() bool { return len(box.payloads()) == 3 })
		}
	})

	t.Run("a client that subscribes and publishes under the same packet ids loses nothing", func(t *testing.T) {
		h := h.in(t)
		box := &inbox{hold: true}
		c := h.mustConnect(1, "both", box.receive)
		require.NoError(t, c.Subscribe(shortContext(t), "both", 1))
		publishNumbers(t, pub, "both", 1, 20, 1)
		h.eventually("they are in flight", func() bool { return len(box.payloads()) == 20 })
		publishNumbers(t, c, "elsewhere", 1, 40, 1)
		c.Close()
		again := &inbox{}
		h.mustConnect(2, "both", again.receive)
		h.eventually("they come again", func() bool { return len(again.payloads()) == 20 })
		require.Equal(t, numbered(1, 20), again.payloads())
	})
}

// What was acknowledged reaches the other nodes even if the node is told to stop the next moment.
func TestGracefulStopLosesNothing(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	box := &inbox{}
	sub := h.mustConnect(1, "sub", box.receive)
	require.NoError(t, sub.Subscribe(shortContext(t), "x", 1))
	pub := h.mustConnect(2, "pub", cleanClient)
	publishNumbers(t, pub, "x", 1, 500, 1)
	h.stop(2)
	h.eventually("all come", func() bool { return len(box.payloads()) == 500 })
	require.Equal(t, numbered(1, 500), box.payloads())
}

// Many connections of one client at the same time, on all nodes, end in one session.
func TestOneSessionAClient(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2, 3)
	for range 5 {
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				c, err := h.connect(1+i%3, "contested", nil)
				if err == nil {
					t.Cleanup(c.Close)
				}
			}()
		}
		wg.Wait()
		h.eventually("one session is left", func() bool {
			sessions, live := 0.0, 0.0
			for i := 1; i <= 3; i++ {
				info := h.get(i, "/api/v5/nodes/"+h.name(i)).object()
				if info["cluster_sessions"] != float64(1) {
					return false
				}
				sessions += info["connections"].(float64)
				live += info["live_connections"].(float64)
			}
			return sessions == 1 && live == 1
		})
	}
}

// A replicant is refused with a sentence.
func TestReplicantIsRefused(t *testing.T) {
	cfg := standin.Config{Address: "127.0.0.1"}
	cfg.Layers.Base = map[string]any{}
	cfg.Layers.File = map[string]any{}
	cfg.Layers.Environment = map[string]any{}
	cfg.Layers.Environment.Set("replicant", "node", "role")
	_, err := standin.New(cfg)
	require.ErrorIs(t, err, standin.ErrReplicant)
	require.NotErrorIs(t, err, context.Canceled)
}
