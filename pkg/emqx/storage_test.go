package emqx

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRecordedStorage: three cores of 5.8.9, of which the first holds all replicas.
func TestRecordedStorage(t *testing.T) {
	client := NewClient(nil)
	defer client.Close()
	const first, third = "368BCC498876312C", "3BAABEA55A393714"

	site, err := client.site(t.Context(), load(t, "615").serve(t), key, first)
	require.NoError(t, err)
	require.Equal(t, Site{ID: first, Node: "emqx@127.71.8.11", Up: true}, site)
	site, err = client.site(t.Context(), load(t, "641").serve(t), key, third)
	require.NoError(t, err)
	require.Equal(t, Site{ID: third, Node: "emqx@127.71.8.13"}, site)
	_, err = client.site(t.Context(), load(t, "645").serve(t), key, third)
	require.ErrorIs(t, err, ErrUnknownSite, "its node was made to leave")

	database, err := client.database(t.Context(), load(t, "617").serve(t), key, "messages")
	require.NoError(t, err)
	require.Equal(t, Database{Name: "messages", Shards: []Shard{{ID: "0", Replicas: []string{first}}, {ID: "1", Replicas: []string{first}}}}, database)

	require.NoError(t, client.SetReplicas(t.Context(), load(t, "631").serve(t), key, "messages", []string{first, third}))
	var refusal *APIError
	require.ErrorAs(t, client.SetReplicas(t.Context(), load(t, "622").serve(t), key, "messages", []string{first, "0000000000000000"}), &refusal)
	require.Equal(t, "400", refusal.Code)
	require.Equal(t, "Unknown sites: 0000000000000000", refusal.Message)
	require.ErrorIs(t, client.SetReplicas(t.Context(), load(t, "630").serve(t), key, "messages", []string{first}), ErrForbidden)
	require.NoError(t, client.ForgetSite(t.Context(), load(t, "629").serve(t), key, third), "5.8.9 has no such call, and needs none")
}

// TestStorageAs60 is an answer as EMQX 6.0 has it by its source: transitions, and replicas on nodes that are no members.
func TestStorageAs60(t *testing.T) {
	node := serveText(t, map[string]string{
		"/api/v5/ds/sites":    `["B","A","C"]`,
		"/api/v5/ds/sites/A":  `{"node":"emqx@a","up":true,"shards":[{"storage":"mq_state","id":"0","status":"up","transition":"leaving"}]}`,
		"/api/v5/ds/sites/B":  `{"node":"emqx@b","up":false,"shards":[]}`,
		"/api/v5/ds/storages": `["mq_state"]`,
		"/api/v5/ds/storages/mq_state": `{"name":"mq_state","shards":[{"id":"0","replicas":[{"site":"A","status":"up"},{"site":"X","status":"lost"}],
			"transitions":[{"site":"A","transition":"leaving"},{"site":"B","transition":"joining"}]}]}`,
	})
	client := NewClient(nil)
	defer client.Close()
	storage, err := client.Storage(t.Context(), node, key)
	require.NoError(t, err)
	require.Equal(t, Storage{
		Sites: []Site{{ID: "A", Node: "emqx@a", Up: true}, {ID: "B", Node: "emqx@b"}}, // C was forgotten in between.
		Databases: []Database{{Name: "mq_state", Shards: []Shard{{
			ID: "0", Replicas: []string{"A", "X"}, Lost: []string{"X"}, Joining: []string{"B"}, Leaving: []string{"A"},
		}}}},
	}, storage)
}

func serveText(t *testing.T, answers map[string]string) Node {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer, ok := answers[request.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"code":"NOT_FOUND","message":"Site not found: C"}`
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(server.Close)
	return Node{Name: "emqx@a", URL: server.URL}
}
