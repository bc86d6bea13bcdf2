package upgrades

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo"
	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// upgrade makes an upgrade under load.
func upgrade(t *testing.T, config demo.Config) measure.Figures {
	t.Helper()
	config.ClusterBinary = localkubetest.ClusterBinary(t)
	config.Dir = filepath.Join(t.TempDir(), "cluster")
	config.Manifests = "../../manifests"
	figures, err := demo.Run(t.Context(), config)
	require.NoError(t, err)
	t.Logf("%.1f s from the change to Ready, floor %.1f s (%+v)", figures.Seconds(), figures.Floor.Total(), figures.Floor)
	for _, check := range figures.Checks {
		t.Logf("  %-34s %-40s %s", check.Name, check.Value, check.Limit)
	}
	return figures
}

// TestFastUpgrade moves 3,000 clients with a rate that would cut a third of them off at once: never more are away than may
// be, none loses a message or is disconnected twice, and nothing is left behind. How long it takes depends on the machine:
// the test tells it, the demo judges it. The operator writes what somebody learns something from, and no more.
func TestFastUpgrade(t *testing.T) {
	var before, after int64
	figures := upgrade(t, demo.Config{ConnEvictRate: 1000, OnPhase: func(ctx context.Context, e demo.Environment, phase v2beta1.Phase) (err error) {
		switch phase {
		case v2beta1.PhasePending:
			before, err = writesOf(ctx, e)
		case v2beta1.PhaseDone:
			after, err = writesOf(ctx, e)
		case v2beta1.PhaseProvisioning, v2beta1.PhaseSwitching, v2beta1.PhaseEvacuating, v2beta1.PhaseScalingDown:
		}
		return err
	}})
	t.Logf("%d writes from Pending to Done", after-before)
	require.Positive(t, after)
	// Where there is durable storage, each of six pods has a condition of it, and the status tells how replicas move. The budget
	// moves with the Services. On a machine that is busy with other things it takes longer, and progress is told every fifteen seconds.
	require.LessOrEqual(t, after-before, 25+6+3+1+int64(max(0, figures.Seconds()-45)/15))
	failed := slices.DeleteFunc(figures.Failed(), func(name string) bool { return name == "time from patch to Ready" })
	require.Empty(t, failed)
}

// TestSlowClients: clients that take three seconds to come back are waited for, and no more of them are away than may be. A delayed
// message, which nobody moves, is told of before it is lost.
func TestSlowClients(t *testing.T) {
	told := false
	figures := upgrade(t, demo.Config{
		Clients: 300, ReturnDelay: 3 * time.Second, ConnEvictRate: 1000,
		OnPhase: func(ctx context.Context, e demo.Environment, phase v2beta1.Phase) error {
			switch phase {
			case v2beta1.PhasePending:
				return e.Load.Publish(ctx, "$delayed/3600/later", []byte("not due"))
			case v2beta1.PhaseEvacuating:
				return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, localkubetest.Patience, true, func(ctx context.Context) (bool, error) {
					events, err := e.Kube.EventsV1().Events(e.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=DelayedMessagesLeft"})
					told = err == nil && len(events.Items) == 1 && e.Latest().Status.Upgrade.DelayedMessages == 1
					return told, err
				})
			case v2beta1.PhaseProvisioning, v2beta1.PhaseSwitching, v2beta1.PhaseScalingDown, v2beta1.PhaseDone:
			}
			return nil
		},
	})
	require.True(t, told)
	failed := slices.DeleteFunc(figures.Failed(), func(name string) bool { return name == "time from patch to Ready" })
	require.Empty(t, failed)
}

// TestFrozenNodes: one new and one old node are frozen for a minute in the middle. The view of the others stays fresh,
// nothing unsafe is done, and the upgrade goes on when they thaw.
func TestFrozenNodes(t *testing.T) {
	const frozenFor = time.Minute
	oldest := time.Duration(0)
	figures := upgrade(t, demo.Config{
		Clients: 300, MessagesPerSecond: 100, ConnEvictRate: 20, SessEvictRate: 20,
		OnPhase: func(ctx context.Context, e demo.Environment, phase v2beta1.Phase) error {
			if phase != v2beta1.PhaseEvacuating {
				return nil
			}
			status := e.Latest().Status
			frozen := []string{
				fmt.Sprintf("%s-core-%s-0", e.Name, status.CoreNodesStatus.UpdateRevision),
				fmt.Sprintf("%s-core-%s-1", e.Name, status.Upgrade.From),
			}
			signal := func(name string) error {
				for _, pod := range frozen {
					if _, err := localkube.Signal(ctx, e.Dir, e.State, e.Namespace, pod, "", name); err != nil {
						return err
					}
				}
				return nil
			}
			if err := signal("STOP"); err != nil {
				return err
			}
			age, err := freshWhile(ctx, e, frozen, frozenFor)
			oldest = age
			if err != nil {
				return err
			}
			return signal("CONT")
		},
	})
	t.Logf("while two nodes were frozen, the view of the others was at most %s old", oldest)
	require.Less(t, oldest, 5*time.Second, "every node is asked once a second, whatever the others and its orders do")
	require.Zero(t, figures.MessagesLost)
	require.Equal(t, figures.Clients, figures.ClientsBack)
	require.Empty(t, figures.Leftovers)
}

// TestOperatorDies: the replica that leads is taken away by Kubernetes while the new nodes are built, and the next leader
// is killed outright when the evacuation begins. Another goes on, and the clients notice nothing.
func TestOperatorDies(t *testing.T) {
	figures := upgrade(t, demo.Config{
		Clients: 300, MessagesPerSecond: 100, ConnEvictRate: 20, SessEvictRate: 20,
		OnPhase: func(ctx context.Context, e demo.Environment, phase v2beta1.Phase) error {
			if phase != v2beta1.PhaseProvisioning && phase != v2beta1.PhaseEvacuating {
				return nil
			}
			leader, err := leaderOf(ctx, e)
			if err != nil {
				return err
			}
			if phase == v2beta1.PhaseEvacuating {
				// Its container is started again, and may lead again: it has the same name.
				_, err := localkube.Signal(ctx, e.Dir, e.State, operatorNamespace, leader, "", "KILL")
				return err
			}
			if err := e.Kube.CoreV1().Pods(operatorNamespace).Delete(ctx, leader, metav1.DeleteOptions{}); err != nil {
				return err
			}
			return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, localkubetest.Patience, true, func(ctx context.Context) (bool, error) {
				next, err := leaderOf(ctx, e)
				return next != leader && next != "", err
			})
		},
	})
	require.Zero(t, figures.MessagesLost)
	require.Equal(t, figures.Clients, figures.ClientsBack)
	require.LessOrEqual(t, figures.MaxDisconnects, int64(1), "a new leader changes nothing that runs")
	require.Empty(t, figures.Leftovers)
}

const operatorNamespace = "emqx-bg-operator-system"

// leaderOf is the pod that holds the operator's lease; empty when none does.
func leaderOf(ctx context.Context, e demo.Environment) (string, error) {
	lease, err := e.Kube.CoordinationV1().Leases(operatorNamespace).Get(ctx, "emqx-bg-operator", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return ptr.Deref(lease.Spec.HolderIdentity, ""), nil
}

// freshWhile looks, for a time, whether the frozen nodes are called unknown and nothing is removed, and returns how old
// the operator's view of the others ever was, by its own metric.
func freshWhile(ctx context.Context, e demo.Environment, frozen []string, duration time.Duration) (time.Duration, error) {
	// A few seconds pass before silence is noticed, a question may take four, and fifteen more until that of a second node is told.
	grace := time.Now().Add(25 * time.Second)
	oldest := time.Duration(0)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for end := time.Now().Add(duration); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return oldest, context.Cause(ctx)
		case <-ticker.C:
		}
		if time.Now().Before(grace) {
			continue
		}
		emqx := e.Latest()
		if emqx.Status.Phase != v2beta1.PhaseEvacuating {
			return oldest, fmt.Errorf("the upgrade went on to %s while an outgoing node was frozen", emqx.Status.Phase)
		}
		for _, node := range emqx.Status.CoreNodes {
			isFrozen := strings.Contains(strings.Join(frozen, " ")+" ", node.PodName+" ")
			switch {
			case isFrozen && node.NodeStatus != "unknown":
				return oldest, fmt.Errorf("%s is frozen and called %s", node.PodName, node.NodeStatus)
			case !isFrozen && node.NodeStatus != "running":
				return oldest, fmt.Errorf("%s answers and is called %s", node.PodName, node.NodeStatus)
			}
		}
		age, err := ageOfView(ctx, e, frozen)
		if err != nil {
			return oldest, err
		}
		oldest = max(oldest, age)
	}
	return oldest, nil
}
