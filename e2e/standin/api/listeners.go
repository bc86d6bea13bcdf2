package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// Listeners opens and closes this node's MQTT listeners.
type Listeners interface {
	// Apply opens, closes and re-opens what differs between two configurations. When one cannot be opened, what was
	// opened is closed again and the error is a *ListenError.
	Apply(before, after settings.Tree) error
	// Open opens a configured listener, Shut closes it; both do nothing when that is so already.
	Open(l settings.Listener) error
	Shut(id string)
	// Running reports whether the listener is open.
	Running(id string) bool
}

// ListenError tells which listener could not be opened.
type ListenError struct {
	ID, Bind, Reason string // Reason is a POSIX name such as eaddrinuse
}

// Error says what happened.
func (e *ListenError) Error() string {
	return fmt.Sprintf("listener %s (%s): %s", e.ID, e.Bind, e.Reason)
}

// Erlang says it as EMQX does, whose printer breaks lines that become too long.
func (e *ListenError) Erlang() string {
	const width = 78
	prefix := fmt.Sprintf("%s(%s) : ", e.ID, e.Bind)
	child := "{failed_to_start_child,listener," + e.Reason + "}"
	text := prefix + "{shutdown," + child + "}"
	if len(text) > width {
		indent := strings.Repeat(" ", len(prefix)+4)
		if len(indent)+len(child)+1 > width {
			child = "{failed_to_start_child,listener,\\n" + indent + "    " + e.Reason + "}"
		}
		text = prefix + "{shutdown,\\n" + indent + child + "}"
	}
	return "{post_config_update,emqx_listeners,\n            {failed_to_start,\n                \"" + text + "\"}}"
}

// listenerStatus is a listener on one node, or added up over all.
type listenerStatus struct {
	Running            any `json:"running"` // true, false, or "inconsistent"
	MaxConnections     any `json:"max_connections"`
	CurrentConnections int `json:"current_connections"`
}

// listenerInfo is one listener as a node tells the others.
type listenerInfo struct {
	ID        string         `json:"id"`
	Type      string         `json:"type"`
	Name      string         `json:"name"`
	Enable    bool           `json:"enable"`
	Bind      string         `json:"bind"`
	Acceptors any            `json:"acceptors"`
	Status    listenerStatus `json:"status"`
}

func (s *Server) localListeners() []listenerInfo {
	list := []listenerInfo{}
	for _, l := range s.effective().Listeners() {
		list = append(list, listenerInfo{
			ID: l.ID, Type: l.Type, Name: l.Name, Enable: l.Enable, Bind: l.Bind, Acceptors: l.Config["acceptors"],
			Status: listenerStatus{
				Running: s.cfg.Listeners.Running(l.ID), MaxConnections: l.Config["max_connections"],
				CurrentConnections: s.cfg.Broker.OnListener(l.ID),
			},
		})
	}
	return list
}

// getListeners adds up what all nodes say. When one does not answer, the caller's connection is closed.
func (s *Server) getListeners(r *request) response {
	names := reversed(s.cfg.Cluster.Running())
	answers := each[[]listenerInfo](r.Context(), s, names, topicListeners, s.cfg.Timeouts.Listeners)
	for i, answer := range answers {
		if answer == nil && s.running(names[i]) {
			return response{hangUp: true}
		}
	}
	list := []any{}
	for _, mine := range s.localListeners() {
		if kind := r.URL.Query().Get("type"); kind != "" && kind != mine.Type {
			continue
		}
		list = append(list, combine(mine, names, answers))
	}
	return jsonResponse(http.StatusOK, list)
}

// combine is one listener over all nodes.
func combine(mine listenerInfo, names []string, answers []*[]listenerInfo) map[string]any {
	total := listenerStatus{MaxConnections: mine.Status.MaxConnections}
	most := 0.0
	nodes := []any{}
	running, stopped := 0, 0
	for i, answer := range answers {
		if answer == nil {
			continue
		}
		for _, theirs := range *answer {
			if theirs.ID != mine.ID {
				continue
			}
			nodes = append(nodes, map[string]any{"node": names[i], "status": theirs.Status})
			if n, limited := theirs.Status.MaxConnections.(float64); limited {
				most += n
				total.MaxConnections = most
			}
			total.CurrentConnections += theirs.Status.CurrentConnections
			if theirs.Status.Running == true {
				running++
			} else {
				stopped++
			}
		}
	}
	switch {
	case stopped == 0:
		total.Running = true
	case running == 0:
		total.Running = false
	default:
		total.Running = "inconsistent"
	}
	return map[string]any{
		"id": mine.ID, "type": mine.Type, "name": mine.Name, "enable": mine.Enable, "bind": mine.Bind, "number": len(nodes),
		"acceptors": mine.Acceptors, "status": total, "node_status": nodes,
	}
}

func (s *Server) findListener(id string) (settings.Listener, bool) {
	for _, l := range s.effective().Listeners() {
		if l.ID == id {
			return l, true
		}
	}
	return settings.Listener{}, false
}

func noListener() response {
	return failure(http.StatusNotFound, "BAD_LISTENER_ID", "Listener id not found")
}

func (s *Server) getListener(r *request) response {
	l, found := s.findListener(r.params["id"])
	if !found {
		return noListener()
	}
	answer := l.Config.Clone()
	answer["id"], answer["type"], answer["running"] = l.ID, l.Type, s.cfg.Listeners.Running(l.ID)
	answer["current_connections"] = int64(s.cfg.Broker.OnListener(l.ID))
	if _, number := answer["bind"].(int64); number {
		answer["bind"] = l.Bind
	}
	return jsonResponse(http.StatusOK, answer)
}

func (s *Server) deleteListener(r *request) response {
	l, found := s.findListener(r.params["id"])
	if !found {
		return noListener()
	}
	return s.everywhere(func(ctx context.Context) response {
		before := s.effective()
		change, err := s.cfg.Config.Drop(l.Type, l.Name)
		if err != nil {
			s.cfg.Log.Error("configuration", "error", err)
		}
		if err := s.adopt("listeners", before, s.effective()); err != nil {
			s.cfg.Log.Error("listener", "id", l.ID, "error", err)
		}
		s.tell(ctx, change)
		return noContent()
	})
}

// putListener changes one listener. EMQX takes nothing that does not name the type.
func (s *Server) putListener(r *request) response {
	l, found := s.findListener(r.params["id"])
	if !found {
		return noListener()
	}
	config, err := settings.Parse(string(r.raw)) // JSON is HOCON, too
	if err != nil {
		return badRequest("Invalid json message received")
	}
	if config.Text("", "type") != l.Type {
		return badRequest(`{"reason":"unknown listener type","path":"root","kind":"validation_error","field_name":"type"}`)
	}
	for _, shown := range []string{"id", "type", "running", "current_connections"} {
		delete(config, shown)
	}
	listeners := s.effective().Sub("listeners").Clone()
	listeners.Set(config, l.Type, l.Name)
	if answer := s.change(settings.Tree{"listeners": listeners}, true); answer.status != http.StatusOK {
		return answer
	}
	return s.getListener(r)
}

// listenOrder makes a node open or close a listener without changing the configuration.
type listenOrder struct {
	ID   string `json:"id"`
	Shut bool   `json:"shut"`
	Open bool   `json:"open"`
}

func (s *Server) switchListener(o listenOrder) error {
	l, found := s.findListener(o.ID)
	if !found {
		return nil
	}
	if o.Shut {
		s.cfg.Listeners.Shut(l.ID)
	}
	if !o.Open {
		return nil
	}
	if _, failed := s.failed.Load(l.ID); failed && !s.cfg.Listeners.Running(l.ID) {
		return errListenerLost
	}
	return s.cfg.Listeners.Open(l)
}

// errListenerLost is what EMQX says when it has stopped a listener for a change that failed: it cannot start it again.
var errListenerLost = errors.New("{config_update_crashed,not_found}")

func (s *Server) startListener(r *request) response   { return s.switchEverywhere(r, false, true) }
func (s *Server) stopListener(r *request) response    { return s.switchEverywhere(r, true, false) }
func (s *Server) restartListener(r *request) response { return s.switchEverywhere(r, true, true) }

func (s *Server) switchEverywhere(r *request, shut, open bool) response {
	id := r.params["id"]
	if _, found := s.findListener(id); !found {
		return noListener()
	}
	if _, failed := s.failed.Load(id); failed && open && !s.cfg.Listeners.Running(id) {
		return badRequest(errListenerLost.Error())
	}
	for _, node := range s.cfg.Cluster.Running() {
		order := listenOrder{ID: id, Shut: shut, Open: open}
		if err := s.cfg.Cluster.Call(r.Context(), node, topicListen, order, nil); err != nil {
			return badRequest(err.Error())
		}
	}
	return response{status: http.StatusOK, body: []byte{}}
}
