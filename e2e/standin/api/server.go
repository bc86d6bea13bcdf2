package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/broker"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/licence"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/lock"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/membership"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/storage"
)

// Timeouts is how long the API waits for other nodes. Zero values stand for what was recorded.
type Timeouts struct {
	Node      time.Duration // /nodes, /nodes/:node and /cluster/topology; default 30 s
	Listeners time.Duration // /listeners, after which the connection is closed; default 60 s
	Clients   time.Duration // /clients and /stats; default 15 s
	Change    time.Duration // a change of the configuration, after which the connection is closed; default 60 s
}

func (t Timeouts) withDefaults() Timeouts {
	if t.Node == 0 {
		t.Node = 30 * time.Second
	}
	if t.Listeners == 0 {
		t.Listeners = time.Minute
	}
	if t.Change == 0 {
		t.Change = time.Minute
	}
	if t.Clients == 0 {
		t.Clients = 15 * time.Second
	}
	return t
}

// Facts is what a node tells about itself and its machine.
type Facts struct {
	Started     time.Time
	MemoryBytes uint64 // the machine's, or the container's limit
	LogPath     string
	Role        string
}

// Config is what a Server needs.
type Config struct {
	Cluster    *membership.Cluster
	Broker     *broker.Broker
	Evacuation *evacuate.Service
	Keys       *Keys
	Config     *Store
	Listeners  Listeners
	Licence    *licence.Licence
	Storage    *storage.Service
	// ReadKeys loads the API key file of a configuration.
	ReadKeys func(settings.Tree)
	Facts    Facts
	Version  string // such as 6.0.1
	// TokenSecret signs dashboard tokens; all nodes of a cluster have the same.
	TokenSecret string
	Timeouts    Timeouts
	Log         *slog.Logger
}

// Old reports whether the imitated release is a 5.8, which answers less in some places.
func (c Config) Old() bool { return strings.HasPrefix(c.Version, "5.8.") }

// Server is the management API of one node. It implements http.Handler.
type Server struct {
	cfg    Config
	routes []*route
	status *route
	ready  atomic.Bool

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	peak   peaks
	turns  *lock.Table
	turn   atomic.Uint64
	failed sync.Map // listeners that a change has left closed, by id

	httpMu sync.Mutex
	http   *http.Server
	https  *http.Server
	host   string
	port   string
}

// New makes a server that is not listening.
func New(cfg Config) *Server {
	cfg.Timeouts = cfg.Timeouts.withDefaults()
	s := &Server{cfg: cfg, turns: lock.New()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.status = &route{methods: map[string]endpoint{http.MethodGet: {access: public, serve: s.getStatus}}}
	s.routes = s.table()
	return s
}

// Serve begins to listen. Until Ready only /status answers, as while EMQX boots.
func (s *Server) Serve(address string) error {
	s.httpMu.Lock()
	defer s.httpMu.Unlock()
	return s.serveLocked(address)
}

func (s *Server) serveLocked(address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for the dashboard: %w", err)
	}
	if s.host, s.port, err = net.SplitHostPort(address); err != nil {
		return errors.Join(fmt.Errorf("address of the dashboard: %w", err), ln.Close())
	}
	s.http = s.serveOn(ln)
	return nil
}

// ServeTLS begins to listen for HTTPS. Where it listens does not change afterwards.
func (s *Server) ServeTLS(address string, config *tls.Config) error {
	s.httpMu.Lock()
	defer s.httpMu.Unlock()
	ln, err := tls.Listen("tcp", address, config)
	if err != nil {
		return fmt.Errorf("listen for the dashboard: %w", err)
	}
	s.https = s.serveOn(ln)
	return nil
}

func (s *Server) serveOn(ln net.Listener) *http.Server {
	server := &http.Server{Handler: s, ReadHeaderTimeout: 15 * time.Second, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		if err := server.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Log.Error("dashboard listener", "error", err)
		}
	}()
	return server
}

// moveTo makes the API listen on another port, or on none when it is 0. The request that asked for it is answered on the
// old one.
func (s *Server) moveTo(port string) {
	s.httpMu.Lock()
	defer s.httpMu.Unlock()
	if s.http == nil || port == s.port || s.ctx.Err() != nil {
		return
	}
	old := s.http
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		if err := old.Shutdown(s.ctx); err != nil {
			s.cfg.Log.Debug("dashboard listener", "error", err)
		}
	}()
	s.port = port
	if port == "0" || port == "" {
		return
	}
	if err := s.serveLocked(net.JoinHostPort(s.host, port)); err != nil {
		s.cfg.Log.Error("dashboard", "error", err)
	}
}

// dashboardPort is where the API of a configuration listens.
func dashboardPort(tree settings.Tree) string {
	bind, _ := tree.Get("dashboard", "listeners", "http", "bind")
	return settings.Port(settings.BindText(bind))
}

// Ready makes the API answer.
func (s *Server) Ready() { s.ready.Store(true) }

// Close ends the listener and all its connections.
func (s *Server) Close() error {
	s.ready.Store(false)
	s.cancel()
	s.httpMu.Lock()
	servers := []*http.Server{s.http, s.https}
	s.httpMu.Unlock()
	var err error
	for _, server := range servers {
		if server != nil {
			err = errors.Join(err, server.Close())
		}
	}
	s.wg.Wait()
	if err != nil {
		return fmt.Errorf("close the dashboard listener: %w", err)
	}
	return nil
}

func get(access access, serve func(*request) response) map[string]endpoint {
	return map[string]endpoint{http.MethodGet: {access: access, serve: serve}}
}

func post(fields []field, serve func(*request) response) map[string]endpoint {
	body := noBody
	if fields != nil {
		body = jsonBody
	}
	return map[string]endpoint{http.MethodPost: {body: body, fields: fields, serve: serve}}
}

// table is every path of the API.
func (s *Server) table() []*route {
	add := func(path string, methods map[string]endpoint) *route {
		return &route{segments: strings.Split(strings.Trim(path, "/"), "/"), methods: methods}
	}
	routes := []*route{
		add("/status", get(public, s.getStatus)),
		add("/login", map[string]endpoint{http.MethodPost: {access: public, body: anyBody, serve: s.login}}),
		add("/api_key", get(protected, func(*request) response { return jsonResponse(http.StatusOK, []any{}) })),
		add("/nodes", get(protected, s.getNodes)),
		add("/nodes/:node", get(protected, s.getNode)),
		add("/nodes/:node/stats", get(protected, s.getNodeStats)),
		add("/cluster", get(protected, s.getCluster)),
		add("/cluster/topology", get(protected, s.getTopology)),
		add("/cluster/:node/force_leave", map[string]endpoint{http.MethodDelete: {serve: s.forceLeave}}),
		add("/stats", get(protected, s.getStats)),
		add("/clients", get(protected, s.getClients)),
		add("/clients/:clientid", map[string]endpoint{
			http.MethodGet: {serve: s.getClient}, http.MethodDelete: {serve: s.kickClient},
		}),
		add("/license", map[string]endpoint{
			http.MethodGet: {serve: s.getLicence}, http.MethodPost: {body: anyBody, serve: s.postLicence},
		}),
		add("/license/setting", get(protected, s.getLicenceSetting)),
		add("/listeners", get(protected, s.getListeners)),
		add("/listeners/:id", map[string]endpoint{
			http.MethodGet: {serve: s.getListener}, http.MethodPut: {body: anyBody, serve: s.putListener},
			http.MethodDelete: {serve: s.deleteListener},
		}),
		add("/listeners/:id/start", post(nil, s.startListener)),
		add("/listeners/:id/stop", post(nil, s.stopListener)),
		add("/listeners/:id/restart", post(nil, s.restartListener)),
		add("/configs", map[string]endpoint{
			http.MethodGet: {serve: s.getConfigs}, http.MethodPut: {body: anyBody, serve: s.putConfigs},
		}),
		add("/prometheus/stats", get(public, s.getPrometheus)),
		add("/node_eviction/status", get(protected, s.getEviction)),
		add("/load_rebalance/status", get(protected, s.getLocalRebalance)),
		add("/load_rebalance/global_status", get(protected, s.getGlobalRebalance)),
		add("/load_rebalance/availability_check", get(public, s.getAvailability)),
		add("/load_rebalance/:node/start", post(rebalanceFields(s.cfg.Old()), s.startRebalance)),
		add("/load_rebalance/:node/stop", post(nil, s.stopRebalance)),
		add("/load_rebalance/:node/evacuation/start", post(evacuationFields(), s.startEvacuation)),
		add("/load_rebalance/:node/evacuation/stop", post(nil, s.stopEvacuation)),
		add("/ds/sites", get(protected, s.stored(s.getSites))),
		add("/ds/sites/:site", get(protected, s.stored(s.getSite))),
		add("/ds/storages", get(protected, s.stored(s.getStorages))),
		add("/ds/storages/:ds", get(protected, s.stored(s.ofStorage(s.getStorage)))),
		add("/ds/storages/:ds/replicas", map[string]endpoint{
			http.MethodGet: {serve: s.stored(s.ofStorage(s.getReplicas))},
			http.MethodPut: {body: anyBody, serve: s.stored(s.putReplicas)},
		}),
		add("/ds/storages/:ds/replicas/:site", map[string]endpoint{
			http.MethodPut: {serve: s.stored(s.ofStorage(s.joinReplica))}, http.MethodDelete: {serve: s.stored(s.ofStorage(s.leaveReplica))},
		}),
	}
	if storage.ReleaseOf(s.cfg.Version).Modern() {
		routes = append(routes, add("/ds/sites/:site/forget", map[string]endpoint{http.MethodPut: {serve: s.stored(s.forgetSite)}}))
	}
	return routes
}

// What the APIs of two nodes say to each other.
const (
	topicNode      = "api.node"
	topicStats     = "api.stats"
	topicClients   = "api.clients"
	topicListeners = "api.listeners"
	topicKick      = "api.kick"
	topicListen    = "api.listen"
	topicPing      = "api.ping"
)

// Call answers another node's API.
func (s *Server) Call(ctx context.Context, topic string, body []byte) ([]byte, error) {
	switch topic {
	case topicNode:
		return json.Marshal(s.localNode())
	case topicStats:
		return json.Marshal(s.localStats())
	case topicClients:
		return json.Marshal(s.localClients())
	case topicListeners:
		return json.Marshal(s.localListeners())
	case topicKick:
		var id string
		if err := json.Unmarshal(body, &id); err != nil {
			return nil, fmt.Errorf("decode %s: %w", topic, err)
		}
		return json.Marshal(s.cfg.Broker.Kick(id))
	case topicListen:
		return decodeTo(topic, body, s.switchListener)
	case topicTurn:
		return decodeTo(topic, body, func(t turn) error { return s.answerTurn(ctx, t) })
	case topicChange:
		return decodeTo(topic, body, s.Learn)
	case topicPing:
		return []byte("{}"), ctx.Err()
	default:
		return nil, fmt.Errorf("unknown topic %s", topic)
	}
}

// each asks all the nodes at once. The answer of a node that gives none before the timeout is nil. Without a timeout
// every node is waited for until it is down.
func each[T any](ctx context.Context, s *Server, nodes []string, topic string, timeout time.Duration) []*T {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	answers := make([]*T, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var v T
			if err := s.cfg.Cluster.Call(ctx, node, topic, struct{}{}, &v); err == nil {
				answers[i] = &v
			}
		}()
	}
	wg.Wait()
	return answers
}

// running reports whether the node is in the list of running ones.
func (s *Server) running(node string) bool {
	for _, name := range s.cfg.Cluster.Running() {
		if name == node {
			return true
		}
	}
	return false
}

func nodeNotFound(node string) response {
	return failure(http.StatusNotFound, "NOT_FOUND", "Node not found: "+node)
}

func reversed(names []string) []string {
	out := make([]string, 0, len(names))
	for i := len(names) - 1; i >= 0; i-- {
		out = append(out, names[i])
	}
	return out
}

// effective is the configuration as it is now.
func (s *Server) effective() settings.Tree { return s.cfg.Config.Effective() }
