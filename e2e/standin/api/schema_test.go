package api

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func decode(t *testing.T, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	require.NoError(t, d.Decode(&v))
	return v
}

func TestCheckConverts(t *testing.T) {
	for _, c := range []struct {
		reason, body string
		want         map[string]any
	}{
		{"nothing given", `{}`, map[string]any{}},
		{"whole seconds", `{"wait_takeover": 10}`, map[string]any{"wait_takeover": 10 * time.Second}},
		{"zero is legal", `{"wait_health_check": 0}`, map[string]any{"wait_health_check": time.Duration(0)}},
		{"a duration", `{"wait_takeover": "1m30s"}`, map[string]any{"wait_takeover": 90 * time.Second}},
		{"less than a second is one", `{"wait_takeover": "500ms"}`, map[string]any{"wait_takeover": time.Second}},
		{"rounded up", `{"wait_takeover": "1001ms"}`, map[string]any{"wait_takeover": 2 * time.Second}},
		{"a rate", `{"conn_evict_rate": 7}`, map[string]any{"conn_evict_rate": 7}},
		{"nodes", `{"migrate_to": ["a@b"]}`, map[string]any{"migrate_to": []string{"a@b"}}},
	} {
		got, faults := check(decode(t, c.body), evacuationFields())
		require.Empty(t, faults, c.reason)
		require.Equal(t, c.want, got, c.reason)
	}
}

func TestCheckRefusesWithEMQXsWords(t *testing.T) {
	for _, c := range []struct{ reason, body, want string }{
		{"unknown fields come first", `{"x": 1, "conn_evict_rate": "a"}`,
			`{"unmatched":"migrate_to,redirect_to,...","unknown":"x","reason":"unknown_fields","path":"root","kind":"validation_error"}`},
		{"no object", `[]`, `{"value":[],"reason":"bad_value_for_struct","path":"root","kind":"validation_error"}`},
		{"a number too small", `{"conn_evict_rate": 0}`,
			`{"value":0,"reason":{"expected":"pos_integer()"},"path":"root.conn_evict_rate","kind":"validation_error"}`},
		{"no nodes", `{"migrate_to": []}`,
			`{"value":[],"reason":{"expected":"[binary(),...]"},"path":"root.migrate_to","kind":"validation_error"}`},
		{"one node that is not in a list", `{"migrate_to": "emqx@a"}`,
			`{"value":"emqx@a","reason":{"expected":"[binary(),...]"},"path":"root.migrate_to","kind":"validation_error"}`},
		{"a node that is no text", `{"migrate_to": ["emqx@a", 5]}`,
			`{"value":["emqx@a",5],"reason":{"expected":"[binary(),...]"},"path":"root.migrate_to","kind":"validation_error"}`},
		{"several", `{"conn_evict_rate": 0, "wait_takeover": "x"}`,
			`[{"value":0,"reason":{"expected":"pos_integer()"},"path":"root.conn_evict_rate","kind":"validation_error"},` +
				`{"value":"x","reason":"Not a valid duration","path":"root.wait_takeover","kind":"validation_error"}]`},
	} {
		_, faults := check(decode(t, c.body), evacuationFields())
		require.Equal(t, c.want, faultText(faults), c.reason)
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[uint64]string{512: "512", 512 << 10: "512.00K", 512 << 20: "512.00M", 16782745600: "15.63G"} {
		require.Equal(t, want, size(bytes))
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		role         Role
		method, path string
		want         bool
	}{
		{Administrator, "POST", "/api/v5/load_rebalance/x/evacuation/start", true},
		{Viewer, "GET", "/api/v5/nodes", true},
		{Viewer, "PUT", "/api/v5/configs", false},
		{Publisher, "POST", "/api/v5/publish", true},
		{Publisher, "GET", "/api/v5/nodes", false},
		{"other", "GET", "/api/v5/nodes", false},
	} {
		require.Equal(t, c.want, c.role.allows(c.method, c.path), "%v", c)
	}
}

func TestKeyFile(t *testing.T) {
	var told []Key
	path := filepath.Join(t.TempDir(), "keys.json")
	keys, err := NewKeys(path, "6.0.1", func(k Key) { told = append(told, k) })
	require.NoError(t, err)
	require.NoError(t, keys.PutLine("a:1"))
	require.NoError(t, keys.PutLine("b:2:viewer"))
	for _, bad := range []string{"", "a", "a:", ":1", "a:1:king", "a:1:viewer:x"} {
		require.ErrorIs(t, keys.PutLine(bad), errBadLine, bad)
	}
	known, ok := keys.Check("b", "2")
	require.True(t, ok)
	require.Equal(t, Viewer, known.Role)
	_, ok = keys.Check("b", "3")
	require.False(t, ok)
	require.NoError(t, keys.PutLine("a:9"), "a secret is replaced")
	_, ok = keys.Check("a", "1")
	require.False(t, ok)
	require.Len(t, told, 3)
	other, err := NewKeys("", "6.0.1", func(Key) {})
	require.NoError(t, err)
	for i := len(told) - 1; i >= 0; i-- { // whatever the order, the latest counts
		require.NoError(t, other.Learn(told[i]))
	}
	_, ok = other.Check("a", "9")
	require.True(t, ok)
	again, err := NewKeys(path, "6.0.1", func(Key) {})
	require.NoError(t, err)
	known, ok = again.Check("b", "2")
	require.True(t, ok, "keys are kept")
	require.Equal(t, Viewer, known.Role)
	data, err := json.Marshal(told)
	require.NoError(t, err)
	require.NotContains(t, string(data), `"9"`, "secrets do not travel")
}

func TestErlangTerms(t *testing.T) {
	require.Equal(t, `#{<<"a">> => [1,true,<<"x">>,null]}`, erlang([]byte(`{"a":[1,true,"x",null]}`)))
}

// TestScopes: where the release knows scopes, a key has those of its line, and system never beside others.
func TestScopes(t *testing.T) {
	keys, err := NewKeys("", "6.0.3", func(Key) {})
	require.NoError(t, err)
	for line, want := range map[string][]string{
		"a:1": nil, "b:1:administrator": nil, "c:1:administrator:cluster_operations,license": {"cluster_operations", "license"},
		"d:1:administrator:system": {"system"}, "e:1:administrator:cluster_operations,system": {"cluster_operations"}, "f:1:administrator:nonsense": {},
	} {
		require.NoError(t, keys.PutLine(line))
		known, ok := keys.Check(line[:1], "1")
		require.True(t, ok)
		require.Equal(t, want, known.Scopes, line)
	}
	cluster, _ := keys.Check("c", "1")
	system, _ := keys.Check("d", "1")
	none, _ := keys.Check("f", "1")
	for path, needs := range map[string]string{
		"/nodes/a": "cluster_operations", "/cluster": "cluster_operations", "/load_rebalance/status": "cluster_operations", "/license": "license",
		"/ds/sites": "system", "/listeners/tcp:default": "system", "/configs": "system", "/clients": "connections",
	} {
		require.Equal(t, needs == "cluster_operations" || needs == "license", cluster.allows("GET", basePath+path), path)
		require.Equal(t, needs == "system", system.allows("GET", basePath+path), path)
		require.False(t, none.allows("GET", basePath+path), path)
	}
	for release, knows := range map[string]bool{"5.8.9": false, "5.10.4": true, "6.0.1": false, "6.0.3": true, "6.1.1": false, "6.2.1": true, "6.3.0": true} {
		require.Equal(t, knows, knowsScopes(release), release)
	}
}
