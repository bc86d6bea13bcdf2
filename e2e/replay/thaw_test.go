package replay_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay"
	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// threeStandIns are three addresses, and what runs the stand-in at them. Who connects waits for a frozen node, which here takes
// not long, twice; it stays a member all the while.
func threeStandIns(t *testing.T) ([]string, *replay.Processes, context.Context) {
	t.Helper()
	addresses := freeNetwork(t)
	log := &testLog{t: t}
	t.Cleanup(log.end)
	makeCommand := replay.StandIn(addresses, []string{
		"--join-retry-seconds", "1", "--log-level", "warn", "--timeout-scale", "0.01", "--peer-timeout-seconds", "144",
	}, os.Args[0])
	nodes := &replay.Processes{Dir: t.TempDir(), Log: log, Command: replay.WithEnvironment(makeCommand, standInVariable+"=1")}
	t.Cleanup(func() { require.NoError(t, nodes.Close()) })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return addresses, nodes, ctx
}

// Messages that a node had taken from clients before it froze, or finds in their connections when it goes on, reach
// sessions that have moved between two other nodes in the meantime.
func TestThawedNodeReachesMovedSessions(t *testing.T) {
	addresses, nodes, ctx := threeStandIns(t)
	for i := range addresses {
		// All look for all: they start at once, the younger joins the older, and which is which is chance.
		require.NoError(t, nodes.Start(i, true, []int{0, 1, 2}))
	}
	connect := func(node int, id string, modify func(*mqttclient.Options)) (*mqttclient.Client, error) {
		o := mqttclient.Options{Address: addresses[node] + ":1883", ClientID: id, Version: 5, Expiry: 3600}
		if modify != nil {
			modify(&o)
		}
		return mqttclient.Connect(ctx, o)
	}
	eventually := func(what string, condition func() bool) {
		t.Helper()
		require.Eventually(t, condition, time.Minute, 20*time.Millisecond, what)
	}
	for _, address := range addresses {
		eventually("three nodes", func() bool { return replay.ClusterSize(ctx, address) == 3 })
	}

	const sessions, messages = 20, 40
	var mu sync.Mutex
	got := map[string]map[int]bool{}
	receive := func(o *mqttclient.Options) {
		o.OnPublish = func(pk packets.Packet) bool {
			n, err := strconv.Atoi(string(pk.Payload))
			mu.Lock()
			defer mu.Unlock()
			if got[pk.TopicName] == nil {
				got[pk.TopicName] = map[int]bool{}
			}
			got[pk.TopicName][n] = err == nil
			return true
		}
	}
	for i := range sessions {
		c, err := connect(0, fmt.Sprintf("s-%d", i), nil)
		require.NoError(t, err)
		require.NoError(t, c.Subscribe(ctx, fmt.Sprintf("s/%d", i), 1))
		c.Disconnect()
	}
	pub, err := connect(2, "publisher", func(o *mqttclient.Options) { o.Clean, o.Expiry = true, 0 })
	require.NoError(t, err)
	require.NoError(t, pub.Publish(ctx, "s/0", []byte("0"), 1, false))

	require.NoError(t, nodes.Freeze(2))
	var publishing sync.WaitGroup
	for i := range sessions {
		for n := 1; n <= messages; n++ {
			publishing.Add(1)
			go func() { // they wait in the connection of the frozen node
				defer publishing.Done()
				if err := pub.Publish(ctx, fmt.Sprintf("s/%d", i), []byte(strconv.Itoa(n)), 1, false); err != nil {
					t.Errorf("publish: %v", err)
				}
			}()
		}
	}
	for i := range sessions {
		c, err := connect(1, fmt.Sprintf("s-%d", i), receive)
		require.NoError(t, err)
		require.True(t, c.SessionPresent(), "a frozen node does not keep others from taking over")
		t.Cleanup(c.Close)
	}
	require.NoError(t, nodes.Thaw(2))
	publishing.Wait()
	for i := range sessions {
		eventually(fmt.Sprintf("all messages of s/%d", i), func() bool {
			mu.Lock()
			defer mu.Unlock()
			for n := 1; n <= messages; n++ {
				if !got[fmt.Sprintf("s/%d", i)][n] {
					return false
				}
			}
			return true
		})
	}
}
