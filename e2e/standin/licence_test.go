package standin_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// trial runs nodes of 5.8 without a licence key: EMQX's own is a trial of 25 sessions in the whole cluster.
func trial(t *testing.T, count time.Duration) *harness {
	t.Helper()
	return newHarness(t, func(cfg *standin.Config) {
		cfg.Version = "5.8.9"
		cfg.Layers.Environment.Set("default", "license", "key")
		cfg.Broker.Count = count
	})
}

// The limit counts the sessions as they were a moment ago: it lets some more in, and lets nobody in for a moment after
// one has left. Who has a session is let in.
func TestTrialLicenceLimitsSessions(t *testing.T) {
	h := trial(t, 100*time.Millisecond)
	h.start(1, 2)
	clients := map[string]*mqttclient.Client{}
	for i := range 25 {
		id := fmt.Sprintf("l%d", i)
		clients[id] = h.mustConnect(1+i%2, id, nil)
	}
	refused := func(node int, version byte) byte {
		c, err := h.connect(node, "one-more", func(o *mqttclient.Options) { o.Version, o.Clean, o.Expiry = version, true, 0 })
		var r *mqttclient.RefusedError
		if errors.As(err, &r) {
			return r.Code
		}
		require.NoError(t, err)
		c.Disconnect()
		return 0
	}
	for _, node := range []int{1, 2} {
		h.eventually("the count is taken", func() bool { return refused(node, 5) == 0x97 })
		require.EqualValues(t, 3, refused(node, 4))
	}
	c := h.mustConnect(1, "l1", nil)
	require.True(t, c.SessionPresent(), "its session was on the other node")
	h.mustConnect(2, "l0", func(o *mqttclient.Options) { o.Clean = true })
	require.Equal(t, http.StatusOK, h.post(1, "/api/v5/license", map[string]any{"key": "official"}).status)
	for _, node := range []int{1, 2} {
		require.Zero(t, refused(node, 5), "another licence counts at once, on all nodes")
	}
}

// Between two counts everybody is let in.
func TestTrialLicenceCountsLate(t *testing.T) {
	h := trial(t, time.Hour)
	h.start(1)
	for i := range 27 {
		h.mustConnect(1, fmt.Sprintf("l%d", i), nil)
	}
}

func TestLicenceAPI(t *testing.T) {
	h := trial(t, 0)
	h.start(1)
	for _, c := range []struct {
		body    map[string]any
		status  int
		message string
	}{
		{map[string]any{"key": "abc"}, 400, "Bad license key"},
		{map[string]any{"key": "evaluation"}, 400, "Bad license key"},
		{map[string]any{"key": ""}, 400, "Bad license key"},
		{map[string]any{}, 400, "Invalid request params"},
		{map[string]any{"key": "default"}, 200, ""},
	} {
		got := h.post(1, "/api/v5/license", c.body)
		require.Equal(t, c.status, got.status, c.body)
		if c.message != "" {
			require.Equal(t, c.message, got.object()["message"], c.body)
		}
	}
	require.Equal(t, http.StatusMethodNotAllowed, h.do(http.MethodPut, 1, "/api/v5/license", []byte(`{"key":"abc"}`), "application/json").status)
	require.Equal(t, map[string]any{"connection_high_watermark": "80%", "connection_low_watermark": "75%"},
		h.get(1, "/api/v5/license/setting").object())
	require.Equal(t, "default", h.setting(1, "license", "key"))
	require.EqualValues(t, 25, h.get(1, "/api/v5/license").object()["max_sessions"])
}

// refusesToRun waits until a node has ended because of the licence.
func (h *harness) refusesToRun(i int) {
	h.t.Helper()
	select {
	case err := <-h.nodes[i].done:
		require.EqualError(h.t, err,
			"SINGLE_NODE_LICENSE, make sure this node and peer nodes are configured with a valid license")
		h.nodes[i].done <- nil
	case <-time.After(20 * time.Second):
		h.t.Fatal("the node goes on")
	}
}

// Since 5.9 a second node with the community licence stops as soon as it has joined, again and again; the first goes on,
// and starts again while the second is away.
func TestCommunityLicenceAllowsOneNode(t *testing.T) {
	for _, version := range []string{"5.9.0", "5.10.3", "6.0.1"} {
		t.Run(version, func(t *testing.T) {
			h := newHarness(t, func(c *standin.Config) {
				c.Version = version
				c.Layers.Environment.Set("default", "license", "key")
			})
			h.start(1)
			kept := h.mustConnect(1, "kept", nil)
			for range 2 {
				h.begin(2)
				h.refusesToRun(2)
			}
			h.eventually("the first goes on alone", func() bool { return len(h.clusterOf(1)) == 1 })
			h.eventually("the second has been a member, and is one that stopped", func() bool {
				list := h.get(1, "/api/v5/nodes").list()
				return len(list) == 2 && list[1].(map[string]any)["node_status"] == "stopped"
			})
			require.Equal(t, "community", h.get(1, "/api/v5/license").object()["type"])
			require.NoError(t, kept.Publish(shortContext(t), "still", []byte("served"), 1, false))
			h.stop(1)
			h.begin(1)
			h.eventually("the first starts alone", func() bool { return len(h.clusterOf(1)) == 1 })
			h.begin(2)
			h.refusesToRun(2)
		})
	}
}

// A licence that was set by API is the cluster's: who joins has it, unless it was started with another one.
func TestLicenceOfTheCluster(t *testing.T) {
	var own string
	h := newHarness(t, func(c *standin.Config) {
		c.Layers.Environment = settings.Tree{}
		if own != "" {
			c.Layers.Environment.Set(own, "license", "key")
		}
	})
	h.start(1)
	require.Equal(t, http.StatusOK, h.post(1, "/api/v5/license", map[string]any{"key": "evaluation"}).status)
	h.begin(2)
	h.eventually("the second has joined", func() bool { return len(h.clusterOf(2)) == 2 && len(h.clusterOf(1)) == 2 })
	require.Equal(t, "trial", h.get(2, "/api/v5/license").object()["type"])
	for _, node := range []int{1, 2} {
		refused := h.post(node, "/api/v5/license", map[string]any{"key": "default"})
		require.Equal(t, http.StatusBadRequest, refused.status)
		require.Equal(t, map[string]any{"code": "BAD_REQUEST", "message": "SINGLE_NODE_LICENSE"}, refused.object())
	}
	h.stop(2)
	require.Equal(t, http.StatusOK, h.post(1, "/api/v5/license", map[string]any{"key": "default"}).status, "only running nodes count")
	own = "official"
	h.begin(2)
	h.eventually("who has its own is let in", func() bool { return len(h.clusterOf(2)) == 2 && len(h.clusterOf(1)) == 2 })
	require.Equal(t, "community", h.get(1, "/api/v5/license").object()["type"])
}
