package evacuate

import (
	"context"
	"errors"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// KeysGoal is which API keys the nodes of a cluster shall know. The zero value is for not known.
type KeysGoal struct {
	// Version tells the content of the file of keys from another, and Written when it was written.
	Version string
	Written time.Time
	// File is where nodes find it that have not read it yet; empty when there is nobody to be told to.
	File string
}

// KeysObservation is what is known of the API keys.
type KeysObservation struct {
	// Version is the content that it is about; see KeysGoal.
	Version string
	// Loaded tells that the nodes take the operator's key of that content. It is the last in the file.
	Loaded bool
	// Failure says why that is not known, or why nodes were not told to read the file; empty when there is nothing to say.
	Failure string
}

const (
	// keysDelay is how long it takes until the first look: a cluster whose nodes were just told of is asked who answers.
	keysDelay = 1270 * time.Millisecond
	// keysInterval is the time between two looks whether the nodes know the keys, when they have just been written.
	keysInterval = 15 * time.Second
	// keysPatience is how often it is looked later, and how long that is.
	keysPatience = 5 * time.Minute
	// keysSettle is how long it takes at most until a file that was written is in all pods. Each node reads the file that it has:
	// until then, one that has the old file may put old keys back.
	keysSettle = 2 * time.Minute
)

// pursueKeys has the keys be looked after. The caller holds the lock.
func (d *Driver) pursueKeys(goal, before KeysGoal) {
	if d.loading != nil {
		d.loading()
		d.loading = nil
	}
	if goal.Version == "" {
		return
	}
	if before.Version != "" && goal.Version != before.Version {
		d.keys.renew()
	}
	ctx, cancel := context.WithCancel(d.ctx)
	d.loading = cancel
	d.wait.Go(func() { d.lookAfterKeys(ctx, goal) })
}

// lookAfterKeys has the nodes read their keys anew until they know them, and every node has had the time to get the file.
func (d *Driver) lookAfterKeys(ctx context.Context, goal KeysGoal) {
	timer := time.NewTimer(d.untilKeys(goal, keysDelay))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		observation := KeysObservation{Version: goal.Version}
		err := d.guarded(func() (err error) {
			observation.Loaded, err = d.loadKeys(ctx, goal)
			return err
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			observation.Failure = stable(err)
		}
		d.publishKeys(ctx, observation)
		age := time.Since(goal.Written)
		switch {
		case observation.Loaded && (goal.File == "" || age >= keysSettle):
			return
		case goal.File != "" || err != nil:
			timer.Reset(d.untilKeys(goal, keysInterval))
		default:
			timer.Reset(d.untilKeys(goal, keysPatience))
		}
	}
}

// untilKeys is how long to wait before the next look: not long when the keys have just been written, and else until the cluster's turn.
func (d *Driver) untilKeys(goal KeysGoal, soon time.Duration) time.Duration {
	if soon < keysPatience && time.Since(goal.Written) < keysPatience {
		return soon
	}
	return d.config.Turns.next(d.config.Name, keysPatience, storagePerSecond)
}

// loadKeys reports whether the nodes know the newest key. Where they do not, or where one that has the old file may yet put the old
// back, they are told to read it.
func (d *Driver) loadKeys(ctx context.Context, goal KeysGoal) (bool, error) {
	node, ok := d.speaker()
	if !ok {
		return false, errors.New("no node of the cluster answers that could tell which API keys it knows")
	}
	loaded, err := d.takesNewest(ctx, node)
	if err != nil || goal.File == "" || loaded && time.Since(goal.Written) >= keysSettle {
		return loaded, err
	}
	if silent := d.silent(); silent != "" {
		return loaded, errors.New("node " + silent + " does not answer, and while one is silent EMQX changes no keys")
	}
	err = d.keys.with(ctx, func(credentials emqx.Credentials) error {
		return d.config.API.LoadKeys(ctx, node, credentials, goal.File)
	})
	if err != nil {
		return loaded, err
	}
	d.config.Logger.V(2).Info("Had the nodes read their API keys", "askedNode", node.Name)
	return d.takesNewest(ctx, node)
}

// takesNewest asks a node with the newest key.
func (d *Driver) takesNewest(ctx context.Context, node emqx.Node) (bool, error) {
	if _, err := d.keys.get(ctx); err != nil {
		return false, err
	}
	newest, read := d.keys.first()
	if !read {
		return false, errors.New("the Secret of the API keys has none of the operator")
	}
	_, err := d.config.API.Members(ctx, node, newest)
	if errors.Is(err, emqx.ErrUnauthorized) {
		return false, nil
	}
	if err == nil {
		d.keys.took(newest)
	}
	return err == nil, err
}

// silent is the name of a node that does not answer; empty when all do.
func (d *Driver) silent() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	observation := d.observation.Load()
	for _, goal := range d.goal.Nodes {
		if !observation.Nodes[goal.Name].Known() {
			return goal.Name
		}
	}
	return ""
}

func (d *Driver) publishKeys(ctx context.Context, keys KeysObservation) {
	d.amend(func(o *Observation) bool {
		if ctx.Err() != nil {
			return false
		}
		before := o.Keys
		o.Keys = keys
		return before != keys
	})
}
