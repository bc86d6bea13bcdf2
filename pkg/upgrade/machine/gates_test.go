package machine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// TestGateIsLookedAtInTime: no event tells that a node beside which nobody answers had the time to join.
func TestGateIsLookedAtInTime(t *testing.T) {
	s := upgrading(v2beta1.PhaseDone, without("blue"), withPod("e-core-green-0", func(p *Pod) { p.OnServing, p.Ready = false, false }),
		withNode("e-core-green-0", func(n *evacuate.NodeObservation) {
			n.Members, n.MembersSince = []string{"emqx@e-core-green-0.pods"}, testNow.Add(-7*time.Second)
		}), withNode("e-core-green-1", silentNode))
	require.Equal(t, 3*time.Second, Decide(s).After)
}

func TestGates(t *testing.T) {
	closed := func(p *Pod) { p.OnServing = false }
	opened := SetGate{Pod: "e-core-green-0", UID: "green-0", Serving: true, Container: "c1", Message: "the node runs in its cluster"}
	restarted := func(p *Pod) { p.Container = "c2" }
	inSecondLife := func(n *evacuate.NodeObservation) { n.Life = "c2" }
	alone := func(n *evacuate.NodeObservation) { n.Members = []string{"emqx@e-core-green-0.pods"} }
	aloneFor := func(duration time.Duration) func(*evacuate.NodeObservation) {
		return func(n *evacuate.NodeObservation) {
			alone(n)
			n.MembersSince = testNow.Add(-duration)
		}
	}
	one := func(s *Snapshot) {
		without("blue")(s)
		wanting(1)(s)
		withSet("green", func(set *Set) { set.Replicas, set.Pods = 1, set.Pods[:1] })(s)
	}
	for _, test := range []struct {
		reason string
		s      Snapshot
		want   []Action
	}{
		{"opened once another member has seen the node", upgrading(v2beta1.PhaseProvisioning, withPod("e-core-green-0", closed)), []Action{opened}},
		{"not while it is alone", upgrading(v2beta1.PhaseProvisioning, withPod("e-core-green-0", closed), withNode("e-core-green-0", alone)), nil},
		{"not while it is silent", upgrading(v2beta1.PhaseProvisioning, withPod("e-core-green-0", closed), withNode("e-core-green-0", silentNode)), nil},
		{"a one-node cluster vouches for itself", upgrading(v2beta1.PhaseProvisioning, one, withPod("e-core-green-0", closed), withNode("e-core-green-0", alone)), []Action{opened}},
		{"never closed on silence", upgrading(v2beta1.PhaseDone, withNode("e-core-green-0", silentNode), withNode("e-core-green-1", silentNode)), nil},
		{"nor because the others are silent", upgrading(v2beta1.PhaseDone, without("blue"), withNode("e-core-green-0", alone), withNode("e-core-green-1", silentNode)), nil},
		{"closed for a node that is known to be apart", upgrading(v2beta1.PhaseDone, withNode("e-core-green-0", alone), unseenBut("emqx@e-core-green-0.pods")), []Action{SetGate{Pod: "e-core-green-0", UID: "green-0", Container: "c1", Message: "the node runs apart from the rest of its cluster"}}},
		{"not on a view from before the others lost sight of it", upgrading(v2beta1.PhaseDone, withNode("e-core-green-0", alone), unseenBut("emqx@e-core-green-0.pods"), func(s *Snapshot) {
			for _, pod := range s.pods() {
				withNode(pod.Name, func(n *evacuate.NodeObservation) { n.MembersSince = testNow })(s)
			}
		}), nil},
		{"nor while one still sees it", upgrading(v2beta1.PhaseDone, unseenBut("emqx@e-core-green-0.pods"), withNode("e-core-blue-0", func(n *evacuate.NodeObservation) {
			n.Members = append(n.Members, "emqx@e-core-green-0.pods")
		}), withNode("e-core-green-0", func(n *evacuate.NodeObservation) {
			n.Members = []string{"emqx@e-core-green-0.pods", "emqx@e-core-blue-0.pods"}
		})), nil},
		{"not for all of them when nobody sees anybody", upgrading(v2beta1.PhaseDone, func(s *Snapshot) {
			for _, pod := range s.pods() {
				withNode(pod.Name, func(n *evacuate.NodeObservation) { n.Members = []string{pod.Node} })(s)
			}
		}), nil},
		{"closed for a container that was started again", upgrading(v2beta1.PhaseDone, withPod("e-core-green-0", restarted), withNode("e-core-green-0", booting), withNode("e-core-green-0", inSecondLife)),
			[]Action{SetGate{Pod: "e-core-green-0", UID: "green-0", Container: "c2", Message: "the container was started again and its node has not been seen in the cluster since"}}},
		{"what was seen of it before says nothing", upgrading(v2beta1.PhaseDone, withPod("e-core-green-0", restarted)), nil},
		{"not before it has been asked", upgrading(v2beta1.PhaseDone, withPod("e-core-green-0", restarted), withNode("e-core-green-0", unasked)), nil},
		{"one beside which nobody answers has a while to join", upgrading(v2beta1.PhaseDone, without("blue"), withPod("e-core-green-0", closed), withNode("e-core-green-0", aloneFor(9*time.Second)),
			withNode("e-core-green-1", silentNode)), nil},
		{"then it vouches for itself", upgrading(v2beta1.PhaseDone, without("blue"), withPod("e-core-green-0", closed), withNode("e-core-green-0", aloneFor(10*time.Second)),
			withNode("e-core-green-1", silentNode)), []Action{opened}},
		{"but not beside one that answers", upgrading(v2beta1.PhaseDone, without("blue"), withPod("e-core-green-0", closed), withNode("e-core-green-0", aloneFor(time.Hour))), nil},
		{"until it has joined", upgrading(v2beta1.PhaseDone, withPod("e-core-green-0", restarted), withNode("e-core-green-0", inSecondLife)), []Action{SetGate{Pod: "e-core-green-0", UID: "green-0", Serving: true, Container: "c2", Message: "the node runs in its cluster"}}},
		{"not for one that nobody knows which container it was opened for", upgrading(v2beta1.PhaseDone, withPod("e-core-green-0", func(p *Pod) { p.GateContainer = "" }), withNode("e-core-green-0", silentNode)), nil},
		{"nor for one of a set that never served and leaves, where users lead clients themselves", upgrading(v2beta1.PhaseDone, leadingTo("blue"), serving("blue"), servicesOff, withSet("green", func(s *Set) { s.ServingSince = time.Time{} }),
			withPod("e-core-green-0", closed), withPod("e-core-green-1", closed), withNode("e-core-green-0", clients(0, 0)), withNode("e-core-green-1", clients(0, 0))), nil},
		{"never opened for a surplus pod", upgrading(v2beta1.PhaseDone, withPod("e-core-green-1", closed), wanting(1)), nil},
		{"a pod that goes is left alone", upgrading(v2beta1.PhaseProvisioning, withPod("e-core-green-0", closed), withPod("e-core-green-0", func(p *Pod) { p.Deleting = true })), nil},
	} {
		t.Run(test.reason, func(t *testing.T) { require.Equal(t, test.want, flat(gates(test.s))) })
	}
	t.Run("nodes that disagree are looked at again soon, and asked often", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseDone, without("blue"), withNode("e-core-green-0", alone)))
		require.NotZero(t, decision.After)
		require.True(t, decision.Goal.Busy)
		decision = Decide(upgrading(v2beta1.PhaseDone, without("blue")))
		require.Zero(t, decision.After)
		require.False(t, decision.Goal.Busy)
	})
}

// unseenBut takes a node out of the view of all others.
func unseenBut(name string) func(*Snapshot) {
	return func(s *Snapshot) {
		own := s.Observation.Nodes[name].Members
		unseen(name)(s)
		node := s.Observation.Nodes[name]
		node.Members = own
		s.Observation.Nodes[name] = node
	}
}
