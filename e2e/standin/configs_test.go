package standin_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

func (h *harness) putConfigs(i int, mode, text string) answer {
	return h.do(http.MethodPut, i, "/api/v5/configs?mode="+mode, []byte(text), "text/plain")
}

// setting is a value of a node's configuration.
func (h *harness) setting(i int, path ...string) string {
	h.t.Helper()
	req, err := http.NewRequestWithContext(shortContext(h.t), http.MethodGet,
		"http://"+h.address(i)+":18083/api/v5/configs?key="+path[0], nil)
	require.NoError(h.t, err)
	req.SetBasicAuth("opkey", "opsecret")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(h.t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(h.t, err)
	tree, err := settings.Parse(string(text))
	require.NoError(h.t, err)
	return tree.Text("", path...)
}

// plain is an answer's text as EMQX writes it.
func plain(a answer) string {
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(string(a.body))
}

func (h *harness) open(i int, port string) bool {
	conn, err := net.Dial("tcp", net.JoinHostPort(h.address(i), port))
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// connack is what a new client is told.
func (h *harness) connack(i int, id string) packets.Properties {
	h.t.Helper()
	c := h.mustConnect(i, id, nil)
	return c.Events()[0].Packet.Properties
}

// A change sets every key of its root that it does not name to its default, also what the node's own file says; a
// restart brings that back. It is applied everywhere when the call returns, and new clients are told.
func TestMergeResetsWhatIsNotNamed(t *testing.T) {
	h := newHarness(t, func(cfg *standin.Config) { cfg.Layers.File.Set(int64(20), "mqtt", "max_inflight") })
	h.start(1, 2)
	require.Equal(t, "20", h.setting(1, "mqtt", "max_inflight"))
	require.EqualValues(t, 20, h.connack(1, "before").ReceiveMaximum)
	old := h.mustConnect(2, "old", nil)

	require.Equal(t, http.StatusOK, h.putConfigs(1, "merge", "mqtt { max_packet_size = 2MB, max_qos_allowed = 1 }").status)
	for _, node := range []int{1, 2} {
		require.Equal(t, "2MB", h.setting(node, "mqtt", "max_packet_size"))
		require.Equal(t, "32", h.setting(node, "mqtt", "max_inflight"))
	}
	told := h.connack(2, "after")
	require.EqualValues(t, 2<<20, told.MaximumPacketSize)
	require.EqualValues(t, 32, told.ReceiveMaximum)
	require.True(t, told.MaximumQosFlag)
	require.EqualValues(t, 1, told.MaximumQos)
	large := make([]byte, 1500<<10)
	require.NoError(t, h.mustConnect(2, "new", nil).Publish(shortContext(t), "a", large, 1, false))
	require.Error(t, old.Publish(shortContext(t), "a", large, 1, false))
	<-old.Done()
	code, told2 := old.DisconnectCode()
	require.True(t, told2)
	require.EqualValues(t, 0x95, code)

	require.Equal(t, http.StatusOK, h.putConfigs(2, "merge", "mqtt { max_topic_levels = 64 }").status)
	require.Equal(t, "1MB", h.setting(1, "mqtt", "max_packet_size"), "the second change undoes the first")
	require.Equal(t, http.StatusOK, h.putConfigs(2, "merge", "mqtt {}").status)
	require.Equal(t, "128", h.setting(1, "mqtt", "max_topic_levels"))

	require.Equal(t, http.StatusOK, h.putConfigs(1, "merge", "mqtt { max_topic_levels = 55 }").status)
	h.stop(2)
	h.begin(2)
	h.eventually("it is back", func() bool { return len(h.clusterOf(2)) == 2 })
	require.Equal(t, "20", h.setting(2, "mqtt", "max_inflight"), "its own file counts again")
	require.Equal(t, "55", h.setting(2, "mqtt", "max_topic_levels"))
	require.Equal(t, "32", h.setting(1, "mqtt", "max_inflight"), "and nobody else's")
}

// What EMQX refuses in one root changes none; what fails while it is applied leaves the others changed.
func TestRefusedConfigurationChangesNothing(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1)
	for _, c := range []struct {
		reason, mode, text string
		status             int
		says               string
	}{
		{"a read-only root", "merge", "node { max_ports = 2048 }\nmqtt { max_topic_levels = 77 }", 400, `{"errors":"Cannot update read-only key 'node'."}`},
		{"a root there is none of", "merge", "mqtt { max_topic_levels = 77 }\nno_such {}", 400, `root_key_not_found`},
		{"no percentage", "merge", "mqtt { max_topic_levels = 77 }\nsysmon { vm { process_high_watermark = \"much\" } }", 500,
			`result => {bad_watermark,#{\"sysmon.vm.process_high_watermark\" => <<\"much\">>}},validation_name => check_process_watermark`},
		{"over a hundred", "replace", "mqtt { max_topic_levels = 77 }\nsysmon { vm { process_high_watermark = \"200%\" } }", 500, `bad_watermark`},
		{"an unknown field", "merge", "alarm { size_limit = 1, x = 2 }\nmqtt { max_topic_levels = 77 }", 500, `unknown_fields`},
		{"no log level", "merge", "log { console { level = loud } }\nmqtt { max_topic_levels = 77 }", 400,
			`{"errors":{"log":{"kind":"validation_error","path":"log.console.level","reason":"unable_to_convert_to_enum_symbol","value":"loud"}}}`},
		{"no backend", "merge", "authentication = [ { mechanism = password_based, backend = no_such } ]\nmqtt { max_topic_levels = 77 }", 500, `unsupported_mechanism`},
		{"watermarks the wrong way", "merge", "license { connection_high_watermark = \"50%\" }\nmqtt { max_topic_levels = 77 }", 500, `bad_license_watermark`},
		{"no address", "merge", "listeners { tcp { default { bind = \"x\" } } }\nmqtt { max_topic_levels = 77 }", 400, `bad_port_number`},
		{"no mode", "other", "mqtt { max_topic_levels = 77 }", 400,
			`{\"value\":\"other\",\"reason\":\"unable_to_convert_to_enum_symbol\",\"path\":\"mode\",\"kind\":\"validation_error\"}`},
	} {
		got := h.putConfigs(1, c.mode, c.text)
		require.Equal(t, c.status, got.status, c.reason)
		require.Contains(t, plain(got), c.says, c.reason)
		require.Equal(t, "128", h.setting(1, "mqtt", "max_topic_levels"), c.reason)
		require.Equal(t, "1000", h.setting(1, "alarm", "size_limit"), c.reason)
	}
	got := h.putConfigs(1, "merge", "alarm { size_limit = 777 }, license { key = \"abc\" }, mqtt { max_topic_levels = 99 }")
	require.Equal(t, http.StatusBadRequest, got.status)
	require.Contains(t, plain(got), `Root key: license\nReason: #{parse_results =>\n              [#{error => bad_license_format`)
	require.Equal(t, "99", h.setting(1, "mqtt", "max_topic_levels"))
	require.Equal(t, "777", h.setting(1, "alarm", "size_limit"))
}

// A listener that is not named goes back to its default address, and one whose address is in use is left closed on the node
// that was asked.
func TestListenersOfAChange(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	quiet := `, ssl.default { enable = false }, wss.default { enable = false }`
	require.Equal(t, http.StatusOK, h.putConfigs(1, "merge", "listeners { tcp.default { bind = 1884 }"+quiet+" }").status)
	for _, node := range []int{1, 2} {
		require.True(t, h.open(node, "1884"))
		require.False(t, h.open(node, "1883"))
	}
	require.Equal(t, http.StatusOK, h.putConfigs(2, "merge", "listeners { tcp.extra { bind = 1885 }"+quiet+" }").status)
	for _, node := range []int{1, 2} {
		require.True(t, h.open(node, "1883"), "tcp:default was not named")
		require.False(t, h.open(node, "1884"))
		require.True(t, h.open(node, "1885"))
	}
	extra := func(o *mqttclient.Options) { o.Address = h.address(1) + ":1885" }
	client := h.mustConnect(1, "x", extra)
	require.Equal(t, http.StatusOK, h.putConfigs(1, "merge", "listeners { tcp.extra { bind = 1885, max_connections = 7 }"+quiet+" }").status)
	require.Equal(t, "7", h.setting(2, "listeners", "tcp", "extra", "max_connections"))
	require.NoError(t, client.Subscribe(shortContext(t), "still/there", 0))
	require.Equal(t, http.StatusOK,
		h.putConfigs(1, "merge", "listeners { tcp.extra { bind = 1885, tcp_options.backlog = 99 }"+quiet+" }").status)
	<-client.Done()
	_, told := client.DisconnectCode()
	require.False(t, told, "the connection ends without a packet")
	require.False(t, h.mustConnect(1, "x", extra).SessionPresent(), "and its session with it")

	failed := h.putConfigs(1, "merge", "listeners { tcp.default { bind = 18083 }, tcp.extra { bind = 1885 }"+quiet+" }")
	require.Equal(t, http.StatusBadRequest, failed.status)
	require.Contains(t, string(failed.body), `"tcp:default(:18083) : {shutdown,{failed_to_start_child,listener,eaddrinuse}}\"`)
	require.False(t, h.open(1, "1883"), "it is left closed")
	require.True(t, h.open(2, "1883"), "the other node was not asked")
	for _, what := range []string{"start", "restart"} {
		got := h.post(1, "/api/v5/listeners/tcp:default/"+what, map[string]any{})
		require.Equal(t, http.StatusBadRequest, got.status)
		require.Equal(t, "{config_update_crashed,not_found}", got.object()["message"])
	}
	same := `listeners { tcp.default { bind = "0.0.0.0:1883" }, tcp.extra { bind = 1885 }` + quiet + ` }`
	require.Equal(t, http.StatusOK, h.putConfigs(1, "merge", same).status)
	require.False(t, h.open(1, "1883"), "its address has not changed")
	require.Equal(t, http.StatusOK, h.putConfigs(1, "merge", "listeners { tcp.default { bind = 1888 }"+quiet+" }").status)
	require.True(t, h.open(1, "1888"))
	require.Equal(t, http.StatusOK, h.post(1, "/api/v5/listeners/tcp:default/restart", map[string]any{}).status)
	require.True(t, h.open(1, "1888"))

	require.Equal(t, http.StatusNoContent, h.do(http.MethodDelete, 1, "/api/v5/listeners/ws:default", nil, "").status)
	for _, node := range []int{1, 2} {
		require.False(t, h.open(node, "8083"))
		require.Equal(t, http.StatusNotFound, h.get(node, "/api/v5/listeners/ws:default").status)
	}
	require.Equal(t, http.StatusOK, h.putConfigs(1, "replace", "listeners { tcp.default { bind = 1888 }"+quiet+" }").status)
	require.False(t, h.open(2, "1885"))
	require.True(t, h.open(2, "8083"), "default listeners come back")
	got := h.do(http.MethodPut, 1, "/api/v5/listeners/ws:default", []byte(`{"enable":false}`), "application/json")
	require.Equal(t, http.StatusBadRequest, got.status)
}

// The API answers on its old port and is then on the new one, on all nodes.
func TestDashboardMoves(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	require.Equal(t, http.StatusOK, h.putConfigs(1, "merge", "dashboard { token_expired_time = 30m }").status)
	require.Equal(t, http.StatusOK, h.get(1, "/api/v5/cluster").status)
	require.Equal(t, http.StatusOK, h.putConfigs(1, "merge", "dashboard { listeners.http.bind = 18084 }").status)
	for _, node := range []int{1, 2} {
		h.eventually("the port moves", func() bool { return h.open(node, "18084") && !h.open(node, "18083") })
	}
}
