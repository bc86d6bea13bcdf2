package emqx

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// recording is an exchange with a real three-node EMQX Enterprise 5.8.9. The stand-in of the end-to-end tests is held
// against the same recordings.
type recording struct {
	Request struct {
		Line string          `json:"line"`
		Body json.RawMessage `json:"body"`
	} `json:"request"`
	Response struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    json.RawMessage   `json:"body"`
	} `json:"response"`
}

func load(t *testing.T, name string) recording {
	t.Helper()
	found, err := filepath.Glob("../../e2e/replay/testdata/emqx-5.8.9/" + name + "-*.json")
	require.NoError(t, err)
	require.Len(t, found, 1)
	data, err := os.ReadFile(found[0])
	require.NoError(t, err)
	var r recording
	if name == frozen {
		return fromLog(t, data, "GET /api/v5/nodes/emqx@127.0.0.11/stats")
	}
	require.NoError(t, json.Unmarshal(data, &r))
	return r
}

// frozen is a recording of many exchanges, one of them with statistics.
const frozen = "331"

// fromLog takes one exchange out of a recording of many.
func fromLog(t *testing.T, data []byte, line string) (r recording) {
	t.Helper()
	type exchange struct {
		Request string          `json:"request"`
		Status  json.RawMessage `json:"status"` // A number, or why there is none.
		Body    json.RawMessage `json:"body"`
	}
	var recorded struct {
		Log []exchange `json:"log"`
	}
	require.NoError(t, json.Unmarshal(data, &recorded))
	i := slices.IndexFunc(recorded.Log, func(e exchange) bool { return e.Request == line })
	require.GreaterOrEqual(t, i, 0)
	require.NoError(t, json.Unmarshal(recorded.Log[i].Status, &r.Response.Status))
	r.Request.Line, r.Response.Body = line, recorded.Log[i].Body
	return r
}

// serve answers as recorded, and checks that the question is the recorded one.
func (r recording) serve(t *testing.T) Node {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if r.Request.Line != "" {
			words := strings.Fields(r.Request.Line)
			if request.Method != words[0] || request.URL.RequestURI() != words[1] {
				t.Errorf("asked %s %s, recorded is %s %s", request.Method, request.URL.RequestURI(), words[0], words[1])
			}
		}
		for name, value := range r.Response.Headers {
			if !strings.EqualFold(name, "content-length") && !strings.EqualFold(name, "connection") {
				w.Header().Set(name, value)
			}
		}
		w.WriteHeader(r.Response.Status)
		if r.Response.Status != http.StatusNoContent {
			_, _ = w.Write(bodyOf(r.Response.Body))
		}
	}))
	t.Cleanup(server.Close)
	return Node{Name: "emqx@127.0.0.11", URL: server.URL}
}

// bodyOf turns a recorded text back into what was sent.
func bodyOf(recorded json.RawMessage) []byte {
	var text string
	if json.Unmarshal(recorded, &text) == nil {
		return []byte(text)
	}
	return recorded
}

var key = Credentials{Key: "opkey", Secret: "opsecret"}

func TestRecordedAnswers(t *testing.T) {
	client := NewClient(nil)
	defer client.Close()
	evacuation := Evacuation{ConnEvictRate: 2, SessEvictRate: 1, WaitTakeover: 4 * time.Second, Recipients: []string{"emqx@127.0.0.12", "emqx@127.0.0.13"}}
	info := func(t *testing.T, node Node) (any, error) { return client.Info(t.Context(), node, key) }
	status := func(t *testing.T, node Node) (any, error) {
		moves, err := client.Moves(t.Context(), node, key)
		require.Nil(t, moves.Donation)
		return moves.Evacuation, err
	}
	rebalance := func(t *testing.T, node Node) (any, error) {
		return nil, client.StartRebalance(t.Context(), node, key, Rebalance{RelConnThreshold: "1.1", RelSessThreshold: "1.1"})
	}
	start := func(t *testing.T, node Node) (any, error) {
		return nil, client.Start(t.Context(), node, key, evacuation)
	}
	stop := func(t *testing.T, node Node) (any, error) { return nil, client.Stop(t.Context(), node, key) }
	available := func(t *testing.T, node Node) (any, error) { return client.Available(t.Context(), node) }
	running := func(state State, connected, sessions int32) *EvacuationStatus {
		return &EvacuationStatus{
			State: state, ConnEvictRate: 2, SessEvictRate: 1, Recipients: []string{"emqx@127.0.0.13", "emqx@127.0.0.12"},
			InitialConnected: 12, InitialSessions: 16, CurrentConnected: connected, CurrentSessions: sessions,
		}
	}
	for _, test := range []struct {
		reason, recording, node string
		ask                     func(*testing.T, Node) (any, error)
		want                    any
		err                     error
	}{
		{"a node tells of itself", "008", "emqx@127.0.0.12", info, NodeInfo{
			Node: "emqx@127.0.0.12", Status: "running", Role: "core", Version: "5.8.9", Edition: "Enterprise", OTPRelease: "27.3.4.1/15.2.7",
			Connections: Count{Known: true}, LiveConnections: Count{Known: true},
		}, nil},
		{"a node that is not there", "009", "emqx@127.0.0.99", info, NodeInfo{}, ErrUnknownNode},
		{"the members", "010", "", func(t *testing.T, node Node) (any, error) { return client.Members(t.Context(), node, key) },
			[]string{"emqx@127.0.0.11", "emqx@127.0.0.12", "emqx@127.0.0.13"}, nil},
		{"how many delayed messages there are", "331", "", func(t *testing.T, node Node) (any, error) { return client.Delayed(t.Context(), node, key) },
			Count{Known: true}, nil},
		{"the licence", "020", "", func(t *testing.T, node Node) (any, error) { return client.Licence(t.Context(), node, key) },
			Licence{Type: LicenceTrial}, nil},
		{"a node takes clients", "059", "", available, true, nil},
		{"an evacuated node takes none", "067", "", available, false, nil},
		{"no evacuation", "016", "", status, (*EvacuationStatus)(nil), nil},
		{"an evacuation waits for load balancers", "063", "", status, running(StateWaitingHealthCheck, 12, 16), nil},
		{"it evicts connections", "074", "", status, running(StateEvictingConns, 12, 16), nil},
		{"it waits for takeovers", "085", "", status, running(StateWaitingTakeover, 0, 16), nil},
		{"it moves sessions", "097", "", status, running(StateEvictingSessions, 0, 9), nil},
		{"it is over", "108", "", status, running(StateProhibiting, 0, 0), nil},
		{"a listener runs", "071", "", func(t *testing.T, node Node) (any, error) {
			return client.ListenerRunning(t.Context(), node, key, "tcp:default")
		}, true, nil},
		{"start", "060", "", start, nil, nil},
		{"start again is success", "061", "", start, nil, nil},
		{"start with an unknown recipient", "040", "", start, nil, ErrRecipients},
		{"start of an unknown node", "043", "emqx@127.0.0.99", start, nil, ErrUnknownNode},
		{"start with a viewer's key", "028", "", start, nil, ErrForbidden},
		{"start with a wrong key", "029", "", start, nil, ErrUnauthorized},
		{"stop", "050", "", stop, nil, nil},
		{"stop of what does not run is success", "051", "", stop, nil, nil},
		{"stop of an unknown node", "047", "emqx@127.0.0.99", stop, nil, ErrUnknownNode},
		{"rebalance", "303", "", rebalance, nil, nil},
		{"rebalance again is success", "305", "", rebalance, nil, nil},
		{"nothing to balance", "301", "", rebalance, nil, ErrNothingToBalance},
		{"a donor takes no clients", "307", "", available, false, nil},
		{"a recipient takes some", "308", "", available, true, nil},
		{"read the API keys anew", "523", "", func(t *testing.T, node Node) (any, error) {
			return nil, client.LoadKeys(t.Context(), node, key, "/opt/emqx/data/bootstrap_api_key")
		}, nil, nil},
		{"force leave", "197", "", func(t *testing.T, node Node) (any, error) {
			return nil, client.ForceLeave(t.Context(), node, key, "emqx@127.0.0.13")
		}, nil, nil},
	} {
		t.Run(test.recording+" "+test.reason, func(t *testing.T) {
			node := load(t, test.recording).serve(t)
			if test.node != "" {
				node.Name = test.node
			}
			got, err := test.ask(t, node)
			if test.err != nil {
				require.ErrorIs(t, err, test.err)
				require.Contains(t, err.Error(), node.Name, "an error names the node")
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

func TestStartBody(t *testing.T) {
	var sent map[string]any
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err == nil {
			err = json.Unmarshal(body, &sent)
		}
		if err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	client := NewClient(nil)
	defer client.Close()
	require.NoError(t, client.Start(t.Context(), Node{Name: "emqx@a", URL: server.URL}, key, Evacuation{
		ConnEvictRate: 7, SessEvictRate: 8, WaitTakeover: 9 * time.Second, Recipients: []string{"emqx@b"},
	}))
	require.Equal(t, map[string]any{
		"wait_health_check": 0.0, "conn_evict_rate": 7.0, "sess_evict_rate": 8.0, "wait_takeover": 9.0, "migrate_to": []any{"emqx@b"},
	}, sent, "only what every version knows: unknown fields are refused")
}

// TestRebalanceRequests: the thresholds are sent as numbers, a donor tells of its rebalance, and stopping none is success.
func TestRebalanceRequests(t *testing.T) {
	var sent map[string]any
	status, answer := http.StatusOK, "{}"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		sent = map[string]any{"path": request.URL.Path}
		if body, err := io.ReadAll(request.Body); err != nil || len(body) > 0 && json.Unmarshal(body, &sent) != nil {
			t.Error("the body is no JSON", err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	client, node := NewClient(nil), Node{Name: "emqx@a", URL: server.URL}
	defer client.Close()
	asked := Rebalance{
		ConnEvictRate: 1, SessEvictRate: 2, WaitHealthCheck: 3, WaitTakeover: 4, AbsConnThreshold: 5, AbsSessThreshold: 6,
		RelConnThreshold: "1.25", RelSessThreshold: "2", Nodes: []string{"emqx@a", "emqx@b"},
	}
	require.NoError(t, client.StartRebalance(t.Context(), node, key, asked))
	require.Equal(t, map[string]any{
		"path": "/api/v5/load_rebalance/emqx@a/start", "conn_evict_rate": 1.0, "sess_evict_rate": 2.0, "wait_health_check": 3.0, "wait_takeover": 4.0,
		"abs_conn_threshold": 5.0, "abs_sess_threshold": 6.0, "rel_conn_threshold": 1.25, "rel_sess_threshold": 2.0, "nodes": []any{"emqx@a", "emqx@b"},
	}, sent, "only what every version knows: unknown fields are refused")

	asked.RelSessThreshold = "much"
	require.ErrorIs(t, client.StartRebalance(t.Context(), node, key, asked), ErrInvalid)

	answer = `{"status":"enabled","process":"rebalance","state":"evicting_conns","coordinator_node":"emqx@a","recipients":["emqx@b"],"connection_goal":120.5}`
	moves, err := client.Moves(t.Context(), node, key)
	require.NoError(t, err)
	require.Equal(t, Moves{Donation: &Donation{State: RebalanceEvictingConns, Coordinator: "emqx@a", Recipients: []string{"emqx@b"}}}, moves)

	status, answer = http.StatusBadRequest, `{"code":"BAD_REQUEST","message":"error on node 'emqx@a': not_started"}`
	require.NoError(t, client.StopRebalance(t.Context(), node, key))
	require.Equal(t, "/api/v5/load_rebalance/emqx@a/stop", sent["path"])
}

func TestAnswersOfTheContract(t *testing.T) {
	for _, test := range []struct {
		reason string
		status int
		kind   string
		body   string
		want   error
		text   string
	}{
		{"the API is not there yet", 404, "text/html", "<html><head><title>404 - NOT FOUND</title></head></html>", ErrBooting, ""},
		{"a call among nodes failed", 500, "application/json", `Unsupported code 'RPC_ERROR', message <<"RPC error on node 'emqx@a': timeout">>, schema def [x]`, ErrRemoteCall, "timeout"},
		{"a node that is frozen", 500, "application/json", `{"code":"INTERNAL_ERROR","message":"error, function_clause, [{emqx_mgmt_api_nodes,format,[{error,timeout}],[]}]"}`, ErrRemoteCall, ""},
		{"a rebalance holds the node", 400, "application/json", `{"code":"BAD_REQUEST","message":"error on node 'emqx@a': eviction_agent_busy"}`, ErrAgentBusy, ""},
		{"a recipient that is known and away", 400, "application/json", `{"code":"NOT_FOUND","message":"Nodes unavailable: ['emqx@b']"}`, ErrRecipients, ""},
		{"a value that EMQX takes from nobody", 400, "application/json", `{"code":"BAD_REQUEST","message":"{\"value\":1.0,\"path\":\"root.rel_conn_threshold\",\"kind\":\"validation_error\"}"}`, ErrInvalid, ""},
		{"a numeric code", 400, "application/json", `{"code":400,"message":"Unknown sites: x"}`, nil, "HTTP 400 400: Unknown sites: x"},
		{"no member", 400, "application/json", `{"code":"BAD_REQUEST","message":"node_not_in_cluster"}`, ErrNotMember, ""},
		{"a redirect is not followed", 302, "text/html", "", nil, "HTTP 302"},
		{"the dashboard stops", 503, "", "", ErrBooting, ""},
	} {
		t.Run(test.reason, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", test.kind)
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			defer server.Close()
			client := NewClient(nil)
			defer client.Close()
			_, err := client.Members(t.Context(), Node{Name: "emqx@a", URL: server.URL}, key)
			require.Error(t, err)
			if test.want != nil {
				require.ErrorIs(t, err, test.want)
			}
			require.Contains(t, err.Error(), test.text)
			var failure *APIError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, test.status, failure.Status)
		})
	}
}

func TestSilence(t *testing.T) {
	client := NewClient(nil)
	defer client.Close()
	_, err := client.Members(t.Context(), Node{Name: "emqx@a", URL: "http://127.0.0.1:1"}, key)
	require.ErrorIs(t, err, ErrSilent)
	require.NotContains(t, err.Error(), key.Secret)

	long := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"nodes":["` + strings.Repeat("x", maxBodyBytes) + `"]}`))
	}))
	defer long.Close()
	_, err = client.Members(t.Context(), Node{Name: "emqx@a", URL: long.URL}, key)
	require.ErrorContains(t, err, "longer than")
}

func TestUndefinedCounts(t *testing.T) {
	var info NodeInfo
	require.NoError(t, json.Unmarshal([]byte(`{"node_status":"running","connections":"undefined","live_connections":3}`), &info))
	require.False(t, info.Connections.Known)
	require.Equal(t, Count{Value: 3, Known: true}, info.LiveConnections)

	require.Error(t, json.Unmarshal([]byte(`{"connections":[]}`), &info))
}

func TestRequestsAreObserved(t *testing.T) {
	type seen struct {
		operation string
		status    int
	}
	var got []seen
	client := NewClient(func(operation string, status int, _ time.Duration) { got = append(got, seen{operation, status}) })
	defer client.Close()
	node := load(t, "059").serve(t)
	_, err := client.Available(t.Context(), node)
	require.NoError(t, err)
	_, err = client.Available(t.Context(), Node{Name: "emqx@a", URL: "http://127.0.0.1:1"})
	require.Error(t, err)
	require.Equal(t, []seen{{"availability_check", 200}, {"availability_check", 0}}, got)
}

func TestSecretsStayOutOfText(t *testing.T) {
	for _, text := range []string{key.String(), key.GoString()} {
		require.NotContains(t, text, key.Secret)
	}
	require.NotContains(t, errors.Join(errors.New("x"), &APIError{Status: 401}).Error(), key.Secret)
}

// TestKeyOfACall: what needs the scope system is asked with the key for that, where there are two, and all else with the other.
func TestKeyOfACall(t *testing.T) {
	asked := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		key, _, _ := request.BasicAuth()
		asked[request.Method+" "+request.URL.Path] = key
		body, err := io.ReadAll(request.Body)
		if err != nil {
			t.Error(err)
		}
		if strings.HasSuffix(request.URL.Path, "/configs") {
			asked["body"], asked["type"] = string(body), request.Header.Get("Content-Type")
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "null") // Whoever asked has gone otherwise.
	}))
	defer server.Close()
	client, node := NewClient(nil), Node{Name: "n", URL: server.URL}
	for key, system := range map[string]string{"one": "", "restricted": "system"} {
		clear(asked)
		credentials := Credentials{Key: key, SystemKey: system, Secret: "s"}
		_, err := client.Info(t.Context(), node, credentials)
		require.NoError(t, err)
		_, err = client.Licence(t.Context(), node, credentials)
		require.NoError(t, err)
		_, err = client.Delayed(t.Context(), node, credentials)
		require.NoError(t, err)
		require.NoError(t, client.Stop(t.Context(), node, credentials))
		require.NoError(t, client.ForceLeave(t.Context(), node, credentials, "m"))
		_, err = client.ListenerRunning(t.Context(), node, credentials, "tcp:default")
		require.NoError(t, err)
		_, err = client.Storage(t.Context(), node, credentials)
		require.NoError(t, err)
		require.NoError(t, client.SetReplicas(t.Context(), node, credentials, "d", []string{"s"}))
		require.NoError(t, client.ForgetSite(t.Context(), node, credentials, "s"))
		require.NoError(t, client.LoadKeys(t.Context(), node, credentials, "/keys"))
		require.Equal(t, `api_key { bootstrap_file = "/keys" }`, asked["body"])
		require.Equal(t, "text/plain", asked["type"])
		delete(asked, "body")
		delete(asked, "type")
		for call, used := range asked {
			want := key
			if system != "" && (strings.Contains(call, "/ds/") || strings.Contains(call, "/listeners/") || strings.Contains(call, "/configs")) {
				want = system
			}
			require.Equal(t, want, used, call)
		}
		require.Len(t, asked, 11)
	}
}
