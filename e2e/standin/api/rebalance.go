package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/evacuate"
)

func evacuationFields() []field {
	return []field{
		{"conn_evict_rate", posInteger}, {"migrate_to", nodeNames}, {"redirect_to", text}, {"sess_evict_rate", posInteger},
		{"wait_health_check", seconds}, {"wait_takeover", seconds},
	}
}

func rebalanceFields(old bool) []field {
	fields := []field{
		{"abs_conn_threshold", posInteger}, {"abs_sess_threshold", posInteger}, {"conn_evict_rate", posInteger},
		{"nodes", nodeNames}, {"rel_conn_threshold", aboveOne}, {"rel_sess_threshold", aboveOne},
		{"sess_evict_rate", posInteger}, {"wait_health_check", seconds}, {"wait_takeover", seconds},
	}
	if !old {
		fields = append(fields, field{"conn_evict_rpc_timeout", millis}, field{"sess_evict_rpc_timeout", millis})
	}
	return fields
}

// take puts a field's value into target when the request has it.
func take[T any](body map[string]any, name string, target *T) {
	if v, ok := body[name].(T); ok {
		*target = v
	}
}

func (s *Server) getAvailability(*request) response {
	if s.cfg.Evacuation.Enabled() {
		return failure(http.StatusServiceUnavailable, "NODE_EVACUATING", "Node Evacuating")
	}
	return jsonResponse(http.StatusOK, struct{}{})
}

func (s *Server) getEviction(*request) response {
	if !s.cfg.Evacuation.Enabled() {
		return jsonResponse(http.StatusOK, map[string]any{"status": "disabled"})
	}
	return jsonResponse(http.StatusOK, map[string]any{
		"status": "enabled",
		"stats":  map[string]int{"connections": s.cfg.Broker.Live(), "sessions": s.cfg.Broker.Sessions()},
	})
}

// evacuationStatus is what both status calls tell of an evacuation.
func evacuationStatus(e evacuate.Evacuation) map[string]any {
	return map[string]any{
		"state": e.State, "stats": e.Stats, "session_recipients": e.Recipients, "session_goal": 0, "connection_goal": 0,
		"session_eviction_rate": e.SessRate, "connection_eviction_rate": e.ConnRate,
	}
}

func (s *Server) getLocalRebalance(r *request) response {
	status, err := s.cfg.Evacuation.Local(r.Context())
	switch {
	case err != nil:
		return internalError("exit, {timeout,{gen_statem,call,[emqx_node_rebalance_evacuation,status,infinity]}}, []")
	case status.Evacuation != nil:
		answer := evacuationStatus(*status.Evacuation)
		answer["status"], answer["process"] = "enabled", "evacuation"
		return jsonResponse(http.StatusOK, answer)
	case status.Rebalance != nil:
		return jsonResponse(http.StatusOK, donorStatus(*status.Rebalance))
	default:
		return jsonResponse(http.StatusOK, map[string]any{"status": "disabled"})
	}
}

func donorStatus(d evacuate.Donation) map[string]any {
	answer := map[string]any{
		"status": "enabled", "process": "rebalance", "state": d.State, "coordinator_node": d.Coordinator,
		"connection_eviction_rate": d.ConnRate, "session_eviction_rate": d.SessRate, "recipients": d.Recipients,
		"stats": map[string]int{
			"initial_connected": d.InitialConnected, "initial_sessions": d.InitialSessions,
			"current_connected": d.CurrentConnected, "current_sessions": d.CurrentSessions,
			"current_disconnected_sessions": d.CurrentDisconnected,
		},
	}
	if d.ConnRPC != nil {
		answer["connection_eviction_rpc_timeout"], answer["session_eviction_rpc_timeout"] = *d.ConnRPC, *d.SessRPC
	}
	if d.ConnGoal != nil {
		answer["connection_goal"] = *d.ConnGoal
	}
	if d.SessGoal != nil {
		answer["disconnected_session_goal"] = *d.SessGoal
	}
	return answer
}

func (s *Server) getGlobalRebalance(r *request) response {
	rebalances, evacuations := s.cfg.Evacuation.Global(r.Context())
	list := make([]any, 0, len(evacuations))
	for _, e := range evacuations {
		item := evacuationStatus(e)
		item["node"] = e.Node
		list = append(list, item)
	}
	return jsonResponse(http.StatusOK, map[string]any{"evacuations": list, "purges": []any{}, "rebalances": rebalances})
}

// startEvacuation accepts redirect_to and does nothing with it, as EMQX over HTTP.
func (s *Server) startEvacuation(r *request) response {
	node := r.params["node"]
	if !s.running(node) {
		return nodeNotFound(node)
	}
	o := evacuate.Defaults()
	take(r.body, "wait_health_check", &o.WaitHealthCheck)
	take(r.body, "wait_takeover", &o.WaitTakeover)
	take(r.body, "conn_evict_rate", &o.ConnRate)
	take(r.body, "sess_evict_rate", &o.SessRate)
	take(r.body, "migrate_to", &o.MigrateTo)
	if refused := s.checkNodes(r.Context(), o.MigrateTo); refused != nil {
		return *refused
	}
	return s.outcome(node, s.cfg.Evacuation.StartOn(r.Context(), node, o))
}

// checkNodes refuses unknown names, and nodes that are not available.
func (s *Server) checkNodes(ctx context.Context, nodes []string) *response {
	var unheard []string
	for _, node := range nodes {
		if !s.cfg.Cluster.Known(node) {
			unheard = append(unheard, fmt.Sprintf("<<%q>>", node))
		}
	}
	if len(unheard) > 0 {
		refused := badRequest("Invalid nodes: [" + strings.Join(unheard, ",") + "]")
		return &refused
	}
	if missing := s.cfg.Evacuation.Unavailable(ctx, nodes); len(missing) > 0 {
		atoms := make([]string, 0, len(missing))
		for _, node := range missing {
			atoms = append(atoms, "'"+node+"'")
		}
		refused := failure(http.StatusBadRequest, "NOT_FOUND", "Nodes unavailable: ["+strings.Join(atoms, ",")+"]")
		return &refused
	}
	return nil
}

func (s *Server) stopEvacuation(r *request) response {
	node := r.params["node"]
	if !s.running(node) {
		return nodeNotFound(node)
	}
	return s.outcome(node, s.cfg.Evacuation.StopOn(r.Context(), node))
}

// outcome turns what a node answered to a command into a response.
func (s *Server) outcome(node string, err error) response {
	switch {
	case err == nil:
		return jsonResponse(http.StatusOK, struct{}{})
	case errors.Is(err, evacuate.ErrAlreadyStarted), errors.Is(err, evacuate.ErrNotStarted),
		errors.Is(err, evacuate.ErrBusy), errors.Is(err, evacuate.ErrNothing):
		return badRequest(fmt.Sprintf("error on node '%s': %s", node, err))
	default:
		reason := "nodedown"
		if errors.Is(err, context.DeadlineExceeded) {
			reason = "timeout"
		}
		message := fmt.Sprintf("RPC error on node '%s': %s", node, reason)
		return unsupportedCode("RPC_ERROR", message, "'NOT_FOUND','BAD_REQUEST'")
	}
}

func (s *Server) startRebalance(r *request) response {
	node := r.params["node"]
	if !s.running(node) {
		return nodeNotFound(node)
	}
	o := evacuate.RebalanceDefaults()
	for name, target := range map[string]*time.Duration{
		"wait_health_check": &o.WaitHealthCheck, "wait_takeover": &o.WaitTakeover,
		"conn_evict_rpc_timeout": &o.ConnRPC, "sess_evict_rpc_timeout": &o.SessRPC,
	} {
		take(r.body, name, target)
	}
	for name, target := range map[string]*int{
		"conn_evict_rate": &o.ConnRate, "sess_evict_rate": &o.SessRate,
		"abs_conn_threshold": &o.AbsConn, "abs_sess_threshold": &o.AbsSess,
	} {
		take(r.body, name, target)
	}
	take(r.body, "rel_conn_threshold", &o.RelConn)
	take(r.body, "rel_sess_threshold", &o.RelSess)
	take(r.body, "nodes", &o.Nodes)
	if refused := s.checkNodes(r.Context(), o.Nodes); refused != nil {
		return *refused
	}
	return s.outcome(node, s.cfg.Evacuation.StartRebalanceOn(r.Context(), node, o))
}

func (s *Server) stopRebalance(r *request) response {
	node := r.params["node"]
	if !s.running(node) {
		return nodeNotFound(node)
	}
	return s.outcome(node, s.cfg.Evacuation.StopRebalanceOn(r.Context(), node))
}
