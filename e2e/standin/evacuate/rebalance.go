package evacuate

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// What coordinator and donors say to each other.
const (
	topicRebalanceStart = "rebalance.start"
	topicRebalanceStop  = "rebalance.stop"
	topicCounts         = "rebalance.counts"
	topicDonorEnable    = "rebalance.enable"
	topicDonorRefuse    = "rebalance.refuse"
	topicDonorDisable   = "rebalance.disable"
	topicDonorConns     = "rebalance.evict_connections"
	topicDonorSessions  = "rebalance.evict_sessions"
	topicCoordination   = "rebalance.coordination"
)

const ownerRebalance = "rebalance"

// ErrNothing is returned when all nodes are within the thresholds; its text is EMQX's.
var ErrNothing = errors.New("nothing_to_balance")

// Phase is where a rebalance is, by EMQX's name. Its waits are not named as those of an evacuation.
type Phase string

const (
	rebWaitHealthCheck  Phase = "wait_health_check"
	rebEvictingConns    Phase = "evicting_conns"
	rebWaitTakeover     Phase = "wait_takeover"
	rebEvictingSessions Phase = "evicting_sessions"
)

// RebalanceOptions is what a rebalance is started with.
type RebalanceOptions struct {
	WaitHealthCheck time.Duration `json:"wait_health_check"`
	WaitTakeover    time.Duration `json:"wait_takeover"`
	ConnRate        int           `json:"conn_evict_rate"`
	SessRate        int           `json:"sess_evict_rate"`
	ConnRPC         time.Duration `json:"conn_evict_rpc_timeout"`
	SessRPC         time.Duration `json:"sess_evict_rpc_timeout"`
	AbsConn         int           `json:"abs_conn_threshold"`
	RelConn         float64       `json:"rel_conn_threshold"`
	AbsSess         int           `json:"abs_sess_threshold"`
	RelSess         float64       `json:"rel_sess_threshold"`
	Nodes           []string      `json:"nodes"` // nil: all running nodes
}

// RebalanceDefaults is what EMQX takes for what a request leaves out.
func RebalanceDefaults() RebalanceOptions {
	return RebalanceOptions{
		WaitHealthCheck: time.Minute, WaitTakeover: time.Minute, ConnRate: 500, SessRate: 500,
		ConnRPC: 15 * time.Second, SessRPC: 15 * time.Second, AbsConn: 1000, RelConn: 1.1, AbsSess: 1000, RelSess: 1.1,
	}
}

// Float is a number that EMQX prints with a decimal point, whole or not.
type Float float64

// MarshalJSON prints 2 as 2.0.
func (f Float) MarshalJSON() ([]byte, error) {
	s := strconv.FormatFloat(float64(f), 'f', -1, 64)
	if float64(f) == float64(int64(f)) {
		s = strconv.FormatInt(int64(f), 10) + ".0"
	}
	return []byte(s), nil
}

// Rebalance is what global status tells of one.
type Rebalance struct {
	Node        string   `json:"node"`
	State       Phase    `json:"state"`
	Coordinator string   `json:"coordinator_node"`
	Donors      []string `json:"donors"`
	Recipients  []string `json:"recipients"`
	ConnRate    int      `json:"connection_eviction_rate"`
	SessRate    int      `json:"session_eviction_rate"`
	ConnRPC     *int64   `json:"connection_eviction_rpc_timeout,omitempty"` // milliseconds
	SessRPC     *int64   `json:"session_eviction_rpc_timeout,omitempty"`
	DonorConn   *Float   `json:"donor_conn_avg,omitempty"`
	ConnGoal    *Float   `json:"connection_goal,omitempty"`
	DonorSess   *Float   `json:"donor_sess_avg,omitempty"`
	SessGoal    *Float   `json:"disconnected_session_goal,omitempty"`
}

// coordinator runs one rebalance.
type coordinator struct {
	s      *Service
	o      RebalanceOptions
	cancel context.CancelFunc

	mu     sync.Mutex
	status Rebalance
}

func (s *Service) counts() counts {
	live := s.cfg.Broker.Live()
	return counts{Live: live, Disconnected: max(0, s.cfg.Broker.Sessions()-live)}
}

// startRebalance begins a rebalance that this node coordinates.
func (s *Service) startRebalance(ctx context.Context, o RebalanceOptions) error {
	s.coordMu.Lock()
	defer s.coordMu.Unlock()
	if s.coord != nil {
		return ErrAlreadyStarted
	}
	nodes := o.Nodes
	if nodes == nil {
		nodes = s.cfg.Bus.Running()
	}
	c := &coordinator{s: s, o: o, status: Rebalance{
		Node: s.cfg.Bus.Self(), Coordinator: s.cfg.Bus.Self(), State: rebWaitHealthCheck, ConnRate: o.ConnRate, SessRate: o.SessRate,
	}}
	if s.cfg.RPCTimeouts {
		connRPC, sessRPC := o.ConnRPC.Milliseconds(), o.SessRPC.Milliseconds()
		c.status.ConnRPC, c.status.SessRPC = &connRPC, &sessRPC
	}
	if err := c.choose(ctx, nodes); err != nil {
		return err
	}
	for i, node := range c.status.Donors {
		if err := s.command(ctx, node, topicDonorEnable, s.cfg.Bus.Self()); err != nil {
			for _, undo := range c.status.Donors[:i] {
				_ = s.command(ctx, undo, topicDonorDisable, struct{}{}) // it resets itself when this node goes
			}
			return err
		}
	}
	runCtx, cancel := context.WithCancel(s.ctx)
	c.cancel = cancel
	done := make(chan struct{})
	s.coord, s.coordDone = c, done
	go func() {
		defer close(done)
		c.run(runCtx)
	}()
	return nil
}

func (s *Service) stopRebalance() error {
	s.coordMu.Lock()
	c, done := s.coord, s.coordDone
	s.coordMu.Unlock()
	if c == nil {
		return ErrNotStarted
	}
	c.cancel()
	<-done
	return nil
}

// choose divides the nodes: those with at least the average number of clients give, the others take.
func (c *coordinator) choose(ctx context.Context, nodes []string) error {
	available := c.s.availableOf(ctx, nodes)
	by := map[string]counts{}
	total := 0
	for _, node := range nodes {
		if !available[node] {
			continue
		}
		var n counts
		if err := c.s.cfg.Bus.Call(ctx, node, topicCounts, struct{}{}, &n); err != nil {
			return fmt.Errorf("count the clients of %s: %w", node, err)
		}
		by[node] = n
		total += n.Live
	}
	c.status.Donors, c.status.Recipients = []string{}, []string{}
	for i := len(nodes) - 1; i >= 0; i-- { // EMQX builds both lists from behind
		node := nodes[i]
		n, ok := by[node]
		switch {
		case !ok:
		case n.Live*len(by) >= total:
			c.status.Donors = append(c.status.Donors, node)
		default:
			c.status.Recipients = append(c.status.Recipients, node)
		}
	}
	if len(c.status.Recipients) == 0 || len(c.status.Donors) == 0 {
		return ErrNothing
	}
	donors, recipients := average(by, c.status.Donors), average(by, c.status.Recipients)
	if within(donors.live, recipients.live, c.o.AbsConn, c.o.RelConn) &&
		within(donors.gone, recipients.gone, c.o.AbsSess, c.o.RelSess) {
		return ErrNothing
	}
	return nil
}

type averages struct{ live, gone float64 }

func average(by map[string]counts, nodes []string) averages {
	var a averages
	for _, node := range nodes {
		a.live += float64(by[node].Live)
		a.gone += float64(by[node].Disconnected)
	}
	n := float64(len(nodes))
	return averages{a.live / n, a.gone / n}
}

func within(donor, recipient float64, abs int, rel float64) bool {
	return donor <= recipient+float64(abs) || donor <= recipient*rel
}

func (c *coordinator) setState(state Phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.State = state
	c.s.cfg.Log.Info("rebalance", "state", state)
}

// run goes through the states. At the end, whatever the reason, it gives the donors back.
func (c *coordinator) run(ctx context.Context) {
	defer func() {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		for _, node := range c.status.Donors {
			_ = c.s.command(back, node, topicDonorDisable, struct{}{}) // a donor without coordinator resets itself
		}
		c.cancel()
		c.s.coordMu.Lock()
		defer c.s.coordMu.Unlock()
		c.s.coord = nil
	}()
	if !pause(ctx, c.o.WaitHealthCheck) || !c.eachDonor(ctx, topicDonorRefuse, struct{}{}) {
		return
	}
	if !c.evict(ctx, true) {
		return
	}
	c.setState(rebWaitTakeover)
	if !pause(ctx, c.o.WaitTakeover) {
		return
	}
	c.evict(ctx, false)
}

func (c *coordinator) eachDonor(ctx context.Context, topic string, question any) bool {
	for _, node := range c.status.Donors {
		if err := c.s.command(ctx, node, topic, question); err != nil {
			c.s.cfg.Log.Error("rebalance ends: a donor failed", "node", node, "error", err)
			return false
		}
	}
	return true
}

// evict asks the donors for evictions, a round a tick, until they are within the thresholds. It reports false when
// the rebalance must end.
func (c *coordinator) evict(ctx context.Context, conns bool) bool {
	for {
		by := map[string]counts{}
		for _, node := range append(append([]string{}, c.status.Donors...), c.status.Recipients...) {
			var n counts
			if err := c.s.cfg.Bus.Call(ctx, node, topicCounts, struct{}{}, &n); err != nil {
				c.s.cfg.Log.Error("rebalance ends: a node failed", "node", node, "error", err)
				return false
			}
			by[node] = n
		}
		donors, recipients := average(by, c.status.Donors), average(by, c.status.Recipients)
		if conns {
			if within(donors.live, recipients.live, c.o.AbsConn, c.o.RelConn) {
				return true
			}
			c.note(rebEvictingConns, &c.status.DonorConn, donors.live, &c.status.ConnGoal, recipients.live)
			if !c.eachDonor(ctx, topicDonorConns, c.o.ConnRate) {
				return false
			}
		} else {
			if within(donors.gone, recipients.gone, c.o.AbsSess, c.o.RelSess) {
				return true
			}
			c.note(rebEvictingSessions, &c.status.DonorSess, donors.gone, &c.status.SessGoal, recipients.gone)
			if !c.eachDonor(ctx, topicDonorSessions, sessionOrder{N: c.o.SessRate, Recipients: c.status.Recipients}) {
				return false
			}
		}
		if !pause(ctx, tick) {
			return false
		}
	}
}

// note sets the state and the averages together.
func (c *coordinator) note(state Phase, donor **Float, d float64, goal **Float, g float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.State = state
	df, gf := Float(d), Float(g)
	*donor, *goal = &df, &gf
}

type sessionOrder struct {
	N          int      `json:"n"`
	Recipients []string `json:"recipients"`
}

// StartRebalanceOn starts a rebalance that node coordinates. Errors whose text is EMQX's are ErrAlreadyStarted,
// ErrBusy and ErrNothing.
func (s *Service) StartRebalanceOn(ctx context.Context, node string, o RebalanceOptions) error {
	return s.command(ctx, node, topicRebalanceStart, o)
}

// StopRebalanceOn stops the rebalance that node coordinates. The error whose text is EMQX's is ErrNotStarted.
func (s *Service) StopRebalanceOn(ctx context.Context, node string) error {
	return s.command(ctx, node, topicRebalanceStop, struct{}{})
}
