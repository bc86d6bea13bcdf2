package machine

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// TestBaselineGoesUpInSteps: a cluster that grows while it is evacuated has its baseline written now and then, and never one
// that is too low.
func TestBaselineGoesUpInSteps(t *testing.T) {
	for _, test := range []struct {
		reason                     string
		baseline, leaving, staying int64
		want                       int64
	}{
		{"more have come", 1000, 600, 401, 1001 + 5},
		{"not more than that", 1006, 600, 406, 1006},
		{"and more again", 1006, 600, 407, 1007 + 5},
		{"of few each counts", 10, 6, 5, 11},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s := upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", clients(test.leaving, test.leaving)), withNode("e-core-green-0", clients(test.staying, test.staying)),
				withNode("e-core-green-1", clients(0, 0)), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsTotal = test.baseline }))
			require.Equal(t, test.want, Decide(s).Upgrade.ClientsTotal)
		})
	}
}

// TestClientsOfStoppedNodesAreAway: who was on a node that EMQX counts as stopped comes back to another, and would count twice.
func TestClientsOfStoppedNodesAreAway(t *testing.T) {
	full := func(live int64) []func(*Snapshot) {
		return []func(*Snapshot){
			withNode("e-core-blue-0", clients(100, 100)), withNode("e-core-blue-1", clients(100, 100)), withNode("e-core-blue-1", silentNode),
			withNode("e-core-green-0", clients(live, live)), withNode("e-core-green-1", clients(live, live)),
		}
	}
	s := upgrading(v2beta1.PhaseEvacuating, full(50)...)
	live, _ := liveClients(s)
	require.EqualValues(t, 300, live, "silence alone is no reason")

	for _, pod := range s.pods() {
		withNode(pod.Name, func(n *evacuate.NodeObservation) {
			n.Members = slices.DeleteFunc(slices.Clone(n.Members), func(name string) bool { return name == "emqx@e-core-blue-1.pods" })
		})(&s)
	}
	live, _ = liveClients(s)
	require.EqualValues(t, 200, live)
}

// TestHoldWhileScalingDownIsLookedAtAgain: a hold for a look that came late ends with the next one, which differs in nothing
// and wakes nobody.
func TestHoldWhileScalingDownIsLookedAtAgain(t *testing.T) {
	s := upgrading(v2beta1.PhaseScalingDown, withNode("e-core-blue-0", clients(0, 0)), withNode("e-core-green-1", silentNode))
	require.NotZero(t, Decide(s).After)
}

// TestHoldWhileScalingDownEndsForThoseWhoLeft: as while evacuating, clients that left for good hold nothing for ever.
func TestHoldWhileScalingDownEndsForThoseWhoLeft(t *testing.T) {
	s := upgrading(v2beta1.PhaseScalingDown, withNode("e-core-blue-0", clients(1, 1)), withNode("e-core-blue-1", clients(0, 0)), withUpgrade(func(u *v2beta1.UpgradeStatus) {
		u.ClientsTotal, u.HeldTime, u.HeldReason = 20, at(testNow.Add(-2*departedAfter)), clientsAway
	}))
	require.EqualValues(t, 20, Decide(s).Upgrade.ClientsTotal, "nobody knows yet who comes back")
	for _, pod := range s.pods() {
		withNode(pod.Name, func(n *evacuate.NodeObservation) {
			for at := testNow.Add(-2 * departedAfter); !at.After(testNow); at = at.Add(time.Second) {
				n.Samples = append(n.Samples, evacuate.Sample{At: at, Live: n.Info.LiveConnections.Value})
			}
		})(&s)
	}
	decision := Decide(s)
	require.EqualValues(t, 11, decision.Upgrade.ClientsTotal)
	require.Nil(t, decision.Upgrade.HeldTime)
}

// TestClientsOfAPodBefore: who was on the pod that had the name before is on another node by now, or on the way.
func TestClientsOfAPodBefore(t *testing.T) {
	for uid, want := range map[types.UID]int64{"blue-0": 17, "another": 10} {
		s := upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", func(n *evacuate.NodeObservation) { *n = evacuate.NodeObservation{Life: n.Life} }))
		s.EMQX.Status.CoreNodes = []v2beta1.EMQXNode{{Node: "emqx@e-core-blue-0.pods", PodUID: uid, LiveConnections: 7}}
		live, _ := liveClients(s)
		require.Equal(t, want, live, uid)
	}
}
