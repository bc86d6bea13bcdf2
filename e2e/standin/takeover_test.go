package standin_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// ledger checks what one subscriber gets: every publisher's messages in order, none missing, none twice except those
// that are marked as sent again.
type ledger struct {
	mu     sync.Mutex
	last   map[string]int // by topic and publisher
	faults []string
	again  int
}

// taker takes messages for one connection until that is retired; what comes later is neither counted nor
// acknowledged, as if the client had died.
type taker struct {
	l       *ledger
	retired bool
}

func (k *taker) retire() {
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	k.retired = true
}

func (k *taker) take(pk packets.Packet) bool {
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	if k.retired {
		return false
	}
	k.l.takeLocked(pk)
	return true
}

func (l *ledger) takeLocked(pk packets.Packet) {
	from, number, _ := strings.Cut(string(pk.Payload), " ")
	n, err := strconv.Atoi(number)
	key := pk.TopicName + " " + from
	switch last := l.last[key]; {
	case err != nil:
		l.faults = append(l.faults, "no number: "+string(pk.Payload))
	case n == last+1:
		l.last[key] = n
	case n <= last && pk.FixedHeader.Dup:
		l.again++
	default:
		l.faults = append(l.faults, fmt.Sprintf("%s: %d after %d, dup %t", key, n, last, pk.FixedHeader.Dup))
	}
}

func (l *ledger) complete(topic, from string, n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[topic+" "+from] >= n
}

// Subscribers jump from node to node at random while publishers publish on every node: no message may be lost, come
// out of order or come twice unmarked, and no session may be lost.
func TestTakeoverUnderLoad(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2, 3)
	const subscribers, publishers, messages = 12, 6, 400
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var publishing, jumping sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ledgers := make([]*ledger, subscribers)
	jumps := make([]int, subscribers)
	for s := range subscribers {
		ledgers[s] = &ledger{last: map[string]int{}}
		id := fmt.Sprintf("sub-%d", s)
		k := &taker{l: ledgers[s]}
		c, err := h.connect(1+s%3, id, func(o *mqttclient.Options) { o.OnPublish = k.take })
		require.NoError(t, err)
		require.NoError(t, c.Subscribe(ctx, "all/#", 1))
		require.NoError(t, c.Subscribe(ctx, fmt.Sprintf("own/%d", s), 1))
		rng := rand.New(rand.NewPCG(seed, uint64(s)))
		jumping.Add(1)
		go func() {
			defer jumping.Done()
			for ctx.Err() == nil {
				k.retire()
				if rng.IntN(2) == 0 {
					c.Close() // else the old connection is still open when the new one comes
				}
				k = &taker{l: ledgers[s]}
				next, err := h.connect(1+rng.IntN(3), id, func(o *mqttclient.Options) { o.OnPublish = k.take })
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				if !next.SessionPresent() {
					t.Errorf("%s: session lost", id)
				}
				<-c.Done()
				c = next
				jumps[s]++
				select {
				case <-time.After(time.Duration(rng.IntN(60)) * time.Millisecond):
				case <-ctx.Done():
				}
			}
			t.Cleanup(c.Close)
		}()
	}
	for p := range publishers {
		c := h.mustConnect(1+p%3, fmt.Sprintf("pub-%d", p), func(o *mqttclient.Options) { o.Clean, o.Expiry = true, 0 })
		publishing.Add(1)
		go func() {
			defer publishing.Done()
			for n := 1; n <= messages; n++ {
				payload := []byte(fmt.Sprintf("p%d %d", p, n))
				if err := c.Publish(ctx, fmt.Sprintf("all/%d", p), payload, 1, false); err != nil {
					t.Error(err)
					return
				}
				if err := c.Publish(ctx, fmt.Sprintf("own/%d", n%subscribers), []byte(fmt.Sprintf("p%d %d", p, 1+n/subscribers)), 1, false); err != nil && n%subscribers != 0 {
					t.Error(err)
					return
				}
			}
		}()
	}
	publishing.Wait()
	stop()
	jumping.Wait()
	total := 0
	for s, l := range ledgers {
		for p := range publishers {
			h.eventually(fmt.Sprintf("sub-%d has all of p%d", s, p), func() bool {
				return l.complete(fmt.Sprintf("all/%d", p), fmt.Sprintf("p%d", p), messages)
			})
		}
		l.mu.Lock()
		for _, fault := range l.faults {
			if !strings.HasPrefix(fault, "own/0 ") { // its numbers begin at 2
				t.Errorf("sub-%d: %s", s, fault)
			}
		}
		t.Logf("sub-%d: %d jumps, %d sent again", s, jumps[s], l.again)
		l.mu.Unlock()
		total += jumps[s]
	}
	require.Positive(t, total, "nobody jumped")
	for i := 1; i <= 3; i++ {
		h.eventually("registries agree", func() bool {
			return h.get(i, "/api/v5/nodes/"+h.name(i)).object()["cluster_sessions"] == float64(subscribers+publishers)
		})
	}
}
