package evacuate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/broker"
)

// What services of two nodes say to each other.
const (
	topicStart     = "evacuate.start"
	topicStop      = "evacuate.stop"
	topicStatus    = "evacuate.status"
	topicAvailable = "evacuate.available"
)

const ownerEvacuation = "evacuation"

// Bus is how this node talks with the others.
type Bus interface {
	Self() string
	Running() []string
	Others() []string
	Call(ctx context.Context, node, topic string, question, answer any) error
}

// Timeouts bounds what is asked of other nodes. Zero values stand for the defaults.
type Timeouts struct {
	Recipients time.Duration // whether a recipient is available; default 44 s, as recorded of a frozen one
	Gather     time.Duration // one of the three rounds of global status; default 18 s: together over 50 s, as recorded
}

// Config is what a Service needs.
type Config struct {
	Bus      Bus
	Broker   *broker.Broker
	DataDir  string // where an evacuation is saved
	Timeouts Timeouts
	// RetryFailed keeps a session whose move failed and tries again, as before 5.9; later versions discard it.
	RetryFailed bool
	// RPCTimeouts tells the rebalance's two timeouts in its status, as since 5.9.
	RPCTimeouts bool
	Log         *slog.Logger
}

// Service is evacuation and rebalancing on one node.
type Service struct {
	cfg   Config
	agent *Agent

	mail   chan func()
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	machine   Machine // touched by run alone
	donor     donor
	coordMu   sync.Mutex
	coord     *coordinator
	coordDone chan struct{}
}

// New starts the service; an evacuation that was going on when the node stopped goes on.
func New(cfg Config) (*Service, error) {
	if cfg.Timeouts.Recipients == 0 {
		cfg.Timeouts.Recipients = 44 * time.Second
	}
	if cfg.Timeouts.Gather == 0 {
		cfg.Timeouts.Gather = 18 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{cfg: cfg, ctx: ctx, cancel: cancel, mail: make(chan func())}
	s.agent = NewAgent(gate{cfg.Broker})
	if cfg.DataDir != "" {
		options, found, err := load(cfg.DataDir)
		if err != nil {
			cancel()
			return nil, err
		}
		if found {
			cfg.Log.Warn("Node evacuation is enabled. The node will not receive connections.")
			if err := s.agent.Enable(ownerEvacuation); err != nil {
				cancel()
				return nil, fmt.Errorf("restore the evacuation: %w", err)
			}
			s.machine.Restore(time.Now(), options, s)
		}
	}
	s.wg.Add(1)
	go s.run()
	return s, nil
}

// Close stops the service; a saved evacuation stays saved.
func (s *Service) Close() {
	s.cancel()
	s.coordMu.Lock()
	done := s.coordDone
	s.coordMu.Unlock()
	if done != nil {
		<-done
	}
	s.wg.Wait()
}

// gate is the broker's door as the agent uses it.
type gate struct{ b *broker.Broker }

// Open lets clients in.
func (g gate) Open() { g.b.Refuse(nil) }

// Shut turns clients away.
func (g gate) Shut(ref string) { g.b.Refuse(&broker.Refusal{ServerReference: ref}) }

// run does one thing after the other: requests, and the steps of the machine when they are due.
func (s *Service) run() {
	defer s.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		if at := s.machine.Due(); !at.IsZero() {
			timer.Reset(time.Until(at))
			due = timer.C
		}
		select {
		case <-s.ctx.Done():
			return
		case f := <-s.mail:
			f()
		case <-due:
			s.step()
		}
	}
}

func (s *Service) step() {
	before := s.machine.State()
	s.machine.Step(time.Now, s)
	if after := s.machine.State(); after != before {
		s.cfg.Log.Info("evacuation", "state", after)
	}
}

var errStopping = errors.New("node is stopping")

// do runs f between two steps.
func (s *Service) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case s.mail <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.ctx.Done():
		return errStopping
	}
}

func (s *Service) start(ctx context.Context, o Options) error {
	var failed error
	err := s.do(ctx, func() {
		if s.machine.State() != Disabled {
			failed = ErrAlreadyStarted
			return
		}
		if failed = s.agent.Enable(ownerEvacuation); failed != nil {
			return
		}
		failed = s.machine.Start(time.Now(), o, s)
		if s.cfg.DataDir != "" && failed == nil {
			if err := save(s.cfg.DataDir, o); err != nil {
				s.cfg.Log.Error("evacuation", "error", err)
			}
		}
	})
	if err != nil {
		return err
	}
	if failed == nil {
		s.cfg.Log.Info("evacuation started", "connEvictRate", o.ConnRate, "sessEvictRate", o.SessRate, "migrateTo", o.MigrateTo)
	}
	return failed
}

func (s *Service) stop(ctx context.Context) error {
	var failed error
	err := s.do(ctx, func() {
		if failed = s.machine.Stop(); failed != nil {
			return
		}
		s.agent.Disable(ownerEvacuation)
		if s.cfg.DataDir != "" {
			if err := clearSaved(s.cfg.DataDir); err != nil {
				s.cfg.Log.Error("evacuation", "error", err)
			}
		}
	})
	if err != nil {
		return err
	}
	if failed == nil {
		s.cfg.Log.Info("evacuation stopped")
	}
	return failed
}

// Live is the number of connected clients.
func (s *Service) Live() int { return s.cfg.Broker.Live() }

// Sessions is the number of sessions.
func (s *Service) Sessions() int { return s.cfg.Broker.Sessions() }

// Admit lets clients in.
func (s *Service) Admit() { s.agent.gate.Open() }

// Refuse turns clients away.
func (s *Service) Refuse(ref string) { s.agent.gate.Shut(ref) }

// EvictConnections disconnects clients.
func (s *Service) EvictConnections(n int, ref string) { s.cfg.Broker.EvictConnections(n, ref) }

// Recipients lists those of the given nodes, or of all others, that take sessions now. With given nodes the order is
// the reverse of theirs, as EMQX builds it.
func (s *Service) Recipients(migrateTo []string) []string {
	candidates := s.cfg.Bus.Others()
	if migrateTo != nil {
		running := map[string]bool{}
		for _, node := range candidates {
			running[node] = true
		}
		candidates = nil
		for i := len(migrateTo) - 1; i >= 0; i-- {
			if running[migrateTo[i]] {
				candidates = append(candidates, migrateTo[i])
			}
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timeouts.Recipients)
	defer cancel()
	available := s.availableOf(ctx, candidates)
	recipients := []string{}
	for _, node := range candidates {
		if available[node] {
			recipients = append(recipients, node)
		}
	}
	return recipients
}

// availableOf asks nodes whether they take sessions. One that does not answer before ctx ends does not.
func (s *Service) availableOf(ctx context.Context, nodes []string) map[string]bool {
	var mu sync.Mutex
	var wg sync.WaitGroup
	available := map[string]bool{}
	for _, node := range nodes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var yes bool
			if err := s.cfg.Bus.Call(ctx, node, topicAvailable, struct{}{}, &yes); err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			available[node] = yes
		}()
	}
	wg.Wait()
	return available
}

// MoveSessions moves sessions one after the other, each to a random recipient.
func (s *Service) MoveSessions(n int, recipients []string) {
	s.moveSessions(s.cfg.Broker.SessionIDs(n, false), recipients)
}

func (s *Service) moveSessions(ids, recipients []string) {
	for _, id := range ids {
		if s.ctx.Err() != nil {
			return
		}
		recipient := recipients[rand.IntN(len(recipients))] //nolint:gosec // a lot, no secret
		err := s.cfg.Broker.MoveSession(s.ctx, id, recipient, s.cfg.RetryFailed)
		if err != nil {
			s.cfg.Log.Warn("session not moved", "client", id, "to", recipient, "error", err)
		}
	}
}

// Enabled reports whether the node is being evacuated or is a donor: it is not available.
func (s *Service) Enabled() bool { return s.agent.Enabled() }

// Call answers another node's service, or this node's own.
func (s *Service) Call(ctx context.Context, topic string, body []byte) ([]byte, error) {
	switch topic {
	case topicAvailable:
		return json.Marshal(!s.agent.Enabled())
	case topicStart:
		var o Options
		if err := json.Unmarshal(body, &o); err != nil {
			return nil, fmt.Errorf("decode %s: %w", topic, err)
		}
		return answer(s.start(ctx, o))
	case topicStop:
		return answer(s.stop(ctx))
	case topicStatus:
		status, err := s.localStatus(ctx)
		if err != nil {
			return nil, err
		}
		return json.Marshal(status)
	default:
		return s.callRebalance(ctx, topic, body)
	}
}

// outcome carries the errors that are part of the contract; others fail the call.
type outcome struct {
	Error string `json:"error,omitempty"`
}

func answer(err error) ([]byte, error) {
	switch {
	case err == nil:
		return json.Marshal(outcome{})
	case errors.Is(err, ErrAlreadyStarted), errors.Is(err, ErrNotStarted), errors.Is(err, ErrBusy), errors.Is(err, ErrNothing):
		return json.Marshal(outcome{Error: err.Error()})
	default:
		return nil, err
	}
}
