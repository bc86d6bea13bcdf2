package evacuate

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// API is what the driver needs of a Client. Tests put another broker behind it.
type API interface {
	Info(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (emqx.NodeInfo, error)
	Members(ctx context.Context, node emqx.Node, credentials emqx.Credentials) ([]string, error)
	Available(ctx context.Context, node emqx.Node) (bool, error)
	ListenerRunning(ctx context.Context, node emqx.Node, credentials emqx.Credentials, id string) (bool, error)
	Evacuation(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (*emqx.EvacuationStatus, error)
	Start(ctx context.Context, node emqx.Node, credentials emqx.Credentials, evacuation emqx.Evacuation) error
	Stop(ctx context.Context, node emqx.Node, credentials emqx.Credentials) error
	ForceLeave(ctx context.Context, node emqx.Node, credentials emqx.Credentials, member string) error
}

// Config is what a driver is made of.
type Config struct {
	// API is how nodes are reached.
	API API
	// Credentials reads the API key. It is called when none is known and when EMQX refuses the known one.
	Credentials func(context.Context) (emqx.Credentials, error)
	// Changed is called, from any goroutine, when the observation changed in a way that may matter to a decision.
	Changed func()
	// Panicked is told of a panic in one of the driver's goroutines, which goes on; nil when nobody wants to know.
	Panicked func()
	// Logger is where orders and their failures are logged.
	Logger logr.Logger
	// BusyInterval and IdleInterval are the times between two askings of a node; zero means 1 s and 30 s.
	BusyInterval, IdleInterval time.Duration
}

// Driver brings the EMQX of one cluster to its Goal and observes it.
type Driver struct {
	config      Config
	began       time.Time
	observation atomic.Pointer[Observation]
	credentials credentialCache

	mu      sync.Mutex
	goal    Goal
	nodes   map[string]*nodeLoop
	leaving context.CancelFunc // Of the goroutine that makes members leave; nil when there is none.

	ctx    context.Context //nolint:containedctx // It is the life of the driver's goroutines, which Pursue starts.
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// NewDriver returns a driver without a goal. Close ends it.
func NewDriver(config Config) *Driver {
	if config.BusyInterval == 0 {
		config.BusyInterval = time.Second
	}
	if config.IdleInterval == 0 {
		config.IdleInterval = 30 * time.Second
	}
	d := &Driver{config: config, began: time.Now(), nodes: map[string]*nodeLoop{}, credentials: credentialCache{read: config.Credentials}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.observation.Store(&Observation{})
	return d
}

// Observation returns what was last seen. It never waits.
func (d *Driver) Observation() Observation { return *d.observation.Load() }

// Credentials returns the API key that the driver goes by; false while it has not read any.
func (d *Driver) Credentials() (emqx.Credentials, bool) { return d.credentials.peek() }

// Close ends the driver's goroutines and waits for them. Evacuations that run are left as they are.
func (d *Driver) Close() {
	d.cancel()
	d.wait.Wait()
}

// guarded has a panic be an error of this cluster: it must not end the operator for all others.
func (d *Driver) guarded(work func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("the operator has a bug: %v", value)
			d.config.Logger.Error(err, "Recovered from a panic", "stack", string(debug.Stack()))
			if d.config.Panicked != nil {
				d.config.Panicked()
			}
		}
	}()
	return work()
}

// Pursue sets the goal and returns at once. Nodes that are no longer named are forgotten, also from the observation.
func (d *Driver) Pursue(goal Goal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return
	}
	wanted := map[string]bool{}
	for _, node := range goal.Nodes {
		wanted[node.Name] = true
		d.pursueNode(node, goal.Busy)
	}
	for name, loop := range d.nodes {
		if !wanted[name] {
			loop.cancel()
			delete(d.nodes, name)
		}
	}
	if !slices.Equal(goal.Absent, d.goal.Absent) {
		d.pursueAbsent(goal.Absent)
	}
	d.goal = goal
	d.prune(wanted)
}

// pursueNode hands a node's goal to its goroutine, which it starts when needed. A node that moved, or that was started
// again, is asked anew: nothing is known of it.
func (d *Driver) pursueNode(goal NodeGoal, busy bool) {
	loop := d.nodes[goal.Name]
	if loop != nil && (loop.goal.URL != goal.URL || loop.goal.Life != goal.Life) {
		loop.cancel()
		loop = nil
		d.forget(goal.Name)
	}
	if loop == nil {
		ctx, cancel := context.WithCancel(d.ctx)
		loop = &nodeLoop{ctx: ctx, goal: goal, busy: busy, kick: make(chan struct{}, 1), ordered: make(chan error, 1), cancel: cancel}
		loop.ask()
		d.nodes[goal.Name] = loop
		d.wait.Go(func() { d.runNode(loop) })
		return
	}
	if loop.goal.equal(goal) && loop.busy == busy {
		return
	}
	loop.goal, loop.busy = goal, busy
	loop.ask()
	d.stopAtOnce(loop, d.observation.Load().Nodes[goal.Name])
	select {
	case loop.kick <- struct{}{}:
	default: // It has not looked at the last change yet and will see this one, too.
	}
}

// forget drops what is known of a node.
func (d *Driver) forget(name string) {
	old := d.observation.Load()
	next := Observation{Nodes: maps.Clone(old.Nodes), Left: old.Left, Failure: old.Failure}
	delete(next.Nodes, name)
	d.observation.Store(&next)
}

// prune drops what is no longer asked for from the observation, and has it show what is about to be ordered, so that the
// next plan counts it whether it has been seen to happen or not.
func (d *Driver) prune(wanted map[string]bool) {
	old := d.observation.Load()
	next := Observation{Nodes: map[string]NodeObservation{}, Left: map[string]bool{}, Failure: old.Failure}
	for name := range wanted {
		node := old.Nodes[name]
		loop := d.nodes[name]
		node.Life, node.AskedConnRate, node.AskedSessRate = loop.goal.Life, loop.askedConnRate, loop.askedSessRate
		if _, seen := old.Nodes[name]; seen || node.AskedConnRate > 0 {
			next.Nodes[name] = node
		}
	}
	for name := range old.Left {
		if slices.Contains(d.goal.Absent, name) {
			next.Left[name] = true
		}
	}
	if len(d.goal.Absent) == 0 {
		next.Failure = ""
	}
	d.observation.Store(&next)
}

// publish makes an observation of a node part of the cluster's and tells when that may matter.
func (d *Driver) publish(loop *nodeLoop, node NodeObservation) {
	d.mu.Lock()
	name := loop.goal.Name
	if d.nodes[name] != loop {
		d.mu.Unlock()
		return // Another goroutine, or none, speaks for this node now.
	}
	old := d.observation.Load()
	next := Observation{Nodes: make(map[string]NodeObservation, len(old.Nodes)+1), Left: old.Left, Failure: old.Failure}
	for other, observed := range old.Nodes {
		next.Nodes[other] = observed
	}
	before, existed := old.Nodes[name]
	node = loop.settle(node)
	next.Nodes[name] = node
	d.observation.Store(&next)
	d.mu.Unlock()
	if !existed || differs(before, node) {
		d.config.Changed()
	}
}

// differs tells whether two observations of a node differ in what decisions and status are made of.
func differs(a, b NodeObservation) bool {
	return a.Failure != b.Failure || a.OrderFailure != b.OrderFailure || a.Seen.IsZero() != b.Seen.IsZero() || a.Info != b.Info || a.Available != b.Available ||
		a.AskedConnRate != b.AskedConnRate || a.AskedSessRate != b.AskedSessRate || !slices.Equal(a.Members, b.Members) ||
		!sameListeners(a.Listeners, b.Listeners) || !sameStatus(a.Evacuation, b.Evacuation)
}

func sameListeners(a, b map[string]bool) bool {
	if len(a) != len(b) {
		return false
	}
	for id, running := range a {
		if b[id] != running {
			return false
		}
	}
	return true
}

func sameStatus(a, b *emqx.EvacuationStatus) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	recipients := slices.Equal(x.Recipients, y.Recipients)
	x.Recipients, y.Recipients = nil, nil
	return recipients && x.State == y.State && x.ConnEvictRate == y.ConnEvictRate && x.SessEvictRate == y.SessEvictRate &&
		x.InitialConnected == y.InitialConnected && x.InitialSessions == y.InitialSessions &&
		x.CurrentConnected == y.CurrentConnected && x.CurrentSessions == y.CurrentSessions
}
