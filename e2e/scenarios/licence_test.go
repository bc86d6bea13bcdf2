package scenarios

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// TestOneNodeWithoutLicence is what a newcomer has: the sample without a key. Three nodes are refused before a pod is made; one
// runs, and is replaced in place, with its volume and without one.
func TestOneNodeWithoutLicence(t *testing.T) {
	c := install(t)
	c.must(sample(t, `"..."`, `"default"`), "apply", "-f", "-")
	refused := c.until("the refusal", func(e *v2beta1.EMQX) bool { return machine.StalledReason(e.Status) == "LicenceAllowsOneNode" })
	require.Contains(t, messageOf(refused, v2beta1.ConditionStalled), "spec.coreTemplate.spec.replicas")
	require.Empty(t, c.podUIDs(), "no pod was made")

	c.patch(`{"spec":{"coreTemplate":{"spec":{"replicas":1,"volumeClaimTemplates":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Mi"}}}}}}}`)
	first := c.until("the cluster", ready)
	require.Contains(t, messageOf(first, v2beta1.ConditionReady), "is replaced in place", "it is said at rest, before it matters")
	require.NotContains(t, messageOf(first, v2beta1.ConditionReady), "no volume")
	claims := c.claims(first.Status.CoreNodesStatus.CurrentRevision)
	require.Len(t, claims, 1)

	address, err := localkube.Endpoint(t.Context(), c.dir, "default", name+"-listeners", "tcp-default")
	require.NoError(t, err)
	const clients = 1000
	l, err := load.New(load.Config{Address: address, Clients: clients})
	require.NoError(t, err)
	require.NoError(t, l.Connect(t.Context()))
	l.Start(t.Context())

	pods, sites := c.podUIDs(), first.Status.DSReplication
	began := time.Now()
	c.patch(`{"spec":{"imagePullPolicy":"Never"}}`)
	done := c.until("the upgrade", func(e *v2beta1.EMQX) bool {
		return ready(e) && e.Status.ObservedGeneration == e.Generation && e.Generation > first.Generation
	})
	require.NotEqual(t, pods, c.podUIDs(), "the pod is another")
	require.Equal(t, first.Status.CoreNodes[0].Node, done.Status.CoreNodes[0].Node, "the node has its name")
	require.Equal(t, claims, c.claims(done.Status.CoreNodesStatus.CurrentRevision), "and its volume")
	require.Equal(t, sites, done.Status.DSReplication, "and what was on it")
	c.eventually("all clients to be back", func() bool { return l.Stats().Connected == clients })

	pod, err := c.kube.CoreV1().Pods("default").Get(t.Context(), done.Status.CoreNodes[0].PodName, metav1.GetOptions{})
	require.NoError(t, err)
	var started time.Duration
	for _, condition := range pod.Status.Conditions {
		if condition.Type == "Ready" {
			started = condition.LastTransitionTime.Sub(pod.CreationTimestamp.Time)
		}
	}
	// Kubernetes tells times to the second; clients come back within ten of when they can.
	out := measure.Outage(l.Samples(), began)
	t.Logf("nobody was connected for %s; the pod took %s from its creation", out, started)
	require.Positive(t, out)
	require.LessOrEqual(t, out, started+5*time.Second+time.Second)

	// Without a volume it goes the same way, and what is lost is said before.
	c.must("", "delete", "emqx", name, "--wait")
	c.must(sample(t, `"..."`, `"default"`, "replicas: 3", "replicas: 1", "name: "+name, "name: bare"), "apply", "-f", "-")
	bare := func(wanted func(*v2beta1.EMQX) bool) *v2beta1.EMQX {
		var emqx *v2beta1.EMQX
		c.eventually("the cluster without a volume", func() bool {
			var err error
			emqx, err = c.emqx.AppsV2beta1().EMQXes("default").Get(t.Context(), "bare", metav1.GetOptions{})
			return err == nil && wanted(emqx)
		})
		return emqx
	}
	second := bare(ready)
	require.Contains(t, messageOf(second, v2beta1.ConditionReady), "it has no volume")
	node := second.Status.CoreNodes[0]
	c.must("", "patch", "emqx", "bare", "--type=merge", "-p", `{"spec":{"imagePullPolicy":"Never"}}`)
	again := bare(func(e *v2beta1.EMQX) bool {
		return ready(e) && e.Status.ObservedGeneration == e.Generation && e.Generation > second.Generation
	})
	require.Equal(t, node.Node, again.Status.CoreNodes[0].Node)
	require.NotEqual(t, node.PodUID, again.Status.CoreNodes[0].PodUID)
	c.eventually("the event that warns", func() bool {
		return strings.Contains(c.must("", "events", "--for", "emqx/bare", "--types=Warning"), "ReplacedInPlace")
	})
}

// messageOf is that of a condition.
func messageOf(emqx *v2beta1.EMQX, kind string) string {
	for _, condition := range emqx.Status.Conditions {
		if condition.Type == kind {
			return condition.Message
		}
	}
	return ""
}
