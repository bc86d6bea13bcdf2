package command

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/storage"
)

// In a pod everything comes from the environment and the files, as with EMQX's image.
func TestInAPod(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "opt", "emqx", "etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "opt", "emqx", "etc", "emqx.conf"),
		[]byte(`listeners.tcp.default.bind = "0.0.0.0:1884"`), 0o600))
	cfg, err := flags{logLevel: "info", timeoutScale: 1}.resolve([]string{
		"LOCAL_POD_ADDRESS=127.1.2.3", "LOCAL_POD_ROOT=" + root, "LOCAL_DNS_ADDRESS=127.1.0.10:53",
		"EMQX_HOST=core-0.headless.ns.svc.cluster.local", "EMQX_NODE__COOKIE=secret", "EMQX_NODE__DATA_DIR=data",
		"EMQX_CLUSTER__DISCOVERY_STRATEGY=dns", "EMQX_CLUSTER__DNS__NAME=headless.ns.svc.cluster.local",
		"EMQX_CLUSTER__DNS__RECORD_TYPE=srv", `EMQX_API_KEY__BOOTSTRAP_FILE="/opt/emqx/data/bootstrap_api_key"`,
		"EMQX_DASHBOARD__LISTENERS__HTTP__BIND=18083", "EMQX_LICENSE__KEY=evaluation",
		"EMQX_STANDIN_BOOT_SECONDS=2.5", "EMQX_STANDIN_MEMORY_BYTES=1024", "EMQX_STANDIN_VERSION=6.0.2", "EMQX_STANDIN_STORAGE_SCALE=0.5",
	})
	require.NoError(t, err)
	require.Equal(t, "emqx@core-0.headless.ns.svc.cluster.local", cfg.Name)
	require.Equal(t, "127.1.2.3", cfg.Address)
	require.Equal(t, filepath.Join(root, "opt", "emqx", "data"), cfg.DataDir)
	require.Equal(t, filepath.Join(root, "opt", "emqx", "data", "bootstrap_api_key"), cfg.KeyFile)
	require.Equal(t, 2500*time.Millisecond, cfg.Timing.Boot)
	require.EqualValues(t, 1024, cfg.MemoryBytes)
	require.Equal(t, storage.Times{Join: 2500 * time.Millisecond, Leave: 100 * time.Millisecond, Remove: 30 * time.Second}, cfg.Storage)
	require.Equal(t, "6.0.2", cfg.Version)
	require.NotNil(t, cfg.Discover)
	require.True(t, cfg.Resolver.PodNetwork)
	tree := cfg.Layers.Effective(nil)
	require.Equal(t, "secret", tree.Text("", "node", "cookie"))
	require.Equal(t, "evaluation", tree.Text("", "license", "key"))
	require.Equal(t, "0.0.0.0:1884", tree.Text("", "listeners", "tcp", "default", "bind"))
}

func TestByHand(t *testing.T) {
	f := flags{address: "127.0.0.11", join: []string{"127.0.0.12"}, licence: "official", logLevel: "info", timeoutScale: 0.1}
	cfg, err := f.resolve([]string{"EMQX_LICENSE__KEY=default"})
	require.NoError(t, err)
	require.Equal(t, "emqx@127.0.0.11", cfg.Name)
	nodes, err := cfg.Discover(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"emqx@127.0.0.12"}, nodes)
	require.Equal(t, "official", cfg.Layers.Effective(nil).Text("", "license", "key"), "a flag is above the environment")
	require.Equal(t, 3*time.Second, cfg.API.Node)
	require.Equal(t, 6*time.Second, cfg.Storage.Remove, "replicas move at the scale of the other timeouts")
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		reason string
		flag   string
		env    environment
		want   string
	}{
		{"the flag first", "a@b", environment{"EMQX_NODE_NAME": "c@d"}, "a@b"},
		{"then the full name", "", environment{"EMQX_NODE_NAME": "c@d", "EMQX_HOST": "h"}, "c@d"},
		{"then the key's variable", "", environment{"EMQX_NODE__NAME": `"e@f"`, "EMQX_HOST": "h"}, "e@f"},
		{"then prefix and host", "", environment{"EMQX_NAME": "x", "EMQX_HOST": "h"}, "x@h"},
		{"then the pod's address", "", environment{"LOCAL_POD_ADDRESS": "127.1.2.3"}, "emqx@10.1.2.3"},
	} {
		require.Equal(t, c.want, flags{node: c.flag, address: "127.1.2.3"}.nodeName(c.env, nil), c.reason)
	}
}

func TestRefusals(t *testing.T) {
	_, err := flags{logLevel: "info"}.resolve(nil)
	require.ErrorContains(t, err, "--address")
	bad := filepath.Join(t.TempDir(), "emqx.conf")
	require.NoError(t, os.WriteFile(bad, []byte("a {"), 0o600))
	_, err = flags{logLevel: "info", address: "127.0.0.1", config: bad}.resolve(nil)
	require.ErrorContains(t, err, bad)
	_, err = flags{logLevel: "info", address: "127.0.0.1"}.resolve([]string{"EMQX_STANDIN_BOOT_SECONDS=soon"})
	require.ErrorContains(t, err, "EMQX_STANDIN_BOOT_SECONDS")
	_, err = flags{logLevel: "info", address: "127.0.0.1"}.resolve([]string{"EMQX_CLUSTER__DISCOVERY_STRATEGY=etcd"})
	require.ErrorContains(t, err, "etcd")
}
