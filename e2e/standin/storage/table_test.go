package storage

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// world gives nodes their status; of one that is not named it is lost.
func world(nodes map[string]Status) Statuses {
	return func(node string) Status {
		if status, ok := nodes[node]; ok {
			return status
		}
		return Lost
	}
}

var allUp = world(map[string]Status{"a": Up, "b": Up, "c": Up, "d": Up})

// sites is a table of nodes a, b, c, d with the sites 1, 2, 3, 4, of which the first holds all replicas of two databases.
func sites(t *testing.T) Table {
	t.Helper()
	table := NewTable()
	_, err := table.claim("1", "a", 1)
	require.NoError(t, err)
	for _, name := range []string{"messages", "mq_state"} {
		table.open(name, Options{Shards: 2, Sites: 1, Replication: 3}, allUp, 1)
	}
	for id, node := range map[string]string{"2": "b", "3": "c", "4": "d"} {
		_, err := table.claim(id, node, 1)
		require.NoError(t, err)
	}
	return table
}

func shardOf(replicas, target []string) Shard {
	return Shard{Replicas: Set{Sites: replicas}, Target: Set{Sites: target}}
}

func TestPlan(t *testing.T) {
	join := func(site string) Step { return Step{Site: site, Joining: true} }
	leave := func(site string) Step { return Step{Site: site} }
	for _, c := range []struct {
		reason           string
		replicas, target []string
		lost             string
		want             []Step
	}{
		{"nobody asked for a change", []string{"1"}, nil, "", nil},
		{"it is so already", []string{"1", "2"}, []string{"1", "2"}, "", nil},
		{"two join, in their order", []string{"2"}, []string{"1", "2", "3"}, "", []Step{join("1"), join("3")}},
		{"join and leave in turn", []string{"1", "2", "3"}, []string{"3", "4", "5", "6"}, "", []Step{join("4"), leave("1"), join("5"), leave("2"), join("6")}},
		{"who is lost leaves first", []string{"1", "2", "3"}, []string{"3", "4"}, "2", []Step{leave("2"), join("4"), leave("1")}},
		{"who is lost and stays is no step", []string{"1", "2"}, []string{"1", "2", "3"}, "2", []Step{join("3")}},
	} {
		got := shardOf(c.replicas, c.target).Plan(func(site string) bool { return site == c.lost })
		require.Equal(t, c.want, got, c.reason)
		after := c.replicas
		for _, step := range got {
			after = step.apply(after)
		}
		if c.target != nil {
			require.Equal(t, c.target, after, "%s: the plan leads there", c.reason)
		}
	}
}

func TestQuorum(t *testing.T) {
	for _, c := range []struct {
		reason          string
		a, b, c         Status // of the three replicas
		agrees, removes bool   // removes: that of a
	}{
		{"all are up", Up, Up, Up, true, true},
		{"one is down", Down, Up, Up, true, true},
		{"two are down", Down, Down, Up, false, false},
		{"one is lost", Lost, Up, Up, true, true},
		{"one is lost, one down: a majority may come back", Lost, Down, Up, false, false},
		{"two are lost: what is left goes on", Lost, Lost, Up, false, true},
		{"two are lost, one is down", Lost, Lost, Down, false, false},
		{"all are lost: it begins anew", Lost, Lost, Lost, true, true},
	} {
		of := world(map[string]Status{"a": c.a, "b": c.b, "c": c.c})
		shard := shardOf([]string{"1", "2", "3"}, []string{"2", "3"})
		require.Equal(t, c.agrees, sites(t).agrees(shard, of), c.reason)
		require.Equal(t, c.removes, sites(t).removes(shard, "1", of), c.reason)
	}
}

func TestAllocation(t *testing.T) {
	for _, c := range []struct {
		reason      string
		sites       []string
		replication int
		want        map[string][]string
	}{
		{"one site takes all", []string{"1"}, 3, map[string][]string{"0": {"1"}, "1": {"1"}, "10": {"1"}}},
		{"as many as there are", []string{"2", "1"}, 3, map[string][]string{"0": {"1", "2"}, "1": {"1", "2"}, "10": {"1", "2"}}},
		{"in turn, shards ordered as texts", []string{"1", "2", "3"}, 2, map[string][]string{"0": {"1", "2"}, "1": {"2", "3"}, "10": {"1", "3"}}},
	} {
		require.Equal(t, c.want, allocate([]string{"10", "1", "0"}, c.sites, c.replication), c.reason)
	}
}

func TestFirstSiteTakesAll(t *testing.T) {
	table := sites(t)
	require.Equal(t, []string{"1"}, table.Databases["messages"].Replicas())
	require.Equal(t, []string{"0", "1"}, table.Databases["messages"].IDs())
	waits := NewTable()
	_, err := waits.claim("1", "a", 1)
	require.NoError(t, err)
	waits.open("messages", Options{Shards: 2, Sites: 2, Replication: 3}, allUp, 1)
	require.Empty(t, waits.Databases["messages"].Shards, "fewer sites than asked for")
	_, err = waits.claim("2", "b", 2)
	require.NoError(t, err)
	waits.open("messages", Options{Shards: 7, Sites: 1, Replication: 1}, allUp, 2)
	require.Len(t, waits.Databases["messages"].Shards, 2, "the options are those of who made it")
	require.Equal(t, []string{"1", "2"}, waits.Databases["messages"].Replicas())
}

func TestChanges(t *testing.T) {
	cLost := world(map[string]Status{"a": Up, "b": Up, "d": Down})
	for _, c := range []struct {
		reason string
		of     Statuses
		do     func(Table, Statuses) (Table, error)
		refuse string
		want   []string // targets of messages
	}{
		{"three sites", allUp, func(t Table, of Statuses) (Table, error) {
			return t.assign("messages", []string{"3", "1", "2", "1"}, of, 2)
		}, "", []string{"1", "2", "3"}},
		{"a site that is down", cLost, func(t Table, of Statuses) (Table, error) { return t.assign("messages", []string{"1", "4"}, of, 2) }, "", []string{"1", "4"}},
		{"none", allUp, func(t Table, of Statuses) (Table, error) { return t.assign("messages", nil, of, 2) }, "Replica sets would become too small", nil},
		{"unknown ones", allUp, func(t Table, of Statuses) (Table, error) {
			return t.assign("messages", []string{"1", "8", "9"}, of, 2)
		}, "Unknown sites: 8, 9", nil},
		{"a lost one", cLost, func(t Table, of Statuses) (Table, error) { return t.assign("messages", []string{"1", "3"}, of, 2) }, "Replication still targets lost sites: 3", nil},
		{"join", allUp, func(t Table, of Statuses) (Table, error) { return t.modify("messages", Step{"2", true}, of, 2) }, "", []string{"1", "2"}},
		{"join of a member", allUp, func(t Table, of Statuses) (Table, error) { return t.modify("messages", Step{"1", true}, of, 2) }, "", []string{"1"}},
		{"leave of the last", allUp, func(t Table, of Statuses) (Table, error) { return t.modify("messages", Step{"1", false}, of, 2) }, "Replica sets would become too small", nil},
		{"leave of no member", allUp, func(t Table, of Statuses) (Table, error) { return t.modify("messages", Step{"2", false}, of, 2) }, "Site is not part of replica set", nil},
		{"forget one that is up", cLost, func(t Table, of Statuses) (Table, error) { return t.forget("1", of, 2) }, "Site is up and running", nil},
		{"forget one that is down", cLost, func(t Table, of Statuses) (Table, error) { return t.forget("4", of, 2) }, "Site is considered temporarily down", nil},
		{"forget one that holds replicas", world(nil), func(t Table, of Statuses) (Table, error) { return t.forget("1", of, 2) }, "Site is still a member of replica sets of: messages, mq_state", nil},
		{"forget an empty one", cLost, func(t Table, of Statuses) (Table, error) { return t.forget("3", of, 2) }, "", []string{"1"}},
		{"forget an unknown one", cLost, func(t Table, of Statuses) (Table, error) { return t.forget("9", of, 2) }, "Unknown site", nil},
	} {
		table, other := sites(t), sites(t)
		change, err := c.do(table, c.of)
		if c.refuse != "" {
			require.EqualError(t, err, c.refuse, c.reason)
			require.Equal(t, other, table, "%s: nothing changes", c.reason)
			continue
		}
		require.NoError(t, err, c.reason)
		require.Equal(t, c.want, table.Databases["messages"].Targets(), c.reason)
		require.Equal(t, []string{"1"}, table.Databases["messages"].Replicas(), "%s: nothing moves yet", c.reason)
		other.Merge(change)
		require.Equal(t, table, other, "%s: another node that is told knows the same", c.reason)
	}
}

func TestForgetOneThatIsToJoin(t *testing.T) {
	table := sites(t)
	_, err := table.modify("mq_state", Step{"3", true}, allUp, 2)
	require.NoError(t, err)
	_, err = table.forget("3", world(nil), 3)
	require.EqualError(t, err, "Site is still a target of replica set transitions in: mq_state")
}

func TestClaim(t *testing.T) {
	table := sites(t)
	_, err := table.claim("9", "a", 2)
	require.EqualError(t, err, "conflicting_node_site: 1", "the node has lost its disk")
	_, err = table.claim("1", "renamed", 2)
	require.NoError(t, err, "a disk under another name")
	require.Equal(t, []string{"1"}, table.Of("renamed"))
	_, err = table.claim("9", "a", 3)
	require.NoError(t, err, "the name is free")
	_, err = table.forget("9", world(nil), 4)
	require.NoError(t, err)
	require.NotContains(t, table.Known(), "9")
	_, err = table.claim("9", "a", 5)
	require.NoError(t, err, "a forgotten site comes back")
	require.Contains(t, table.Known(), "9")
}

// A target that somebody asks for while a step is being done elsewhere is not lost, in whatever order the two are heard of.
func TestMergeKeepsBoth(t *testing.T) {
	base := sites(t)
	asked, err := sites(t).assign("messages", []string{"2"}, allUp, 7)
	require.NoError(t, err)
	done := part("messages", "0", Shard{Replicas: Set{Sites: []string{"1", "3"}, Version: 6}})
	other := sites(t)
	require.True(t, base.Merge(asked))
	require.True(t, base.Merge(done))
	require.True(t, other.Merge(done))
	require.True(t, other.Merge(asked))
	require.Equal(t, base, other)
	require.False(t, base.Merge(asked), "nothing new")
	require.Equal(t, []string{"2"}, base.Databases["messages"].Shards["0"].Target.Sites)
	require.Equal(t, []string{"1", "3"}, base.Databases["messages"].Shards["0"].Replicas.Sites)
}

func TestViews(t *testing.T) {
	table := sites(t)
	table.Merge(part("messages", "0", Shard{Replicas: Set{Sites: []string{"1", "4"}, Version: 5}, Target: Set{Sites: []string{"1", "2"}, Version: 5}}))
	of := world(map[string]Status{"a": Up, "b": Up, "d": Down})
	require.Equal(t, ShardView{
		ID: "0", Replicas: []ReplicaView{{"4", Down}, {"1", Up}}, Transitions: []TransitionView{{"2", "joining"}, {"4", "leaving"}},
	}, table.database("messages", of, true).Shards[0])
	require.Empty(t, table.database("messages", of, false).Shards[0].Transitions, "a 5.8 does not tell")
	require.Equal(t, SiteView{Node: "b", Up: true, Shards: []SiteShardView{{"messages", "0", Up, "joining"}}}, table.site("2", of, true))
	require.Equal(t, SiteView{Node: "b", Up: true, Shards: []SiteShardView{}}, table.site("2", of, false))
	require.Equal(t, SiteView{Node: "d", Shards: []SiteShardView{{"messages", "0", Down, "leaving"}}}, table.site("4", of, true))
}

func TestDatabases(t *testing.T) {
	durable := settings.Tree{"durable_sessions": settings.Tree{"enable": "true"}}
	queues := settings.Tree{"mq": settings.Tree{"enable": true}}
	for _, c := range []struct {
		version string
		tree    settings.Tree
		want    []string
	}{
		{"5.8.9", settings.Tree{}, nil},
		{"5.8.9", queues, nil},
		{"5.8.9", durable, []string{"messages"}},
		{"5.10.3", durable, []string{"messages"}},
		{"6.0.1", settings.Tree{}, []string{"mq_message_lastvalue", "mq_message_regular", "mq_state"}},
		{"6.0.1", settings.Tree{"mq": settings.Tree{"enable": "false"}}, nil},
		{"6.0.1", durable, []string{"messages", "mq_message_lastvalue", "mq_message_regular", "mq_state", "sessions", "shared_subs", "timers"}},
		{"6.2.0", settings.Tree{}, nil},
		{"6.2.0", queues, []string{"mq_message_lastvalue", "mq_message_regular", "mq_state"}},
	} {
		table := NewTable()
		for name, o := range Databases(c.tree, ReleaseOf(c.version)) {
			require.Equal(t, Options{Shards: 16, Sites: 1, Replication: 3}, o)
			table.Databases[name] = Database{}
		}
		require.Equal(t, c.want, table.Names(), "%s %v", c.version, c.tree)
	}
	set := settings.Tree{"durable_sessions": settings.Tree{"enable": true}, "durable_storage": settings.Tree{
		"n_sites": int64(3), "messages": settings.Tree{"n_shards": "2"},
	}}
	require.Equal(t, Options{Shards: 2, Sites: 3, Replication: 3}, Databases(set, ReleaseOf("5.8.9"))["messages"])
}

func TestKept(t *testing.T) {
	dir := t.TempDir()
	id, err := loadSite(dir)
	require.NoError(t, err)
	require.Regexp(t, "^[0-9A-F]{16}$", id)
	again, err := loadSite(dir)
	require.NoError(t, err)
	require.Equal(t, id, again)
	table := sites(t)
	require.NoError(t, table.save(dir))
	read, err := loadTable(dir)
	require.NoError(t, err)
	require.Equal(t, table, read)
}
