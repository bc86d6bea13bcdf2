package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Topic is what nodes tell each other about durable storage under: a Table, or in a call the wish for one.
const Topic = "storage.table"

// Cluster is the cluster that this node is in.
type Cluster interface {
	Self() string
	// State tells whether a node is a member, and whether it runs.
	State(node string) (member, running bool)
	Running() []string
	Linked() []string
	// Changed is closed when that may be another way.
	Changed() <-chan struct{}
	Cast(node, topic string, v any, droppable bool) error
	Call(ctx context.Context, node, topic string, question, answer any) error
}

// Times is how long steps take. Zero values stand for what was recorded.
type Times struct {
	Join   time.Duration // a site joins a shard; default 5 s
	Leave  time.Duration // a site leaves a shard by itself; default 200 ms
	Remove time.Duration // until another node removes a site that does not; default 60 s
}

func (t Times) withDefaults() Times {
	if t.Join == 0 {
		t.Join = 5 * time.Second
	}
	if t.Leave == 0 {
		t.Leave = 200 * time.Millisecond
	}
	if t.Remove == 0 {
		t.Remove = time.Minute
	}
	return t
}

// Config is what a Service needs.
type Config struct {
	Cluster Cluster
	DataDir string // where site and table are kept; empty: nowhere
	Release Release
	// Databases is what this node opens; without any, durable storage is off.
	Databases map[string]Options
	Times     Times
	Log       *slog.Logger
}

// ErrConflict is why a node ends whose name belongs to the site of another data directory.
var ErrConflict = errors.New("attempt to claim the site of durable storage failed")

// Service is durable storage on one node. It lives as long as the node, over restarts of its applications.
type Service struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	id      string // of this node's site
	claimed bool   // it is in the table
	table   Table
	since   map[place]pending
	unsaved bool
	changed chan struct{} // closed and replaced at every change
}

// place is a shard of a database.
type place struct{ database, shard string }

// pending is the next step of a shard and since when it is that.
type pending struct {
	step Step
	at   time.Time
}

// New reads what an earlier run kept. Nothing is done before Claim.
func New(cfg Config) (*Service, error) {
	cfg.Times = cfg.Times.withDefaults()
	s := &Service{cfg: cfg, since: map[place]pending{}, changed: make(chan struct{})}
	var err error
	if s.table, err = loadTable(cfg.DataDir); err != nil {
		return nil, err
	}
	if s.Enabled() {
		if s.id, err = loadSite(cfg.DataDir); err != nil {
			return nil, err
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background()) // Its own life, which Close ends: nobody else's.
	s.wg.Add(1)
	go s.run()
	return s, nil
}

// Close ends it; what is pending stays pending.
func (s *Service) Close() {
	s.cancel()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saveLocked()
}

// Enabled reports whether this node has durable storage at all.
func (s *Service) Enabled() bool { return len(s.cfg.Databases) > 0 }

// Reset forgets the table, as a node does that joins another cluster or is alone from now on. Its site stays its own.
func (s *Service) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table, s.claimed = NewTable(), false
	s.noteLocked()
	s.saveLocked() // at once: after a crash the old table would be taken for news by the new cluster
}

// Fetch takes over the table of another node.
func (s *Service) Fetch(ctx context.Context, node string) error {
	var t Table
	if err := s.cfg.Cluster.Call(ctx, node, Topic, struct{}{}, &t); err != nil {
		return fmt.Errorf("fetch the table of durable storage: %w", err)
	}
	s.Learn(t)
	return nil
}

// Claim enters this node's site and opens the databases. Where the node's name belongs to another site, a 6.0 goes on
// without a site of its own; an older release cannot go on.
func (s *Service) Claim() error {
	if !s.Enabled() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	change, err := s.table.claim(s.id, s.cfg.Cluster.Self(), time.Now().UnixNano())
	if err != nil {
		err = fmt.Errorf("%w: ID=%s: %w", ErrConflict, s.id, err)
		if s.cfg.Release.Modern() {
			s.cfg.Log.Error("durable storage without a site", "error", err)
			return nil
		}
		return err
	}
	s.claimed = true
	s.tellLocked(change)
	s.openLocked()
	return nil
}

// NodeLeft tells that a node was made to leave. Releases before 6.0 forget its site then, if it is empty.
func (s *Service) NodeLeft(node string) {
	if s.cfg.Release.Modern() {
		return
	}
	for _, id := range s.sitesOf(node) {
		if err := s.Forget(id); err != nil {
			s.cfg.Log.Error("forget the site of a node that leaves", "node", node, "site", id, "error", err)
		}
	}
}

func (s *Service) sitesOf(node string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Of(node)
}

// Snapshot is the whole table, for another node. It must not be changed.
func (s *Service) Snapshot() Table {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := NewTable()
	t.Merge(s.table)
	return t
}

// Learn takes what another node tells.
func (s *Service) Learn(t Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.Merge(t) {
		s.noteLocked()
	}
}

// status is that of a node.
func (s *Service) status(node string) Status {
	member, running := s.cfg.Cluster.State(node)
	switch {
	case running:
		return Up
	case member:
		return Down
	default:
		return Lost
	}
}

// tellLocked tells the others of a change that is in the table already.
func (s *Service) tellLocked(change Table) {
	if len(change.Sites)+len(change.Databases) == 0 {
		return
	}
	s.noteLocked()
	for _, node := range s.cfg.Cluster.Linked() {
		if err := s.cfg.Cluster.Cast(node, Topic, change, false); err != nil {
			s.cfg.Log.Debug("cast", "topic", Topic, "node", node, "error", err) // it gets the table when it connects again
		}
	}
}

// noteLocked wakes run after a change. It does not write: changes come in dozens, and links wait meanwhile.
func (s *Service) noteLocked() {
	s.unsaved = true
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Service) saveLocked() {
	if !s.unsaved || !s.Enabled() {
		return
	}
	s.unsaved = false
	if err := s.table.save(s.cfg.DataDir); err != nil {
		s.cfg.Log.Error("durable storage", "error", err)
	}
}

// openLocked opens what is not open yet. Of several nodes the first does it for all.
func (s *Service) openLocked() {
	if others := s.cfg.Cluster.Running(); !s.claimed || (len(others) > 0 && others[0] < s.cfg.Cluster.Self()) {
		return
	}
	for name, options := range s.cfg.Databases {
		s.tellLocked(s.table.open(name, options, s.status, time.Now().UnixNano()))
	}
}

// run does the steps that are this node's, when they are due.
func (s *Service) run() {
	defer s.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		members := s.cfg.Cluster.Changed()
		s.mu.Lock()
		changed := s.changed
		s.openLocked()
		var due <-chan time.Time
		if at := s.actLocked(time.Now()); !at.IsZero() {
			timer.Reset(time.Until(at))
			due = timer.C
		}
		s.saveLocked()
		s.mu.Unlock()
		select {
		case <-s.ctx.Done():
			return
		case <-members:
		case <-changed:
		case <-due:
		}
	}
}

// actLocked does what is due now and returns when something is due next; zero: not before something changes.
func (s *Service) actLocked(now time.Time) time.Time {
	var next time.Time
	for name, d := range s.table.Databases {
		for id, shard := range d.Shards {
			at := place{name, id}
			plan := s.table.plan(shard, s.status)
			if len(plan) == 0 {
				delete(s.since, at)
				continue
			}
			if s.since[at].step != plan[0] {
				s.since[at] = pending{plan[0], now}
			}
			takes, mine := s.takes(shard, plan[0])
			if !mine {
				continue
			}
			if due := s.since[at].at.Add(takes); due.After(now) {
				if next.IsZero() || due.Before(next) {
					next = due
				}
				continue
			}
			s.doLocked(at, shard, plan[0])
		}
	}
	return next
}

// doLocked does a step. The next one is seen when the loop comes round: the table has changed.
func (s *Service) doLocked(at place, shard Shard, step Step) {
	version := max(time.Now().UnixNano(), shard.Replicas.Version+1)
	change := part(at.database, at.shard, Shard{Replicas: Set{Sites: step.apply(shard.Replicas.Sites), Version: version}})
	s.table.Merge(change)
	s.cfg.Log.Info("replica of durable storage", "storage", at.database, "shard", at.shard, "site", step.Site, "was", step.Word())
	s.tellLocked(change)
}

// takes tells how long a step takes and whether this node can do it: that of its own site, and on the first of the nodes also
// that of a site that does not leave by itself.
func (s *Service) takes(shard Shard, step Step) (time.Duration, bool) {
	switch {
	case step.Site == s.id && s.claimed:
		if step.Joining {
			return s.cfg.Times.Join, s.table.agrees(shard, s.status)
		}
		return s.cfg.Times.Leave, s.table.agrees(shard, s.status)
	case step.Joining:
		return 0, false
	default:
		running := s.cfg.Cluster.Running()
		first := len(running) > 0 && running[0] == s.cfg.Cluster.Self()
		return s.cfg.Times.Remove, first && s.table.removes(shard, step.Site, s.status)
	}
}

// Sites lists the ids of all sites.
func (s *Service) Sites() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.table.Known()...)
}

// Site shows one.
func (s *Service) Site(id string) (SiteView, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.table.Known(), id) {
		return SiteView{}, false
	}
	return s.table.site(id, s.status, s.cfg.Release.Modern()), true
}

// Storages lists the databases.
func (s *Service) Storages() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.table.Names()...)
}

// Storage shows one.
func (s *Service) Storage(name string) (DatabaseView, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.table.Databases[name]
	return s.table.database(name, s.status, s.cfg.Release.Modern()), known
}

// Replicas lists the sites that have replicas of a database.
func (s *Service) Replicas(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table.Databases[name].Replicas()
}

// Assign makes the given sites those of a database.
func (s *Service) Assign(name string, sites []string) error {
	return s.change(func(t Table, version int64) (Table, error) { return t.assign(name, sites, s.status, version) })
}

// Modify lets one site join or leave a database.
func (s *Service) Modify(name string, step Step) error {
	return s.change(func(t Table, version int64) (Table, error) { return t.modify(name, step, s.status, version) })
}

// Forget takes an empty site of a node that is no member out of the table.
func (s *Service) Forget(id string) error {
	return s.change(func(t Table, version int64) (Table, error) { return t.forget(id, s.status, version) })
}

func (s *Service) change(f func(Table, int64) (Table, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change, err := f(s.table, time.Now().UnixNano())
	if err != nil {
		return err
	}
	s.tellLocked(change)
	return nil
}
