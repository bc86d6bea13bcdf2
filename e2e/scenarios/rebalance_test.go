package scenarios

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// rebalanceOf is the manifest of a Rebalance with so many evictions a second.
func rebalanceOf(rebalance string, rate, threshold int) string {
	return fmt.Sprintf(`
apiVersion: apps.emqx.io/v2beta1
kind: Rebalance
metadata: {name: %s}
spec:
  instanceKind: EMQX
  instanceName: %s
  rebalanceStrategy: {connEvictRate: %d, waitTakeover: 1, waitHealthCheck: 1, absConnThreshold: %d, relConnThreshold: "1.1"}
`, rebalance, name, rate, threshold)
}

// rebalance is a Rebalance; nil when it has gone.
func (c *installed) rebalance(rebalance string) *v2beta1.Rebalance {
	c.t.Helper()
	found, err := c.emqx.AppsV2beta1().Rebalances("default").Get(c.t.Context(), rebalance, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(c.t, err)
	return found
}

func (c *installed) untilRebalance(rebalance, reason string) *v2beta1.Rebalance {
	c.t.Helper()
	var found *v2beta1.Rebalance
	c.eventually(rebalance+" to be "+reason, func() bool {
		found = c.rebalance(rebalance)
		return found != nil && len(found.Status.Conditions) > 0 && strings.Contains(reasonOf(found), reason)
	})
	return found
}

// reasonOf is the phase of a Rebalance, and why.
func reasonOf(rebalance *v2beta1.Rebalance) string {
	for _, condition := range rebalance.Status.Conditions {
		if condition.Status == metav1.ConditionTrue {
			return string(condition.Type) + " " + condition.Reason
		}
	}
	return ""
}

// clientsByNode is how many clients each node has, as it tells itself.
func (c *installed) clientsByNode() []int64 {
	c.t.Helper()
	resource := c.get()
	own, _ := resources.OperatorKeys(c.secret(resource.BootstrapAPIKeySecretName()))
	require.NotNil(c.t, own)
	state, err := c.dir.Load()
	require.NoError(c.t, err)
	client := emqx.NewClient(nil)
	defer client.Close()
	var counts []int64
	for _, node := range resource.Status.CoreNodes {
		pod, err := c.kube.CoreV1().Pods("default").Get(c.t.Context(), node.PodName, metav1.GetOptions{})
		require.NoError(c.t, err)
		address, err := state.Reach(pod.Status.PodIP)
		require.NoError(c.t, err)
		info, err := client.Info(c.t.Context(), emqx.Node{Name: node.Node, URL: fmt.Sprintf("http://%s:18083", address)}, emqx.Credentials{Key: resources.OperatorAPIKey, Secret: own.Secret})
		require.NoError(c.t, err)
		counts = append(counts, info.LiveConnections.Value)
	}
	return counts
}

// TestRebalance: a cluster grows from one node to three, and all 1,000 clients are on the first. One Rebalance is deleted half-way,
// the next evens them out. No client loses its session or a message.
func TestRebalance(t *testing.T) {
	c := install(t)
	c.must(rebalanceOf("early", 100, 100), "apply", "-f", "-")
	c.untilRebalance("early", "Processing EMQXNotFound")
	c.must("", "delete", "rebalance", "early", "--timeout=30s")

	c.must(sample(t, "replicas: 3", "replicas: 1"), "apply", "-f", "-")
	first := c.until("the cluster", ready)
	address, err := localkube.Endpoint(t.Context(), c.dir, "default", first.ListenersServiceName(), "tcp-default")
	require.NoError(t, err)
	clients, err := load.New(load.Config{Address: address, Clients: 1000, MessagesPerSecond: 100})
	require.NoError(t, err)
	require.NoError(t, clients.Connect(t.Context()))
	clients.Start(t.Context())
	c.patch(`{"spec":{"coreTemplate":{"spec":{"replicas":3}}}}`)
	c.until("three nodes", func(emqx *v2beta1.EMQX) bool { return ready(emqx) && len(emqx.Status.CoreNodes) == 3 })
	require.Equal(t, []int64{1000, 0, 0}, c.clientsByNode())

	c.must(rebalanceOf("slow", 20, 100), "apply", "-f", "-")
	_, err = c.kubectl(rebalanceOf("slow", 21, 100), "apply", "-f", "-")
	require.Error(t, err, "a spec cannot be changed")
	slow := c.untilRebalance("slow", "Processing Rebalancing")
	require.Len(t, slow.Status.RebalanceStates[0].Donors, 1)
	require.Len(t, slow.Status.RebalanceStates[0].Recipients, 2)
	c.must(rebalanceOf("fast", 100, 100), "apply", "-f", "-")
	c.untilRebalance("fast", "Processing Queued")
	c.eventually("clients to move", func() bool { return c.clientsByNode()[0] < 900 })
	require.Equal(t, "Ready", c.get().Status.State, "that a donor refuses clients is no fault")
	c.must("", "delete", "rebalance", "slow", "--timeout=60s")
	require.Nil(t, c.rebalance("slow"))

	done := c.untilRebalance("fast", "Completed WithinThresholds")
	require.NotNil(t, done.Status.CompletedTime)
	require.Empty(t, done.Finalizers)
	c.eventually("all clients to be back", func() bool { return clients.Stats().Connected == 1000 })
	counts := c.clientsByNode()
	t.Logf("clients by node: %v", counts)
	require.LessOrEqual(t, counts[0], (counts[1]+counts[2])/2+120, "within the threshold, but for who came back meanwhile")
	stats := clients.Drain(t.Context(), time.Minute)
	require.Zero(t, stats.Lost)
	require.Zero(t, stats.SessionsLost)
	require.Contains(t, c.must("", "events", "--for", "rebalance/fast"), "Completed")
	require.Contains(t, c.must("", "get", "rebalance", "fast"), "Completed")

	// One that EMQX does not take, and one of a cluster that goes.
	c.must(strings.Replace(rebalanceOf("never", 1, 1), `"1.1"`, `"1.0"`, 1), "apply", "-f", "-")
	c.untilRebalance("never", "Failed Refused")
	c.must("", "delete", "emqx", name)
	c.must("", "delete", "rebalance", "fast", "never", "--timeout=30s")
}
