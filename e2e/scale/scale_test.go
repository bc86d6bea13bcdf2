package scale

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/gauge"
)

func TestConfigThatIsRefused(t *testing.T) {
	for _, test := range []struct {
		reason string
		config Config
		says   string
	}{
		{"nothing", Config{}, "must be given"},
		{"sizes that fall", Config{Dir: "a", ClusterBinary: "b", Manifests: "c", Sizes: []int{10, 1}}, "do not rise"},
		{"no cluster", Config{Dir: "a", ClusterBinary: "b", Manifests: "c", Sizes: []int{0}}, "do not rise"},
		{"no operator", Config{Dir: "a", ClusterBinary: "absent/cluster", Manifests: "c", Sizes: []int{1}}, "`make build`"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			_, err := test.config.complete()
			require.ErrorContains(t, err, test.says)
		})
	}
}

var (
	operatorUser = userOf(operatorNamespace, operatorAccount)
	timedUser    = userOf(namespace, timedAccount)
)

func TestTally(t *testing.T) {
	var counted tally
	counted.add([]gauge.Request{
		{User: operatorUser, Verb: "update", Resource: "leases"},
		{User: operatorUser, Verb: "create", Resource: "events"},
		{User: operatorUser, Verb: "patch", Resource: "emqxes/status"},
		{User: operatorUser, Verb: "patch", Resource: "emqxes/status"},
		{User: operatorUser, Verb: "get", Resource: "secrets"},
		{User: timedUser, Verb: "patch", Resource: "emqxes"},
	})
	require.Equal(t, tally{
		writes: Requests{"patch emqxes/status": 2}, events: Requests{"create events": 1}, reads: Requests{"get secrets": 1}, leases: Requests{"update leases": 1},
	}, counted)
	require.Equal(t, 2, counted.writes.Total())
}

func TestFirstWrites(t *testing.T) {
	at := func(milliseconds int) time.Time {
		return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(milliseconds) * time.Millisecond)
	}
	change := gauge.Request{User: timedUser, Verb: "patch", Resource: "emqxes", Name: "c1", Received: at(0), Ended: at(10)}
	write := func(name string, received int) gauge.Request {
		return gauge.Request{User: operatorUser, Verb: "patch", Resource: "emqxes/status", Name: name, Received: at(received), Ended: at(received + 5)}
	}
	read := write("c1", 11)
	read.Verb = "get"
	for _, test := range []struct {
		reason   string
		requests []gauge.Request
		want     []time.Duration
	}{
		{"nothing was written", []gauge.Request{change, read}, nil},
		{"the first counts", []gauge.Request{change, read, write("c1", 13), write("c1", 20)}, []time.Duration{3 * time.Millisecond}},
		{"what belongs to the cluster counts", []gauge.Request{change, write("c1-listeners", 14)}, []time.Duration{4 * time.Millisecond}},
		{"another cluster's does not", []gauge.Request{change, write("c11", 12), write("c1", 15)}, []time.Duration{5 * time.Millisecond}},
		{"an event may overtake the answer", []gauge.Request{write("c1", 9), change}, []time.Duration{0}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			require.Equal(t, test.want, firstWrites(test.requests))
		})
	}
}

func TestTable(t *testing.T) {
	table := Table([]Result{
		{
			Clusters: 1, Nodes: 3, Rest: Rest{Window: time.Minute, Bytes: 36 << 20, CPU: 0.0012, Goroutines: 109, NodeConnections: 6, Connections: 8, Writes: Requests{"patch emqxes/status": 2}},
			Upgrades: []Upgrade{{Count: 1, Median: 20 * time.Second, Last: 20 * time.Second, Writes: Requests{"a": 25}}},
		},
		{
			Clusters: 100, Nodes: 300, Start: Start{Missing: 7}, Rest: Rest{Window: time.Minute},
			Upgrades: []Upgrade{{Count: 1, Median: 20 * time.Second, Last: 20 * time.Second}, {Count: 100, Median: 30 * time.Second, Last: 140 * time.Second}},
		},
	})
	for _, line := range []string{
		"| clusters × nodes | 1 × 3 | 100 × 3 |",
		"| memory at rest, MiB | 36 | 0 |",
		"| processor at rest, % of a core | 0.12 | 0.00 |",
		"| writes to the API server at rest, an hour | 120 | 0 |",
		"| start: every node was asked after, s | 0.0 | 7 were not |",
		"| 100 at once: median / last upgrade, s |  | 30.0 / 140.0 |",
		"| 100 at once: last, as a multiple of one |  | 7.00 |",
		"| 1 at once: writes / events / reads an upgrade | 25.0 / 0.0 / 0.0 | 0.0 / 0.0 / 0.0 |",
	} {
		require.Contains(t, strings.Split(table, "\n"), line)
	}
}

func TestGoals(t *testing.T) {
	good := Result{
		Clusters: 1000, Nodes: 3000, Latency: 10 * time.Millisecond, Latencies: 50,
		Start: Start{Synced: time.Minute, PeakBytes: 200 << 20, Scrape: 200 * time.Millisecond},
		Rest:  Rest{Bytes: 150 << 20, CPU: 0.01, Goroutines: 150},
		Upgrades: []Upgrade{
			{Count: 1, Last: 10 * time.Second, Writes: Requests{"a": 25}}, {Count: 100, Last: 12 * time.Second},
		},
	}
	require.Empty(t, Missed(good))
	require.Empty(t, Missed(Result{Clusters: 1, Nodes: 3}), "what was not measured misses nothing")
	bad := Result{
		Clusters: 1000, Nodes: 3000, Latency: 11 * time.Millisecond, Latencies: 50,
		Start: Start{Missing: 1, PeakBytes: 201 << 20, Scrape: time.Second},
		Rest:  Rest{Bytes: 151 << 20, CPU: 0.02, Goroutines: 3000, NodeConnections: 3000, Writes: Requests{"a": 1}},
		Upgrades: []Upgrade{
			{Count: 1, Last: 10 * time.Second, Writes: Requests{"a": 26}}, {Count: 100, Last: 13 * time.Second},
		},
	}
	require.Len(t, Missed(bad), len(goals()))
	table := strings.Split(Goals([]Result{good, bad}), "\n")
	require.Contains(t, table, "| goal | at most | 1000 × 3 | 1000 × 3 |")
	require.Contains(t, table, "| memory at rest | 150 MiB | 150 MiB | **151 MiB** |")
	require.Contains(t, table, "| 100 upgrades at once, as a multiple of one | 1.2 | 1.20 | **1.30** |")
}
