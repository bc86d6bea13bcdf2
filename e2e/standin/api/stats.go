package api

import (
	"fmt"
	"net/http"
	"sort"
	"strings"
	"sync"
)

// peaks remembers the highest value of every figure.
type peaks struct {
	mu   sync.Mutex
	most map[string]int
}

func (p *peaks) note(name string, now int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.most == nil {
		p.most = map[string]int{}
	}
	p.most[name] = max(p.most[name], now)
	return p.most[name]
}

// localStats is this node's figures by EMQX's names, each with the most it has been.
func (s *Server) localStats() map[string]any {
	f := s.cfg.Broker.Figures()
	s.peak.note("cluster_sessions", f.MaxSessions)
	stats := map[string]any{}
	for name, n := range map[string]int{
		"connections": f.Connections, "live_connections": f.Live, "channels": f.Connections, "sessions": f.Connections,
		"cluster_sessions": f.ClusterSessions, "topics": f.Topics, "suboptions": f.Subscriptions,
		"subscribers": f.Subscriptions, "subscriptions": f.Subscriptions, "subscriptions.shared": f.Shared,
		"retained": f.Retained, "delayed": f.Delayed,
	} {
		stats[name+".count"] = n
		stats[name+".max"] = s.peak.note(name, n)
	}
	return stats
}

func (s *Server) getStats(r *request) response {
	names := reversed(s.cfg.Cluster.Running())
	all := each[map[string]any](r.Context(), s, names, topicStats, s.cfg.Timeouts.Clients)
	if r.URL.Query().Get("aggregate") == "true" {
		return jsonResponse(http.StatusOK, sum(all))
	}
	list := []any{}
	for i, stats := range all {
		if stats != nil {
			(*stats)["node"] = names[i]
			list = append(list, *stats)
		}
	}
	return jsonResponse(http.StatusOK, list)
}

// sum adds the nodes' figures up; those of the whole cluster are the same everywhere.
func sum(all []*map[string]any) map[string]float64 {
	total := map[string]float64{}
	for _, stats := range all {
		if stats == nil {
			continue
		}
		for name, v := range *stats {
			n, _ := v.(float64)
			if strings.HasPrefix(name, "cluster_sessions") || strings.HasPrefix(name, "topics") ||
				strings.HasPrefix(name, "retained") {
				total[name] = max(total[name], n)
				continue
			}
			total[name] += n
		}
	}
	return total
}

func (s *Server) getNodeStats(r *request) response {
	node := r.params["node"]
	if !s.running(node) {
		return nodeNotFound(node)
	}
	stats := each[map[string]any](r.Context(), s, []string{node}, topicStats, s.cfg.Timeouts.Clients)[0]
	if stats == nil {
		return internalError("error, {badrpc,timeout}, []")
	}
	return jsonResponse(http.StatusOK, stats)
}

// getPrometheus gives the metrics that say something about evacuation, as text or as JSON.
func (s *Server) getPrometheus(r *request) response {
	f := s.cfg.Broker.Figures()
	m := s.cfg.Broker.Metrics()
	running, stopped := 0, 0
	for _, member := range s.cfg.Cluster.Members() {
		if member.Status == "running" {
			running++
		} else {
			stopped++
		}
	}
	groups := map[string]map[string]int64{
		"messages": {
			"emqx_messages_received": m.Received.Load(), "emqx_messages_sent": m.Sent.Load(),
			"emqx_messages_forward": m.Forwarded.Load(), "emqx_messages_dropped": m.Dropped.Load(),
			"emqx_messages_publish": m.Received.Load(),
		},
		"session": {
			"emqx_session_created": m.Created.Load(), "emqx_session_resumed": m.Resumed.Load(),
			"emqx_session_takenover": m.TakenOver.Load(), "emqx_session_discarded": m.Discarded.Load(),
		},
		"client": {
			"emqx_client_connect": m.Connects.Load(), "emqx_client_connected": m.Connected.Load(),
			"emqx_client_disconnected": m.Disconnected.Load(),
		},
		"stats": {
			"emqx_connections_count": int64(f.Connections), "emqx_live_connections_count": int64(f.Live),
			"emqx_sessions_count": int64(f.Connections), "emqx_channels_count": int64(f.Connections),
			"emqx_cluster_sessions_count": int64(f.ClusterSessions), "emqx_topics_count": int64(f.Topics),
			"emqx_subscriptions_count": int64(f.Subscriptions), "emqx_retained_count": int64(f.Retained),
		},
		"cluster": {"emqx_cluster_nodes_running": int64(running), "emqx_cluster_nodes_stopped": int64(stopped)},
	}
	if strings.HasPrefix(r.Header.Get("Accept"), "application/json") {
		return jsonResponse(http.StatusOK, groups)
	}
	return response{status: http.StatusOK, contentType: "text/plain", body: []byte(exposition(groups))}
}

func exposition(groups map[string]map[string]int64) string {
	var lines []string
	for group, metrics := range groups {
		kind := "counter"
		if group == "stats" || group == "cluster" {
			kind = "gauge"
		}
		for name, v := range metrics {
			lines = append(lines, fmt.Sprintf("# TYPE %s %s\n%s %d\n", name, kind, name, v))
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}
