package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/broker"
)

const (
	timeFormat   = "2006-01-02T15:04:05.000-07:00"
	defaultLimit = 100
	maxLimit     = 10000
)

// localClients describes the sessions on this node.
func (s *Server) localClients() []map[string]any {
	list := []map[string]any{}
	for _, c := range s.cfg.Broker.ClientList() {
		list = append(list, s.describe(c))
	}
	return list
}

// describe has the keys that were recorded; a session that was moved here has none about its connection.
func (s *Server) describe(c broker.Client) map[string]any {
	sum := func(by [3]uint64) uint64 { return by[0] + by[1] + by[2] }
	m := map[string]any{
		"clientid": c.ID, "node": s.cfg.Cluster.Self(), "connected": c.Connected, "clean_start": c.Info.CleanStart,
		"expiry_interval": c.Expiry, "is_persistent": c.Persistent(), "is_expired": false, "is_bridge": false, "durable": false,
		"keepalive": c.Info.Keepalive, "mountpoint": nil, "username": nil, "ip_address": c.Info.IP, "port": c.Info.Port,
		"subscriptions_cnt": c.Subscriptions, "subscriptions_max": "infinity", "inflight_cnt": c.Inflight, "inflight_max": 32,
		"mqueue_len": c.Queue, "mqueue_max": 1000, "mqueue_dropped": c.Dropped, "awaiting_rel_cnt": c.AwaitingRel,
		"awaiting_rel_max": 100, "recv_pkt": sum(c.Recv), "send_pkt": sum(c.Send), "recv_msg": sum(c.Recv), "send_msg": sum(c.Send),
		"recv_msg.qos0": c.Recv[0], "recv_msg.qos1": c.Recv[1], "recv_msg.qos2": c.Recv[2], "recv_msg.dropped": 0,
		"recv_msg.dropped.await_pubrel_timeout": 0, "send_msg.qos0": c.Send[0], "send_msg.qos1": c.Send[1],
		"send_msg.qos2": c.Send[2], "send_msg.dropped": c.Dropped, "send_msg.dropped.expired": 0,
		"send_msg.dropped.queue_full": c.Dropped, "send_msg.dropped.too_large": 0,
		"created_at": stamp(c.Info.Created), "connected_at": stamp(c.Info.Connected),
	}
	if c.Info.HasUser {
		m["username"] = c.Info.Username
	}
	if !c.Connected {
		m["disconnected_at"] = stamp(c.Info.Left)
	}
	if c.Info.Proto != 0 {
		m["proto_name"], m["proto_ver"], m["listener"] = "MQTT", c.Info.Proto, c.Info.Listener
	}
	return m
}

func stamp(t time.Time) string {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return t.UTC().Format(timeFormat)
}

// getClients lists the sessions of all nodes, or of one, a page at a time.
func (s *Server) getClients(r *request) response {
	q := r.URL.Query()
	page, limit := number(q.Get("page"), 1), number(q.Get("limit"), defaultLimit)
	if page < 1 || limit < 1 || limit > maxLimit {
		return badRequest("page_limit_invalid")
	}
	names := s.cfg.Cluster.Running()
	if node := q.Get("node"); node != "" {
		if !s.running(node) {
			return nodeNotFound(node)
		}
		names = []string{node}
	}
	var all []map[string]any
	for _, list := range each[[]map[string]any](r.Context(), s, names, topicClients, s.cfg.Timeouts.Clients) {
		if list != nil {
			all = append(all, *list...)
		}
	}
	all = filter(all, q.Get("conn_state"), q.Get("clientid"), q.Get("like_clientid"))
	from := min((page-1)*limit, len(all))
	to := min(from+limit, len(all))
	data := []map[string]any{}
	for _, c := range all[from:to] {
		data = append(data, project(c, q.Get("fields")))
	}
	return jsonResponse(http.StatusOK, map[string]any{
		"data": data,
		"meta": map[string]any{"count": len(all), "limit": limit, "page": page, "hasnext": to < len(all)},
	})
}

func number(text string, otherwise int) int {
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

func filter(all []map[string]any, state, id, like string) []map[string]any {
	kept := all[:0]
	for _, c := range all {
		connected, _ := c["connected"].(bool)
		name, _ := c["clientid"].(string)
		switch {
		case state == "connected" && !connected, state == "disconnected" && connected:
		case id != "" && name != id, !strings.Contains(name, like):
		default:
			kept = append(kept, c)
		}
	}
	return kept
}

// project keeps the wanted fields; "all" or nothing wants them all.
func project(c map[string]any, fields string) map[string]any {
	if fields == "" || fields == "all" {
		return c
	}
	out := map[string]any{}
	for _, name := range strings.Split(fields, ",") {
		if v, ok := c[name]; ok {
			out[name] = v
		}
	}
	return out
}

func noClient() response {
	return failure(http.StatusNotFound, "CLIENTID_NOT_FOUND", "Client ID not found")
}

// getClient describes one session, wherever it is.
func (s *Server) getClient(r *request) response {
	for _, list := range each[[]map[string]any](r.Context(), s, s.cfg.Cluster.Running(), topicClients, s.cfg.Timeouts.Clients) {
		if list == nil {
			continue
		}
		for _, c := range *list {
			if c["clientid"] == r.params["clientid"] {
				return jsonResponse(http.StatusOK, c)
			}
		}
	}
	return noClient()
}

// kickClient ends a client's session, wherever it is.
func (s *Server) kickClient(r *request) response {
	kicked := false
	for _, node := range s.cfg.Cluster.Running() {
		var here bool
		ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Timeouts.Clients)
		err := s.cfg.Cluster.Call(ctx, node, topicKick, r.params["clientid"], &here)
		cancel()
		kicked = kicked || (err == nil && here)
	}
	if !kicked {
		return noClient()
	}
	return noContent()
}
