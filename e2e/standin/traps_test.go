package standin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/evacuate"
)

func (h *harness) rebalance(i int) map[string]any {
	return h.get(i, "/api/v5/load_rebalance/status").object()
}

func (h *harness) evacuate(i int, action string, body any) answer {
	return h.post(1, "/api/v5/load_rebalance/"+h.name(i)+"/evacuation/"+action, body)
}

// What EMQX's own test suites refuse, the stand-in refuses.
func TestStartValidation(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	for _, c := range []struct {
		reason string
		body   map[string]any
		field  string
	}{
		{"rate is a text", map[string]any{"conn_evict_rate": "conn"}, "conn_evict_rate"},
		{"session rate is a text", map[string]any{"sess_evict_rate": "sess"}, "sess_evict_rate"},
		{"rate is not whole", map[string]any{"conn_evict_rate": 1.5}, "conn_evict_rate"},
		{"wait is no duration", map[string]any{"wait_takeover": "wait"}, "wait_takeover"},
		{"health wait is no duration", map[string]any{"wait_health_check": "wait"}, "wait_health_check"},
		{"wait is too long", map[string]any{"wait_health_check": 4294968}, "wait_health_check"},
		{"nobody to migrate to", map[string]any{"migrate_to": []string{}}, "migrate_to"},
		{"recipients are no list", map[string]any{"migrate_to": "migrate_to"}, "migrate_to"},
		{"recipient was never heard of", map[string]any{"migrate_to": []string{"bad_node"}}, "bad_node"},
		{"one recipient was never heard of", map[string]any{"migrate_to": []string{"bad_node", h.name(2)}}, "bad_node"},
		{"unknown field", map[string]any{"unknown": "Value"}, "unknown"},
		{"redirect is no text", map[string]any{"redirect_to": 1}, "redirect_to"},
	} {
		a := h.evacuate(1, "start", c.body)
		require.Equal(t, http.StatusBadRequest, a.status, c.reason)
		require.Equal(t, "BAD_REQUEST", a.object()["code"], c.reason)
		require.Contains(t, a.object()["message"], c.field, c.reason)
	}
	a := h.evacuate(1, "start", map[string]any{"conn_evict_rate": 0, "sess_evict_rate": 0})
	var faults []map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.object()["message"].(string)), &faults), "several faults are a list")
	require.Len(t, faults, 2)
	require.Equal(t, http.StatusNotFound, h.post(1, "/api/v5/load_rebalance/bad@node/evacuation/start", map[string]any{}).status)
	for _, c := range []map[string]any{
		{"conn_evict_rate": "x"}, {"abs_conn_threshold": 0}, {"rel_conn_threshold": 1.0}, {"rel_sess_threshold": "x"},
		{"nodes": "x"}, {"nodes": []string{}}, {"nodes": []string{"bad_node"}}, {"wait_takeover": -1}, {"unknown": 1},
		{"conn_evict_rpc_timeout": "x"},
	} {
		require.Equal(t, http.StatusBadRequest, h.post(1, "/api/v5/load_rebalance/"+h.name(1)+"/start", c).status, "%v", c)
	}
	require.Equal(t, http.StatusNotFound, h.post(1, "/api/v5/load_rebalance/bad@node/start", map[string]any{}).status)

	full := map[string]any{
		"wait_health_check": "10s", "wait_takeover": "1m", "conn_evict_rate": 10, "sess_evict_rate": 10,
		"redirect_to": "srv", "migrate_to": []string{h.name(2)},
	}
	require.Equal(t, http.StatusOK, h.evacuate(1, "start", full).status)
	list := h.get(2, "/api/v5/load_rebalance/global_status").object()["evacuations"].([]any)
	require.Len(t, list, 1)
	require.Equal(t, h.name(1), list[0].(map[string]any)["node"])
	require.Equal(t, http.StatusServiceUnavailable, h.get(1, "/api/v5/load_rebalance/availability_check").status, "at once, though the health wait runs")
	require.Equal(t, http.StatusOK, h.get(2, "/api/v5/load_rebalance/availability_check").status)
	require.Contains(t, h.evacuate(1, "start", full).object()["message"], "already_started")
	a = h.evacuate(2, "start", map[string]any{"migrate_to": []string{h.name(1)}})
	require.Equal(t, http.StatusBadRequest, a.status)
	require.Equal(t, "NOT_FOUND", a.object()["code"], "a node that is itself evacuated takes nothing")
	require.Equal(t, "Nodes unavailable: ['"+h.name(1)+"']", a.object()["message"])
	a = h.post(1, "/api/v5/load_rebalance/"+h.name(2)+"/start", map[string]any{"nodes": []string{h.name(1), h.name(2)}})
	require.Equal(t, "NOT_FOUND", a.object()["code"], "nor does it take part in a rebalance")
	require.Equal(t, http.StatusOK, h.evacuate(1, "stop", nil).status)
	require.Contains(t, h.evacuate(1, "stop", nil).object()["message"], "not_started")
	require.Equal(t, map[string]any{"status": "disabled"}, h.rebalance(1))
}

// Sessions of absent clients move with what was queued for them, one recipient or another, and wait there with their
// whole time; transient sessions end.
func TestMovedSessionsKeepTheirQueue(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2, 3)
	for i := range 6 {
		c := h.mustConnect(1, fmt.Sprintf("p-%d", i), nil)
		require.NoError(t, c.Subscribe(shortContext(t), fmt.Sprintf("p/%d", i), 1))
		c.Disconnect()
	}
	h.eventually("they are away", func() bool {
		return h.get(1, "/api/v5/nodes/"+h.name(1)).object()["live_connections"] == float64(0)
	})
	transient := h.mustConnect(1, "transient", func(o *mqttclient.Options) {
		cleanClient(o)
		o.Will = &mqttclient.Will{Topic: "will", Payload: "evicted", QoS: 1}
	})
	box := &inbox{}
	watcher := h.mustConnect(2, "watcher", box.receive)
	require.NoError(t, watcher.Subscribe(shortContext(t), "will", 1))
	pub := h.mustConnect(3, "pub", cleanClient)
	for i := range 6 {
		publishNumbers(t, pub, fmt.Sprintf("p/%d", i), 1, 2, 1)
	}
	require.Equal(t, http.StatusOK, h.evacuate(1, "start", map[string]any{"wait_health_check": 0, "wait_takeover": 0}).status)
	h.eventually("prohibiting", func() bool { return h.rebalance(1)["state"] == "prohibiting" })
	<-transient.Done()
	code, told := transient.DisconnectCode()
	require.True(t, told)
	require.Equal(t, byte(0x9C), code)
	h.eventually("the will of an evicted client is published", func() bool { return len(box.payloads()) == 1 })
	list := h.get(2, "/api/v5/clients?fields=all").object()["data"].([]any)
	require.Len(t, list, 8, "the transient session is gone")
	for _, item := range list {
		c := item.(map[string]any)
		if strings.HasPrefix(c["clientid"].(string), "p-") {
			require.NotEqual(t, h.name(1), c["node"])
			require.Equal(t, false, c["connected"])
			require.EqualValues(t, 2, c["mqueue_len"])
			require.EqualValues(t, 3600, c["expiry_interval"])
			require.NotContains(t, c, "proto_ver")
		}
	}
	require.Equal(t, "p-5", h.get(1, "/api/v5/clients/p-5").object()["clientid"])
	require.Equal(t, http.StatusNoContent, h.do(http.MethodDelete, 1, "/api/v5/clients/p-5", nil, "").status, "a moved session can be kicked")
	require.Equal(t, "CLIENTID_NOT_FOUND", h.do(http.MethodDelete, 1, "/api/v5/clients/p-5", nil, "").object()["code"])
	publishNumbers(t, pub, "p/0", 3, 3, 1)
	_, err := h.connect(1, "p-0", nil)
	var refused *mqttclient.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, byte(0x9C), refused.Code)
	again := &inbox{}
	c := h.mustConnect(3, "p-0", again.receive)
	require.True(t, c.SessionPresent())
	h.eventually("the queue comes", func() bool { return len(again.payloads()) == 3 })
	require.Equal(t, numbered(1, 3), again.payloads())
	require.Equal(t, http.StatusOK, h.evacuate(1, "stop", nil).status)
	h.mustConnect(1, "welcome", cleanClient)
}

// Connects are accepted until the health check wait is over.
func TestHealthCheckWaitAccepts(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	require.Equal(t, http.StatusOK, h.evacuate(1, "start", map[string]any{"wait_health_check": 2}).status)
	require.Equal(t, map[string]any{"status": "enabled", "stats": map[string]any{"connections": 0.0, "sessions": 0.0}},
		h.get(1, "/api/v5/node_eviction/status").object())
	c := h.mustConnect(1, "early", nil)
	stats := h.rebalance(1)["stats"].(map[string]any)
	require.EqualValues(t, 0, stats["current_connected"], "who came during the wait is not counted yet")
	<-c.Done()
	require.EqualValues(t, 0, h.rebalance(1)["stats"].(map[string]any)["initial_connected"])
	_, err := h.connect(1, "late", func(o *mqttclient.Options) { o.Version, o.Expiry = 4, 0 })
	var refused *mqttclient.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, byte(3), refused.Code, "MQTT 3 knows no other server")
}

// An evacuation survives a restart, refuses at once, and moves to whoever is there: recipients are forgotten.
func TestEvacuationIsRestoredAtBoot(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2, 3)
	c := h.mustConnect(3, "stays", nil)
	c.Disconnect()
	require.Equal(t, http.StatusOK, h.evacuate(3, "start", map[string]any{
		"wait_health_check": 60, "wait_takeover": 7, "conn_evict_rate": 11, "sess_evict_rate": 13, "migrate_to": []string{h.name(2)},
	}).status)
	data, err := os.ReadFile(filepath.Join(h.nodes[3].dir, ".evacuation"))
	require.NoError(t, err)
	require.JSONEq(t, `{"server_reference":null,"conn_evict_rate":11,"sess_evict_rate":13,"wait_takeover":7}`, string(data))
	h.stop(3)
	h.begin(3)
	h.eventually("it answers", func() bool { return h.rebalance(3)["status"] == "enabled" })
	status := h.rebalance(3)
	require.Contains(t, []any{"evicting_conns", "waiting_takeover"}, status["state"])
	require.EqualValues(t, 11, status["connection_eviction_rate"])
	require.EqualValues(t, 13, status["session_eviction_rate"])
	require.Equal(t, []any{h.name(1), h.name(2)}, status["session_recipients"])
	_, err = h.connect(3, "x", nil)
	var refused *mqttclient.RefusedError
	require.ErrorAs(t, err, &refused)
	h.eventually("it is one of three again", func() bool { return len(h.clusterOf(1)) == 3 })
	require.Equal(t, http.StatusOK, h.evacuate(3, "stop", nil).status)
	require.NoFileExists(t, filepath.Join(h.nodes[3].dir, ".evacuation"))
}

// Members: stopped ones are listed with three keys until they are forced out; self and strangers are refused.
func TestForceLeave(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2, 3)
	leave := func(name string) answer {
		return h.do(http.MethodDelete, 1, "/api/v5/cluster/"+name+"/force_leave", nil, "")
	}
	require.Equal(t, "Can't leave self", leave(h.name(1)).object()["message"])
	require.Equal(t, "node_not_in_cluster", leave("emqx@10.9.9.9").object()["message"])
	require.Equal(t, http.StatusBadRequest, leave("noat").status)
	require.Equal(t, http.StatusBadRequest, leave("a@b@c").status)
	h.stop(3)
	h.eventually("it is listed as stopped", func() bool { return len(h.get(1, "/api/v5/nodes").list()) == 3 })
	stopped := h.get(2, "/api/v5/nodes").list()[2]
	require.Equal(t, map[string]any{"node": h.name(3), "role": "core", "node_status": "stopped"}, stopped)
	require.Equal(t, http.StatusNoContent, leave(h.name(3)).status)
	h.eventually("it is forgotten everywhere", func() bool {
		return len(h.get(1, "/api/v5/nodes").list()) == 2 && len(h.get(2, "/api/v5/nodes").list()) == 2
	})
	h.begin(3)
	select {
	case err := <-h.nodes[3].done:
		require.ErrorIs(t, err, standin.ErrForgotten, "with its old data it does not start")
	case <-time.After(20 * time.Second):
		t.Fatal("it starts with its old data")
	}
	h.nodes[3].dir = t.TempDir()
	h.begin(3)
	h.eventually("with none it joins anew", func() bool { return len(h.clusterOf(3)) == 3 && len(h.clusterOf(1)) == 3 })
	require.Equal(t, http.StatusNoContent, leave(h.name(2)).status)
	h.eventually("a running node goes on alone", func() bool { return len(h.clusterOf(2)) == 1 && len(h.clusterOf(1)) == 2 })
	h.eventually("and serves", func() bool {
		c, err := h.connect(2, "still-serving", nil)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// A first join restarts the applications: who was connected is dropped, and what the node had is gone.
func TestFirstJoinRestarts(t *testing.T) {
	h := newHarness(t, func(c *standin.Config) { c.Timing.Autocluster = 700 * time.Millisecond })
	h.begin(1)
	h.eventually("the first answers", func() bool { return h.get(1, "/api/v5/cluster").status == http.StatusOK })
	h.begin(2)
	h.eventually("the second answers alone", func() bool { return len(h.clusterOf(2)) == 1 })
	c := h.mustConnect(2, "early", nil)
	<-c.Done()
	h.eventually("they are two", func() bool { return len(h.clusterOf(1)) == 2 && len(h.clusterOf(2)) == 2 })
	require.False(t, h.mustConnect(2, "early", nil).SessionPresent())
}

// Configuration reaches all nodes, survives a restart, and yields to the node's own file.
func TestConfigurationSpreads(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	put := func(text string) answer {
		return h.do(http.MethodPut, 1, "/api/v5/configs", []byte(text), "text/plain")
	}
	require.Equal(t, http.StatusOK, put("mqtt { max_topic_levels = 77 }").status)
	shown := func(i int) string {
		req, err := http.NewRequestWithContext(shortContext(t), http.MethodGet, "http://"+h.address(i)+":18083/api/v5/configs?key=mqtt", nil)
		require.NoError(t, err)
		req.SetBasicAuth("opkey", "opsecret")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return ""
		}
		defer func() { _ = resp.Body.Close() }()
		data := make([]byte, 1<<16)
		n, _ := resp.Body.Read(data)
		return string(data[:n])
	}
	for i := 1; i <= 2; i++ {
		h.eventually("it is there", func() bool { return strings.Contains(shown(i), "max_topic_levels = 77") })
	}
	h.stop(2)
	h.begin(2)
	h.eventually("it is there still", func() bool { return strings.Contains(shown(2), "max_topic_levels = 77") })
	require.Equal(t, http.StatusOK, put(`listeners.tcp.more.bind = "0.0.0.0:1899"`).status)
	for i := 1; i <= 2; i++ {
		h.eventually("the listener is open", func() bool {
			c, err := h.connect(i, "more", func(o *mqttclient.Options) { o.Address = h.address(i) + ":1899"; cleanClient(o) })
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
}

// A dashboard user gets a token that every node takes.
func TestLogin(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	a := h.post(1, "/api/v5/login", map[string]string{"username": "admin", "password": "public"})
	require.Equal(t, http.StatusOK, a.status)
	bearer := func(token string) int {
		req, err := http.NewRequestWithContext(shortContext(t), http.MethodGet, "http://"+h.address(2)+":18083/api/v5/nodes", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode
	}
	require.Equal(t, http.StatusOK, bearer(a.object()["token"].(string)))
	require.Equal(t, http.StatusUnauthorized, bearer("nonsense"))
	require.Equal(t, "BAD_USERNAME_OR_PWD", h.post(1, "/api/v5/login", map[string]string{"username": "admin", "password": "x"}).object()["code"])
}

// The figures of a rebalance need both limits of a node; the coordinator's end gives the donors free.
func TestRebalanceEndsWithItsCoordinator(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	for i := range 12 {
		h.mustConnect(1, fmt.Sprintf("c-%d", i), nil)
	}
	require.Equal(t, http.StatusOK, h.post(1, "/api/v5/load_rebalance/"+h.name(2)+"/start", map[string]any{
		"abs_conn_threshold": 1, "conn_evict_rate": 1, "wait_health_check": 60,
	}).status)
	require.Equal(t, "rebalance", h.rebalance(1)["process"], "the donor tells")
	require.EqualValues(t, 15000, h.rebalance(1)["connection_eviction_rpc_timeout"])
	require.Equal(t, "disabled", h.rebalance(2)["status"], "the coordinator does not")
	require.Equal(t, "error on node '"+h.name(1)+"': "+evacuate.ErrBusy.Error(), h.evacuate(1, "start", map[string]any{}).object()["message"])
	h.stop(2)
	h.eventually("the donor is free", func() bool { return h.rebalance(1)["status"] == "disabled" })
	h.mustConnect(1, "one more", nil)
}
