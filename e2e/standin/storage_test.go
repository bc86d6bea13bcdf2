package standin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/storage"
)

// quickStorage lets replicas move fast enough for a test and slowly enough to be seen.
func quickStorage(cfg *standin.Config) {
	cfg.Storage = storage.Times{Join: time.Second, Leave: 500 * time.Millisecond, Remove: 600 * time.Millisecond}
}

func (h *harness) put(i int, path string, body any) answer {
	h.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(h.t, err)
	return h.do(http.MethodPut, i, path, data, "application/json")
}

// siteOf is the site of node owner as node i shows it, with its id.
func (h *harness) siteOf(i, owner int) (string, storage.SiteView) {
	h.t.Helper()
	for _, id := range h.get(i, "/api/v5/ds/sites").list() {
		var view storage.SiteView
		require.NoError(h.t, json.Unmarshal(h.get(i, "/api/v5/ds/sites/"+id.(string)).body, &view))
		if view.Node == h.name(owner) {
			return id.(string), view
		}
	}
	return "", storage.SiteView{}
}

// transitions counts what is pending of a database, by word.
func (h *harness) transitions(i int, name string) map[string]int {
	h.t.Helper()
	var view storage.DatabaseView
	require.NoError(h.t, json.Unmarshal(h.get(i, "/api/v5/ds/storages/"+name).body, &view))
	count := map[string]int{}
	for _, shard := range view.Shards {
		for _, transition := range shard.Transitions {
			count[transition.Transition]++
		}
	}
	return count
}

const replicasOf = "/api/v5/ds/storages/%s/replicas"

// The first core holds all replicas. Before it may go they are moved to the others, and its site is forgotten afterwards.
func TestReplicasMoveOffANode(t *testing.T) {
	h := newHarness(t, quickStorage)
	h.start(1, 2, 3)
	h.begin(4)
	h.eventually("the fourth joins", func() bool { return len(h.clusterOf(1)) == 4 && len(h.clusterOf(4)) == 4 })
	databases := h.get(4, "/api/v5/ds/storages").list()
	require.Equal(t, []any{"mq_message_lastvalue", "mq_message_regular", "mq_state"}, databases)
	first, view := h.siteOf(4, 1)
	require.Len(t, view.Shards, 48, "three databases of 16 shards")
	var others []string
	for i := 2; i <= 4; i++ {
		id, other := h.siteOf(1, i)
		require.Empty(t, other.Shards, "a later core has none")
		others = append(others, id)
	}
	require.NotContains(t, others, "")

	for _, name := range databases {
		got := h.put(2, fmt.Sprintf(replicasOf, name), others)
		require.Equal(t, http.StatusAccepted, got.status)
		require.Equal(t, "OK", string(got.body))
	}
	require.Equal(t, map[string]int{"joining": 48, "leaving": 16}, h.transitions(2, "mq_state"), "all is pending at first")
	_, view = h.siteOf(2, 1)
	require.Equal(t, "leaving", view.Shards[0].Transition)
	_, joining := h.siteOf(2, 4)
	require.Len(t, joining.Shards, 48)
	require.Equal(t, "joining", joining.Shards[0].Transition)
	h.eventually("one has joined, then the first leaves", func() bool {
		pending := h.transitions(4, "mq_state")
		return pending["joining"] == 32 && pending["leaving"] == 16
	})
	h.eventually("its site is empty", func() bool {
		_, view := h.siteOf(2, 1)
		return len(view.Shards) == 0
	})
	for _, name := range databases {
		h.eventually("no transition is left", func() bool { return len(h.transitions(1, name.(string))) == 0 })
		var replicas []string
		require.NoError(t, json.Unmarshal(h.get(1, fmt.Sprintf(replicasOf, name)).body, &replicas))
		require.Equal(t, slices.Sorted(slices.Values(others)), replicas)
	}

	forget := "/api/v5/ds/sites/" + first + "/forget"
	refused := func(text string) {
		t.Helper()
		got := h.do(http.MethodPut, 2, forget, nil, "")
		require.Equal(t, http.StatusBadRequest, got.status)
		require.Equal(t, map[string]any{"code": 400.0, "message": text}, got.object())
	}
	refused("Site is up and running")
	h.stop(1)
	h.eventually("its site is down", func() bool {
		_, view := h.siteOf(2, 1)
		return !view.Up
	})
	refused("Site is considered temporarily down")
	require.Equal(t, http.StatusNoContent, h.do(http.MethodDelete, 2, "/api/v5/cluster/"+h.name(1)+"/force_leave", nil, "").status)
	require.Contains(t, h.get(3, "/api/v5/ds/sites").list(), first, "a lost site stays until it is forgotten")
	require.Equal(t, http.StatusNoContent, h.do(http.MethodPut, 2, forget, nil, "").status)
	h.eventually("all have forgotten it", func() bool {
		return h.get(2, "/api/v5/ds/sites/"+first).status == http.StatusNotFound && len(h.get(4, "/api/v5/ds/sites").list()) == 3
	})
	require.Equal(t, http.StatusNotFound, h.do(http.MethodPut, 2, forget, nil, "").status)
}

// A node that is forced out with its replicas leaves them lost. They are removed by another node, late, and before any
// site joins.
func TestLostReplicasAreRemoved(t *testing.T) {
	h := newHarness(t, quickStorage)
	h.start(1, 2)
	lost, _ := h.siteOf(2, 1)
	kept, _ := h.siteOf(2, 2)
	h.stop(1)
	h.eventually("it is down", func() bool {
		_, view := h.siteOf(2, 1)
		return !view.Up && view.Shards[0].Status == storage.Down
	})
	require.Equal(t, http.StatusNoContent, h.do(http.MethodDelete, 2, "/api/v5/cluster/"+h.name(1)+"/force_leave", nil, "").status)
	_, view := h.siteOf(2, 1)
	require.Equal(t, storage.Lost, view.Shards[0].Status)
	got := h.do(http.MethodPut, 2, "/api/v5/ds/sites/"+lost+"/forget", nil, "")
	require.Equal(t, "Site is still a member of replica sets of: mq_message_lastvalue, mq_message_regular, mq_state", got.object()["message"])
	got = h.put(2, fmt.Sprintf(replicasOf, "mq_state"), []string{lost})
	require.Equal(t, "Replication still targets lost sites: "+lost, got.object()["message"])
	got = h.do(http.MethodPut, 2, fmt.Sprintf(replicasOf, "mq_state")+"/"+kept, nil, "")
	require.Equal(t, http.StatusBadRequest, got.status, "the lost site is still a target")
	require.Equal(t, http.StatusAccepted, h.put(2, fmt.Sprintf(replicasOf, "mq_state"), []string{kept}).status)
	require.Equal(t, map[string]int{"joining": 16, "leaving": 16}, h.transitions(2, "mq_state"))
	h.eventually("the lost ones are removed first", func() bool {
		pending := h.transitions(2, "mq_state")
		return pending["leaving"] == 0 && pending["joining"] == 16
	})
	h.eventually("the shards begin anew", func() bool { return len(h.transitions(2, "mq_state")) == 0 })
	require.Equal(t, []any{kept}, h.get(2, fmt.Sprintf(replicasOf, "mq_state")).list())
}

// A 6.0 that has lost its disk goes on under its name, without a site: the old one counts as up, but does nothing.
func TestDiskIsLost(t *testing.T) {
	h := newHarness(t, quickStorage)
	h.start(1, 2)
	old, _ := h.siteOf(1, 2)
	path := fmt.Sprintf(replicasOf, "mq_state") + "/" + old
	require.Equal(t, http.StatusAccepted, h.do(http.MethodPut, 1, path, nil, "").status)
	h.eventually("it joins", func() bool { return len(h.transitions(1, "mq_state")) == 0 })
	h.stop(2)
	h.nodes[2].dir = filepath.Join(h.data, "empty")
	h.begin(2)
	h.eventually("it is back", func() bool { return len(h.clusterOf(1)) == 2 && len(h.clusterOf(2)) == 2 })
	again, view := h.siteOf(2, 2)
	require.Equal(t, old, again)
	require.True(t, view.Up)
	require.Equal(t, storage.Up, view.Shards[0].Status)
	require.Len(t, h.get(1, "/api/v5/ds/sites").list(), 2, "there is no third")
	require.Equal(t, http.StatusAccepted, h.do(http.MethodDelete, 1, path, nil, "").status)
	h.eventually("another node removes its replicas", func() bool { return len(h.transitions(1, "mq_state")) == 0 })
}

// Sites, replicas and what is pending survive restarts, of one node and of all.
func TestStorageSurvivesRestarts(t *testing.T) {
	h := newHarness(t, quickStorage)
	h.start(1, 2)
	first, _ := h.siteOf(1, 1)
	second, _ := h.siteOf(1, 2)
	h.stop(2)
	require.Equal(t, http.StatusAccepted, h.do(http.MethodPut, 1, fmt.Sprintf(replicasOf, "mq_state")+"/"+second, nil, "").status)
	require.Equal(t, map[string]int{"joining": 16}, h.transitions(1, "mq_state"), "a site that is down joins when it is back")
	h.stop(1)
	h.begin(1)
	h.eventually("it answers", func() bool { return h.get(1, "/api/v5/ds/sites").status == http.StatusOK })
	require.Equal(t, map[string]int{"joining": 16}, h.transitions(1, "mq_state"), "over a restart, too")
	h.begin(2)
	h.eventually("it joins then", func() bool { return len(h.transitions(1, "mq_state")) == 0 })
	again, view := h.siteOf(1, 2)
	require.Equal(t, second, again)
	require.Len(t, view.Shards, 16)
	again, _ = h.siteOf(1, 1)
	require.Equal(t, first, again)
}

func TestStorageIsOff(t *testing.T) {
	for version, enable := range map[string]bool{"5.8.9": true, "6.2.0": true, "6.0.1": false} {
		t.Run(version, func(t *testing.T) {
			h := newHarness(t, func(cfg *standin.Config) {
				cfg.Version = version
				if !enable {
					cfg.Layers.File.Merge(settings.Tree{"mq": settings.Tree{"enable": false}})
				}
			})
			h.start(1)
			for _, path := range []string{"/sites", "/sites/x", "/storages", "/storages/messages", "/storages/messages/replicas"} {
				got := h.get(1, "/api/v5/ds"+path)
				require.Equal(t, http.StatusNotFound, got.status, path)
				require.Equal(t, map[string]any{"code": "NOT_FOUND", "message": "Durable storage is disabled"}, got.object(), path)
			}
		})
	}
}
