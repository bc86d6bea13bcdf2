package scenarios

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
)

// TestOperatorIsSpreadOverNodes has the real scheduler place the operator on nodes that only exist in the API.
func TestOperatorIsSpreadOverNodes(t *testing.T) {
	c := start(t)
	c.node("a", "two")
	c.node("b", "two")
	c.node("alone", "one")
	c.must("", "create", "namespace", "other")
	c.place("other", "one")
	c.place("default", "two")
	c.placed("other", "alone", "alone")
	c.placed("default", "a", "b")

	c.must("", "cordon", "a")
	for _, pod := range c.operators("default") {
		if pod.Spec.NodeName == "a" {
			require.NoError(t, c.kube.CoreV1().Pods("default").Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
		}
	}
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(c.operators("default"), func(pod corev1.Pod) bool {
			return slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
				return condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonUnschedulable
			})
		})
	}, localkubetest.Patience, 50*time.Millisecond, "the replica of a drained node waits and does not join the other")
	c.placed("default", "", "b")
	c.must("", "uncordon", "a")
	c.placed("default", "a", "b")
}

// TestOperatorIsDrainedOneByOne asks the API server for what a drain asks.
func TestOperatorIsDrainedOneByOne(t *testing.T) {
	c := install(t)
	const namespace = "emqx-bg-operator-system"
	pods := c.operators(namespace)
	require.Len(t, pods, 2)
	require.Eventually(t, func() bool {
		budget, err := c.kube.PolicyV1().PodDisruptionBudgets(namespace).Get(t.Context(), "emqx-bg-operator", metav1.GetOptions{})
		return err == nil && budget.Status.DisruptionsAllowed == 1
	}, localkubetest.Patience, 50*time.Millisecond)
	evict := func(pod string) error {
		return c.kube.PolicyV1().Evictions(namespace).Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod}})
	}
	require.NoError(t, evict(pods[0].Name))
	require.ErrorContains(t, evict(pods[1].Name), "disruption budget")
}

// node makes a node that takes pods and runs none.
func (c *installed) node(name, kind string) {
	c.t.Helper()
	capacity := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	_, err := c.kube.CoreV1().Nodes().Create(c.t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, "kind": kind}},
		Status: corev1.NodeStatus{
			Capacity: capacity, Allocatable: capacity,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}},
		},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
}

// place applies the operator's Deployment for the nodes of a kind.
func (c *installed) place(namespace, kind string) {
	c.t.Helper()
	text, err := os.ReadFile("../../manifests/base/operator/deployment.yaml")
	require.NoError(c.t, err)
	var deployment appsv1.Deployment
	require.NoError(c.t, yaml.UnmarshalStrict(text, &deployment))
	deployment.Namespace = namespace
	deployment.Spec.Template.Spec.ServiceAccountName = "default"
	deployment.Spec.Template.Spec.NodeSelector = map[string]string{"kind": kind}
	_, err = c.kube.AppsV1().Deployments(namespace).Create(c.t.Context(), &deployment, metav1.CreateOptions{})
	require.NoError(c.t, err)
}

// operators are the operator's pods.
func (c *installed) operators(namespace string) []corev1.Pod {
	c.t.Helper()
	pods, err := c.kube.CoreV1().Pods(namespace).List(c.t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=emqx-bg-operator"})
	require.NoError(c.t, err)
	return pods.Items
}

// placed waits until the operator's pods are on the nodes; an empty name is a pod that waits.
func (c *installed) placed(namespace string, nodes ...string) {
	c.t.Helper()
	var seen []string
	require.Eventually(c.t, func() bool {
		seen = nil
		for _, pod := range c.operators(namespace) {
			seen = append(seen, pod.Spec.NodeName)
		}
		slices.Sort(seen)
		return slices.Equal(seen, nodes)
	}, localkubetest.Patience, 50*time.Millisecond, "want the pods on %q", nodes)
}
