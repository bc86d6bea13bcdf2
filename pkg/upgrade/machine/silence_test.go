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

// tolerating has the Kubernetes node of a pod be unreachable since a minute, and the user tolerate that for some seconds.
func tolerating(pod string, seconds int32) func(*Snapshot) {
	return func(s *Snapshot) {
		s.EMQX.Spec.UpdateStrategy.UnreachableTolerationSeconds = &seconds
		withPod(pod, func(p *Pod) { p.UnreachableSince, p.Ready, p.Deleting = testNow.Add(-time.Minute), false, true })(s)
		withNode(pod, silentNode)(s)
		unseen("emqx@" + pod + ".pods")(s)
	}
}

// TestLostPodsCountAsGone: a leaving pod on an unreachable Kubernetes node is waited for as long as the user says.
func TestLostPodsCountAsGone(t *testing.T) {
	blue0, blue1 := "emqx@e-core-blue-0.pods", "emqx@e-core-blue-1.pods"
	for _, test := range []struct {
		reason  string
		s       Snapshot
		phase   v2beta1.Phase
		waiting string
		actions []Action
	}{
		{"the others are empty", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, tolerating("e-core-blue-1", 60)), v2beta1.PhaseScalingDown, "", nil},
		{"not yet", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, tolerating("e-core-blue-1", 61)), v2beta1.PhaseEvacuating, blue1 + " does not answer", nil},
		{"without the field, for ever", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, tolerating("e-core-blue-1", 60), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.UnreachableTolerationSeconds = nil
		})), v2beta1.PhaseEvacuating, "taint it node.kubernetes.io/out-of-service", nil},
		{"not while a node still sees it", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, tolerating("e-core-blue-1", 60), withNode("e-core-green-0", func(n *evacuate.NodeObservation) {
			n.Members = append(n.Members, blue1)
		})), v2beta1.PhaseEvacuating, blue1, nil},
		{"nor while it answers", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, tolerating("e-core-blue-1", 60), withNode("e-core-blue-1", clients(1, 1)),
			withNode("e-core-blue-1", func(n *evacuate.NodeObservation) { n.Failure = "" })), v2beta1.PhaseEvacuating, "has 1 clients", nil},
		{"it is scaled away", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, tolerating("e-core-blue-1", 60)), v2beta1.PhaseScalingDown, "pod e-core-blue-1 to be gone", []Action{ScaleSet{SetRef: ref("blue"), Replicas: 1, NodeCount: 2}}},
		{"and the next goes, though it is still there", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, tolerating("e-core-blue-1", 60), withSet("blue", func(s *Set) { s.Replicas = 1 })), v2beta1.PhaseScalingDown,
			"pod e-core-blue-0 to be gone", []Action{ScaleSet{SetRef: ref("blue"), Replicas: 0, NodeCount: 2}}},
		{"then the set", upgrading(v2beta1.PhaseScalingDown, tolerating("e-core-blue-1", 60), withSet("blue", func(s *Set) { s.Replicas, s.Pods = 0, s.Pods[1:] }), func(s *Snapshot) {
			s.Observation.Left = map[string]bool{blue0: true, blue1: true}
		}), v2beta1.PhaseScalingDown, "to forget", []Action{DeleteSet{ref("blue")}}},
		{"what a set left behind there is not waited for", upgrading(v2beta1.PhaseScalingDown, tolerating("e-core-blue-1", 60), withSet("blue", func(s *Set) { s.Replicas, s.Pods, s.Orphaned = 0, s.Pods[1:], true }), func(s *Snapshot) {
			s.Observation.Left = map[string]bool{blue0: true, blue1: true}
		}), v2beta1.PhaseDone, "", nil},
		{"a pod that stays is not given up", upgrading(v2beta1.PhaseProvisioning, serving("blue"), tolerating("e-core-green-1", 60)), v2beta1.PhaseProvisioning, "e-core-green-1 is being deleted", nil},
	} {
		t.Run(test.reason, func(t *testing.T) {
			decision := Decide(test.s)
			require.Equal(t, test.phase, decision.Phase, decision.Waiting.Message)
			require.Contains(t, decision.Waiting.Message, test.waiting)
			require.Equal(t, test.actions, flat(decision.Groups))
			names := map[string]bool{}
			for _, node := range StatusOf(test.s, decision).CoreNodes {
				require.False(t, names[node.Node], "a node is told once")
				names[node.Node] = true
			}
		})
	}
	t.Run("EMQX is to forget it, though its pod is still there", func(t *testing.T) {
		s := upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, tolerating("e-core-blue-1", 60), withSet("blue", func(s *Set) { s.Replicas = 1 }))
		s.EMQX.Status.CoreNodes = []v2beta1.EMQXNode{{Node: blue1}}
		decision := Decide(s)
		require.Contains(t, decision.Goal.Absent, blue1)
		require.Equal(t, "stopped", StatusOf(s, decision).CoreNodes[1].NodeStatus)
		require.Len(t, StatusOf(s, decision).CoreNodes, 4)
	})
	t.Run("it is looked at again when the time is over", func(t *testing.T) {
		require.Equal(t, 5*time.Second, Decide(upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, tolerating("e-core-blue-1", 65))).After)
	})
}
