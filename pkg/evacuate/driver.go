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
	Licence(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (emqx.Licence, error)
	Delayed(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (emqx.Count, error)
	ListenerRunning(ctx context.Context, node emqx.Node, credentials emqx.Credentials, id string) (bool, error)
	Moves(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (emqx.Moves, error)
	Start(ctx context.Context, node emqx.Node, credentials emqx.Credentials, evacuation emqx.Evacuation) error
	Stop(ctx context.Context, node emqx.Node, credentials emqx.Credentials) error
	StartRebalance(ctx context.Context, node emqx.Node, credentials emqx.Credentials, rebalance emqx.Rebalance) error
	StopRebalance(ctx context.Context, node emqx.Node, credentials emqx.Credentials) error
	ForceLeave(ctx context.Context, node emqx.Node, credentials emqx.Credentials, member string) error
	Storage(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (emqx.Storage, error)
	SetReplicas(ctx context.Context, node emqx.Node, credentials emqx.Credentials, database string, sites []string) error
	LoadKeys(ctx context.Context, node emqx.Node, credentials emqx.Credentials, file string) error
	ForgetSite(ctx context.Context, node emqx.Node, credentials emqx.Credentials, site string) error
}

// Config is what a driver is made of.
type Config struct {
	// API is how nodes are reached.
	API API
	// Credentials reads the API keys that EMQX may know the operator by, in the order in which they are tried. It is called when
	// none is known and when EMQX refuses all.
	Credentials func(context.Context) ([]emqx.Credentials, error)
	// Changed is called, from any goroutine, when the observation changed in a way that may matter to a decision.
	Changed func()
	// Panicked is told of a panic in one of the driver's goroutines, which goes on; nil when nobody wants to know.
	Panicked func()
	// Logger is where orders and their failures are logged.
	Logger logr.Logger
	// BusyInterval and IdleInterval are the times between two askings of a node; zero means 1 s and 30 s.
	BusyInterval, IdleInterval time.Duration
	// Turns are shared by the drivers of all clusters; nil for one alone. Name tells the clusters apart in them.
	Turns *Turns
	Name  string
}

// Driver brings the EMQX of one cluster to its Goal and observes it.
type Driver struct {
	config      Config
	began       time.Time
	observation atomic.Pointer[Observation]
	keys        keys

	mu      sync.Mutex
	goal    Goal
	nodes   map[string]*nodeState
	leaving context.CancelFunc // Of the goroutine that makes members leave; nil when there is none.
	storage storageState
	loading context.CancelFunc // Of the goroutine that has the keys read; nil when there is none.

	rebalance rebalanceState

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
	if config.Turns == nil {
		config.Turns = NewTurns()
	}
	d := &Driver{config: config, began: time.Now(), nodes: map[string]*nodeState{}, keys: keys{read: config.Credentials}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.observation.Store(&Observation{})
	return d
}

// Observation returns what was last seen. It never waits.
func (d *Driver) Observation() Observation { return *d.observation.Load() }

// Credentials returns the API key that EMQX took last; false while it has taken none.
func (d *Driver) Credentials() (emqx.Credentials, bool) { return d.keys.taken() }

// Close ends the driver's goroutines and waits for them. Evacuations that run are left as they are.
func (d *Driver) Close() {
	d.mu.Lock()
	d.cancel()
	for name, state := range d.nodes {
		d.drop(state)
		delete(d.nodes, name)
	}
	for _, timer := range []*time.Timer{d.storage.timer, d.rebalance.timer} {
		if timer != nil {
			timer.Stop()
		}
	}
	d.mu.Unlock()
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
	for name, state := range d.nodes {
		if !wanted[name] {
			d.drop(state)
			delete(d.nodes, name)
		}
	}
	if !slices.Equal(goal.Absent, d.goal.Absent) {
		d.pursueAbsent(goal.Absent)
	}
	before, keys, rebalance := d.goal.Storage, d.goal.Keys, d.goal.Rebalance
	d.goal = goal
	if !goal.Rebalance.equal(rebalance) {
		d.dueRebalance()
	}
	if goal.Keys != keys {
		d.pursueKeys(goal.Keys, keys)
	}
	d.prune(wanted)
	d.pursueStorage(before)
}

// pursueNode has a node be looked at with its goal when that has changed. A node that moved, or that was started
// again, is asked anew: nothing is known of it.
func (d *Driver) pursueNode(goal NodeGoal, busy bool) {
	state := d.nodes[goal.Name]
	if state != nil && (state.goal.URL != goal.URL || state.goal.Life != goal.Life) {
		d.drop(state)
		state = nil
		d.forget(goal.Name)
	}
	if state == nil {
		ctx, cancel := context.WithCancel(d.ctx)
		state = &nodeState{ctx: ctx, goal: goal, busy: busy, cancel: cancel}
		state.ask()
		d.nodes[goal.Name] = state
		d.config.Turns.nodes.Add(1)
		if wait := d.config.Turns.first(); busy || wait == 0 {
			d.due(state, reasons{beat: true})
		} else {
			d.lookIn(state, wait)
		}
		return
	}
	if state.goal.equal(goal) && state.busy == busy {
		return
	}
	state.goal, state.busy = goal, busy
	state.ask()
	if d.stopAtOnce(state, d.observation.Load().Nodes[goal.Name]) {
		state.pending = state.pending.and(reasons{changed: true}) // It is looked at when the order has ended.
		return
	}
	d.due(state, reasons{changed: true})
}

// drop has a node be looked at no more.
func (d *Driver) drop(state *nodeState) {
	state.cancel()
	d.config.Turns.nodes.Add(-1)
	if state.timer != nil {
		state.timer.Stop()
	}
}

// forget drops what is known of a node.
func (d *Driver) forget(name string) {
	old := d.observation.Load()
	next := *old
	next.Nodes = maps.Clone(old.Nodes)
	delete(next.Nodes, name)
	d.observation.Store(&next)
}

// prune drops what is no longer asked for from the observation, and has it show what is about to be ordered, so that the
// next plan counts it whether it has been seen to happen or not.
func (d *Driver) prune(wanted map[string]bool) {
	old := d.observation.Load()
	next := *old
	next.Nodes, next.Left = map[string]NodeObservation{}, map[string]bool{}
	for name := range wanted {
		node := old.Nodes[name]
		state := d.nodes[name]
		node.Life, node.AskedConnRate, node.AskedSessRate = state.goal.Life, state.askedConnRate, state.askedSessRate
		if _, seen := old.Nodes[name]; seen || node.AskedConnRate > 0 {
			next.Nodes[name] = node
		}
	}
	for name := range old.Left {
		if slices.Contains(d.goal.Absent, name) {
			next.Left[name] = true
		}
	}
	next.Rebalance.Stopped = old.Rebalance.Stopped && !d.goal.Rebalance.Run // It may be started from now on.
	if len(d.goal.Absent) == 0 {
		next.Failure = ""
	}
	d.observation.Store(&next)
}

// publish makes an observation of a node part of the cluster's and tells when that may matter.
func (d *Driver) publish(state *nodeState, node NodeObservation) {
	d.amend(func(o *Observation) bool {
		name := state.goal.Name
		if d.nodes[name] != state {
			return false // It was looked at for a goal, or a life, of before.
		}
		nodes := make(map[string]NodeObservation, len(o.Nodes)+1)
		maps.Copy(nodes, o.Nodes)
		before, existed := o.Nodes[name]
		node = state.settle(node)
		nodes[name] = node
		o.Nodes = nodes
		matters := !existed || differs(before, node) || before.Info != node.Info && (state.busy || drifted(state.woken, node.Info))
		if matters {
			state.woken = node.Info
		}
		return matters
	})
}

// amend replaces the observation by one that differs as change has it, and tells when that may matter to a decision. The lock is held
// while change is called.
func (d *Driver) amend(change func(*Observation) (matters bool)) {
	d.mu.Lock()
	next := *d.observation.Load()
	matters := change(&next)
	d.observation.Store(&next)
	d.mu.Unlock()
	if matters {
		d.config.Changed()
	}
}

// drifted reports whether the clients or sessions of a node at rest are others by a tenth than when they last mattered.
func drifted(was, is emqx.NodeInfo) bool {
	by := func(was, is emqx.Count) bool {
		change := max(was.Value-is.Value, is.Value-was.Value)
		return was.Known != is.Known || change > 0 && change*10 >= was.Value
	}
	return by(was.LiveConnections, is.LiveConnections) || by(was.Connections, is.Connections)
}

// uncounted is what a node tells of itself but for its counts.
func uncounted(info emqx.NodeInfo) emqx.NodeInfo {
	info.LiveConnections.Value, info.Connections.Value = 0, 0
	return info
}

// differs tells whether two observations of a node differ in what decisions and status are made of, but for its counts.
func differs(a, b NodeObservation) bool {
	return a.Failure != b.Failure || a.OrderFailure != b.OrderFailure || a.Seen.IsZero() != b.Seen.IsZero() || uncounted(a.Info) != uncounted(b.Info) || a.Available != b.Available ||
		a.AskedConnRate != b.AskedConnRate || a.AskedSessRate != b.AskedSessRate || !slices.Equal(a.Members, b.Members) ||
		!sameListeners(a.Listeners, b.Listeners) || a.LicenceKnown != b.LicenceKnown || a.Licence != b.Licence || (a.Delayed.Value == 0) != (b.Delayed.Value == 0) || !sameStatus(a.Evacuation, b.Evacuation) || !sameDonation(a.Donation, b.Donation)
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

func sameDonation(a, b *emqx.Donation) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.State == b.State && a.Coordinator == b.Coordinator && slices.Equal(a.Recipients, b.Recipients)
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
