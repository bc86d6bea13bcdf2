package nodes_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/nodes"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// patience is how long anything may take on a machine that is busy with other things.
const patience = time.Minute

// pair is the same cluster of two nodes twice: by the stand-in and by the fake.
type pair struct {
	t     *testing.T
	names []string
	// real and fake are the addresses of the nodes.
	real, fake []string
}

// newPair starts both.
func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t}
	network := freeNetwork(t)
	for i := range 2 {
		p.real = append(p.real, fmt.Sprintf("%s.1%d", network, i))
		p.fake = append(p.fake, fmt.Sprintf("%s.2%d", network, i))
		p.names = append(p.names, "emqx@"+p.real[i])
	}
	for i := range 2 {
		p.startReal(i)
	}
	fleet, err := nodes.NewFleet(nodes.Config{Still: true})
	require.NoError(t, err)
	t.Cleanup(fleet.Close)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { fleet.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	for i := range 2 {
		_, err := fleet.Cluster("a").Start(p.names[i], p.fake[i], standin.DefaultVersion, map[string]string{"opkey": "opsecret"})
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		for _, address := range p.real {
			var cluster struct{ Nodes []string }
			_ = json.Unmarshal(p.ask(address, question{path: "/api/v5/cluster"}).body, &cluster)
			if len(cluster.Nodes) < 2 {
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond, "the stand-in's cluster forms")
	return p
}

// freeNetwork is a part of the loopback network that nobody listens in.
func freeNetwork(t *testing.T) string {
	t.Helper()
	for range 50 {
		network := fmt.Sprintf("127.%d.%d", 100+rand.IntN(100), 1+rand.IntN(250))
		listener, err := net.Listen("tcp", network+".10:"+standin.LinkPort)
		if err == nil {
			require.NoError(t, listener.Close())
			return network
		}
	}
	t.Fatal("no network is free")
	return ""
}

func (p *pair) startReal(i int) {
	p.t.Helper()
	layers, err := settings.Load(settings.Source{})
	require.NoError(p.t, err)
	layers.Environment.Set("official", "license", "key")
	layers.Environment.Set(false, "mq", "enable")
	node, err := standin.New(standin.Config{
		Layers: layers, Name: p.names[i], Address: p.real[i], DataDir: p.t.TempDir(), Cookie: "cookie",
		Discover: standin.Static("emqx", p.real), KeyLines: []string{"opkey:opsecret"}, Log: slog.New(slog.DiscardHandler),
		Timing: standin.Timing{Boot: time.Millisecond, Autocluster: 10 * time.Millisecond, Retry: 100 * time.Millisecond, Restart: 50 * time.Millisecond},
	})
	require.NoError(p.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				p.t.Error(err)
			}
		case <-time.After(patience):
			p.t.Error("the stand-in does not end")
		}
	})
}

// question is a request, as the operator makes it unless it says otherwise.
type question struct {
	reason, method, path, body string
	key, secret                string
	// of is the node that is asked.
	of int
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (p *pair) ask(address string, q question) answer {
	p.t.Helper()
	if q.method == "" {
		q.method = http.MethodGet
	}
	if q.key == "" {
		q.key, q.secret = "opkey", "opsecret"
	}
	request, err := http.NewRequestWithContext(p.t.Context(), q.method, "http://"+net.JoinHostPort(address, strconv.Itoa(nodes.Port))+q.path, bytes.NewReader([]byte(q.body)))
	require.NoError(p.t, err)
	request.Header.Set("Accept", "application/json")
	if q.body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if q.key != "none" {
		request.SetBasicAuth(q.key, q.secret)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{}
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(p.t, err)
	return answer{response.StatusCode, response.Header, body}
}

// TestFakeAnswersAsTheStandIn holds the fake against the stand-in, which is held against recordings of EMQX: for all that the
// operator asks, the status, the headers that it reads, the form of the answer, and every text in it are the same.
func TestFakeAnswersAsTheStandIn(t *testing.T) {
	p := newPair(t)
	self, other := url.PathEscape(p.names[0]), url.PathEscape(p.names[1])
	rebalance := "/api/v5/load_rebalance/"
	start := func(wait int, recipients ...string) string {
		return fmt.Sprintf(`{"wait_health_check":%d,"conn_evict_rate":7,"sess_evict_rate":9,"wait_takeover":60,"migrate_to":[%s]}`, wait, quoted(recipients))
	}
	for _, q := range []question{
		{reason: "it lives", path: "/status"},
		{reason: "itself", path: "/api/v5/nodes/" + self},
		{reason: "another member", path: "/api/v5/nodes/" + other},
		{reason: "no member", path: "/api/v5/nodes/emqx%40127.0.0.99"},
		{reason: "all members", path: "/api/v5/nodes"},
		{reason: "the cluster", path: "/api/v5/cluster"},
		{reason: "a listener", path: "/api/v5/listeners/tcp:default"},
		{reason: "another", path: "/api/v5/listeners/ssl:default"},
		{reason: "one that comes over WebSocket", path: "/api/v5/listeners/ws:default"},
		{reason: "one that does both", path: "/api/v5/listeners/wss:default"},
		{reason: "no listener", path: "/api/v5/listeners/tcp:absent"},
		{reason: "the licence", path: "/api/v5/license"},
		{reason: "the sites of durable storage", path: "/api/v5/ds/sites"},
		{reason: "its databases", path: "/api/v5/ds/storages"},
		{reason: "no evacuation", path: rebalance + "status"},
		{reason: "no evacuation in the cluster", path: rebalance + "global_status"},
		{reason: "it takes clients", path: rebalance + "availability_check"},
		{reason: "it takes clients, which everybody may know", path: rebalance + "availability_check", key: "none"},
		{reason: "a wrong password", path: "/api/v5/cluster", key: "opkey", secret: "wrong"},
		{reason: "a wrong key", path: "/api/v5/cluster", key: "nobody", secret: "opsecret"},
		{reason: "no key", path: "/api/v5/cluster", key: "none"},
		{reason: "no such path", path: "/api/v5/absent"},
		{reason: "no such method", method: http.MethodDelete, path: "/api/v5/cluster"},
		{reason: "stop what does not run", method: http.MethodPost, path: rebalance + self + "/evacuation/stop", body: "{}"},
		{reason: "a recipient that nobody knows", method: http.MethodPost, path: rebalance + self + "/evacuation/start", body: start(0, "emqx@127.0.0.99")},
		{reason: "a node that is no member", method: http.MethodPost, path: rebalance + "emqx%40127.0.0.99/evacuation/start", body: start(0, p.names[1])},
		{reason: "a rate that is none", method: http.MethodPost, path: rebalance + self + "/evacuation/start", body: `{"conn_evict_rate":0}`},
		{reason: "no JSON", method: http.MethodPost, path: rebalance + self + "/evacuation/start", body: `{`},
		{reason: "start", method: http.MethodPost, path: rebalance + self + "/evacuation/start", body: start(600, p.names[1])},
		{reason: "start again", method: http.MethodPost, path: rebalance + self + "/evacuation/start", body: start(600, p.names[1])},
		{reason: "it waits", path: rebalance + "status"},
		{reason: "it waits, in the cluster", path: rebalance + "global_status"},
		{reason: "it takes no clients", path: rebalance + "availability_check"},
		{reason: "a recipient that is evacuated itself", of: 1, method: http.MethodPost, path: rebalance + other + "/evacuation/start", body: start(0, p.names[0])},
		{reason: "stop", method: http.MethodPost, path: rebalance + self + "/evacuation/stop", body: "{}"},
		{reason: "it takes clients again", path: rebalance + "availability_check"},
		{reason: "make itself leave", method: http.MethodDelete, path: "/api/v5/cluster/" + self + "/force_leave"},
		{reason: "make nobody leave", method: http.MethodDelete, path: "/api/v5/cluster/emqx%40127.0.0.99/force_leave"},
		{reason: "make leave what is no name", method: http.MethodDelete, path: "/api/v5/cluster/emqx/force_leave"},
	} {
		t.Run(q.reason, func(t *testing.T) { p.same(t, q) })
	}
	t.Run("an evacuation without clients", func(t *testing.T) {
		p.same(t, question{method: http.MethodPost, path: rebalance + self + "/evacuation/start", body: start(0, p.names[1])})
		for _, address := range []string{p.real[0], p.fake[0]} {
			require.Eventually(t, func() bool {
				return bytes.Contains(p.ask(address, question{path: rebalance + "status"}).body, []byte("waiting_takeover"))
			}, patience, 10*time.Millisecond)
		}
		p.same(t, question{path: rebalance + "status"})
	})
}

func quoted(names []string) string {
	list, err := json.Marshal(names)
	if err != nil {
		panic(err) // They are strings.
	}
	return string(list[1 : len(list)-1])
}

// same puts a question to both.
func (p *pair) same(t *testing.T, q question) {
	t.Helper()
	want, got := p.ask(p.real[q.of], q), p.ask(p.fake[q.of], q)
	require.NotZero(t, want.status, "the stand-in answers")
	require.Equal(t, want.status, got.status, "%s\n%s", want.body, got.body)
	for _, name := range []string{"Content-Type", "Server", "Www-Authenticate", "Retry-After", "Allow"} {
		require.Equal(t, want.header.Get(name), got.header.Get(name), name)
	}
	if want.header.Get("Content-Type") != "application/json" {
		require.Equal(t, string(want.body), string(got.body))
		return
	}
	var wanted, given any
	require.NoError(t, json.Unmarshal(want.body, &wanted))
	require.NoError(t, json.Unmarshal(got.body, &given))
	require.Equal(t, form("", wanted), form("", given), "%s\n%s", want.body, got.body)
}

// machine are the keys whose values are the machine's or of the moment: only what kind of value they have is compared.
func machine() []string {
	return []string{"load1", "load5", "load15", "uptime", "max_fds", "memory_total", "memory_used", "process_used", "log_path",
		"customer", "deployment", "email", "expiry_at", "start_at", "max_sessions", "max_tps", "customer_type"}
}

// form is a value with what may differ taken out.
func form(key string, value any) any {
	switch value := value.(type) {
	case map[string]any:
		formed := map[string]any{}
		for name, inner := range value {
			formed[name] = form(name, inner)
		}
		return formed
	case []any:
		formed := []any{}
		for _, inner := range value {
			formed = append(formed, form(key, inner))
		}
		if key == "nodes" { // A set.
			slices.SortFunc(formed, func(a, b any) int { return bytes.Compare(fmt.Append(nil, a), fmt.Append(nil, b)) })
		}
		return formed
	}
	if slices.Contains(machine(), key) {
		return fmt.Sprintf("%T", value)
	}
	return value
}
