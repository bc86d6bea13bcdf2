package settings

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLayers(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, etc), 0o755))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(root, etc, name), []byte(text), 0o600))
	}
	write("base.hocon", `mqtt.max_topic_levels = 1, mqtt.max_packet_size = 2MB, log.console.level = debug`)
	write("emqx.conf", `mqtt { max_packet_size = 3MB, keepalive_multiplier = 2.5 }
		listeners.tcp.default { bind = "0.0.0.0:1999" }
		listeners.ssl.default = marked_for_deletion, listeners.ws.default = null`)
	layers, err := Load(Source{Root: root, Environ: []string{
		"EMQX_MQTT__KEEPALIVE_MULTIPLIER=3.5", `EMQX_API_KEY__BOOTSTRAP_FILE="/opt/keys"`, "EMQX_NODE__COOKIE=a b:c",
		"EMQX_HOST=ignored", "PATH=/bin", "EMQX_DASHBOARD__LISTENERS__HTTP__BIND=18083", "EMQX_CLUSTER__STATIC__SEEDS=[a@b,c@d]",
	}})
	require.NoError(t, err)
	changes, err := Parse("mqtt.max_topic_levels = 7, mqtt.max_packet_size = 9MB")
	require.NoError(t, err)
	tree := layers.Effective(changes)
	require.Equal(t, "7", tree.Text("", "mqtt", "max_topic_levels"), "a change is above base.hocon")
	require.Equal(t, "3MB", tree.Text("", "mqtt", "max_packet_size"), "the file is above changes")
	require.Equal(t, "3.5", tree.Text("", "mqtt", "keepalive_multiplier"), "the environment is above all")
	require.Equal(t, "debug", tree.Text("", "log", "console", "level"))
	require.Equal(t, "/opt/keys", tree.Text("", "api_key", "bootstrap_file"), "quotes are HOCON's")
	require.Equal(t, "a b:c", tree.Text("", "node", "cookie"))
	require.Equal(t, "18083", Port(BindText(tree.Sub("dashboard", "listeners", "http")["bind"])))
	seeds, _ := tree.Get("cluster", "static", "seeds")
	require.Equal(t, []any{"a@b", "c@d"}, seeds)
	list := tree.Listeners()
	var ids []string
	for _, l := range list {
		ids = append(ids, l.ID+" "+l.Bind)
	}
	require.Equal(t, []string{"tcp:default 0.0.0.0:1999", "ws:default :8083", "wss:default 0.0.0.0:8084"}, ids)
}

func TestSyntaxErrorSaysWhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "emqx.conf")
	require.NoError(t, os.WriteFile(path, []byte("mqtt {\n  a = 1\n"), 0o600))
	_, err := Load(Source{File: path})
	var syntax *SyntaxError
	require.ErrorAs(t, err, &syntax)
	require.ErrorContains(t, err, path)
	require.Positive(t, syntax.Line)
	_, err = Load(Source{File: path + ".none"})
	require.ErrorIs(t, err, os.ErrNotExist, "a file that was named must be there")
}

func TestRenderIsReadAgain(t *testing.T) {
	tree := Tree{
		"a": Tree{"b.c": "text with \"quotes\"", "n": int64(5), "f": 1.5, "t": true, "word": "warning"},
		"l": []any{"x", int64(1), Tree{"y": "z"}}, "e": []any{}, "size": "1MB",
	}
	again, err := Parse(tree.Render())
	require.NoError(t, err, tree.Render())
	require.Equal(t, tree, again)
}

func TestBinds(t *testing.T) {
	for _, c := range []struct {
		bind       any
		text, port string
	}{
		{int64(1883), ":1883", "1883"}, {"1883", ":1883", "1883"}, {"0.0.0.0:1883", "0.0.0.0:1883", "1883"},
		{"[::]:1883", "[::]:1883", "1883"}, {nil, "", ""},
	} {
		require.Equal(t, c.text, BindText(c.bind))
		require.Equal(t, c.port, Port(BindText(c.bind)))
	}
}

func TestByteSizes(t *testing.T) {
	for value, want := range map[any]bool{"1MB": true, "4096": true, "10kb": true, int64(5): true, "lots": false, "1TB": false, true: false} {
		require.Equal(t, want, ByteSize(value), "%v", value)
	}
}
