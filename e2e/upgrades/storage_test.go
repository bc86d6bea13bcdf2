package upgrades

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo"
	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// shards is what was seen of the shards of a cluster's durable storage while it was upgraded.
type shards struct {
	looks int
	last  emqx.Storage
	// broken are the looks at which a shard had no quorum, or none of its replicas on a node that is there.
	broken []string
}

// watchShards looks at the shards until ctx ends. killed is how many nodes a test takes away itself at a time.
func watchShards(ctx context.Context, target measure.Target, killed int) *shards {
	seen := &shards{}
	_ = wait.PollUntilContextCancel(ctx, 250*time.Millisecond, true, func(ctx context.Context) (bool, error) { // It ends with ctx, and with nothing else.
		storage, err := measure.Storage(ctx, target)
		if err != nil {
			return false, nil //nolint:nilerr // A node that starts, or has just been killed, says nothing.
		}
		seen.looks++
		seen.last = storage
		up := map[string]bool{}
		for _, site := range storage.Sites {
			up[site.ID] = site.Up
		}
		for _, database := range storage.Databases {
			for _, shard := range database.Shards {
				alive := len(slices.DeleteFunc(slices.Clone(shard.Replicas), func(site string) bool { return !up[site] }))
				if 2*(alive+killed) <= len(shard.Replicas) || alive+killed == 0 {
					seen.broken = append(seen.broken, fmt.Sprintf("%s shard %s/%s: %d of %d replicas", time.Now().Format(time.TimeOnly), database.Name, shard.ID, alive, len(shard.Replicas)))
				}
			}
		}
		return false, nil
	})
	return seen
}

// requireOn checks that all replicas are on the nodes of a revision, three of each shard, and that there is no other site.
func (s *shards) requireOn(t *testing.T, revision string) {
	t.Helper()
	require.Positive(t, s.looks)
	require.Empty(t, s.broken, "no shard ever loses its quorum")
	require.Len(t, s.last.Databases, 3, "message queues have three databases")
	for _, site := range s.last.Sites {
		require.Contains(t, site.Node, "-core-"+revision+"-", "site %s", site.ID)
	}
	for _, database := range s.last.Databases {
		for _, shard := range database.Shards {
			require.Len(t, shard.Replicas, 3, "%s/%s", database.Name, shard.ID)
			require.Empty(t, slices.Concat(shard.Joining, shard.Leaving, shard.Lost))
		}
	}
}

// TestDataGoesAlong: the replicas of message queues, which 6.0.1 has on by default, are on the new nodes before the old ones go,
// also when an old node and a new one are killed in turn while they move, and another new one loses its disk. No shard loses its
// quorum.
func TestDataGoesAlong(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	watched := make(chan *shards, 1)
	disturbed := false
	figures := upgrade(t, demo.Config{
		Clients: 1000, MessagesPerSecond: 100, ConnEvictRate: 1000, ReplicaSeconds: 6,
		OnPhase: func(phaseCtx context.Context, e demo.Environment, phase v2beta1.Phase) error {
			switch phase {
			case v2beta1.PhaseProvisioning:
				go func() { watched <- watchShards(ctx, e.Target, 1) }()
			case v2beta1.PhaseScalingDown:
				if disturbed {
					return nil // The new set may have been too small for a moment.
				}
				disturbed = true
				for _, revision := range []string{e.Latest().Status.Upgrade.From, e.Latest().Status.Upgrade.To} {
					pod := fmt.Sprintf("%s-core-%s-1", e.Name, revision)
					if _, err := localkube.Signal(phaseCtx, e.Dir, e.State, e.Namespace, pod, "", "KILL"); err != nil {
						return err
					}
					if err := runs(phaseCtx, e, pod); err != nil {
						return err
					}
				}
				return loseDisk(phaseCtx, e, fmt.Sprintf("%s-core-%s-2", e.Name, e.Latest().Status.Upgrade.To))
			case v2beta1.PhasePending, v2beta1.PhaseSwitching, v2beta1.PhaseEvacuating, v2beta1.PhaseDone:
			}
			return nil
		},
	})
	stop()
	(<-watched).requireOn(t, figures.To)
	require.Empty(t, figures.Leftovers)
	require.Equal(t, figures.Clients, figures.ClientsBack)
}

// siteOf is the site of a pod's node; empty when there is none, or nobody tells.
func siteOf(ctx context.Context, e demo.Environment, pod string) emqx.Site {
	storage, err := measure.Storage(ctx, e.Target)
	i := slices.IndexFunc(storage.Sites, func(site emqx.Site) bool { return strings.HasPrefix(site.Node, "emqx@"+pod+".") })
	if err != nil || i < 0 {
		return emqx.Site{}
	}
	return storage.Sites[i]
}

// loseDisk deletes a pod, and waits until another of its name runs, on a site of its own.
func loseDisk(ctx context.Context, e demo.Environment, pod string) error {
	lost := siteOf(ctx, e, pod).ID
	if lost == "" {
		return fmt.Errorf("pod %s has no site", pod)
	}
	if err := e.Kube.CoreV1().Pods(e.Namespace).Delete(ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(1))}); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, time.Second, localkubetest.Patience, false, func(ctx context.Context) (bool, error) {
		now := siteOf(ctx, e, pod).ID
		return now != "" && now != lost && slices.ContainsFunc(e.Latest().Status.CoreNodes, func(node v2beta1.EMQXNode) bool {
			return node.PodName == pod && node.NodeStatus == "running"
		}), nil
	})
}

// runs waits until a pod has another container, and its node is up again with its data. One that leaves may be gone by then.
func runs(ctx context.Context, e demo.Environment, pod string) error {
	restarted := false
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, localkubetest.Patience, true, func(ctx context.Context) (bool, error) {
		object, err := e.Kube.CoreV1().Pods(e.Namespace).Get(ctx, pod, metav1.GetOptions{})
		if apierrors.IsNotFound(err) && restarted {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("wait for pod %s to run again: %w", pod, err)
		}
		restarted = len(object.Status.ContainerStatuses) > 0 && object.Status.ContainerStatuses[0].RestartCount > 0 && object.Status.ContainerStatuses[0].State.Running != nil
		return restarted && siteOf(ctx, e, pod).Up, nil
	})
}

// TestRevertWhileDataMoves: an upgrade that is turned round while replicas move brings them back, and loses nothing.
func TestRevertWhileDataMoves(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	watched := make(chan *shards, 1)
	blue, turned := "", false
	figures := upgrade(t, demo.Config{
		Clients: 1000, MessagesPerSecond: 100, ConnEvictRate: 1000, ReplicaSeconds: 4,
		OnPhase: func(phaseCtx context.Context, e demo.Environment, phase v2beta1.Phase) error {
			if phase == v2beta1.PhaseProvisioning && blue == "" {
				blue = e.Latest().Status.CoreNodesStatus.CurrentRevision
				go func() { watched <- watchShards(ctx, e.Target, 0) }()
			}
			if phase != v2beta1.PhaseScalingDown || turned {
				return nil
			}
			turned = true
			err := wait.PollUntilContextTimeout(phaseCtx, 100*time.Millisecond, localkubetest.Patience, true, func(ctx context.Context) (bool, error) {
				storage, err := measure.Storage(ctx, e.Target)
				return err == nil && slices.ContainsFunc(storage.Databases, func(database emqx.Database) bool {
					return slices.ContainsFunc(database.Shards, func(shard emqx.Shard) bool { return len(shard.Joining) > 0 })
				}), nil
			})
			if err != nil {
				return fmt.Errorf("wait for replicas that move: %w", err)
			}
			_, err = e.EMQX.AppsV2beta1().EMQXes(e.Namespace).Patch(phaseCtx, e.Name, types.MergePatchType,
				[]byte(`{"spec":{"imagePullPolicy":null}}`), metav1.PatchOptions{})
			return err
		},
	})
	stop()
	require.True(t, turned)
	require.Equal(t, blue, figures.To, "it is as it was")
	(<-watched).requireOn(t, blue)
	require.Zero(t, figures.MessagesLost)
	require.Equal(t, figures.Clients, figures.ClientsBack)
	require.Empty(t, figures.Leftovers)
}
