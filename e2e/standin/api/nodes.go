package api

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/membership"
)

// nodeInfo is one running node in /nodes.
type nodeInfo struct {
	Node             string  `json:"node"`
	Version          string  `json:"version"`
	OTPRelease       string  `json:"otp_release"`
	Load1            float64 `json:"load1"`
	Load5            float64 `json:"load5"`
	Load15           float64 `json:"load15"`
	Uptime           int64   `json:"uptime"` // milliseconds
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

// stoppedNode is one stopped node in /nodes: these three keys and no others.
type stoppedNode struct {
	Node   string `json:"node"`
	Role   string `json:"role"`
	Status string `json:"node_status"`
}

func (s *Server) localNode() nodeInfo {
	broker := s.cfg.Broker // Whole Figures would count all subscriptions, and this is asked every second.
	load := loadAverages()
	return nodeInfo{
		Node: s.cfg.Cluster.Self(), Version: s.cfg.Version, OTPRelease: "27.3.4.1/15.2.7",
		Load1: load[0], Load5: load[1], Load15: load[2], Uptime: time.Since(s.cfg.Facts.Started).Milliseconds(),
		Role: s.cfg.Facts.Role, Status: membership.StatusRunning, MaxFDs: maxFiles(), Edition: "Enterprise",
		Connections: broker.Sessions(), ClusterSessions: broker.ClusterSessions(), LiveConnections: broker.Live(),
		LogPath: s.cfg.Facts.LogPath, MemoryTotal: size(s.cfg.Facts.MemoryBytes), MemoryUsed: size(memoryUsed()),
		ProcessAvailable: 131072, ProcessUsed: runtime.NumGoroutine(), SysPath: "/usr/lib/erlang",
	}
}

// getNodes lists the running nodes that answer and the stopped ones. A running node that does not answer is in
// neither part.
func (s *Server) getNodes(r *request) response {
	var names []string
	var stopped []any
	for _, m := range s.cfg.Cluster.Members() {
		if m.Status == membership.StatusRunning {
			names = append(names, m.Name)
			continue
		}
		stopped = append(stopped, stoppedNode{Node: m.Name, Role: "core", Status: membership.StatusStopped})
	}
	list := []any{}
	for _, info := range each[nodeInfo](r.Context(), s, names, topicNode, s.cfg.Timeouts.Node) {
		if info != nil {
			list = append(list, info)
		}
	}
	return jsonResponse(http.StatusOK, append(list, stopped...))
}

func (s *Server) getNode(r *request) response {
	node := r.params["node"]
	if !s.running(node) {
		return nodeNotFound(node)
	}
	info := each[nodeInfo](r.Context(), s, []string{node}, topicNode, s.cfg.Timeouts.Node)[0]
	if info == nil {
		return internalError("error, function_clause, [{emqx_mgmt_api_nodes,format,[{error,timeout}]," + stack("emqx_mgmt_api_nodes", 293))
	}
	return jsonResponse(http.StatusOK, info)
}

// stack is the rest of an Erlang stack trace as EMQX prints it.
func stack(module string, line int) string {
	return fmt.Sprintf(`[{file,"/opt/emqx/lib/emqx_management/src/%s.erl"},{line,%d}]},`+
		`{minirest_handler,apply_callback,4,[{file,"/opt/emqx/lib/minirest/src/minirest_handler.erl"},{line,192}]},`+
		`{minirest_handler,handle,2,[{file,"/opt/emqx/lib/minirest/src/minirest_handler.erl"},{line,73}]}]`, module, line)
}

func (s *Server) getCluster(*request) response {
	name := s.effective().Text("emqxcl", "cluster", "name")
	answer := map[string]any{"name": name, "nodes": s.cfg.Cluster.Running(), "self": s.cfg.Cluster.Self()}
	if !s.cfg.Old() {
		answer["description"] = s.effective().Text("", "cluster", "description")
	}
	return jsonResponse(http.StatusOK, answer)
}

// getTopology lists the running cores that answer. There are no replicants here.
func (s *Server) getTopology(r *request) response {
	names := reversed(s.cfg.Cluster.Running())
	list := []any{}
	for i, pong := range each[struct{}](r.Context(), s, names, topicPing, s.cfg.Timeouts.Node) {
		if pong != nil {
			list = append(list, map[string]any{"core_node": names[i], "replicant_nodes": []any{}})
		}
	}
	return jsonResponse(http.StatusOK, list)
}

func (s *Server) forceLeave(r *request) response {
	node := r.params["node"]
	if strings.Count(node, "@") != 1 || strings.HasPrefix(node, "@") || strings.HasSuffix(node, "@") {
		return badRequest("Invalid node name: " + node)
	}
	err := s.cfg.Cluster.ForceLeave(node)
	switch {
	case err == nil:
		s.cfg.Storage.NodeLeft(node)
		return noContent()
	case errors.Is(err, membership.ErrSelf):
		return badRequest("Can't leave self")
	case errors.Is(err, membership.ErrNotMember):
		return badRequest("node_not_in_cluster")
	default:
		return badRequest(err.Error())
	}
}

func (s *Server) getStatus(r *request) response {
	node := s.cfg.Cluster.Self()
	retry := map[string]string{"Retry-After": "15"}
	if r.URL.Query().Get("format") == "json" {
		answer := map[string]any{
			"node_name": node, "rel_vsn": "e" + s.cfg.Version, "broker_status": "started", "app_status": "running",
		}
		if !s.cfg.Old() {
			answer["cluster"] = s.effective().Text("emqxcl", "cluster", "name")
		}
		resp := jsonResponse(http.StatusOK, answer)
		resp.headers = retry
		return resp
	}
	return response{
		status: http.StatusOK, contentType: "text/plain", headers: retry,
		body: []byte("Node " + node + " is started\nemqx is running"),
	}
}

// size prints bytes as EMQX does.
func size(bytes uint64) string {
	units := []struct {
		letter string
		bytes  float64
	}{{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}}
	for _, u := range units {
		if float64(bytes) >= u.bytes {
			return strconv.FormatFloat(float64(bytes)/u.bytes, 'f', 2, 64) + u.letter
		}
	}
	return strconv.FormatUint(bytes, 10)
}

// loadAverages reads the machine's load; zeros where it cannot be read.
func loadAverages() [3]float64 {
	machine, err := procfs.NewDefaultFS()
	if err != nil {
		return [3]float64{}
	}
	load, err := machine.LoadAvg()
	if err != nil {
		return [3]float64{}
	}
	return [3]float64{load.Load1, load.Load5, load.Load15}
}

// memoryUsed is the memory of this process, which is the container's in a pod.
func memoryUsed() uint64 {
	self, err := procfs.Self()
	if err != nil {
		return 0
	}
	memory, err := self.Statm()
	if err != nil {
		return 0
	}
	return memory.ResidentBytes()
}

// MachineMemory is the machine's memory in bytes; zero where it cannot be read.
func MachineMemory() uint64 {
	machine, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	memory, err := machine.Meminfo()
	if err != nil || memory.MemTotalBytes == nil {
		return 0
	}
	return *memory.MemTotalBytes
}
