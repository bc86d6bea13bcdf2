package machine

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// intents are what the goal wants of the nodes, by pod.
func intents(d Decision) map[string]evacuate.Intent {
	wanted := map[string]evacuate.Intent{}
	for _, node := range d.Goal.Nodes {
		wanted[node.Name] = node.Intent
	}
	return wanted
}

func TestEvacuationGoal(t *testing.T) {
	blue0, blue1, green0 := "emqx@e-core-blue-0.pods", "emqx@e-core-blue-1.pods", "emqx@e-core-green-0.pods"
	full := func(s *Snapshot) {
		s.EMQX.Spec.UpdateStrategy.EvacuationStrategy.MaxUnavailableClients = ptr.To(intstr.FromString("100%"))
		s.EMQX.Status.Upgrade.ClientsTotal = 20
		withNode("e-core-blue-0", clients(5, 5))(s)
		withNode("e-core-blue-1", clients(5, 5))(s)
	}
	t.Run("all leaving nodes together, to those that stay", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full))
		require.Equal(t, evacuate.Evacuate, intents(decision)[blue0])
		require.Equal(t, evacuate.Evacuate, intents(decision)[blue1])
		require.Equal(t, evacuate.Serve, intents(decision)[green0])
		require.Equal(t, []string{green0, "emqx@e-core-green-1.pods"}, decision.Goal.Nodes[0].Evacuation.Recipients)
		require.True(t, decision.Goal.Busy)
	})
	t.Run("a member that is frozen holds all evictions", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full, withNode("e-core-green-1", silentNode)))
		require.Equal(t, evacuate.Serve, intents(decision)[blue0])
		require.Equal(t, memberSilent, decision.Upgrade.HeldReason)
		require.Contains(t, decision.Waiting.Message, "emqx@e-core-green-1.pods")
	})
	t.Run("never to a node that takes no clients", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full, withNode("e-core-green-1", func(n *evacuate.NodeObservation) { n.Available = false })))
		require.Equal(t, []string{green0}, decision.Goal.Nodes[0].Evacuation.Recipients)
	})
	t.Run("a silent node is left as it is", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full, withNode("e-core-blue-1", silentNode)))
		require.Equal(t, evacuate.Observe, intents(decision)[blue1])
	})
	t.Run("after a restart nothing is started before the nodes were asked", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) { s.Observation = evacuate.Observation{} }))
		require.Equal(t, map[string]evacuate.Intent{blue0: evacuate.Observe, blue1: evacuate.Observe, green0: evacuate.Serve, "emqx@e-core-green-1.pods": evacuate.Serve}, intents(decision))
	})
	t.Run("nothing new starts while the slices are not as they should be", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full, withNode("e-core-blue-0", state(emqx.StateEvictingConns)),
			func(s *Snapshot) { s.Services[resources.Listeners].Endpoints[0].Ready = false }))
		require.Equal(t, evacuate.Serve, intents(decision)[blue0], "what runs is stopped")
		require.Equal(t, evacuate.Serve, intents(decision)[blue1])
	})
	t.Run("the baseline is noted before anything starts", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full, withUpgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsTotalTime = nil })))
		require.EqualValues(t, 20, decision.Upgrade.ClientsTotal)
		require.Equal(t, evacuate.Serve, intents(decision)[blue0])
	})
	t.Run("too many missing clients stop evictions, not the moving of sessions", func(t *testing.T) {
		s := upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", clients(5, 5)), withNode("e-core-blue-0", state(emqx.StateEvictingConns)),
			withNode("e-core-blue-1", clients(0, 5)), withNode("e-core-blue-1", state(emqx.StateEvictingSessions)),
			withUpgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsTotal = 20 }))
		decision := Decide(s)
		require.Equal(t, evacuate.Serve, intents(decision)[blue0])
		require.Equal(t, evacuate.Observe, intents(decision)[blue1])
		require.Contains(t, decision.Waiting.Message, "5 of 20 are away")
		require.NotNil(t, decision.Upgrade.HeldTime)
		require.NotZero(t, decision.After, "time alone can change this")
	})
}

// TestUnaskedNodesKeepNobodyBusy: after a start of the operator, no node of any cluster has been asked.
func TestUnaskedNodesKeepNobodyBusy(t *testing.T) {
	rest := func(change func(*evacuate.NodeObservation)) Snapshot {
		return upgrading(v2beta1.PhaseDone, without("blue"), withNode("e-core-green-0", change), withNode("e-core-green-1", change))
	}
	require.False(t, Decide(rest(unasked)).Goal.Busy)
	require.True(t, Decide(rest(booting)).Goal.Busy, "one that does not answer is asked every second")
}

// TestFocusOfAPhase: a node is asked each second for what may matter in the next, and for no more.
func TestFocusOfAPhase(t *testing.T) {
	for phase, want := range map[v2beta1.Phase][2]evacuate.Focus{
		v2beta1.PhaseProvisioning: {evacuate.FocusAll, evacuate.FocusAll},
		v2beta1.PhaseSwitching:    {evacuate.FocusClients, evacuate.FocusAll},
		v2beta1.PhaseEvacuating:   {evacuate.FocusEvacuation, evacuate.FocusClients},
		v2beta1.PhaseScalingDown:  {evacuate.FocusEvacuation, evacuate.FocusClients},
	} {
		s := upgrading(phase)
		leaves, stays := s.Sets[0].Pods[0], s.Sets[1].Pods[0]
		require.True(t, s.leaves(leaves))
		require.False(t, s.leaves(stays))
		require.Equal(t, want, [2]evacuate.Focus{focus(s, leaves), focus(s, stays)}, phase)
	}
}
