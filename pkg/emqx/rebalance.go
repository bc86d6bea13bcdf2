package emqx

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Rebalance is how the clients of some nodes are to be evened out.
type Rebalance struct {
	// ConnEvictRate and SessEvictRate are how many connections and sessions leave each donor a second, at least 1 each.
	ConnEvictRate, SessEvictRate int32
	// WaitHealthCheck and WaitTakeover are, in seconds, how long EMQX waits before it closes connections, and before it moves the
	// sessions of those who did not come back.
	WaitHealthCheck, WaitTakeover int32
	// The thresholds say what is even enough: the absolute ones at least 1, the relative ones decimal numbers above 1.
	AbsConnThreshold, AbsSessThreshold int32
	RelConnThreshold, RelSessThreshold string
	// Nodes are those that take part, as donors or recipients.
	Nodes []string
}

// StartRebalance orders a node to rebalance, as the coordinator. That it does already is success. ErrNothingToBalance tells that all
// nodes are within the thresholds, ErrInvalid that EMQX will never take this order.
func (c *Client) StartRebalance(ctx context.Context, node Node, credentials Credentials, rebalance Rebalance) error {
	relConn, err := strconv.ParseFloat(rebalance.RelConnThreshold, 64)
	if err != nil {
		return fmt.Errorf("%w: relConnThreshold: %w", ErrInvalid, err)
	}
	relSess, err := strconv.ParseFloat(rebalance.RelSessThreshold, 64)
	if err != nil {
		return fmt.Errorf("%w: relSessThreshold: %w", ErrInvalid, err)
	}
	body := map[string]any{
		"conn_evict_rate": rebalance.ConnEvictRate, "sess_evict_rate": rebalance.SessEvictRate,
		"wait_health_check": rebalance.WaitHealthCheck, "wait_takeover": rebalance.WaitTakeover,
		"abs_conn_threshold": rebalance.AbsConnThreshold, "abs_sess_threshold": rebalance.AbsSessThreshold,
		"rel_conn_threshold": relConn, "rel_sess_threshold": relSess, "nodes": rebalance.Nodes,
	}
	err = c.do(ctx, node, credentials, call{
		operation: "rebalance_start", method: http.MethodPost, timeout: orderTimeout, body: body,
		path: "/api/v5/load_rebalance/" + url.PathEscape(node.Name) + "/start",
	}, nil)
	if errors.Is(err, ErrAlreadyStarted) {
		return nil
	}
	return err
}

// StopRebalance orders a node to end the rebalance that it coordinates. That it coordinates none is success.
func (c *Client) StopRebalance(ctx context.Context, node Node, credentials Credentials) error {
	err := c.do(ctx, node, credentials, call{
		operation: "rebalance_stop", method: http.MethodPost, timeout: orderTimeout, body: struct{}{},
		path: "/api/v5/load_rebalance/" + url.PathEscape(node.Name) + "/stop",
	}, nil)
	if errors.Is(err, ErrNotStarted) {
		return nil
	}
	return err
}
