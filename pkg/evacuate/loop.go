package evacuate

import (
	"context"
	"errors"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// nodeLoop is the goroutine of one node. Its fields are guarded by the driver's mutex.
type nodeLoop struct {
	ctx     context.Context //nolint:containedctx // It is the life of the goroutine, and of the orders that it gives.
	goal    NodeGoal
	busy    bool
	kick    chan struct{} // Has room for one: the goal changed.
	ordered chan error    // Has room for one: how the order that was under way ended.
	cancel  context.CancelFunc
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

// orderEcho is how long an order may still be carried out after its answer was given up: an order to start that names a
// node that froze just before was recorded to take 44 s.
const orderEcho = time.Minute

// over reports whether no earlier order can still take effect.
func (l *nodeLoop) over() bool { return !l.ordering && !time.Now().Before(l.echoing) }

// ask notes what the goal is about to order, beside what may still come of earlier orders.
func (l *nodeLoop) ask() {
	if l.goal.Intent != Evacuate {
		return
	}
	if l.over() {
		l.askedConnRate, l.askedSessRate = 0, 0
	}
	l.askedConnRate = max(l.askedConnRate, l.goal.Evacuation.ConnEvictRate)
	l.askedSessRate = max(l.askedSessRate, l.goal.Evacuation.SessEvictRate)
}

// settle forgets what was ordered when it is over, and puts what is left into the observation.
func (l *nodeLoop) settle(node NodeObservation) NodeObservation {
	switch {
	case !l.over():
	case l.goal.Intent == Evacuate:
		l.ask()
	case node.Known() && node.Evacuation == nil:
		l.askedConnRate, l.askedSessRate = 0, 0
	}
	node.Life, node.AskedConnRate, node.AskedSessRate = l.goal.Life, l.askedConnRate, l.askedSessRate
	return node
}

// runNode asks one node about itself, brings it to its goal and publishes what it is like, until ctx ends. Orders are
// waited for beside the questions, so that a slow one makes nobody blind.
func (d *Driver) runNode(loop *nodeLoop) {
	ctx := loop.ctx
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last NodeObservation
	for {
		converge, beat := true, time.Time{}
		select {
		case <-ctx.Done():
			return
		case err := <-loop.ordered:
			if last.OrderFailure = refusal(err); err != nil {
				d.publish(loop, last)
				continue
			}
			converge = false // What it did is looked at; if it did not help, it is given again at the next beat.
		case <-loop.kick:
		case <-timer.C:
			beat = time.Now()
		}
		goal, busy := d.loopGoal(loop)
		if busy && !beat.IsZero() {
			beat = beat.Add(-beat.Sub(d.began) % d.config.BusyInterval)
		} else {
			beat = time.Time{}
		}
		if err := d.guarded(func() error { last = d.observe(ctx, goal, beat, last); return nil }); err != nil {
			last = failed(last, err)
		}
		if ctx.Err() != nil {
			return
		}
		if converge {
			last = d.converge(loop, goal, last)
		}
		d.publish(loop, last)
		timer.Reset(d.untilNext(d.interval(busy, last), 0))
	}
}

// converge gives the order that the goal needs, if any.
func (d *Driver) converge(loop *nodeLoop, goal NodeGoal, node NodeObservation) NodeObservation {
	d.mu.Lock()
	defer d.mu.Unlock()
	order := orderFor(goal, node)
	switch {
	case loop.ordering || !node.Known():
	case order == nothing:
		node.OrderFailure = ""
	default:
		d.order(loop, goal, order)
	}
	return node
}

// order gives an order. The caller holds the lock.
func (d *Driver) order(loop *nodeLoop, goal NodeGoal, order order) {
	ctx, cancel := context.WithCancel(loop.ctx)
	loop.ordering, loop.giveUp = true, cancel
	if order == stop {
		loop.started = time.Time{}
	} else {
		loop.started = time.Now()
	}
	d.wait.Go(func() {
		err := d.guarded(func() error { return d.give(ctx, loop, goal, order) })
		cancel()
		d.ended(loop, err)
		select {
		case loop.ordered <- err:
		case <-loop.ctx.Done():
		}
	})
}

// ended notes that an order has ended, and stops what shall not run any more and may.
func (d *Driver) ended(loop *nodeLoop, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	loop.ordering = false
	if errors.Is(err, emqx.ErrSilent) || errors.Is(err, context.Canceled) {
		loop.echoing = time.Now().Add(orderEcho)
	}
	if d.nodes[loop.goal.Name] == loop && !loop.started.IsZero() {
		d.stopAtOnce(loop, d.observation.Load().Nodes[loop.goal.Name])
	}
}

// refusal says why an order was not carried out; empty when it was, or when it was given up.
func refusal(err error) string {
	if err == nil || errors.Is(err, context.Canceled) {
		return ""
	}
	return stable(err)
}

// stopAtOnce stops an evacuation that shall not run any more by what is known: a look at the node, or an answer to an order,
// that takes long must not hold it up. The caller holds the lock.
func (d *Driver) stopAtOnce(loop *nodeLoop, node NodeObservation) {
	switch {
	case loop.goal.Intent != Serve:
	case loop.ordering && !loop.started.IsZero():
		loop.giveUp() // It is stopped when that has ended.
	case !loop.ordering && loop.ctx.Err() == nil && (node.Evacuation != nil || loop.mayRun(node)):
		d.order(loop, loop.goal, stop)
	}
}

// mayRun reports whether an evacuation was ordered and its node has not been looked at since.
func (l *nodeLoop) mayRun(node NodeObservation) bool {
	return !l.started.IsZero() && !l.started.Before(node.Seen)
}

// starting notes that an evacuation is ordered now.
func (d *Driver) starting(loop *nodeLoop) {
	d.mu.Lock()
	defer d.mu.Unlock()
	loop.started = time.Now()
}

// stillWanted waits for the moment in a beat to start an evacuation and reports whether the goal is still the same then.
func (d *Driver) stillWanted(ctx context.Context, loop *nodeLoop, goal NodeGoal) bool {
	if goal.StartPhase == 0 {
		return true
	}
	timer := time.NewTimer(d.untilNext(d.config.BusyInterval, goal.StartPhase))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	}
	now, _ := d.loopGoal(loop)
	return now.equal(goal)
}

func (d *Driver) loopGoal(loop *nodeLoop) (NodeGoal, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return loop.goal, loop.busy
}

// untilNext is how long it takes to the next time that is a phase later than a beat of an interval. All nodes of a
// cluster are asked at the same beats, so that a client on its way from one to another is not counted twice.
func (d *Driver) untilNext(interval, phase time.Duration) time.Duration {
	wait := (phase - time.Since(d.began)) % interval
	if wait <= 0 {
		wait += interval
	}
	return wait
}

// interval is how long to wait before the next asking. A node that does not answer, or does not do as it is told, is
// asked often enough to be seen soon when that is over.
func (d *Driver) interval(busy bool, last NodeObservation) time.Duration {
	if busy {
		return d.config.BusyInterval
	}
	if !last.Known() || last.OrderFailure != "" {
		return min(5*d.config.BusyInterval, d.config.IdleInterval)
	}
	return d.config.IdleInterval
}
