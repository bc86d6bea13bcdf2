package emqx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// State is a state of EMQX's evacuation, by its exact name (emqx_node_rebalance_evacuation.erl).
type State string

// The states of an evacuation, in their order. A node that is not being evacuated has none.
const (
	StateWaitingHealthCheck State = "waiting_health_check"
	StateEvictingConns      State = "evicting_conns"
	StateWaitingTakeover    State = "waiting_takeover"
	StateEvictingSessions   State = "evicting_sessions"
	StateProhibiting        State = "prohibiting"
)

// EvacuationStatus is an evacuation that runs, as the node tells it.
type EvacuationStatus struct {
	// State is where it stands.
	State State
	// ConnEvictRate and SessEvictRate are a second's worth of connections and sessions.
	ConnEvictRate, SessEvictRate int32
	// Recipients are the nodes that take sessions now. Empty means that none can.
	Recipients []string
	// InitialConnected and InitialSessions are what there was at the start.
	InitialConnected, InitialSessions int32
	// CurrentConnected and CurrentSessions are what the evacuation last counted. They stand still in some states: the
	// node's own counts decide, not these.
	CurrentConnected, CurrentSessions int32
}

// Count is a counter of EMQX, which is the string "undefined" while a node boots.
type Count struct {
	// Value is the count; 0 when it is not known.
	Value int64
	// Known is false while the node does not know.
	Known bool
}

// UnmarshalJSON takes a number, or a string for an unknown count.
func (c *Count) UnmarshalJSON(data []byte) error {
	value, err := strconv.ParseInt(string(data), 10, 64)
	if err != nil {
		var text string
		if json.Unmarshal(data, &text) != nil {
			return err
		}
		*c = Count{}
		return nil
	}
	*c = Count{Value: value, Known: true}
	return nil
}

// NodeInfo is what a node tells of itself.
type NodeInfo struct {
	Node            string `json:"node"`
	Status          string `json:"node_status"`
	Role            string `json:"role"`
	Version         string `json:"version"`
	Edition         string `json:"edition"`
	OTPRelease      string `json:"otp_release"`
	Connections     Count  `json:"connections"`
	LiveConnections Count  `json:"live_connections"`
}

// Info asks a node about itself: GET /nodes/:node on the node.
func (c *Client) Info(ctx context.Context, node Node, credentials Credentials) (NodeInfo, error) {
	var info NodeInfo
	err := c.do(ctx, node, credentials, call{
		operation: "node", method: http.MethodGet, path: "/api/v5/nodes/" + url.PathEscape(node.Name), timeout: questionTimeout,
	}, &info)
	return info, err
}

// Members asks a node which nodes it sees running in its cluster, itself among them: GET /cluster.
func (c *Client) Members(ctx context.Context, node Node, credentials Credentials) ([]string, error) {
	var cluster struct {
		Nodes []string `json:"nodes"`
	}
	err := c.do(ctx, node, credentials, call{
		operation: "cluster", method: http.MethodGet, path: "/api/v5/cluster", timeout: questionTimeout,
	}, &cluster)
	return cluster.Nodes, err
}

// Licence is what a node tells of its licence (emqx_license_http_api.erl).
type Licence struct {
	// Type is the licence's type; empty where EMQX has no licences, as the open source edition before 5.9.
	Type LicenceType `json:"type"`
}

// LicenceType is a type of EMQX's licences.
type LicenceType string

// The types that EMQX has without a key.
const (
	// LicenceCommunity, from 5.9 on, allows one node.
	LicenceCommunity LicenceType = "community"
	// LicenceTrial is that of enterprise editions before, and allows several.
	LicenceTrial LicenceType = "trial"
)

// Licence asks a node for its licence: GET /license.
func (c *Client) Licence(ctx context.Context, node Node, credentials Credentials) (Licence, error) {
	var licence Licence
	err := c.do(ctx, node, credentials, call{
		operation: "license", method: http.MethodGet, path: "/api/v5/license", timeout: questionTimeout,
	}, &licence)
	if errors.Is(err, ErrNoSuchCall) {
		return Licence{}, nil
	}
	return licence, err
}

// Delayed asks a node how many messages to $delayed/SECONDS/TOPIC it has that are not due (emqx_delayed.erl): they are on no other
// node. GET /nodes/:node/stats. It is not known of a node whose statistics do not tell it.
func (c *Client) Delayed(ctx context.Context, node Node, credentials Credentials) (Count, error) {
	var stats struct {
		Delayed Count `json:"delayed.count"`
	}
	err := c.do(ctx, node, credentials, call{
		operation: "node_stats", method: http.MethodGet, path: "/api/v5/nodes/" + url.PathEscape(node.Name) + "/stats", timeout: questionTimeout,
	}, &stats)
	return stats.Delayed, err
}

// Available asks whether a node takes clients: GET /load_rebalance/availability_check.
func (c *Client) Available(ctx context.Context, node Node) (bool, error) {
	err := c.do(ctx, node, Credentials{}, call{
		operation: "availability_check", method: http.MethodGet, path: "/api/v5/load_rebalance/availability_check", timeout: questionTimeout,
	}, nil)
	if errors.Is(err, ErrEvacuating) {
		return false, nil
	}
	return err == nil, err
}

// ListenerRunning asks whether a listener such as "tcp:default" runs on the node: GET /listeners/:id.
func (c *Client) ListenerRunning(ctx context.Context, node Node, credentials Credentials, id string) (bool, error) {
	var listener struct {
		Running any `json:"running"`
	}
	err := c.do(ctx, node, credentials, call{
		operation: "listener", system: true, method: http.MethodGet, path: "/api/v5/listeners/" + url.PathEscape(id), timeout: questionTimeout,
	}, &listener)
	var failure *APIError
	if errors.As(err, &failure) && failure.Code == "BAD_LISTENER_ID" {
		return false, nil
	}
	return listener.Running == true, err
}

// Moves is what moves clients off a node. Both are nil when nothing does; EMQX has only one of them at a time.
type Moves struct {
	// Evacuation is the node's own.
	Evacuation *EvacuationStatus
	// Donation is what the node gives to a rebalance.
	Donation *Donation
}

// Donation is a rebalance that a node gives clients to, as the node tells it. Meanwhile it refuses new ones.
type Donation struct {
	// State is where the rebalance stands.
	State RebalanceState
	// Coordinator is the node that the rebalance was started on.
	Coordinator string
	// Recipients are the nodes that get the clients.
	Recipients []string
}

// RebalanceState is a state of EMQX's rebalance, by its exact name (emqx_node_rebalance.erl). Not all are named as those of an
// evacuation.
type RebalanceState string

// The states of a rebalance, in their order.
const (
	RebalanceDisabled         RebalanceState = "disabled"
	RebalanceWaitHealthCheck  RebalanceState = "wait_health_check"
	RebalanceEvictingConns    RebalanceState = "evicting_conns"
	RebalanceWaitTakeover     RebalanceState = "wait_takeover"
	RebalanceEvictingSessions RebalanceState = "evicting_sessions"
)

// Moves asks a node what moves clients off it: GET /load_rebalance/status.
func (c *Client) Moves(ctx context.Context, node Node, credentials Credentials) (Moves, error) {
	var answer struct {
		Status      string   `json:"status"`
		Process     string   `json:"process"`
		State       string   `json:"state"`
		ConnRate    int32    `json:"connection_eviction_rate"`
		SessRate    int32    `json:"session_eviction_rate"`
		Recipients  []string `json:"session_recipients"`
		Coordinator string   `json:"coordinator_node"`
		Takers      []string `json:"recipients"`
		Stats       struct {
			InitialConnected int32 `json:"initial_connected"`
			CurrentConnected int32 `json:"current_connected"`
			InitialSessions  int32 `json:"initial_sessions"`
			CurrentSessions  int32 `json:"current_sessions"`
		} `json:"stats"`
	}
	err := c.do(ctx, node, credentials, call{
		operation: "load_rebalance_status", method: http.MethodGet, path: "/api/v5/load_rebalance/status", timeout: questionTimeout,
	}, &answer)
	switch {
	case err != nil || answer.Status != "enabled":
		return Moves{}, err
	case answer.Process == "rebalance":
		return Moves{Donation: &Donation{State: RebalanceState(answer.State), Coordinator: answer.Coordinator, Recipients: answer.Takers}}, nil
	case answer.Process != "evacuation":
		return Moves{}, nil
	}
	return Moves{Evacuation: &EvacuationStatus{
		State: State(answer.State), ConnEvictRate: answer.ConnRate, SessEvictRate: answer.SessRate, Recipients: answer.Recipients,
		InitialConnected: answer.Stats.InitialConnected, InitialSessions: answer.Stats.InitialSessions,
		CurrentConnected: answer.Stats.CurrentConnected, CurrentSessions: answer.Stats.CurrentSessions,
	}}, nil
}

// Start orders a node to evacuate itself. That it does already is success.
func (c *Client) Start(ctx context.Context, node Node, credentials Credentials, evacuation Evacuation) error {
	body := struct {
		WaitHealthCheck int64    `json:"wait_health_check"`
		ConnEvictRate   int32    `json:"conn_evict_rate"`
		SessEvictRate   int32    `json:"sess_evict_rate"`
		WaitTakeover    int64    `json:"wait_takeover"`
		MigrateTo       []string `json:"migrate_to"`
	}{
		// The Services were seen to have left the node before this order is given: there is nothing to wait for.
		WaitHealthCheck: 0,
		ConnEvictRate:   evacuation.ConnEvictRate,
		SessEvictRate:   evacuation.SessEvictRate,
		WaitTakeover:    int64(evacuation.WaitTakeover / time.Second),
		MigrateTo:       evacuation.Recipients,
	}
	err := c.do(ctx, node, credentials, call{
		operation: "evacuation_start", method: http.MethodPost, timeout: orderTimeout, body: body,
		path: "/api/v5/load_rebalance/" + url.PathEscape(node.Name) + "/evacuation/start",
	}, nil)
	if errors.Is(err, ErrAlreadyStarted) {
		return nil
	}
	return err
}

// Stop orders a node to end its evacuation and to serve. That none runs is success.
func (c *Client) Stop(ctx context.Context, node Node, credentials Credentials) error {
	err := c.do(ctx, node, credentials, call{
		operation: "evacuation_stop", method: http.MethodPost, timeout: orderTimeout, body: struct{}{},
		path: "/api/v5/load_rebalance/" + url.PathEscape(node.Name) + "/evacuation/stop",
	}, nil)
	if errors.Is(err, ErrNotStarted) {
		return nil
	}
	return err
}

// ForceLeave orders a node to make the cluster forget another, which has been stopped. That it is no member is success.
func (c *Client) ForceLeave(ctx context.Context, node Node, credentials Credentials, member string) error {
	err := c.do(ctx, node, credentials, call{
		operation: "force_leave", method: http.MethodDelete, timeout: orderTimeout,
		path: "/api/v5/cluster/" + url.PathEscape(member) + "/force_leave",
	}, nil)
	if errors.Is(err, ErrNotMember) {
		return nil
	}
	return err
}

// LoadKeys has all nodes read a file of API keys anew: PUT /configs. It changes nothing of the configuration, and a node without such
// a file goes on with the keys that it has. While a member is frozen it gets no answer, and is carried out when that thaws.
func (c *Client) LoadKeys(ctx context.Context, node Node, credentials Credentials, file string) error {
	return c.do(ctx, node, credentials, call{
		operation: "load_keys", system: true, method: http.MethodPut, path: "/api/v5/configs?mode=merge", timeout: orderTimeout,
		text: fmt.Sprintf("api_key { bootstrap_file = %q }", file),
	}, nil)
}

// Evacuation is how a node is to be evacuated.
type Evacuation struct {
	// ConnEvictRate and SessEvictRate are how many connections and sessions leave the node a second, at least 1 each.
	ConnEvictRate, SessEvictRate int32
	// WaitTakeover is how long clients may take their sessions over by themselves; EMQX counts whole seconds.
	WaitTakeover time.Duration
	// Recipients are the nodes that take its sessions, never empty and never a node that does not answer.
	Recipients []string
}
