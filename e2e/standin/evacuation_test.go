package standin_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// clientsVariable sets the number of clients of TestEvacuateToOtherNodes.
const clientsVariable = "STANDIN_CLIENTS"

// Three nodes are evacuated together to three others while messages flow: clients that come back and clients that
// stay away for a while all get every message, in order, and each is disconnected once.
func TestEvacuateToOtherNodes(t *testing.T) {
	total := 300
	if text := os.Getenv(clientsVariable); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		total = n
	}
	h := newHarness(t, nil)
	h.start(1, 2, 3, 4, 5, 6)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ledgers := make([]*ledger, total)
	absent := func(i int) bool { return i%5 == 0 }
	var back sync.WaitGroup
	comeBack := make(chan struct{})
	var disconnects atomic.Int64
	for i := range total {
		ledgers[i] = &ledger{last: map[string]int{}}
		k := &taker{l: ledgers[i]}
		c, err := h.connect(1+i%3, fmt.Sprintf("c-%d", i), func(o *mqttclient.Options) { o.OnPublish = k.take })
		require.NoError(t, err)
		require.NoError(t, c.Subscribe(ctx, fmt.Sprintf("c/%d", i), 1))
		back.Add(1)
		go func() {
			defer back.Done()
			<-c.Done()
			disconnects.Add(1)
			k.retire()
			if code, told := c.DisconnectCode(); !told || code != 0x9C {
				t.Errorf("client %d: DISCONNECT %t with code 0x%02X", i, told, code)
			}
			if absent(i) {
				<-comeBack
			}
			k := &taker{l: ledgers[i]}
			c, err := h.connect(4+i%3, fmt.Sprintf("c-%d", i), func(o *mqttclient.Options) { o.OnPublish = k.take })
			if err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			t.Cleanup(c.Close)
			if !c.SessionPresent() {
				t.Errorf("client %d lost its session", i)
			}
		}()
	}
	sent := make([]int, total)
	var publishing sync.WaitGroup
	publishCtx, endPublishing := context.WithCancel(ctx)
	for p := range 6 { // each publisher has its own share of the clients, so that a topic has one publisher
		c := h.mustConnect(4+p%3, fmt.Sprintf("pub-%d", p), func(o *mqttclient.Options) { o.Clean, o.Expiry = true, 0 })
		publishing.Add(1)
		go func() {
			defer publishing.Done()
			for n := 1; publishCtx.Err() == nil; n++ {
				for i := p; i < total; i += 6 {
					if err := c.Publish(ctx, fmt.Sprintf("c/%d", i), []byte(fmt.Sprintf("p %d", n)), 1, false); err != nil {
						t.Error(err)
						return
					}
					sent[i] = n
				}
				select {
				case <-time.After(20 * time.Millisecond):
				case <-publishCtx.Done():
				}
			}
		}()
	}
	begun := time.Now()
	for i := 1; i <= 3; i++ {
		a := h.post(4, "/api/v5/load_rebalance/"+h.name(i)+"/evacuation/start", map[string]any{
			"wait_health_check": 0, "wait_takeover": 1, "conn_evict_rate": total / 6, "sess_evict_rate": total / 6,
			"migrate_to": []string{h.name(4), h.name(5), h.name(6)},
		})
		require.Equal(t, http.StatusOK, a.status, "%s", a.body)
	}
	for i := 1; i <= 3; i++ {
		h.eventually("node is empty", func() bool {
			return h.get(i, "/api/v5/load_rebalance/status").object()["state"] == "prohibiting"
		})
		info := h.get(i, "/api/v5/nodes/"+h.name(i)).object()
		require.EqualValues(t, 0, info["connections"])
		require.EqualValues(t, 0, info["live_connections"])
	}
	t.Logf("%d clients left three nodes in %s", total, time.Since(begun).Round(10*time.Millisecond))
	close(comeBack)
	back.Wait()
	endPublishing()
	publishing.Wait()
	for i := 1; i <= 3; i++ {
		h.stop(i)
	}
	messages := 0
	for i, l := range ledgers {
		h.eventually(fmt.Sprintf("client %d has its %d messages", i, sent[i]), func() bool {
			return l.complete(fmt.Sprintf("c/%d", i), "p", sent[i])
		})
		l.mu.Lock()
		require.Empty(t, l.faults, "client %d", i)
		l.mu.Unlock()
		messages += sent[i]
	}
	t.Logf("%d messages, none lost", messages)
	require.EqualValues(t, total, disconnects.Load(), "every client is disconnected once")
}
