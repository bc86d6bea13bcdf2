package evacuate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// observe asks a node about itself and returns what is known now. Asked at a beat, which is zero for other times, it takes a
// sample.
func (d *Driver) observe(ctx context.Context, goal NodeGoal, busy bool, beat time.Time, last NodeObservation) NodeObservation {
	credentials, err := d.credentials.get(ctx)
	if err != nil {
		return failed(last, err)
	}
	next, counted, err := d.ask(ctx, goal, busy, credentials, last)
	if err != nil {
		d.distrust(credentials, err)
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

// distrust has the API key read again when EMQX refused it.
func (d *Driver) distrust(credentials emqx.Credentials, err error) {
	if errors.Is(err, emqx.ErrUnauthorized) {
		d.credentials.forget(credentials)
	}
}

// failed keeps what was known and says why nothing newer is.
func failed(last NodeObservation, err error) NodeObservation {
	last.Failure = stable(err)
	last.Unauthorized = errors.Is(err, emqx.ErrUnauthorized)
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
	var (
		next      NodeObservation
		counted   time.Time
		listeners sync.Mutex
	)
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
	if all || goal.Focus == FocusEvacuation || last.Evacuation != nil {
		question(func() (err error) {
			next.Evacuation, err = d.evacuation(groupCtx, goal.Node, credentials, last)
			return err
		})
	}
	next.Listeners = map[string]bool{}
	for _, id := range goal.Listeners {
		if last.Known() && last.Listeners[id] {
			listeners.Lock()
			next.Listeners[id] = true
			listeners.Unlock()
			continue
		}
		question(func() error {
			running, err := d.config.API.ListenerRunning(groupCtx, goal.Node, credentials, id)
			listeners.Lock()
			defer listeners.Unlock()
			next.Listeners[id] = running
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return NodeObservation{}, counted, err
	}
	if next.Seen = time.Now(); all {
		next.Whole = next.Seen
	}
	return next, counted, nil
}

// statusPatience is how long a node that moves sessions is waited for to tell of it: it takes 20 ms, or up to a minute.
const statusPatience = 1500 * time.Millisecond

// evacuation asks a node about its evacuation. While another member is frozen, a node that moves sessions answers everything
// but this, for up to a minute each (recorded): then it is as it last told. It never goes back to evict connections by itself.
func (d *Driver) evacuation(ctx context.Context, node emqx.Node, credentials emqx.Credentials, last NodeObservation) (*emqx.EvacuationStatus, error) {
	if last.Evacuation == nil || last.EvictsConnections() {
		return d.config.API.Evacuation(ctx, node, credentials)
	}
	patient, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	status, err := d.config.API.Evacuation(patient, node, credentials)
	if err != nil && errors.Is(err, emqx.ErrSilent) && ctx.Err() == nil {
		return last.Evacuation, nil
	}
	return status, err
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
	credentials, err := d.credentials.get(ctx)
	if err != nil {
		return err
	}
	logger := d.config.Logger.WithValues("node", goal.Name)
	if order == stop || order == restart {
		if err := d.config.API.Stop(ctx, goal.Node, credentials); err != nil {
			d.distrust(credentials, err)
			return err
		}
		logger.V(2).Info("Stopped the evacuation", "restart", order == restart)
	}
	if (order == start || order == restart) && d.stillWanted(ctx, state, goal) {
		d.starting(state)
		if err := d.config.API.Start(ctx, goal.Node, credentials, goal.Evacuation); err != nil {
			d.distrust(credentials, err)
			return err
		}
		logger.V(2).Info("Started the evacuation", "connEvictRate", goal.Evacuation.ConnEvictRate,
			"sessEvictRate", goal.Evacuation.SessEvictRate, "recipients", goal.Evacuation.Recipients)
	}
	return nil
}

// credentialCache reads the API key when it is not known: once for all who want it then.
type credentialCache struct {
	read    func(context.Context) (emqx.Credentials, error)
	reading singleflight.Group
	known   atomic.Pointer[emqx.Credentials]
}

func (c *credentialCache) get(ctx context.Context) (emqx.Credentials, error) {
	if known := c.known.Load(); known != nil {
		return *known, nil
	}
	// That one of those who wait gives up is no reason to stop for the others: reading has a deadline of its own.
	reading := c.reading.DoChan("", func() (any, error) {
		credentials, err := c.read(context.WithoutCancel(ctx))
		if err == nil {
			c.known.Store(&credentials)
		}
		return credentials, err
	})
	select {
	case <-ctx.Done():
		return emqx.Credentials{}, ctx.Err()
	case read := <-reading:
		credentials, _ := read.Val.(emqx.Credentials)
		return credentials, read.Err
	}
}

// peek returns the credentials if they are known. It never waits.
func (c *credentialCache) peek() (emqx.Credentials, bool) {
	if known := c.known.Load(); known != nil {
		return *known, true
	}
	return emqx.Credentials{}, false
}

// forget drops credentials that EMQX refused, unless newer ones are known.
func (c *credentialCache) forget(refused emqx.Credentials) {
	if known := c.known.Load(); known != nil && *known == refused {
		c.known.CompareAndSwap(known, nil)
	}
}
