package evacuate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// observe asks a node about itself and returns what is known now. Asked at a beat, which is zero for other times, it takes a
// sample.
func (d *Driver) observe(ctx context.Context, goal NodeGoal, busy bool, beat time.Time, last NodeObservation) NodeObservation {
	var next NodeObservation
	var counted time.Time
	err := d.keys.with(ctx, func(credentials emqx.Credentials) (err error) {
		next, counted, err = d.ask(ctx, goal, busy, credentials, last)
		return err
	})
	if err != nil {
		return failed(last, err)
	}
	next.OrderFailure = last.OrderFailure
	next.MembersSince = next.Seen
	if slices.Equal(next.Members, last.Members) {
		next.MembersSince = last.MembersSince
	}
	next.Samples = last.Samples
	// What was counted much later than at the beat would be added up with what other nodes counted then.
	if !beat.IsZero() && counted.Sub(beat) < d.config.BusyInterval*3/4 {
		next.Samples = sampled(last.Samples, Sample{At: beat, Live: next.Info.LiveConnections.Value})
	}
	return next
}

// failed keeps what was known and says why nothing newer is.
func failed(last NodeObservation, err error) NodeObservation {
	last.Failure = stable(err)
	last.Refusal = refusalOf(err)
	return last
}

// stable is what is told of an error: words that stay the same while the cause does. In how many ways a node can be
// silent, and which of the questions was the first to fail, changes with every look and helps nobody.
func stable(err error) string {
	for _, kind := range []error{emqx.ErrSilent, emqx.ErrUnauthorized, emqx.ErrForbidden, emqx.ErrBooting} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	if i := strings.Index(err.Error(), emqx.ErrUntrusted.Error()); i >= 0 {
		return err.Error()[i:] // Which of the questions it was does not matter.
	}
	return err.Error()
}

// wholeInterval is how often everything is asked of a node of which little matters at the moment.
const wholeInterval = 4500 * time.Millisecond

// whole reports whether everything is to be asked of a node.
func whole(goal NodeGoal, last NodeObservation) bool {
	return goal.Focus == FocusAll || !last.Known() || time.Since(last.Whole) >= wholeInterval || goal.Focus == FocusClients && !last.Available
}

// ask puts all questions that matter, at once while the cluster is busy and over one connection while it is not: they are all
// answered or there is no answer. A listener that was seen to run is not asked about again while the node answers. It returns, too,
// when the clients had been counted.
func (d *Driver) ask(ctx context.Context, goal NodeGoal, busy bool, credentials emqx.Credentials, last NodeObservation) (NodeObservation, time.Time, error) {
	var next NodeObservation
	var counted time.Time
	group, groupCtx := errgroup.WithContext(ctx)
	if !busy {
		group.SetLimit(1)
	}
	question := func(ask func() error) { group.Go(func() error { return d.guarded(ask) }) }
	question(func() (err error) {
		next.Info, err = d.config.API.Info(groupCtx, goal.Node, credentials)
		counted = time.Now()
		return err
	})
	all := whole(goal, last)
	next.Members, next.Available, next.Whole = last.Members, last.Available, last.Whole
	next.Licence, next.LicenceKnown, next.Delayed = last.Licence, last.LicenceKnown, last.Delayed
	if all {
		question(func() (err error) {
			next.Members, err = d.config.API.Members(groupCtx, goal.Node, credentials)
			slices.Sort(next.Members)
			return err
		})
		question(func() (err error) {
			next.Available, err = d.config.API.Available(groupCtx, goal.Node)
			return err
		})
	}
	if all && goal.Licence {
		question(func() (err error) {
			next.Licence, err = d.config.API.Licence(groupCtx, goal.Node, credentials)
			next.LicenceKnown = err == nil
			return err
		})
	}
	if all && goal.Delayed {
		question(func() error {
			if delayed, err := d.config.API.Delayed(groupCtx, goal.Node, credentials); err == nil {
				next.Delayed = delayed
			}
			return nil // It is only told: no node is silent for the lack of it.
		})
	}
	if all || goal.Focus == FocusEvacuation || last.moves() {
		question(func() (err error) {
			next.Moves, err = d.moves(groupCtx, goal.Node, credentials, last)
			return err
		})
	}
	next.Listeners = d.askListeners(groupCtx, goal, credentials, last, question)
	if err := group.Wait(); err != nil {
		return NodeObservation{}, counted, err
	}
	if all && !next.Available && !next.moves() {
		if err := d.askAgain(ctx, goal, credentials, &next); err != nil {
			return NodeObservation{}, counted, err
		}
	}
	if next.Seen = time.Now(); all {
		next.Whole = next.Seen
	}
	return next, counted, nil
}

// askListeners asks for those that were not seen to run. The answers are there when all questions are answered.
func (d *Driver) askListeners(ctx context.Context, goal NodeGoal, credentials emqx.Credentials, last NodeObservation, question func(func() error)) map[string]bool {
	var lock sync.Mutex
	all := map[string]bool{}
	for _, id := range goal.Listeners {
		all[id] = last.Known() && last.Listeners[id]
	}
	for _, id := range goal.Listeners {
		if last.Known() && last.Listeners[id] {
			continue
		}
		question(func() error {
			running, err := d.config.API.ListenerRunning(ctx, goal.Node, credentials, id)
			lock.Lock()
			defer lock.Unlock()
			all[id] = running
			return err
		})
	}
	return all
}

// statusPatience is how long a node that moves sessions is waited for to tell of it: it takes 20 ms, or up to a minute.
const statusPatience = 1500 * time.Millisecond

// askAgain asks a node once more that takes no clients and does not say why: what moves them off began or ended between two questions.
func (d *Driver) askAgain(ctx context.Context, goal NodeGoal, credentials emqx.Credentials, next *NodeObservation) error {
	return d.guarded(func() (err error) {
		if next.Available, err = d.config.API.Available(ctx, goal.Node); err != nil {
			return err
		}
		next.Moves, err = d.config.API.Moves(ctx, goal.Node, credentials)
		return err
	})
}

// moves asks a node what moves clients off it. While another member is frozen, a node that moves sessions answers everything
// but this, for up to a minute each (recorded): then it is as it last told. It never goes back to evict connections by itself. A
// donor asks the coordinator, which says nothing while it moves a second's worth of sessions.
func (d *Driver) moves(ctx context.Context, node emqx.Node, credentials emqx.Credentials, last NodeObservation) (emqx.Moves, error) {
	if !last.moves() || last.EvictsConnections() {
		return d.config.API.Moves(ctx, node, credentials)
	}
	patient, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	moves, err := d.config.API.Moves(patient, node, credentials)
	if err != nil && errors.Is(err, emqx.ErrSilent) && ctx.Err() == nil {
		return last.Moves, nil
	}
	return moves, err
}

// sampled adds a sample and drops those that are older than the window.
func sampled(samples []Sample, sample Sample) []Sample {
	first := slices.IndexFunc(samples, func(s Sample) bool { return sample.At.Sub(s.At) <= SampleWindow })
	if first < 0 {
		first = len(samples)
	}
	return append(slices.Clone(samples[first:]), sample)
}

// order is what a node must be told.
type order int

const (
	nothing order = iota
	start
	stop
	restart // Stop, then start: the evacuation that runs is not the one that shall.
)

// orderFor decides, from a node's goal and what it is like, what it must be told. Start and stop are repeated until
// they show: the broker forgets an evacuation when its disk is lost, and recipients when it restarts.
func orderFor(goal NodeGoal, node NodeObservation) order {
	switch goal.Intent {
	case Serve:
		if node.Evacuation != nil {
			return stop
		}
	case Evacuate:
		switch {
		case len(goal.Evacuation.Recipients) == 0 || node.Empty():
			return nothing
		case node.Evacuation == nil:
			return start
		case !runs(*node.Evacuation, goal.Evacuation):
			return restart
		}
	case Observe:
	}
	return nothing
}

// runs tells whether an evacuation is the one asked for. The recipients that a node reports are those that can take
// sessions at the moment: fewer than asked for are fine, others or none are not.
func runs(status emqx.EvacuationStatus, asked emqx.Evacuation) bool {
	if status.ConnEvictRate != asked.ConnEvictRate || status.SessEvictRate != asked.SessEvictRate || len(status.Recipients) == 0 {
		return false
	}
	for _, recipient := range status.Recipients {
		if !slices.Contains(asked.Recipients, recipient) {
			return false
		}
	}
	return true
}

// give gives an order. An evacuation is started in its phase of a beat, if it is still wanted then; one that is to be
// started again is stopped at once, so that it evicts nobody in between.
func (d *Driver) give(ctx context.Context, state *nodeState, goal NodeGoal, order order) error {
	logger := d.config.Logger.WithValues("node", goal.Name)
	if order == stop || order == restart {
		err := d.keys.with(ctx, func(credentials emqx.Credentials) error { return d.config.API.Stop(ctx, goal.Node, credentials) })
		if err != nil {
			return err
		}
		logger.V(2).Info("Stopped the evacuation", "restart", order == restart)
	}
	if (order == start || order == restart) && d.stillWanted(ctx, state, goal) {
		d.starting(state)
		err := d.keys.with(ctx, func(credentials emqx.Credentials) error {
			return d.config.API.Start(ctx, goal.Node, credentials, goal.Evacuation)
		})
		if err != nil {
			return err
		}
		logger.V(2).Info("Started the evacuation", "connEvictRate", goal.Evacuation.ConnEvictRate,
			"sessEvictRate", goal.Evacuation.SessEvictRate, "recipients", goal.Evacuation.Recipients)
	}
	return nil
}
