package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/broker"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// What nodes say to each other while the configuration changes.
const (
	topicTurn   = "api.turn"
	topicChange = "api.change"
)

// turn asks for the right to change the configuration, or gives it back.
type turn struct {
	Node  string `json:"node"`
	Token string `json:"token"`
	Over  bool   `json:"over,omitempty"`
}

const turnLock = "configuration"

// first is the roots that EMQX changes before all others.
const first = "connectors actions sources bridges rule_engine"

// change applies a change on all nodes, root after root. EMQX's transaction waits for every member: while one is
// frozen nothing changes anywhere, the caller's connection is closed after a minute, and the change is applied when the
// member runs again or is given up.
func (s *Server) change(roots settings.Tree, replace bool) response {
	return s.everywhere(func(ctx context.Context) response {
		var refused *response
		for _, root := range ordered(roots) {
			if r := s.changeRoot(ctx, root, roots[root], replace); r != nil {
				refused = r // the other roots are changed all the same
			}
		}
		if refused != nil {
			return *refused
		}
		return response{status: http.StatusOK, body: []byte{}}
	})
}

func ordered(roots settings.Tree) []string {
	var list []string
	for _, root := range strings.Fields(first) {
		if _, given := roots[root]; given {
			list = append(list, root)
		}
	}
	for _, root := range roots.Keys() {
		if !slices.Contains(list, root) {
			list = append(list, root)
		}
	}
	return list
}

// everywhere runs a change in its turn, when every running member has answered.
func (s *Server) everywhere(do func(context.Context) response) response {
	done := make(chan response, 1)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		over, err := s.takeTurn(s.ctx)
		if err != nil {
			done <- response{hangUp: true}
			return
		}
		defer over()
		each[struct{}](s.ctx, s, s.cfg.Cluster.Others(), topicPing, 0)
		done <- do(s.ctx)
	}()
	timer := time.NewTimer(s.cfg.Timeouts.Change)
	defer timer.Stop()
	select {
	case r := <-done:
		return r
	case <-timer.C:
		return response{hangUp: true, orderly: true}
	}
}

// takeTurn waits until no other change is under way in the cluster. Turns are kept by one node that gives signs of life.
func (s *Server) takeTurn(ctx context.Context) (func(), error) {
	mine := turn{Node: s.cfg.Cluster.Self(), Token: fmt.Sprintf("%s/%d", s.cfg.Cluster.Self(), s.turn.Add(1))}
	for {
		keeper := s.cfg.Cluster.Self()
		for _, node := range s.cfg.Cluster.Running() {
			if s.cfg.Cluster.Responsive(node) {
				keeper = node
				break
			}
		}
		err := s.cfg.Cluster.Call(ctx, keeper, topicTurn, mine, nil)
		if err == nil {
			return func() {
				mine.Over = true
				if err := s.cfg.Cluster.Call(s.ctx, keeper, topicTurn, mine, nil); err != nil {
					s.cfg.Log.Debug("turn", "keeper", keeper, "error", err)
				}
			}, nil
		}
		if ctx.Err() != nil || keeper == s.cfg.Cluster.Self() {
			return nil, fmt.Errorf("wait for the turn to change the configuration: %w", err)
		}
	}
}

func (s *Server) answerTurn(ctx context.Context, t turn) error {
	if t.Over {
		s.turns.Release(turnLock, t.Token)
		return nil
	}
	return s.turns.Acquire(ctx, turnLock, t.Token, t.Node)
}

// PeerDown frees the turn that a node had that has gone.
func (s *Server) PeerDown(node string) { s.turns.ReleaseNode(node) }

// changeRoot changes one root here, where it can fail, and then on the other nodes, one after the other.
func (s *Server) changeRoot(ctx context.Context, root string, value any, replace bool) *response {
	before := s.effective()
	next := before.Clone()
	next[root] = s.cfg.Config.Preview(root, value, replace)
	reason := ""
	if root == "license" {
		if key := next.Text("", "license", "key"); key != before.Text("", "license", "key") && !s.cfg.Licence.Accepts(key) {
			reason = badLicenceReason
		}
	}
	if reason == "" {
		if err := s.adopt(root, before, next); err != nil {
			reason = err.Error()
			var failed *ListenError
			if errors.As(err, &failed) {
				reason = failed.Erlang()
				s.failed.Store(failed.ID, true)
			}
		}
	}
	if reason != "" {
		refused := configErrors(mergeFailure(root, before, settings.Tree{root: settings.Fill(root, value)}, reason))
		return &refused
	}
	change, err := s.cfg.Config.Commit(root, next[root])
	if err != nil {
		s.cfg.Log.Error("configuration", "error", err)
	}
	s.tell(ctx, change)
	return nil
}

const badLicenceReason = `#{parse_results =>
              [#{error => bad_license_format,
                 module => emqx_license_parser_v20220101}]}`

// tell gives a change to the other nodes and waits until each has it, or is gone.
func (s *Server) tell(ctx context.Context, change Change) {
	for _, node := range s.cfg.Cluster.Others() {
		if err := s.cfg.Cluster.Call(ctx, node, topicChange, change, nil); err != nil {
			s.cfg.Log.Warn("configuration", "node", node, "error", err)
		}
	}
}

// adopt acts on what differs between two configurations after a change of a root, or of any.
func (s *Server) adopt(root string, before, after settings.Tree) error {
	if err := s.cfg.Listeners.Apply(before, after); err != nil {
		return err
	}
	if key := after.Text("", "license", "key"); key != before.Text("", "license", "key") {
		s.cfg.Licence.Set(key)
	}
	s.cfg.Broker.SetLimits(LimitsOf(after))
	if root == "api_key" {
		s.cfg.ReadKeys(after)
	}
	s.moveTo(dashboardPort(after))
	s.failed.Range(func(id, _ any) bool {
		if s.cfg.Listeners.Running(id.(string)) {
			s.failed.Delete(id)
		}
		return true
	})
	return nil
}

// Learn takes a change that another node made, or all that this node has missed.
func (s *Server) Learn(change Change) error {
	before := s.effective()
	news, err := s.cfg.Config.Learn(change)
	if err != nil || !news {
		return err
	}
	if err := s.adopt(change.Root, before, s.effective()); err != nil {
		s.cfg.Log.Error("listeners after a change of the configuration", "error", err)
	}
	return nil
}

// mergeFailure is what EMQX says when a part of it refuses its new configuration.
func mergeFailure(root string, before, change settings.Tree, reason string) string {
	return "The effective configurations:\n```\n" + settings.Tree{root: shownRoot(root, before)}.Render() +
		"```\n\nTry to merge with:\n```\n" + settings.Tree{root: shownRoot(root, change)}.Render() +
		"```\n\nCan't merge the new configurations!\nRoot key: " + root + "\nReason: " + reason + "\n"
}

func shownRoot(root string, tree settings.Tree) any {
	if root != "listeners" {
		return tree[root]
	}
	full := settings.Tree{}
	for _, l := range tree.Listeners() {
		full.Set(l.Config, l.Type, l.Name)
	}
	return full
}

func decodeTo[T any](topic string, body []byte, do func(T) error) ([]byte, error) {
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, fmt.Errorf("decode %s: %w", topic, err)
	}
	return []byte("{}"), do(v)
}

// LimitsOf is what a configuration says about clients' limits.
func LimitsOf(tree settings.Tree) broker.Limits {
	number := func(key string, most uint64) uint64 {
		value, _ := tree.Get("mqtt", key)
		n, _ := settings.Bytes(value)
		return min(n, most)
	}
	limits := broker.Limits{
		MaxPacketBytes: uint32(number("max_packet_size", math.MaxUint32)), //nolint:gosec // bounded
		ReceiveMaximum: uint16(number("max_inflight", math.MaxUint16)),    //nolint:gosec // bounded
		MaxQoS:         byte(number("max_qos_allowed", 2)),                //nolint:gosec // bounded
	}
	if _, given := tree.Get("mqtt", "max_qos_allowed"); !given {
		limits.MaxQoS = 2
	}
	return limits
}
