package evacuate

import (
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// RebalanceGoal is a rebalance that is to run, or to be stopped. The zero value leaves alone what runs.
type RebalanceGoal struct {
	// ID tells it from others; empty for none.
	ID string
	// Coordinator is the node that it is started, or was started, on.
	Coordinator string
	// Run has it run; else it is stopped.
	Run bool
	// Rebalance is how, when it is to run.
	Rebalance emqx.Rebalance
}

func (g RebalanceGoal) equal(other RebalanceGoal) bool { return reflect.DeepEqual(g, other) }

// RebalanceObservation is what came of the orders about a rebalance.
type RebalanceObservation struct {
	// ID is that of the goal that it is about.
	ID string
	// Even tells that EMQX was asked to start it, and found all nodes within the thresholds.
	Even bool
	// Invalid says why EMQX will never start it; empty when there is nothing to say.
	Invalid string
	// Stopped tells that the coordinator was told to stop it, and that no earlier order can start it again.
	Stopped bool
	// Failure says why the last order was not carried out; empty when it was.
	Failure string
}

// rebalanceState is what is kept of the rebalance. Its fields are guarded by the driver's mutex.
type rebalanceState struct {
	timer   *time.Timer // When it is looked after next; nil before the first time.
	looking bool
	pending bool
	id      string
	starts  int       // How often it was started.
	next    time.Time // Before when it is not started again.
	echoing time.Time // Until when a start whose answer was lost may still be carried out.
}

const (
	// rebalanceDelay is how long it takes at least until a rebalance is started again, and doubles with each start up to rebalanceMax:
	// one that ends at once, because of a node that does, disconnects clients each time.
	rebalanceDelay = 5 * time.Second
	rebalanceMax   = 5 * time.Minute
)

// dueRebalance has the rebalance be looked after now. The caller holds the lock.
func (d *Driver) dueRebalance() {
	d.rebalance.pending = true
	if d.rebalance.looking || d.ctx.Err() != nil {
		return
	}
	d.rebalance.looking = true
	if d.rebalance.timer != nil {
		d.rebalance.timer.Stop()
	}
	d.wait.Go(d.lookAfterRebalance)
}

// lookAfterRebalance does what the goal needs, and looks again in a second as long as there is one. An order that is under way is
// finished: what it did is known then.
func (d *Driver) lookAfterRebalance() {
	for {
		d.mu.Lock()
		goal := d.goal.Rebalance
		if d.ctx.Err() != nil || !d.rebalance.pending {
			d.rebalance.looking = false
			if d.ctx.Err() == nil && goal.ID != "" {
				d.lookAfterRebalanceIn(d.untilNext(d.config.BusyInterval / 4)) // Beside the looks at nodes.
			}
			d.mu.Unlock()
			return
		}
		d.rebalance.pending = false
		last := d.observation.Load().Rebalance
		if d.rebalance.id != goal.ID {
			d.rebalance.id, d.rebalance.starts, d.rebalance.next = goal.ID, 0, time.Time{}
			last = RebalanceObservation{ID: goal.ID}
		}
		d.mu.Unlock()
		next := last
		if err := d.guarded(func() error { next = d.rebalanceOnce(goal, last); return nil }); err != nil {
			next.Failure = err.Error()
		}
		d.publishRebalance(next)
	}
}

func (d *Driver) lookAfterRebalanceIn(wait time.Duration) {
	if d.rebalance.timer != nil {
		d.rebalance.timer.Reset(wait)
		return
	}
	d.rebalance.timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.dueRebalance()
	})
}

// rebalanceOnce gives the order that the goal needs, if any.
func (d *Driver) rebalanceOnce(goal RebalanceGoal, last RebalanceObservation) RebalanceObservation {
	node, answers := d.nodeOf(goal.Coordinator)
	next := RebalanceObservation{ID: goal.ID}
	switch {
	case goal.ID == "":
	case goal.Run && (last.Even || last.Invalid != ""):
		return last
	case goal.Run && !answers, !goal.Run && last.Stopped:
		return last
	case goal.Run && d.rebalances(goal.Coordinator):
	case goal.Run && !d.mayStart():
		next.Failure = last.Failure
	case goal.Run:
		d.startRebalance(node, goal, &next)
	case node.URL == "":
		next.Failure = "node " + goal.Coordinator + " has no address that it could be told to stop at"
	default:
		d.stopRebalance(node, &next)
	}
	return next
}

// nodeOf is where a node of the goal is found, and whether it answered its last asking.
func (d *Driver) nodeOf(name string) (emqx.Node, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.IndexFunc(d.goal.Nodes, func(n NodeGoal) bool { return n.Name == name }); i >= 0 {
		return d.goal.Nodes[i].Node, d.observation.Load().Nodes[name].Known()
	}
	return emqx.Node{}, false
}

// rebalances reports whether any node gives clients to a rebalance of a coordinator.
func (d *Driver) rebalances(coordinator string) bool {
	for _, node := range d.Observation().Nodes {
		if node.Donation != nil && node.Donation.Coordinator == coordinator {
			return true
		}
	}
	return false
}

// mayStart reports whether the rebalance may be started now, and if so notes that it is.
func (d *Driver) mayStart() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	state := &d.rebalance
	if time.Now().Before(state.next) {
		return false
	}
	state.next = time.Now().Add(min(rebalanceDelay<<min(state.starts, 10), rebalanceMax))
	return true
}

// startRebalance orders a node to rebalance.
func (d *Driver) startRebalance(node emqx.Node, goal RebalanceGoal, next *RebalanceObservation) {
	err := d.keys.with(d.ctx, func(credentials emqx.Credentials) error {
		return d.config.API.StartRebalance(d.ctx, node, credentials, goal.Rebalance)
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		d.rebalance.starts++
		d.config.Logger.V(2).Info("Started a rebalance", "node", node.Name, "nodes", goal.Rebalance.Nodes)
	case errors.Is(err, emqx.ErrNothingToBalance):
		next.Even = true
	case errors.Is(err, emqx.ErrInvalid):
		next.Invalid = stable(err)
	default:
		next.Failure = stable(err)
		if errors.Is(err, emqx.ErrSilent) {
			d.rebalance.echoing = time.Now().Add(orderEcho)
		}
	}
}

// stopRebalance orders a node to end the rebalance that it coordinates, again and again while a start may still come after it.
func (d *Driver) stopRebalance(node emqx.Node, next *RebalanceObservation) {
	err := d.keys.with(d.ctx, func(credentials emqx.Credentials) error {
		return d.config.API.StopRebalance(d.ctx, node, credentials)
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		next.Failure = stable(err)
		return
	}
	next.Stopped = !time.Now().Before(d.rebalance.echoing)
	d.config.Logger.V(2).Info("Stopped a rebalance", "node", node.Name)
}

func (d *Driver) publishRebalance(rebalance RebalanceObservation) {
	d.amend(func(o *Observation) bool {
		if d.ctx.Err() != nil || d.goal.Rebalance.ID != rebalance.ID {
			return false
		}
		before := o.Rebalance
		o.Rebalance = rebalance
		return before != rebalance
	})
}
