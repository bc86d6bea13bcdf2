package evacuate

import (
	"context"
	"errors"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// nodeLoop is the goroutine of one node. Its fields are guarded by the driver's mutex.
type nodeLoop struct {
	goal    NodeGoal
	busy    bool
	kick    chan struct{} // Has room for one: the goal changed.
	ordered chan error    // Has room for one: how the order that was under way ended.
	cancel  context.CancelFunc
	// ordering tells that an order is under way. Until echoing, one whose answer was lost may still be carried out.
	ordering bool
	echoing  time.Time
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
	node.AskedConnRate, node.AskedSessRate = l.askedConnRate, l.askedSessRate
	return node
}

// runNode asks one node about itself, brings it to its goal and publishes what it is like, until ctx ends. Orders are
// waited for beside the questions, so that a slow one makes nobody blind.
func (d *Driver) runNode(ctx context.Context, loop *nodeLoop) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last NodeObservation
	for {
		converge, beat := true, time.Time{}
		select {
		case <-ctx.Done():
			return
		case err := <-loop.ordered:
			if last = d.orderEnded(loop, last, err); err != nil {
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
			last = d.converge(ctx, loop, goal, last)
		}
		d.publish(loop, last)
		timer.Reset(d.untilNext(d.interval(busy, last), 0))
	}
}

// converge gives the order that the goal needs, if any, unless one is under way.
func (d *Driver) converge(ctx context.Context, loop *nodeLoop, goal NodeGoal, node NodeObservation) NodeObservation {
	d.mu.Lock()
	defer d.mu.Unlock()
	if loop.ordering || !node.Known() {
		return node
	}
	order := orderFor(goal, node)
	if order == nothing {
		node.OrderFailure = ""
		return node
	}
	loop.ordering = true
	d.wait.Go(func() { loop.ordered <- d.guarded(func() error { return d.give(ctx, loop, goal, order) }) })
	return node
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

// orderEnded notes how an order ended.
func (d *Driver) orderEnded(loop *nodeLoop, node NodeObservation, err error) NodeObservation {
	d.mu.Lock()
	defer d.mu.Unlock()
	loop.ordering = false
	node.OrderFailure = ""
	if err != nil {
		node.OrderFailure = stable(err)
	}
	if errors.Is(err, emqx.ErrSilent) {
		loop.echoing = time.Now().Add(orderEcho)
	}
	return node
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
