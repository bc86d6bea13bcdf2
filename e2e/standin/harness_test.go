package standin_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// harness runs nodes in this process, each on a loopback address of its own.
type harness struct {
	t      *testing.T
	net    string
	modify func(*standin.Config)
	nodes  map[int]*running
	mu     *sync.Mutex
	data   string // holds the nodes' directories
}

// in is the harness within a subtest.
func (h *harness) in(t *testing.T) *harness {
	t.Helper()
	return &harness{t: t, net: h.net, modify: h.modify, nodes: h.nodes, mu: h.mu, data: h.data}
}

type running struct {
	cancel context.CancelFunc
	done   chan error
	dir    string
}

// newHarness picks a network that nobody uses. modify, which may be nil, changes each node's configuration.
func newHarness(t *testing.T, modify func(*standin.Config)) *harness {
	t.Helper()
	h := &harness{t: t, modify: modify, nodes: map[int]*running{}, mu: &sync.Mutex{}, data: t.TempDir()}
	for range 50 {
		h.net = fmt.Sprintf("127.%d.%d", 100+rand.IntN(100), 1+rand.IntN(250))
		ln, err := net.Listen("tcp", h.address(1)+":"+standin.LinkPort)
		if err == nil {
			require.NoError(t, ln.Close())
			break
		}
	}
	t.Cleanup(h.stopAll)
	return h
}

func (h *harness) address(i int) string { return fmt.Sprintf("%s.%d", h.net, i) }
func (h *harness) name(i int) string    { return "emqx@" + h.address(i) }

// logWriter sends a node's log to the test's.
type logWriter struct {
	t    *testing.T
	mu   sync.Mutex
	done bool
}

func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.done {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// begin starts a node and does not wait for it. A node that was stopped has its data still.
func (h *harness) begin(i int) {
	h.t.Helper()
	dir, err := os.MkdirTemp(h.data, "node")
	require.NoError(h.t, err)
	h.mu.Lock()
	if old := h.nodes[i]; old != nil {
		dir = old.dir
	}
	h.mu.Unlock()
	seeds := []string{h.address(1), h.address(2), h.address(3), h.address(4), h.address(5), h.address(6)}
	layers, err := settings.Load(settings.Source{})
	require.NoError(h.t, err)
	layers.Environment.Set("official", "license", "key")
	for kind, port := range map[string]string{"tcp": "1883", "ssl": "8883", "ws": "8083", "wss": "8084"} {
		layers.File.Set(h.address(i)+":"+port, "listeners", kind, "default", "bind")
	}
	w := &logWriter{t: h.t}
	cfg := standin.Config{
		Layers: layers, Name: h.name(i), Address: h.address(i), DataDir: dir, Cookie: "cookie",
		Discover: standin.Static("emqx", seeds), KeyLines: []string{"opkey:opsecret", "viewkey:viewsecret:viewer"},
		Timing: standin.Timing{
			Boot: time.Millisecond, Autocluster: 10 * time.Millisecond, Retry: 200 * time.Millisecond, Restart: 50 * time.Millisecond,
		},
		Log: slog.New(slog.NewTextHandler(w, nil)).With("at", i),
	}
	if h.modify != nil {
		h.modify(&cfg)
	}
	node, err := standin.New(cfg)
	require.NoError(h.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan error, 1), dir: dir}
	h.mu.Lock()
	h.nodes[i] = r
	h.mu.Unlock()
	go func() {
		err := node.Run(ctx)
		w.mu.Lock()
		w.done = true
		w.mu.Unlock()
		r.done <- err
	}()
}

// start starts nodes one after the other and waits until all see all.
func (h *harness) start(nodes ...int) {
	h.t.Helper()
	for _, i := range nodes {
		h.begin(i)
		h.eventually("node answers", func() bool { return h.get(i, "/api/v5/cluster").status == http.StatusOK })
	}
	for _, i := range nodes {
		h.eventually("cluster forms", func() bool { return len(h.clusterOf(i)) == len(nodes) })
	}
}

func (h *harness) clusterOf(i int) []any {
	r := h.get(i, "/api/v5/cluster")
	list, _ := r.object()["nodes"].([]any)
	return list
}

// stop ends a node in good order.
func (h *harness) stop(i int) {
	h.t.Helper()
	h.mu.Lock()
	r := h.nodes[i]
	h.mu.Unlock()
	r.cancel()
	select {
	case err := <-r.done:
		require.NoError(h.t, err)
		r.done <- nil
	case <-time.After(20 * time.Second):
		h.t.Fatal("node does not stop")
	}
}

func (h *harness) stopAll() {
	for i, r := range h.nodes {
		r.cancel()
		select {
		case err := <-r.done:
			if err != nil {
				h.t.Errorf("node %d: %v", i, err)
			}
		case <-time.After(20 * time.Second):
			h.t.Errorf("node %d does not stop", i)
		}
	}
}

// eventually waits for a condition; the time is for slow machines and says nothing.
func (h *harness) eventually(what string, condition func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			h.t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond) // the pause of a poll
	}
}

// answer is what an API said.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error
}

func (a answer) object() map[string]any {
	var v map[string]any
	_ = json.Unmarshal(a.body, &v) // nil when it is no object
	return v
}

func (a answer) list() []any {
	var v []any
	_ = json.Unmarshal(a.body, &v) // nil when it is no list
	return v
}

func (h *harness) get(i int, path string) answer { return h.do(http.MethodGet, i, path, nil, "") }

// post sends JSON.
func (h *harness) post(i int, path string, body any) answer {
	h.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(h.t, err)
	return h.do(http.MethodPost, i, path, data, "application/json")
}

func (h *harness) do(method string, i int, path string, body []byte, contentType string) answer {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+h.address(i)+":18083"+path, bytes.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("opkey:opsecret")))
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: data, err: err}
}

// connect opens an MQTT connection to a node; the name is the client id.
func (h *harness) connect(i int, id string, modify func(*mqttclient.Options)) (*mqttclient.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	o := mqttclient.Options{Address: h.address(i) + ":1883", ClientID: id, Version: 5, Expiry: 3600}
	if modify != nil {
		modify(&o)
	}
	return mqttclient.Connect(ctx, o)
}

func (h *harness) mustConnect(i int, id string, modify func(*mqttclient.Options)) *mqttclient.Client {
	h.t.Helper()
	c, err := h.connect(i, id, modify)
	require.NoError(h.t, err)
	h.t.Cleanup(c.Close)
	return c
}

func shortContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
