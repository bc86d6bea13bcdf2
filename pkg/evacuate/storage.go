package evacuate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// StorageGoal is where the replicas of durable storage shall be. The zero value leaves them where they are.
type StorageGoal struct {
	// Holders are the nodes whose sites shall hold the replicas of every database, and no others; none leaves all as it is.
	Holders []string
	// Leaving are the nodes that are to hold nothing in the end. What they tell of counts, too: a database need not be open
	// on the nodes that stay.
	Leaving []string
	// Busy asks for an observation twice a second instead of now and then.
	Busy bool
}

func (g StorageGoal) equal(other StorageGoal) bool {
	return g.Busy == other.Busy && slices.Equal(g.Holders, other.Holders) && slices.Equal(g.Leaving, other.Leaving)
}

// StorageObservation is what is known of durable storage. All but the failures is as of Seen.
type StorageObservation struct {
	// Seen is when all that had to be asked had answered; zero for never.
	Seen time.Time
	// Failure says why the last question got no whole answer; empty when it did.
	Failure string
	// OrderFailure says why replicas were not told to move, or what EMQX refused; empty when there is nothing to say.
	OrderFailure string
	// Enabled tells whether there is durable storage.
	Enabled bool
	// Storage is what there is.
	emqx.Storage
	// Unopened are the databases that are open on a leaving node and not on one that stays, with the name of that node.
	Unopened map[string]string
}

// Known reports whether the last question got an answer. What is not known is not empty.
func (o StorageObservation) Known() bool { return o.Failure == "" && !o.Seen.IsZero() }

// SitesOf are the sites of a node, of which there is one at most unless its disk was lost.
func (o StorageObservation) SitesOf(node string) []string {
	var ids []string
	for _, site := range o.Sites {
		if site.Node == node {
			ids = append(ids, site.ID)
		}
	}
	return ids
}

// Holds counts the replicas that a node's sites hold or are about to get or to lose.
func (o StorageObservation) Holds(node string) int {
	count, sites := 0, o.SitesOf(node)
	on := func(site string) bool { return slices.Contains(sites, site) }
	for _, database := range o.Databases {
		for _, shard := range database.Shards {
			if slices.ContainsFunc(shard.Replicas, on) || slices.ContainsFunc(shard.Joining, on) || slices.ContainsFunc(shard.Leaving, on) {
				count++
			}
		}
	}
	return count
}

// Transitions counts the replicas that are about to come or to go, where EMQX tells.
func (o StorageObservation) Transitions() int {
	count := 0
	for _, database := range o.Databases {
		for _, shard := range database.Shards {
			count += len(shard.Joining) + len(shard.Leaving)
		}
	}
	return count
}

// storageState is what is kept of durable storage. Its fields are guarded by the driver's mutex.
type storageState struct {
	looking, pending bool
	timer            *time.Timer // When it is looked at next; nil before the first time.
	ordered          map[string]orderedReplicas
}

// orderedReplicas is where the replicas of a database were last told to be, and when.
type orderedReplicas struct {
	sites []string
	at    time.Time
}

// reorderAfter is when an order to move replicas is repeated that has not been carried out. EMQX keeps trying by itself, every
// minute at least.
const reorderAfter = 90 * time.Second

// pursueStorage has storage be looked at when its goal has changed. The caller holds the lock.
func (d *Driver) pursueStorage(before StorageGoal) {
	goal := d.goal.Storage
	switch {
	case goal.Busy && d.storage.timer == nil, !goal.equal(before):
		d.dueStorage()
	case d.storage.timer == nil && !d.storage.looking && len(d.goal.Nodes) > 0:
		d.lookAtStorageIn(d.untilStorage())
	}
}

// dueStorage has storage be looked at now. The caller holds the lock.
func (d *Driver) dueStorage() {
	d.storage.pending = true
	if d.storage.looking || d.ctx.Err() != nil {
		return
	}
	d.storage.looking = true
	if d.storage.timer != nil {
		d.storage.timer.Stop()
	}
	d.wait.Go(d.lookAtStorage)
}

func (d *Driver) lookAtStorageIn(wait time.Duration) {
	if d.storage.timer != nil {
		d.storage.timer.Reset(wait)
		return
	}
	d.storage.timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.dueStorage()
	})
}

// untilStorage is how long to wait before storage is looked at again. The caller holds the lock.
func (d *Driver) untilStorage() time.Duration {
	switch {
	case d.goal.Storage.Busy:
		return until(d.began, d.config.BusyInterval/2, d.config.BusyInterval/8) // Beside the looks at nodes.
	case d.unsettled(d.observation.Load().Storage):
		return d.config.Turns.next(d.config.Name, min(5*d.config.BusyInterval, d.config.IdleInterval), silentPerSecond)
	}
	return d.config.Turns.next(d.config.Name, storageInterval, storagePerSecond)
}

// storageInterval is the time between two looks at storage at rest, at least: each takes a dozen questions, and nothing moves
// unless it is told to.
const storageInterval = 5 * time.Minute

// unsettled reports whether storage is not known, or not where it shall be. The caller holds the lock.
func (d *Driver) unsettled(storage StorageObservation) bool {
	if !storage.Known() || storage.OrderFailure != "" || storage.Transitions() > 0 {
		return true
	}
	wanted := sitesOf(storage, d.goal.Storage.Holders)
	return len(wanted) > 0 && slices.ContainsFunc(storage.Databases, func(database emqx.Database) bool {
		_, unopened := storage.Unopened[database.Name]
		// With few shards, or a small factor, not every site gets a replica, whatever is ordered.
		last := d.storage.ordered[database.Name]
		done := placed(database, wanted) || within(database, wanted) && slices.Equal(last.sites, wanted) && time.Since(last.at) > reorderAfter
		return !unopened && !done
	})
}

// sitesOf are the sites of some nodes.
func sitesOf(storage StorageObservation, nodes []string) []string {
	var sites []string
	for _, node := range nodes {
		sites = append(sites, storage.SitesOf(node)...)
	}
	slices.Sort(sites)
	return sites
}

// lookAtStorage looks at storage as long as there is a reason to, and has it be looked at again in time.
func (d *Driver) lookAtStorage() {
	for {
		d.mu.Lock()
		if d.ctx.Err() != nil || !d.storage.pending {
			d.storage.looking = false
			if d.ctx.Err() == nil {
				d.lookAtStorageIn(d.untilStorage())
			}
			d.mu.Unlock()
			return
		}
		d.storage.pending = false
		goal := d.goal.Storage
		d.mu.Unlock()

		last := d.Observation().Storage
		next := last
		if err := d.guarded(func() error { next = d.observeStorage(d.ctx, goal, last); return nil }); err != nil {
			next.Failure = err.Error()
		}
		d.publishStorage(next)
	}
}

// observeStorage asks what there is, and has replicas move that are not where they shall be.
func (d *Driver) observeStorage(ctx context.Context, goal StorageGoal, last StorageObservation) StorageObservation {
	failed := func(err error) StorageObservation {
		last.Failure = stable(err)
		return last
	}
	speaker, ok := d.speaker()
	if !ok {
		return failed(errors.New("no node of the cluster answers that could tell of durable storage"))
	}
	var next StorageObservation
	err := d.keys.with(ctx, func(credentials emqx.Credentials) (err error) {
		next, err = d.askStorage(ctx, speaker, credentials, goal)
		return err
	})
	if err != nil {
		return failed(err)
	}
	if len(goal.Leaving) > 0 && last.Enabled && !next.Enabled {
		// A node that starts says so, too, until its databases are open.
		return failed(fmt.Errorf("node %s says that there is no durable storage, where there was some", speaker.Name))
	}
	next.OrderFailure = d.moveReplicas(ctx, speaker, goal, next)
	return next
}

// askStorage asks a node that stays and, when some leave, one of these: what is open there alone must not be overlooked.
func (d *Driver) askStorage(ctx context.Context, speaker emqx.Node, credentials emqx.Credentials, goal StorageGoal) (StorageObservation, error) {
	var next StorageObservation
	storage, err := d.config.API.Storage(ctx, speaker, credentials)
	switch {
	case err == nil:
		next.Enabled, next.Storage = true, storage
	case !withoutStorage(err):
		return next, err
	}
	if leaving, ok := d.answering(goal.Leaving); ok {
		theirs, err := d.config.API.Storage(ctx, leaving, credentials)
		switch {
		case err == nil:
			next.with(theirs, speaker.Name)
		case !withoutStorage(err):
			return next, err
		}
	}
	next.Seen = time.Now()
	return next, nil
}

// withoutStorage reports whether an error says that there is none.
func withoutStorage(err error) bool {
	return errors.Is(err, emqx.ErrStorageDisabled) || errors.Is(err, emqx.ErrNoSuchCall)
}

// with adds what a leaving node tells of and the one that stays does not.
func (o *StorageObservation) with(theirs emqx.Storage, staying string) {
	o.Enabled = true
	for _, site := range theirs.Sites {
		if !slices.ContainsFunc(o.Sites, func(known emqx.Site) bool { return known.ID == site.ID }) {
			o.Sites = append(slices.Clip(o.Sites), site)
		}
	}
	for _, database := range theirs.Databases {
		if !slices.ContainsFunc(o.Databases, func(known emqx.Database) bool { return known.Name == database.Name }) {
			o.Databases = append(slices.Clip(o.Databases), database)
			if o.Unopened == nil {
				o.Unopened = map[string]string{}
			}
			o.Unopened[database.Name] = staying
		}
	}
}

// answering is the first of some nodes that runs, by what is known.
func (d *Driver) answering(names []string) (emqx.Node, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	observation := d.observation.Load()
	for _, goal := range d.goal.Nodes {
		if slices.Contains(names, goal.Name) && observation.Nodes[goal.Name].Running() {
			return goal.Node, true
		}
	}
	return emqx.Node{}, false
}

// moveReplicas has EMQX move what is not where it shall be, and says what stands in the way.
func (d *Driver) moveReplicas(ctx context.Context, speaker emqx.Node, goal StorageGoal, storage StorageObservation) string {
	if len(goal.Holders) == 0 || !storage.Enabled {
		return ""
	}
	for _, holder := range goal.Holders {
		if len(storage.SitesOf(holder)) == 0 {
			return "node " + holder + " has no site yet"
		}
	}
	wanted, failure := sitesOf(storage, goal.Holders), ""
	for _, database := range storage.Databases {
		if _, unopened := storage.Unopened[database.Name]; unopened || placed(database, wanted) || !d.orderNow(database.Name, wanted, within(database, wanted)) {
			continue
		}
		d.config.Logger.V(2).Info("Having replicas moved", "database", database.Name, "sites", wanted, "askedNode", speaker.Name)
		err := d.keys.with(ctx, func(credentials emqx.Credentials) error {
			return d.config.API.SetReplicas(ctx, speaker, credentials, database.Name, wanted)
		})
		if err != nil {
			d.mu.Lock()
			delete(d.storage.ordered, database.Name)
			d.mu.Unlock()
			failure = fmt.Sprintf("database %s: %s", database.Name, stable(err))
		}
	}
	return failure
}

// placed reports whether the replicas of a database are on the wanted sites and no others, or are about to come there: on all of
// these, or as many for each shard as EMQX makes (durable_storage.replication_factor, which it does not tell, is 3).
func placed(database emqx.Database, wanted []string) bool {
	on, fewest := map[string]bool{}, replicationFactor
	for _, shard := range database.Shards {
		fewest = min(fewest, len(shard.Replicas))
		for _, site := range slices.Concat(shard.Replicas, shard.Joining) {
			on[site] = true
		}
	}
	return len(on) == 0 || slices.Equal(slices.Sorted(maps.Keys(on)), wanted) || fewest == replicationFactor && within(database, wanted)
}

const replicationFactor = 3

// within reports whether all replicas of a database are on some sites, whether on all of these or not.
func within(database emqx.Database, sites []string) bool {
	return !slices.ContainsFunc(database.Shards, func(shard emqx.Shard) bool {
		return slices.ContainsFunc(slices.Concat(shard.Replicas, shard.Joining), func(site string) bool { return !slices.Contains(sites, site) })
	})
}

// orderNow notes an order and reports whether it is to be given: not the same again while EMQX is at it, or when it was to be
// given once.
func (d *Driver) orderNow(database string, sites []string, once bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := d.storage.ordered[database]
	if slices.Equal(last.sites, sites) && (once || time.Since(last.at) < reorderAfter) {
		return false
	}
	if d.storage.ordered == nil {
		d.storage.ordered = map[string]orderedReplicas{}
	}
	d.storage.ordered[database] = orderedReplicas{sites, time.Now()}
	return true
}

func (d *Driver) publishStorage(storage StorageObservation) {
	d.amend(func(o *Observation) bool {
		if d.ctx.Err() != nil {
			return false
		}
		before := o.Storage
		o.Storage = storage
		first := before.Seen.IsZero() != storage.Seen.IsZero()
		before.Seen, storage.Seen = time.Time{}, time.Time{}
		return first || d.goal.Storage.Busy || !reflect.DeepEqual(before, storage)
	})
}

// forgetSites has the cluster forget the sites of a node that was made to leave; it returns why that failed, or nothing.
func (d *Driver) forgetSites(ctx context.Context, node emqx.Node, member string) string {
	var storage emqx.Storage
	err := d.keys.with(ctx, func(credentials emqx.Credentials) (err error) {
		storage, err = d.config.API.Storage(ctx, node, credentials)
		return err
	})
	if withoutStorage(err) {
		return ""
	}
	if err != nil {
		return stable(err)
	}
	for _, site := range (StorageObservation{Storage: storage}).SitesOf(member) {
		err := d.keys.with(ctx, func(credentials emqx.Credentials) error { return d.config.API.ForgetSite(ctx, node, credentials, site) })
		if err != nil {
			return fmt.Sprintf("its site %s of durable storage: %s", site, stable(err))
		}
		d.config.Logger.V(2).Info("Made the cluster forget a site", "site", site, "member", member, "askedNode", node.Name)
	}
	return ""
}
