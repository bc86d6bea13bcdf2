package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/controlplane"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// few clients are enough where not their number matters.
const few = 300

// emqxSelector finds the pods of EMQX.
const emqxSelector = "apps.emqx.io/instance=" + name

// movedOnce waits until all clients are back, and wants nothing to be lost and nobody to have been disconnected twice.
func (w *world) movedOnce(t *testing.T, l *load.Load) {
	t.Helper()
	require.Equal(t, int64(1), w.nothingLost(t, l).MaxDisconnects)
}

// TestDNSAway: without DNS new nodes do not find the others. Nothing is switched, no client notices, and it goes on when DNS is back.
func TestDNSAway(t *testing.T) {
	const away = 30 * time.Second
	w := serving(t)
	l := w.clients(t, few)
	scale := func(replicas string) {
		w.must(t, "", "-n", "kube-system", "scale", "deployment/coredns", "--replicas="+replicas)
	}
	w.undo(t, "-n", "kube-system", "scale", "deployment/coredns", "--replicas=1")
	scale("0")
	w.eventually(t, "DNS is away", func() error {
		if left := len(w.pods(t, "kube-system", "app=coredns")); left > 0 {
			return fmt.Errorf("%d pods are left", left)
		}
		return nil
	})
	w.change(t)
	for end := time.Now().Add(away); time.Now().Before(end); <-time.After(time.Second) {
		phase := w.get(t).Status.Phase
		require.Contains(t, []v2beta1.Phase{v2beta1.PhasePending, v2beta1.PhaseProvisioning}, phase)
	}
	require.Zero(t, l.Stats().Disconnects)
	scale("1")
	w.until(t, "the upgrade is done", ready)
	w.movedOnce(t, l)
}

// TestAPIServerRolled: kube-apiserver ends in the middle of an evacuation and comes back after a while. EMQX goes on by itself, and the
// operator afterwards.
func TestAPIServerRolled(t *testing.T) {
	const away = 5 * time.Second
	w := serving(t)
	l := w.clients(t, few)
	w.change(t)
	w.until(t, "clients are moved", func(emqx *v2beta1.EMQX) bool { return emqx.Status.Phase == v2beta1.PhaseEvacuating })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	begun := time.Now()
	require.NoError(t, w.StopComponent(ctx, controlplane.APIServer, away))
	t.Logf("it ended after %s", time.Since(begun))
	_, err := w.Kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	require.Error(t, err, "it is away")
	<-time.After(away)
	require.NoError(t, w.StartComponent(ctx, controlplane.APIServer))
	t.Logf("it is ready again after %s", time.Since(begun))
	w.until(t, "the upgrade is done", ready)
	t.Logf("the upgrade is done after %s", time.Since(begun))
	w.movedOnce(t, l)
}

// TestDrain: a node is drained. The operator's budget keeps one replica at work; EMQX leaves pod by pod, its clients and sessions first,
// and is whole again on the other node. Nothing is lost.
func TestDrain(t *testing.T) {
	w := serving(t)
	node := w.Nodes[1].Name
	w.putOn(t, node)
	l := w.clients(t, few)
	on := func(namespace, selector string) (there, elsewhere int) {
		for _, pod := range w.pods(t, namespace, selector) {
			switch {
			case pod.Spec.NodeName == node:
				there++
			case isReady(&pod):
				elsewhere++
			}
		}
		return there, elsewhere
	}
	there, _ := on(operatorNamespace, operatorSelector)
	require.Equal(t, 1, there, "a replica of the operator is on it")
	w.undo(t, "uncordon", node)
	w.must(t, "", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s")
	there, _ = on("default", emqxSelector)
	require.Zero(t, there)
	w.eventually(t, "EMQX is whole on the other node", func() error {
		if _, elsewhere := on("default", emqxSelector); elsewhere != 3 {
			return fmt.Errorf("%d pods are ready there", elsewhere)
		}
		return nil
	})
	w.until(t, "EMQX is Ready", ready)
	w.nothingLost(t, l)
	_, err := w.leader(t.Context())
	require.NoError(t, err)
	w.must(t, "", "uncordon", node)
	w.eventually(t, "the operator is on both nodes again", func() error {
		there, elsewhere := on(operatorNamespace, operatorSelector)
		if there != 1 || elsewhere != 1 {
			return fmt.Errorf("%d are there and %d elsewhere", there, elsewhere)
		}
		return nil
	})
}

// nothingLost waits until all clients are back, and wants no message and no session to be lost.
func (w *world) nothingLost(t *testing.T, l *load.Load) load.Stats {
	t.Helper()
	w.allBack(t, l, few)
	stats := l.Drain(t.Context(), patience)
	t.Logf("%+v", stats)
	require.Zero(t, stats.Lost)
	require.Zero(t, stats.SessionsLost)
	return stats
}

// TestDrainInMidUpgrade: a node is drained while new nodes are built, and again while clients are moved. The drains end, so does the
// upgrade, and nothing is lost.
func TestDrainInMidUpgrade(t *testing.T) {
	for _, phase := range []v2beta1.Phase{v2beta1.PhaseProvisioning, v2beta1.PhaseEvacuating} {
		t.Run(string(phase), func(t *testing.T) {
			w := serving(t)
			node := w.Nodes[1].Name
			w.putOn(t, node)
			l := w.clients(t, few)
			w.undo(t, "uncordon", node)
			w.change(t)
			w.until(t, "it is "+string(phase), func(emqx *v2beta1.EMQX) bool { return emqx.Status.Phase == phase })
			w.must(t, "", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector="+emqxSelector, "--timeout=180s")
			w.until(t, "the upgrade is done", ready)
			for _, pod := range w.pods(t, "default", emqxSelector) {
				require.NotEqual(t, node, pod.Spec.NodeName, pod.Name)
			}
			w.nothingLost(t, l)
			w.must(t, "", "uncordon", node)
		})
	}
}

// TestLostNode: a node is lost, with the operator that leads and a part of EMQX, and comes back. Another operator leads, what was on the
// node is made anew once a person says that the node is out of service, and when it is back nothing of before runs on it.
func TestLostNode(t *testing.T) {
	w := serving(t)
	lost := w.Nodes[1]
	w.leadFrom(t, lost)
	before, err := w.leader(t.Context())
	require.NoError(t, err)
	losers := w.putOn(t, lost.Name)
	l := w.clients(t, few)

	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	begun := time.Now()
	since := func(what string) { t.Logf("%5.1f s: %s", time.Since(begun).Seconds(), what) }
	require.NoError(t, lost.Cut())
	require.NoError(t, lost.Freeze(ctx))
	t.Cleanup(func() {
		// So that the next test finds it well.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		_ = errors.Join(lost.Thaw(ctx), lost.Rejoin())
		_, _ = w.Kubectl(ctx, "", "taint", "node", lost.Name, "node.kubernetes.io/out-of-service-")
	})
	w.eventually(t, "another operator leads", func() error {
		if now, err := w.leader(ctx); err != nil || now == before {
			return fmt.Errorf("%s leads: %w", now, err)
		}
		return nil
	})
	since("another operator leads")
	w.eventually(t, "the node is not ready", func() error {
		node, err := w.Kube.CoreV1().Nodes().Get(ctx, lost.Name, metav1.GetOptions{})
		if err == nil && !realnode.NodeIs(node, corev1.ConditionUnknown) {
			err = errors.New("it is still believed to be ready")
		}
		return err
	})
	since("Kubernetes knows that the node is lost")
	w.must(t, "", "taint", "node", lost.Name, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
	w.until(t, "EMQX is whole on the other node", func(emqx *v2beta1.EMQX) bool {
		return ready(emqx) && !slices.ContainsFunc(w.pods(t, "default", emqxSelector), func(pod corev1.Pod) bool { return pod.Spec.NodeName == lost.Name })
	})
	since("EMQX is whole on the other node")
	w.allBack(t, l, few)
	since("all clients are back")

	require.NoError(t, lost.Thaw(ctx))
	require.NoError(t, lost.Rejoin())
	w.must(t, "", "taint", "node", lost.Name, "node.kubernetes.io/out-of-service-")
	require.NoError(t, w.WaitReady(ctx, lost))
	since("the node is ready again")
	w.eventually(t, "nothing of before runs on it", func() error {
		for _, loser := range losers {
			if running := processesOfPod(t, string(loser.UID)); len(running) > 0 {
				return fmt.Errorf("processes %v of pod %s run", running, loser.Name)
			}
		}
		return nil
	})
	since("nothing of before runs on it")
	w.until(t, "EMQX is Ready", ready)
	w.allBack(t, l, few)
	require.Len(t, w.get(t).Status.CoreNodes, 3, "no node is counted twice")
	w.must(t, "", "-n", operatorNamespace, "rollout", "status", "deployment/emqx-bg-operator", "--timeout=180s")
	t.Logf("%+v", l.Stats())
}

// putOn has a part of EMQX run on the node, and returns the pods.
func (w *world) putOn(t *testing.T, node string) []corev1.Pod {
	t.Helper()
	there := func() []corev1.Pod {
		return slices.DeleteFunc(w.pods(t, "default", emqxSelector), func(pod corev1.Pod) bool { return pod.Spec.NodeName != node })
	}
	if pods := there(); len(pods) > 0 {
		return pods
	}
	for _, other := range w.Nodes {
		if other.Name != node {
			w.must(t, "", "cordon", other.Name)
			w.undo(t, "uncordon", other.Name)
		}
	}
	// The operator moves one there.
	w.until(t, "a part of EMQX is on "+node, func(*v2beta1.EMQX) bool { return len(there()) > 0 })
	for _, other := range w.Nodes {
		w.must(t, "", "uncordon", other.Name)
	}
	w.until(t, "EMQX is whole", ready)
	return there()
}

// leadFrom makes the operator on the node lead.
func (w *world) leadFrom(t *testing.T, node *realnode.Node) {
	t.Helper()
	w.eventually(t, "the operator on "+node.Name+" leads", func() error {
		leader, err := w.leader(t.Context())
		if err != nil {
			return err
		}
		pod, err := w.Kube.CoreV1().Pods(operatorNamespace).Get(t.Context(), leader, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if pod.Spec.NodeName == node.Name {
			return nil
		}
		// It gives the lease away when it ends, and the other one is at once there to take it.
		if pod.DeletionTimestamp == nil {
			err = w.Kube.CoreV1().Pods(operatorNamespace).Delete(t.Context(), leader, metav1.DeleteOptions{})
		}
		return errors.Join(fmt.Errorf("%s leads, on %s", leader, pod.Spec.NodeName), err)
	})
	w.must(t, "", "-n", operatorNamespace, "rollout", "status", "deployment/emqx-bg-operator", "--timeout=180s")
}

// TestPower: a node loses its power and gets it back. Its pods are started again where they were.
func TestPower(t *testing.T) {
	w := nodes(t)
	w.namespace(t, "power")
	node := w.Nodes[1]
	w.must(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"one","namespace":"power"},"spec":{"nodeName":"`+node.Name+`","volumes":[{"name":"data","emptyDir":{}}],
		"containers":[{"name":"main","image":"`+realnode.BusyboxImage+`","args":["echo boot >> data/boots; cat data/boots; exec sleep 1000"],
			"volumeMounts":[{"name":"data","mountPath":"/data"}]}]}}`, "apply", "-f", "-")
	pod := func() *corev1.Pod {
		pod, err := w.Kube.CoreV1().Pods("power").Get(t.Context(), "one", metav1.GetOptions{})
		require.NoError(t, err)
		return pod
	}
	w.eventually(t, "the pod is ready", func() error {
		if !isReady(pod()) {
			return errors.New("it is not ready")
		}
		return nil
	})
	before := pod()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, node.SwitchOff(ctx))
	require.Empty(t, processesOfPod(t, string(before.UID)))
	require.NoError(t, node.Start(ctx))
	w.eventually(t, "the pod is ready again", func() error {
		if now := pod(); !isReady(now) || now.Status.ContainerStatuses[0].RestartCount == 0 {
			return fmt.Errorf("it is %s", now.Status.Phase)
		}
		return nil
	})
	require.Equal(t, before.UID, pod().UID)
	require.Equal(t, strings.Repeat("boot\n", 2), w.must(t, "", "-n", "power", "logs", "one"), "its volume was kept")
}
