package machine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// TestUnseenPods: while Kubernetes counts pods of a set that the cache does not show, their nodes have not left, and the set is
// kept: its nodes would join after EMQX was made to forget them, and nobody would know of them any more.
func TestUnseenPods(t *testing.T) {
	for _, unseen := range []bool{false, true} {
		s := upgrading(v2beta1.PhaseProvisioning, serving("blue"), func(s *Snapshot) {
			withRed(s)
			red := &s.Sets[len(s.Sets)-1]
			red.Replicas, red.NodeCount, red.Pods, red.PodsUnseen = 0, 2, nil, unseen
			s.Observation.Left = map[string]bool{"emqx@e-core-red-0.pods": true, "emqx@e-core-red-1.pods": true}
		}, withPod("e-core-green-0", func(p *Pod) { p.ContainersReady = false }))
		decision := Decide(s)
		deletes := false
		for _, group := range decision.Groups {
			for _, action := range group {
				_, is := action.(DeleteSet)
				deletes = deletes || is
			}
		}
		require.Equal(t, !unseen, deletes)
		if unseen {
			require.NotContains(t, decision.Goal.Absent, "emqx@e-core-red-0.pods")
		} else {
			require.Contains(t, decision.Goal.Absent, "emqx@e-core-red-0.pods")
		}
	}
}

// TestUnseenPodsAreNotForgotten: how many nodes a set ever had is noted until EMQX has forgotten all of them.
func TestUnseenPodsAreNotForgotten(t *testing.T) {
	for _, unseen := range []bool{false, true} {
		s := upgrading(v2beta1.PhaseDone, without("blue"), withSet("green", func(set *Set) { set.NodeCount, set.PodsUnseen = 3, unseen }))
		s.Observation.Left = map[string]bool{"emqx@e-core-green-2.pods": true}
		var noted []int32
		for _, group := range Decide(s).Groups {
			for _, action := range group {
				if scale, is := action.(ScaleSet); is {
					noted = append(noted, scale.NodeCount)
				}
			}
		}
		if unseen {
			require.Empty(t, noted)
		} else {
			require.Equal(t, []int32{2}, noted)
		}
	}
}

// TestUnseenPodsGoFirst: the next node is taken away when Kubernetes has counted that the last has gone. Before, the set is
// about to be written by it, and a write of ours would be refused.
func TestUnseenPodsGoFirst(t *testing.T) {
	for _, unseen := range []bool{false, true} {
		s := upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, withSet("blue", func(set *Set) { set.PodsUnseen = unseen }))
		scaled := false
		for _, group := range Decide(s).Groups {
			for _, action := range group {
				_, is := action.(ScaleSet)
				scaled = scaled || is
			}
		}
		require.Equal(t, !unseen, scaled)
	}
}
