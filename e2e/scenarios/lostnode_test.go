package scenarios

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// TestWhatIsToldOfALostNode: the operator knows a lost Kubernetes node by what the real controllers write to its pods. The node
// only exists in the API, so that no kubelet speaks up.
func TestWhatIsToldOfALostNode(t *testing.T) {
	c := start(t)
	ctx := t.Context()
	c.node("lost", "one")
	c.must("", "patch", "node", "lost", "--subresource=status", "--type=strategic", "-p", `{"status":{"conditions":[{"type":"Ready","status":"Unknown"}]}}`)

	pods := c.kube.CoreV1().Pods(metav1.NamespaceDefault)
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "e-core-5d8c-0", Finalizers: []string{"them/keep"}},
		Spec: corev1.PodSpec{
			SchedulerName: "nobody", Containers: []corev1.Container{{Name: "emqx", Image: "emqx/emqx:1"}}, ReadinessGates: []corev1.PodReadinessGate{{ConditionType: v2beta1.ConditionOnServing}},
			Tolerations: []corev1.Toleration{{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	began := metav1.Now()
	pod.Status.Phase = corev1.PodRunning
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "emqx", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}}}
	for _, kind := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady, v2beta1.ConditionOnServing} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: began})
	}
	_, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		node, err := c.kube.CoreV1().Nodes().Get(ctx, "lost", metav1.GetOptions{})
		return err == nil && slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
			return taint.Key == corev1.TaintNodeUnreachable && taint.Effect == corev1.TaintEffectNoExecute
		})
	}, localkubetest.Patience, 50*time.Millisecond, "the node controller knows it")
	// It looks when a pod comes to a node that is lost, as it does when a node with pods is: that takes a kubelet, and minutes.
	require.NoError(t, pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: "lost"}}, metav1.CreateOptions{}))

	told := map[corev1.PodConditionType]corev1.ConditionStatus{}
	look := func(reached func() bool) func() bool {
		return func() bool {
			if pod, err = pods.Get(ctx, pod.Name, metav1.GetOptions{}); err != nil {
				return false
			}
			for _, condition := range pod.Status.Conditions {
				told[condition.Type] = condition.Status
			}
			return reached()
		}
	}
	require.Eventually(t, look(func() bool { return told[corev1.PodReady] == corev1.ConditionFalse }), localkubetest.Patience, 50*time.Millisecond, "the node controller calls it not ready")
	require.Equal(t, corev1.ConditionTrue, told[corev1.ContainersReady], "and leaves all else as the kubelet last told it")
	require.Equal(t, corev1.ConditionTrue, told[v2beta1.ConditionOnServing])

	c.must("", "taint", "node", "lost", "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
	require.Eventually(t, look(func() bool { return pod.Status.Phase == corev1.PodFailed && pod.DeletionTimestamp != nil }), localkubetest.Patience, 50*time.Millisecond, "the collector of pods calls it failed and deletes it")
	require.NotNil(t, pod.Status.ContainerStatuses[0].State.Running, "although its container is told to run for ever")
	c.must("", "patch", "pod", pod.Name, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
}
