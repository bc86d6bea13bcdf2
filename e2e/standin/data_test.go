package standin_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin"
)

// remembered is what a node knows of what it was told before it restarted.
type remembered struct {
	Key, Config, Retained bool
}

func (h *harness) remembers(i int) remembered {
	h.t.Helper()
	box := &inbox{}
	c := h.mustConnect(i, "reader", box.receive)
	ctx := shortContext(h.t)
	require.NoError(h.t, c.Subscribe(ctx, "kept", 1))
	// Retained messages come before what is published after.
	require.NoError(h.t, c.Subscribe(ctx, "end", 1))
	require.NoError(h.t, c.Publish(ctx, "end", []byte("end"), 1, false))
	h.eventually("the end", func() bool { list := box.payloads(); return len(list) > 0 && list[len(list)-1] == "end" })
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.address(i)+":18083/api/v5/nodes", nil)
	require.NoError(h.t, err)
	request.SetBasicAuth("filekey", "filesecret")
	response, err := http.DefaultClient.Do(request)
	require.NoError(h.t, err)
	require.NoError(h.t, response.Body.Close())
	return remembered{
		Key:      response.StatusCode == http.StatusOK,
		Config:   h.setting(i, "mqtt", "max_topic_levels") == "77",
		Retained: box.payloads()[0] == "retained",
	}
}

// A node that is alone knows after a restart what is on its disk: keys and configuration, and retained messages only when
// they are kept on disk, which is not the default. Without a disk, or under another name, it is a new node.
func TestWhatANodeRemembers(t *testing.T) {
	for _, c := range []struct {
		reason  string
		storage string
		noDisk  bool
		rename  bool
		want    remembered
	}{
		{"retained messages in memory", "ram", false, false, remembered{Key: true, Config: true}},
		{"retained messages on disk", "disc", false, false, remembered{true, true, true}},
		{"no volume", "disc", true, false, remembered{}},
		{"cluster.hocon is the directory's, and the database is the name's", "disc", false, true, remembered{Config: true}},
	} {
		t.Run(c.reason, func(t *testing.T) {
			keyFile, prefix := filepath.Join(t.TempDir(), "keys"), "emqx"
			require.NoError(t, os.WriteFile(keyFile, []byte("filekey:filesecret\n"), 0o600))
			h := newHarness(t, func(cfg *standin.Config) {
				cfg.Layers.File.Set(c.storage, "retainer", "backend", "storage_type")
				cfg.KeyFile, cfg.Discover, cfg.Name = keyFile, nil, prefix+"@"+cfg.Address
				if c.noDisk {
					cfg.DataDir = ""
				}
			})
			h.start(1)
			require.Equal(t, http.StatusOK, h.putConfigs(1, "merge", "mqtt { max_topic_levels = 77 }").status)
			writer := h.mustConnect(1, "writer", nil)
			for _, payload := range []string{"first", "retained"} {
				require.NoError(t, writer.Publish(shortContext(t), "kept", []byte(payload), 1, true))
			}
			require.NoError(t, writer.Publish(shortContext(t), "removed", []byte("x"), 1, true))
			require.NoError(t, writer.Publish(shortContext(t), "removed", nil, 1, true))
			require.Equal(t, remembered{true, true, true}, h.remembers(1))
			require.NoError(t, os.WriteFile(keyFile, nil, 0o600))
			for range 2 {
				h.stop(1)
				if c.rename {
					prefix = "other"
				}
				h.start(1)
				require.Equal(t, c.want, h.remembers(1))
			}
		})
	}
}

// The cluster's configuration outlives all its nodes, and a node that joins them then has it, too.
func TestConfigurationOutlivesTheCluster(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	require.Equal(t, http.StatusOK, h.putConfigs(2, "merge", "mqtt { max_topic_levels = 77 }").status)
	h.stop(1)
	require.Equal(t, http.StatusOK, h.putConfigs(2, "merge", "mqtt { max_topic_levels = 78 }").status)
	h.stop(2)
	h.begin(2)
	h.eventually("the last to stop runs", func() bool { return len(h.clusterOf(2)) == 1 })
	h.begin(1)
	h.begin(3)
	h.eventually("all run", func() bool { return len(h.clusterOf(1)) == 3 && len(h.clusterOf(3)) == 3 })
	for _, node := range []int{1, 2, 3} {
		require.Equal(t, "78", h.setting(node, "mqtt", "max_topic_levels"))
	}
}

// Who was not the last to stop waits, without a port, for one that stopped later and runs, and can be made to leave.
func TestColdStart(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2, 3)
	stopInOrder := func() {
		for i := 1; i <= 3; i++ {
			h.stop(i)
			for j := i + 1; j <= 3; j++ {
				h.eventually("it has stopped", func() bool { return len(h.clusterOf(j)) == 3-i })
			}
		}
	}
	stopInOrder()
	h.begin(1)
	h.begin(2)
	h.never("node 1 or 2 opens a port", 2*time.Second, func() bool {
		return h.get(1, "/api/v5/cluster").err == nil || h.get(2, "/api/v5/cluster").err == nil
	})
	h.begin(3)
	h.eventually("all run", func() bool {
		return len(h.clusterOf(1)) == 3 && len(h.clusterOf(2)) == 3 && len(h.clusterOf(3)) == 3
	})

	stopInOrder()
	h.begin(1)
	h.never("node 1 opens a port", time.Second, func() bool { return h.get(1, "/api/v5/cluster").err == nil })
	h.stop(1) // A node that waits can be stopped.
	h.begin(3)
	h.eventually("the last to stop runs", func() bool { return len(h.clusterOf(3)) == 1 })
	require.Equal(t, http.StatusNoContent, h.do(http.MethodDelete, 3, "/api/v5/cluster/"+h.name(1)+"/force_leave", nil, "").status)
	h.begin(1)
	select {
	case err := <-h.nodes[1].done:
		require.ErrorIs(t, err, standin.ErrForgotten)
		h.nodes[1].done <- nil
	case <-time.After(20 * time.Second):
		t.Fatal("it starts with its old data")
	}
}

// never watches for a while that something does not happen.
func (h *harness) never(what string, long time.Duration, condition func() bool) {
	h.t.Helper()
	require.Never(h.t, condition, long, 20*time.Millisecond, what)
}
