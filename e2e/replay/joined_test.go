package replay_test

import (
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay"
	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// A node that joins while a member is frozen cannot reach that: what it takes for the sessions there, and acknowledges, is
// lost. So clients are not led to new nodes while a node that has some is silent.
func TestNodeThatJoinsBesideAFrozenOne(t *testing.T) {
	addresses, nodes, ctx := threeStandIns(t)
	eventually := func(what string, condition func() bool) {
		t.Helper()
		require.Eventually(t, condition, time.Minute, 20*time.Millisecond, what)
	}
	connect := func(node int, options mqttclient.Options) *mqttclient.Client {
		t.Helper()
		options.Address, options.Version = addresses[node]+":1883", 5
		var client *mqttclient.Client
		eventually("connect "+options.ClientID, func() (connected bool) {
			var err error
			client, err = mqttclient.Connect(ctx, options)
			return err == nil
		})
		t.Cleanup(client.Close)
		return client
	}
	for i := range 2 {
		require.NoError(t, nodes.Start(i, true, []int{0, 1, 2}))
	}
	for i := range 2 {
		eventually("two nodes", func() bool { return replay.ClusterSize(ctx, addresses[i]) == 2 })
	}
	got := make(chan string, 10)
	subscriber := connect(0, mqttclient.Options{ClientID: "s", Expiry: 3600, OnPublish: func(pk packets.Packet) bool {
		got <- string(pk.Payload)
		return true
	}})
	require.NoError(t, subscriber.Subscribe(ctx, "s", 1))
	before := connect(1, mqttclient.Options{ClientID: "before", Clean: true})
	require.NoError(t, before.Publish(ctx, "s", []byte("before the freeze"), 1, false))
	next := func() string {
		t.Helper()
		select {
		case message := <-got:
			return message
		case <-ctx.Done():
			t.Fatal("nothing arrives")
			return ""
		}
	}
	require.Equal(t, "before the freeze", next())

	require.NoError(t, nodes.Freeze(0))
	require.NoError(t, nodes.Start(2, true, []int{0, 1, 2}))
	eventually("the new node joins", func() bool { return replay.ClusterSize(ctx, addresses[2]) >= 2 })
	after := connect(2, mqttclient.Options{ClientID: "after", Clean: true})
	require.NoError(t, after.Publish(ctx, "s", []byte("of the new node"), 1, false), "it is acknowledged")
	require.NoError(t, before.Publish(ctx, "s", []byte("of the old node"), 1, false))

	require.NoError(t, nodes.Thaw(0))
	require.Equal(t, "of the old node", next(), "what waits in a connection from before the freeze arrives, and nothing else")
	eventually("the new node learns of the subscription", func() bool {
		if err := after.Publish(ctx, "s", []byte("thawed"), 1, false); err != nil {
			return false
		}
		select {
		case message := <-got:
			return message == "thawed"
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
}
