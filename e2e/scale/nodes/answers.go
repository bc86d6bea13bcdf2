package nodes

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/evacuate"
)

// base is where the API begins.
const base = "/api/v5/"

// answer is a status and a body; nil is none.
type answer struct {
	status int
	header map[string]string
	body   any
	text   string
}

func ok(body any) answer { return answer{status: http.StatusOK, body: body} }

func refusal(status int, code, message string) answer {
	return answer{status: status, body: problem{Code: code, Message: message}}
}

type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// ServeHTTP answers as EMQX.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	write(w, n.answer(r))
}

func write(w http.ResponseWriter, a answer) {
	header := w.Header()
	header.Set("Server", "Cowboy")
	for name, value := range a.header {
		header.Set(name, value)
	}
	header["Content-Type"] = nil
	data := []byte(a.text)
	switch {
	case a.text != "":
		header.Set("Content-Type", "text/plain")
	case a.body != nil:
		header.Set("Content-Type", "application/json")
		var err error
		if data, err = json.Marshal(a.body); err != nil {
			panic(fmt.Sprintf("the fake's answer cannot be written: %v", err)) // All bodies are ours.
		}
	}
	if a.status != http.StatusNoContent {
		header.Set("Content-Length", strconv.Itoa(len(data)))
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(data) // Whoever asked may be gone.
}

// answer finds out what is asked.
func (n *Node) answer(r *http.Request) answer {
	if r.URL.Path == "/status" {
		n.cluster.fleet.count("status")
		return answer{status: http.StatusOK, header: map[string]string{"Retry-After": "15"}, text: "Node " + n.name + " is started\nemqx is running"}
	}
	path, found := strings.CutPrefix(r.URL.EscapedPath(), base)
	segments := strings.Split(path, "/")
	for i := range segments {
		if decoded, err := url.PathUnescape(segments[i]); err == nil {
			segments[i] = decoded
		}
	}
	route, params := n.cluster.fleet.match(segments)
	if !found || route == nil {
		n.cluster.fleet.count("unknown")
		return refusal(http.StatusNotFound, "NOT_FOUND", "Request Path Not Found")
	}
	n.cluster.fleet.count(route.operation)
	if r.Method != route.method {
		return answer{status: http.StatusMethodNotAllowed, header: map[string]string{"Allow": route.method}}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return refusal(http.StatusBadRequest, "BAD_REQUEST", "Invalid body")
	}
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if !route.public {
		if refused := n.authenticate(r); refused != nil {
			return *refused
		}
	}
	return route.answer(n, params, body)
}

// route is a path: a colon matches any segment.
type route struct {
	operation, method, path string
	public                  bool
	answer                  func(n *Node, param string, body []byte) answer
	segments                []string // Of the path.
}

func routes() []route {
	get := func(operation, path string, give func(n *Node, param string, body []byte) answer) route {
		return route{operation: operation, method: http.MethodGet, path: path, answer: give}
	}
	post := func(operation, path string, give func(n *Node, param string, body []byte) answer) route {
		return route{operation: operation, method: http.MethodPost, path: path, answer: give}
	}
	all := []route{
		get("nodes", "nodes", (*Node).getNodes), get("node", "nodes/:", (*Node).getNode), get("cluster", "cluster", (*Node).getCluster),
		get("node_stats", "nodes/:/stats", (*Node).getStats),
		get("listener", "listeners/:", (*Node).getListener), get("license", "license", (*Node).getLicence),
		get("load_rebalance_status", "load_rebalance/status", (*Node).getEvacuation),
		get("global_status", "load_rebalance/global_status", (*Node).getGlobal),
		{operation: "availability_check", method: http.MethodGet, path: "load_rebalance/availability_check", public: true, answer: (*Node).getAvailability},
		post("evacuation_start", "load_rebalance/:/evacuation/start", (*Node).start),
		post("evacuation_stop", "load_rebalance/:/evacuation/stop", (*Node).stop),
		{operation: "force_leave", method: http.MethodDelete, path: "cluster/:/force_leave", answer: (*Node).forceLeave},
		get("ds_sites", "ds/sites", noStorage), get("ds_storages", "ds/storages", noStorage),
	}
	for i := range all {
		all[i].segments = strings.Split(all[i].path, "/")
	}
	return all
}

// getStats tells what the operator asks statistics for.
func (*Node) getStats(string, []byte) answer { return ok(map[string]int{"delayed.count": 0}) }

// noStorage is what a node without durable storage answers.
func noStorage(*Node, string, []byte) answer {
	return refusal(http.StatusNotFound, "NOT_FOUND", "Durable storage is disabled")
}

// match finds the route of a path and what it has in place of the colon.
func (f *Fleet) match(segments []string) (found *route, param string) {
	for i := range f.routes {
		want := f.routes[i].segments
		param = ""
		if slices.EqualFunc(want, segments, func(want, is string) bool {
			if want == ":" {
				param = is
				return true
			}
			return want == is
		}) {
			return &f.routes[i], param
		}
	}
	return nil, ""
}

// authenticate returns what is wrong with the credentials; nil when nothing is.
func (n *Node) authenticate(r *http.Request) *answer {
	refuse := func(code, message string) *answer {
		refused := refusal(http.StatusUnauthorized, code, message)
		refused.header = map[string]string{"Www-Authenticate": `Basic Realm="emqx-dashboard"`}
		return &refused
	}
	key, secret, given := r.BasicAuth()
	if !given {
		return refuse("AUTHORIZATION_HEADER_ERROR", "Support authorization: basic/bearer ")
	}
	if known, exists := n.cluster.keys[key]; !exists || subtle.ConstantTimeCompare([]byte(known), []byte(secret)) != 1 {
		return refuse("BAD_API_KEY_OR_SECRET", "Check api_key/api_secret")
	}
	return nil
}

// info is a running node as EMQX describes it.
type info struct {
	Node             string  `json:"node"`
	Version          string  `json:"version"`
	OTPRelease       string  `json:"otp_release"`
	Load1            float64 `json:"load1"`
	Load5            float64 `json:"load5"`
	Load15           float64 `json:"load15"`
	Uptime           int64   `json:"uptime"`
	Role             string  `json:"role"`
	Status           string  `json:"node_status"`
	MaxFDs           int     `json:"max_fds"`
	Edition          string  `json:"edition"`
	Connections      int     `json:"connections"`
	ClusterSessions  int     `json:"cluster_sessions"`
	LiveConnections  int     `json:"live_connections"`
	LogPath          string  `json:"log_path"`
	MemoryTotal      string  `json:"memory_total"`
	MemoryUsed       string  `json:"memory_used"`
	ProcessAvailable int     `json:"process_available"`
	ProcessUsed      int     `json:"process_used"`
	SysPath          string  `json:"sys_path"`
}

func (n *Node) info() info {
	sessions := 0
	for _, other := range n.cluster.members {
		sessions += other.sessions
	}
	return info{
		Node: n.name, Version: n.version, OTPRelease: "27.3.4.1/15.2.7", Load1: 0.31, Load5: 0.28, Load15: 0.25,
		Uptime: time.Since(n.started).Milliseconds(), Role: "core", Status: "running", MaxFDs: 1048576, Edition: "Enterprise",
		Connections: n.sessions, ClusterSessions: sessions, LiveConnections: n.live, LogPath: "/opt/emqx/log",
		MemoryTotal: "2.00G", MemoryUsed: "412.51M", ProcessAvailable: 131072, ProcessUsed: 1204, SysPath: "/usr/lib/erlang",
	}
}

func (n *Node) getNodes(string, []byte) answer {
	list := []any{}
	for _, member := range n.cluster.runningNodes() {
		n.cluster.fleet.told(member)
		list = append(list, member.info())
	}
	var stopped []string
	for name, member := range n.cluster.members {
		if !member.running {
			stopped = append(stopped, name)
		}
	}
	slices.Sort(stopped)
	for _, name := range stopped {
		list = append(list, map[string]string{"node": name, "role": "core", "node_status": "stopped"})
	}
	return ok(list)
}

func (n *Node) getNode(name string, _ []byte) answer {
	if member := n.cluster.running(name); member != nil {
		n.cluster.fleet.told(member)
		return ok(member.info())
	}
	return nodeNotFound(name)
}

// running is the running node of a name; nil when there is none.
func (c *Cluster) running(name string) *Node {
	if n := c.members[name]; n != nil && n.running {
		return n
	}
	return nil
}

func nodeNotFound(name string) answer {
	return refusal(http.StatusNotFound, "NOT_FOUND", "Node not found: "+name)
}

func (n *Node) getCluster(string, []byte) answer {
	return ok(map[string]any{"name": "emqxcl", "nodes": n.cluster.names(), "self": n.name, "description": ""})
}

// getListener knows the listeners of the default configuration.
func (n *Node) getListener(id string, _ []byte) answer {
	for _, listener := range n.cluster.fleet.listeners {
		if listener.ID != id {
			continue
		}
		told := listener.Config.Clone()
		told["id"], told["type"], told["bind"], told["running"], told["current_connections"] = id, listener.Type, listener.Bind, true, 0
		if listener.Type == "tcp" {
			told["current_connections"] = n.live
		}
		return ok(told)
	}
	return refusal(http.StatusNotFound, "BAD_LISTENER_ID", "Listener id not found")
}

func (n *Node) getLicence(string, []byte) answer {
	return ok(map[string]any{
		"customer": "Fake", "customer_type": 10, "deployment": "bench", "email": "bench@example.com", "expiry": false,
		"expiry_at": "2099-01-01", "max_sessions": 10000000, "max_connections": 10000000, "max_tps": 10000000, "start_at": "2024-01-01", "type": "official",
	})
}

func (n *Node) getAvailability(string, []byte) answer {
	if n.machine.State() != evacuate.Disabled {
		return refusal(http.StatusServiceUnavailable, "NODE_EVACUATING", "Node Evacuating")
	}
	return ok(struct{}{})
}

// evacuation is what both status calls tell of one.
func (n *Node) evacuation() map[string]any {
	options := n.machine.Options()
	return map[string]any{
		"state": n.machine.State(), "stats": n.machine.Stats(), "session_recipients": world{n}.Recipients(options.MigrateTo), "session_goal": 0,
		"connection_goal": 0, "session_eviction_rate": options.SessRate, "connection_eviction_rate": options.ConnRate,
	}
}

func (n *Node) getEvacuation(string, []byte) answer {
	if n.machine.State() == evacuate.Disabled {
		return ok(map[string]any{"status": "disabled"})
	}
	told := n.evacuation()
	told["status"], told["process"] = "enabled", "evacuation"
	return ok(told)
}

func (n *Node) getGlobal(string, []byte) answer {
	evacuations := []any{}
	for _, member := range n.cluster.runningNodes() {
		if member.machine.State() != evacuate.Disabled {
			told := member.evacuation()
			told["node"] = member.name
			evacuations = append(evacuations, told)
		}
	}
	return ok(map[string]any{"evacuations": evacuations, "purges": []any{}, "rebalances": []any{}})
}

func (n *Node) start(name string, body []byte) answer {
	member := n.cluster.running(name)
	if member == nil {
		return nodeNotFound(name)
	}
	options, err := readOptions(body)
	if err != nil {
		return refusal(http.StatusBadRequest, "BAD_REQUEST", err.Error())
	}
	var unknown, unavailable []string
	for _, recipient := range options.MigrateTo {
		switch other := n.cluster.members[recipient]; {
		case other == nil:
			unknown = append(unknown, fmt.Sprintf("<<%q>>", recipient))
		case !other.available():
			unavailable = append(unavailable, "'"+recipient+"'")
		}
	}
	if len(unknown) > 0 {
		return refusal(http.StatusBadRequest, "BAD_REQUEST", "Invalid nodes: ["+strings.Join(unknown, ",")+"]")
	}
	if len(unavailable) > 0 {
		return refusal(http.StatusBadRequest, "NOT_FOUND", "Nodes unavailable: ["+strings.Join(unavailable, ",")+"]")
	}
	return outcome(name, member.machine.Start(time.Now(), options, world{member}))
}

func readOptions(body []byte) (evacuate.Options, error) {
	options := evacuate.Defaults()
	var asked struct {
		WaitHealthCheck *int     `json:"wait_health_check"`
		WaitTakeover    *int     `json:"wait_takeover"`
		ConnRate        *int     `json:"conn_evict_rate"`
		SessRate        *int     `json:"sess_evict_rate"`
		MigrateTo       []string `json:"migrate_to"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		return options, errors.New("Invalid json message received") //nolint:staticcheck // EMQX's own words.
	}
	for _, wait := range []struct {
		asked *int
		is    *time.Duration
	}{{asked.WaitHealthCheck, &options.WaitHealthCheck}, {asked.WaitTakeover, &options.WaitTakeover}} {
		if wait.asked != nil {
			*wait.is = time.Duration(*wait.asked) * time.Second
		}
	}
	for _, rate := range []struct {
		name      string
		asked, is *int
	}{{"conn_evict_rate", asked.ConnRate, &options.ConnRate}, {"sess_evict_rate", asked.SessRate, &options.SessRate}} {
		if rate.asked == nil {
			continue
		}
		if *rate.asked < 1 {
			return options, fmt.Errorf(`{"value":%d,"reason":{"expected":"pos_integer()"},"path":"root.%s","kind":"validation_error"}`, *rate.asked, rate.name)
		}
		*rate.is = *rate.asked
	}
	options.MigrateTo = asked.MigrateTo
	return options, nil
}

func (n *Node) stop(name string, _ []byte) answer {
	member := n.cluster.running(name)
	if member == nil {
		return nodeNotFound(name)
	}
	err := member.machine.Stop()
	if err == nil {
		member.refuses = false
	}
	return outcome(name, err)
}

func outcome(name string, err error) answer {
	if err != nil {
		return refusal(http.StatusBadRequest, "BAD_REQUEST", fmt.Sprintf("error on node '%s': %s", name, err))
	}
	return ok(struct{}{})
}

// forceLeave makes the cluster forget a node.
func (n *Node) forceLeave(name string, _ []byte) answer {
	member := n.cluster.members[name]
	switch {
	case strings.Count(name, "@") != 1:
		return refusal(http.StatusBadRequest, "BAD_REQUEST", "Invalid node name: "+name)
	case member == n:
		return refusal(http.StatusBadRequest, "BAD_REQUEST", "Can't leave self")
	case member == nil:
		return refusal(http.StatusBadRequest, "BAD_REQUEST", "node_not_in_cluster")
	}
	delete(n.cluster.members, name)
	return answer{status: http.StatusNoContent}
}
