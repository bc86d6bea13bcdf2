package evacuate

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// database has one shard, with replicas on some sites.
func database(name string, sites ...string) emqx.Database {
	return emqx.Database{Name: name, Shards: []emqx.Shard{{ID: "0", Replicas: sites}}}
}

// storageOf has a site A on node a and a site B on node b.
func storageOf(databases ...emqx.Database) *emqx.Storage {
	return &emqx.Storage{Sites: []emqx.Site{{ID: "A", Node: "a", Up: true}, {ID: "B", Node: "b", Up: true}}, Databases: databases}
}

func pursueStorage(d *Driver, goal StorageGoal) {
	d.Pursue(Goal{Nodes: []NodeGoal{{Node: emqx.Node{Name: "a", URL: "http://a"}}, {Node: emqx.Node{Name: "b", URL: "http://b"}}}, Busy: goal.Busy, Storage: goal})
}

func TestReplicasAreMoved(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, changes func() int) {
		f.storage = map[string]*emqx.Storage{"a": storageOf(database("m", "A"), database("empty")), "b": storageOf()}
		pursueStorage(d, StorageGoal{Busy: true})
		pass(3 * time.Second)
		require.True(t, d.Observation().Storage.Known())
		require.Equal(t, 1, d.Observation().Storage.Holds("a"))
		require.Empty(t, f.orders, "nobody said where replicas shall be")

		pursueStorage(d, StorageGoal{Holders: []string{"b"}, Leaving: []string{"a"}, Busy: true})
		pass(time.Minute)
		require.Equal(t, []string{"a: m on [B]"}, f.orders, "the order is given once")
		pass(time.Minute)
		require.Len(t, f.orders, 2, "and again when it had no effect for long")

		f.mu.Lock()
		f.storage["a"].Databases = []emqx.Database{database("m", "B")}
		f.mu.Unlock()
		before := changes()
		pass(time.Minute)
		require.Zero(t, d.Observation().Storage.Holds("a"))
		require.Greater(t, changes(), before)
		require.Len(t, f.orders, 2)
	})
}

func TestWhatStandsInTheWayOfReplicasIsTold(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.storage = map[string]*emqx.Storage{"a": storageOf(database("m", "A"))}
		f.storage["a"].Sites = f.storage["a"].Sites[:1]
		goal := StorageGoal{Holders: []string{"b"}, Busy: true}
		pursueStorage(d, goal)
		pass(3 * time.Second)
		require.Equal(t, "node b has no site yet", d.Observation().Storage.OrderFailure)

		f.mu.Lock()
		f.storage["a"], f.refusal = storageOf(database("m", "A")), errors.New("Replication still targets lost sites: X")
		f.mu.Unlock()
		pass(2 * time.Second)
		require.Equal(t, "database m: Replication still targets lost sites: X", d.Observation().Storage.OrderFailure)

		f.mu.Lock()
		f.refusal = nil
		f.mu.Unlock()
		pass(2 * time.Second)
		require.Empty(t, d.Observation().Storage.OrderFailure, "what was refused is ordered again")

		f.change("a", func(n *fakeNode) { n.frozen = true })
		f.change("b", func(n *fakeNode) { n.frozen = true })
		pass(10 * time.Second)
		require.False(t, d.Observation().Storage.Known(), "unknown is not empty")
		require.Equal(t, 1, d.Observation().Storage.Holds("a"), "what was known stays")
	})
}

func TestPlaced(t *testing.T) {
	for _, tt := range []struct {
		name    string
		shards  [][]string
		joining []string // Of the last shard.
		wanted  []string
		placed  bool
	}{
		{"there are no shards", nil, nil, []string{"A"}, true},
		{"one has all", [][]string{{"A"}, {"A"}}, nil, []string{"A"}, true},
		{"others have none yet", [][]string{{"A"}, {"A"}}, nil, []string{"A", "B"}, false},
		{"it is spread", [][]string{{"A"}, {"B"}}, nil, []string{"A", "B"}, true},
		{"one is too many", [][]string{{"A"}, {"C"}}, nil, []string{"A"}, false},
		{"one is elsewhere", [][]string{{"C"}}, nil, []string{"A"}, false},
		{"not all of many sites get one", [][]string{{"A", "B", "C"}}, nil, []string{"A", "B", "C", "D"}, true},
		{"unless a shard has too few", [][]string{{"A", "B", "C"}, {"A"}}, nil, []string{"A", "B", "C", "D"}, false},
		{"one is about to come", [][]string{{"A"}}, []string{"B"}, []string{"A", "B"}, true},
		{"one is about to come where it shall not be", [][]string{{"A"}}, []string{"B"}, []string{"A"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var of emqx.Database
			for _, replicas := range tt.shards {
				of.Shards = append(of.Shards, emqx.Shard{Replicas: replicas})
			}
			if len(tt.joining) > 0 {
				of.Shards[len(of.Shards)-1].Joining = tt.joining
			}
			require.Equal(t, tt.placed, placed(of, tt.wanted))
		})
	}
}

// TestReplicasThatCannotBeSpread: with one shard and one replica, no order puts one on each site; it is given once.
func TestReplicasThatCannotBeSpread(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.storage = map[string]*emqx.Storage{"a": storageOf(database("m", "A"))}
		pursueStorage(d, StorageGoal{Holders: []string{"a", "b"}})
		pass(time.Hour)
		require.Equal(t, []string{"a: m on [A B]"}, f.orders)
		require.Less(t, f.count("a")+f.count("b"), 1200)
	})
}

// TestDatabaseThatOnlyLeavingNodesHave: the new revision need not have open what the old one has.
func TestDatabaseThatOnlyLeavingNodesHave(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		pursueStorage(d, StorageGoal{Busy: true})
		pass(2 * time.Second) // Both are known, and the first speaks.
		f.storage = map[string]*emqx.Storage{"b": storageOf(database("mq_state", "B"))}
		pursueStorage(d, StorageGoal{Holders: []string{"a"}, Leaving: []string{"b"}, Busy: true})
		pass(3 * time.Second)
		storage := d.Observation().Storage
		require.True(t, storage.Enabled)
		require.Equal(t, 1, storage.Holds("b"))
		require.Equal(t, map[string]string{"mq_state": "a"}, storage.Unopened)
		require.Empty(t, f.orders, "there is nowhere to move it to")
	})
}

// TestStorageThatIsNotOpenYet: a node that starts says that there is none. While nodes leave that had some, it is not believed.
func TestStorageThatIsNotOpenYet(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.storage = map[string]*emqx.Storage{"a": storageOf(database("m", "B")), "b": storageOf(database("m", "B"))}
		goal := StorageGoal{Holders: []string{"a"}, Leaving: []string{"b"}, Busy: true}
		pursueStorage(d, goal)
		pass(3 * time.Second)
		require.Equal(t, 1, d.Observation().Storage.Holds("b"))

		f.mu.Lock()
		f.storage["a"] = nil
		f.mu.Unlock()
		f.change("b", func(n *fakeNode) { n.frozen = true })
		pass(15 * time.Second)
		require.False(t, d.Observation().Storage.Known())
		require.Equal(t, 1, d.Observation().Storage.Holds("b"))
	})
}

// TestNoStorage: a cluster without is asked as rarely as nodes at rest are, and a member leaves without.
func TestNoStorage(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		pursueStorage(d, StorageGoal{})
		pass(2 * time.Minute)
		require.True(t, d.Observation().Storage.Known())
		require.False(t, d.Observation().Storage.Enabled)
		require.Less(t, f.count("a")+f.count("b"), 60)
	})
}

func TestSiteLeavesWithItsNode(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.storage = map[string]*emqx.Storage{"a": storageOf(), "b": storageOf()}
		for _, storage := range f.storage {
			storage.Sites = append(storage.Sites, emqx.Site{ID: "C", Node: "c"})
		}
		f.refusal = errors.New("Site is still a member of replica sets of: m")
		goal := Goal{Nodes: []NodeGoal{{Node: emqx.Node{Name: "a", URL: "http://a"}}}, Absent: []string{"c"}, Busy: true}
		d.Pursue(goal)
		pass(5 * time.Second)
		require.False(t, d.Observation().Left["c"])
		require.Contains(t, d.Observation().Failure, "its site C of durable storage: Site is still a member")

		f.mu.Lock()
		f.refusal = nil
		f.mu.Unlock()
		pass(5 * time.Second)
		require.True(t, d.Observation().Left["c"])
		require.Contains(t, f.orders, "a: forget C")
	})
}
