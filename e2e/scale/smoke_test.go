package scale_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
	"github.com/emqx-bg/emqx-bg-operator/e2e/scale"
)

// lines sends the benchmark's progress to the test's log.
type lines struct{ t *testing.T }

func (l lines) Write(text []byte) (int, error) {
	l.t.Logf("%s", text)
	return len(text), nil
}

// TestSmallBenchmark runs the benchmark with five clusters, and judges what the operator does by counting: how long things take
// is told and not judged.
func TestSmallBenchmark(t *testing.T) {
	results, err := scale.Run(t.Context(), scale.Config{
		Dir: t.TempDir(), ClusterBinary: localkubetest.ClusterBinary(t), Manifests: "../../manifests", Sizes: []int{5}, Clients: 60, Window: 4 * time.Second,
		Upgrades: []int{1}, Quick: true, Probes: 4, PodStart: 200 * time.Millisecond, PodStop: 100 * time.Millisecond, Out: lines{t},
	})
	require.NoError(t, err)
	require.Len(t, results, 1)
	t.Logf("\n%s", scale.Table(results))
	result := results[0]
	require.Equal(t, 15, result.Nodes)
	require.Zero(t, result.Start.Missing, "all nodes were asked after the start")
	require.Positive(t, result.Start.Requests)

	rest := result.Rest
	// After a start each status tells once how many clients there are by now.
	require.LessOrEqual(t, result.Start.Writes.Total()+rest.Writes.Total(), result.Clusters,
		"writes while clients come and go: %v at first, then %v", result.Start.Writes, rest.Writes)
	require.Zero(t, rest.Reads.Total(), "reads at rest: %v", rest.Reads)
	require.Positive(t, rest.Leases.Total(), "the operator leads, and the audit log is read")
	require.LessOrEqual(t, rest.NodeConnections, result.Nodes/3, "connections to nodes at rest: only to those that are asked")
	require.LessOrEqual(t, rest.Goroutines, 165, "goroutines at rest: none for a node")
	require.LessOrEqual(t, rest.RequestsPerSecond, float64(result.Nodes), "requests to nodes at rest")

	require.Equal(t, 4, result.Latencies, "every change of a resource was answered by a write")
	require.Len(t, result.Upgrades, 1)
	upgrade := result.Upgrades[0]
	require.Positive(t, upgrade.Asked)
	require.Positive(t, upgrade.Writes["create statefulsets"])
	require.LessOrEqual(t, upgrade.Writes.Total(), 30, "writes of an upgrade: %v", upgrade.Writes)
}
