package machine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// withThird adds a set of a third revision whose nodes are members of the cluster and that never served: no Service leads to
// them, and nobody evacuates them.
func withThird(s *Snapshot) {
	withRed(s)
	for i := range s.set("red").Pods {
		pod := &s.set("red").Pods[i]
		pod.OnServing, pod.Ready = false, false
		for name, node := range s.Observation.Nodes {
			node.Members = append(append([]string(nil), node.Members...), pod.Node)
			s.Observation.Nodes[name] = node
		}
	}
	for _, pod := range s.set("red").Pods {
		s.Observation.Nodes[pod.Node] = s.Observation.Nodes["emqx@e-core-blue-0.pods"]
	}
}

// TestSilentMemberHoldsEvictions: while any member of the cluster is frozen, clients cannot come back, on whatever node.
func TestSilentMemberHoldsEvictions(t *testing.T) {
	red0 := "emqx@e-core-red-0.pods"
	silent := func(pod string) func(*Snapshot) { return withNode(pod, silentNode) }
	for _, test := range []struct {
		reason string
		change []func(*Snapshot)
		named  string // Which node the wait names; empty when nothing is held.
	}{
		{"all answer", []func(*Snapshot){withThird}, ""},
		{"a node of a third revision", []func(*Snapshot){withThird, silent("e-core-red-0")}, red0},
		{"a recipient", []func(*Snapshot){silent("e-core-green-1")}, "emqx@e-core-green-1.pods"},
		{"a leaving node", []func(*Snapshot){silent("e-core-blue-1")}, "emqx@e-core-blue-1.pods"},
		{"a surplus node that takes no clients any more", []func(*Snapshot){silent("e-core-blue-1"), withPod("e-core-blue-1", func(p *Pod) { p.OnServing, p.Ready = false, false })}, "emqx@e-core-blue-1.pods"},
		{"one whom a single node still counts", []func(*Snapshot){withThird, silent("e-core-red-0"), unseen(red0), withNode("e-core-green-0", func(n *evacuate.NodeObservation) {
			n.Members = append(n.Members, red0)
		})}, red0},
		{"not one whom EMQX counts as stopped", []func(*Snapshot){withThird, silent("e-core-red-0"), unseen(red0)}, ""},
		{"nor one that has not joined yet", []func(*Snapshot){withThird, unseen(red0), withNode("e-core-red-0", func(n *evacuate.NodeObservation) { *n = evacuate.NodeObservation{Failure: "the node does not answer"} })}, ""},
		{"nor one whose container has ended", []func(*Snapshot){withThird, silent("e-core-red-0"), withPod("e-core-red-0", func(p *Pod) { p.ContainerRunning = false })}, ""},
		{"nor one whose pod is gone", []func(*Snapshot){withThird, silent("e-core-red-0"), func(s *Snapshot) { s.set("red").Pods = s.set("red").Pods[1:] }}, ""},
		{"a view that is old proves nothing", []func(*Snapshot){silent("e-core-green-1"), unseen("emqx@e-core-green-1.pods"), func(s *Snapshot) {
			for _, pod := range s.pods() {
				withNode(pod.Name, func(n *evacuate.NodeObservation) { n.Seen = testNow.Add(-time.Minute) })(s)
			}
		}}, "emqx@e-core-green-1.pods"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s := upgrading(v2beta1.PhaseEvacuating, append([]func(*Snapshot){withNode("e-core-blue-0", clients(5, 5)), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsTotal = 15 })}, test.change...)...)
			decision := Decide(s)
			if test.named == "" {
				require.NotEqual(t, memberSilent, decision.Upgrade.HeldReason, decision.Waiting.Message)
				return
			}
			require.Equal(t, memberSilent, decision.Upgrade.HeldReason)
			require.Equal(t, evacuate.Serve, intents(decision)["emqx@e-core-blue-0.pods"])
			require.Contains(t, decision.Waiting.Message, "node "+test.named)
			require.Regexp(t, `deleting its pod e-core-\w+-\d ends the wait`, decision.Waiting.Message)
		})
	}
}

// TestHoldOutlivesARestart: an operator that has just begun has not asked the node that evictions were held for.
func TestHoldOutlivesARestart(t *testing.T) {
	s := upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", clients(5, 5)), withUpgrade(func(u *v2beta1.UpgradeStatus) {
		u.ClientsTotal, u.HeldTime, u.HeldReason = 15, at(testNow.Add(-time.Minute)), memberSilent
	}), func(s *Snapshot) { delete(s.Observation.Nodes, "emqx@e-core-green-1.pods") })
	decision := Decide(s)
	require.Equal(t, evacuate.Serve, intents(decision)["emqx@e-core-blue-0.pods"])
	require.Equal(t, testNow.Add(-time.Minute), decision.Upgrade.HeldTime.Time)
	require.Contains(t, decision.Waiting.Message, "has not been asked yet")
	withUpgrade(func(u *v2beta1.UpgradeStatus) { u.HeldTime, u.HeldReason = nil, "" })(&s)
	require.NotEqual(t, memberSilent, Decide(s).Upgrade.HeldReason, "evacuations that run are not stopped because a new operator has to ask first")
}

// TestDeadMembersEndWaits: what EMQX itself counts as stopped holds no switch. It is not called empty for that: a node that
// is cut off has its clients still.
func TestDeadMembersEndWaits(t *testing.T) {
	blue0 := "emqx@e-core-blue-0.pods"
	dead := []func(*Snapshot){withNode("e-core-blue-0", silentNode), unseen(blue0)}
	require.Equal(t, v2beta1.PhaseSwitching, Decide(upgrading(v2beta1.PhaseProvisioning, append(dead, serving("blue"))...)).Phase)
	decision := Decide(upgrading(v2beta1.PhaseEvacuating, append(dead, evacuatedBlue)...))
	require.Equal(t, v2beta1.PhaseEvacuating, decision.Phase)
	require.Contains(t, decision.Waiting.Message, "does not answer since 12:00:00 (no answer in time), and EMQX counts it as stopped; if it is lost for good, delete its pod e-core-blue-0")
}
