package evacuate

import (
	"context"
	"errors"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// nodeState is what is kept of one node. Its fields are guarded by the driver's mutex.
type nodeState struct {
	ctx    context.Context //nolint:containedctx // It is the life of what asks the node, and of the orders that it is given.
	cancel context.CancelFunc
	goal   NodeGoal
	busy   bool
	// looking tells that a goroutine looks at the node: at rest there is none. pending is why it is to do so once more.
	looking bool
	pending reasons
	timer   *time.Timer     // When it is looked at next; nil before the first time.
	last    NodeObservation // What was seen last. It belongs to the goroutine that looks.
	woken   emqx.NodeInfo   // What it told when that last mattered.
	// ordering tells that an order is under way. Until echoing, one whose answer was lost may still be carried out.
	ordering bool
	echoing  time.Time
	// started is when an evacuation was last ordered to start, or to start in its phase, that has not been ordered to stop
	// since; zero for never.
	started time.Time
	giveUp  context.CancelFunc // Of the order that is under way.
	// The rates of an evacuation that is, or may be, under way: noted before it is ordered, since with an answer lost it
	// may have happened, and until the node is seen without one that nobody wants any more.
	askedConnRate, askedSessRate int32
}

// reasons are why a node is looked at.
type reasons struct {
	beat    bool // It is time.
	changed bool // The goal did.
	ordered bool // An order ended, with err.
	err     error
}

func (r reasons) any() bool { return r.beat || r.changed || r.ordered }

func (r reasons) and(other reasons) reasons {
	sum := reasons{beat: r.beat || other.beat, changed: r.changed || other.changed, ordered: r.ordered || other.ordered, err: r.err}
	if other.ordered {
		sum.err = other.err
	}
	return sum
}

// orderEcho is how long an order may still be carried out after its answer was given up: an order to start that names a
// node that froze just before was recorded to take 44 s.
const orderEcho = time.Minute

// over reports whether no earlier order can still take effect.
func (n *nodeState) over() bool { return !n.ordering && !time.Now().Before(n.echoing) }

// ask notes what the goal is about to order, beside what may still come of earlier orders.
func (n *nodeState) ask() {
	if n.goal.Intent != Evacuate {
		return
	}
	if n.over() {
		n.askedConnRate, n.askedSessRate = 0, 0
	}
	n.askedConnRate = max(n.askedConnRate, n.goal.Evacuation.ConnEvictRate)
	n.askedSessRate = max(n.askedSessRate, n.goal.Evacuation.SessEvictRate)
}

// settle forgets what was ordered when it is over, and puts what is left into the observation.
func (n *nodeState) settle(node NodeObservation) NodeObservation {
	switch {
	case !n.over():
	case n.goal.Intent == Evacuate:
		n.ask()
	case node.Known() && node.Evacuation == nil:
		n.askedConnRate, n.askedSessRate = 0, 0
	}
	node.Life, node.AskedConnRate, node.AskedSessRate = n.goal.Life, n.askedConnRate, n.askedSessRate
	return node
}

// due has a node be looked at, for a reason. One that is being looked at is looked at once more. The caller holds the lock.
func (d *Driver) due(state *nodeState, why reasons) {
	state.pending = state.pending.and(why)
	if state.looking || state.ctx.Err() != nil {
		return
	}
	state.looking = true
	if state.timer != nil {
		state.timer.Stop()
	}
	d.wait.Go(func() { d.look(state) })
}

// look looks at a node as long as there is a reason to, and has it be looked at again in time. Nobody waits meanwhile.
func (d *Driver) look(state *nodeState) {
	for {
		d.mu.Lock()
		why, goal, busy := state.pending, state.goal, state.busy
		state.pending = reasons{}
		if state.ctx.Err() != nil || !why.any() {
			state.looking = false
			d.lookIn(state, d.untilLook(state, busy))
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		d.lookOnce(state, goal, busy, why)
	}
}

// lookIn has a node be looked at in a while. The caller holds the lock.
func (d *Driver) lookIn(state *nodeState, wait time.Duration) {
	switch {
	case state.ctx.Err() != nil:
	case state.timer == nil:
		state.timer = time.AfterFunc(wait, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.due(state, reasons{beat: true})
		})
	default:
		state.timer.Reset(wait)
	}
}

// lookOnce asks one node about itself, brings it to its goal and publishes what it is like. Orders are waited for beside the
// questions, so that a slow one makes nobody blind.
func (d *Driver) lookOnce(state *nodeState, goal NodeGoal, busy bool, why reasons) {
	ctx := state.ctx
	onlyOrdered := why.ordered && !why.beat && !why.changed
	if why.ordered {
		state.last.OrderFailure = refusal(why.err)
	}
	if onlyOrdered && why.err != nil {
		d.publish(state, state.last)
		return
	}
	var beat time.Time
	if why.beat && busy {
		beat = time.Now()
		beat = beat.Add(-beat.Sub(d.began) % d.config.BusyInterval)
	}
	last := state.last
	if err := d.guarded(func() error { last = d.observe(ctx, goal, busy, beat, last); return nil }); err != nil {
		last = failed(last, err)
	}
	if ctx.Err() != nil {
		return
	}
	if !onlyOrdered { // What an order did is looked at; if it did not help, it is given again at the next beat.
		last = d.converge(state, goal, last)
	}
	state.last = last
	d.publish(state, last)
}

// converge gives the order that the goal needs, if any.
func (d *Driver) converge(state *nodeState, goal NodeGoal, node NodeObservation) NodeObservation {
	d.mu.Lock()
	defer d.mu.Unlock()
	order := orderFor(goal, node)
	switch {
	case state.ordering || !node.Known():
	case order == nothing:
		node.OrderFailure = ""
	default:
		d.order(state, goal, order)
	}
	return node
}

// order gives an order. The caller holds the lock.
func (d *Driver) order(state *nodeState, goal NodeGoal, order order) {
	ctx, cancel := context.WithCancel(state.ctx)
	state.ordering, state.giveUp = true, cancel
	if order == stop {
		state.started = time.Time{}
	} else {
		state.started = time.Now()
	}
	d.wait.Go(func() {
		err := d.guarded(func() error { return d.give(ctx, state, goal, order) })
		cancel()
		d.ended(state, err)
	})
}

// ended notes that an order has ended, and stops what shall not run any more and may.
func (d *Driver) ended(state *nodeState, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	state.ordering = false
	if errors.Is(err, emqx.ErrSilent) || errors.Is(err, context.Canceled) {
		state.echoing = time.Now().Add(orderEcho)
	}
	if d.nodes[state.goal.Name] == state && !state.started.IsZero() {
		d.stopAtOnce(state, d.observation.Load().Nodes[state.goal.Name])
	}
	d.due(state, reasons{ordered: true, err: err})
}

// refusal says why an order was not carried out; empty when it was, or when it was given up.
func refusal(err error) string {
	if err == nil || errors.Is(err, context.Canceled) {
		return ""
	}
	return stable(err)
}

// stopAtOnce stops an evacuation that shall not run any more by what is known: a look at the node, or an answer to an order,
// that takes long must not hold it up. It reports whether an order was given up, whose end is about to come. The caller holds the
// lock.
func (d *Driver) stopAtOnce(state *nodeState, node NodeObservation) (gaveUp bool) {
	switch {
	case state.goal.Intent != Serve:
	case state.ordering && !state.started.IsZero():
		state.giveUp() // It is stopped when that has ended.
		return true
	case !state.ordering && state.ctx.Err() == nil && (node.Evacuation != nil || state.mayRun(node)):
		d.order(state, state.goal, stop)
	}
	return false
}

// mayRun reports whether an evacuation was ordered and its node has not been looked at since.
func (n *nodeState) mayRun(node NodeObservation) bool {
	return !n.started.IsZero() && !n.started.Before(node.Seen)
}

// starting notes that an evacuation is ordered now.
func (d *Driver) starting(state *nodeState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	state.started = time.Now()
}

// stillWanted waits for the moment in a beat to start an evacuation and reports whether the goal is still the same then.
func (d *Driver) stillWanted(ctx context.Context, state *nodeState, goal NodeGoal) bool {
	if goal.StartPhase == 0 {
		return true
	}
	timer := time.NewTimer(d.untilNext(goal.StartPhase))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	}
	now, _ := d.goalOf(state)
	return now.equal(goal)
}

func (d *Driver) goalOf(state *nodeState) (NodeGoal, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return state.goal, state.busy
}

// untilNext is how long it takes to the next time that is a phase later than a beat. All nodes of a cluster that is busy are
// asked at the same beats, so that a client on its way from one to another is not counted twice.
func (d *Driver) untilNext(phase time.Duration) time.Duration {
	return until(d.began, d.config.BusyInterval, phase)
}

// untilLook is how long to wait before a node is looked at again. One that does not answer, or does not do as it is told, is
// asked often enough to be seen soon when that is over.
func (d *Driver) untilLook(state *nodeState, busy bool) time.Duration {
	switch {
	case busy:
		return d.untilNext(0)
	case !state.last.Known() || state.last.OrderFailure != "":
		return d.config.Turns.next(d.config.Name, min(5*d.config.BusyInterval, d.config.IdleInterval), silentPerSecond)
	}
	return d.config.Turns.next(d.config.Name, d.config.IdleInterval, restingPerSecond)
}
