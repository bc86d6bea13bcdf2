package machine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// TestEvacuationsByHand: of a node that stays, an evacuation is stopped that the operator may have started, and any while something is
// under way. What somebody else does is left alone at rest.
func TestEvacuationsByHand(t *testing.T) {
	const node = "emqx@e-core-green-0.pods"
	evacuated := withNode("e-core-green-0", func(n *evacuate.NodeObservation) {
		n.Evacuation, n.Available = &emqx.EvacuationStatus{State: emqx.StateEvictingConns}, false
	})
	toStop := func(s *Snapshot) { s.EMQX.Status.EvacuationsToStop = []string{node} }
	told := func(s *Snapshot) { s.EMQX.Status.NodeEvacuationsStatus = []v2beta1.NodeEvacuationStatus{{Node: node}} }
	silent := withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Failure = "no answer" })
	another := func(s *Snapshot) {
		s.Wanted = map[Role]Target{Core: {Revision: "red", Intent: `{"image":"c"}`, Replicas: 2}}
	}
	rest := []func(*Snapshot){without("blue"), func(s *Snapshot) { s.EMQX.Status.CoreNodesStatus.CurrentRevision = "green" }}
	for _, test := range []struct {
		reason string
		phase  v2beta1.Phase
		change []func(*Snapshot)
		intent evacuate.Intent
		toStop bool
		event  string
	}{
		{"at rest it is left alone", v2beta1.PhaseDone, []func(*Snapshot){evacuated}, evacuate.Observe, false, ""},
		{"also when it is known for long", v2beta1.PhaseDone, []func(*Snapshot){evacuated, told}, evacuate.Observe, false, ""},
		{"not when the operator may have started it", v2beta1.PhaseDone, []func(*Snapshot){evacuated, toStop}, evacuate.Serve, true, ""},
		{"that is remembered while the node is silent", v2beta1.PhaseDone, []func(*Snapshot){silent, toStop}, evacuate.Serve, true, ""},
		{"until the node is seen without one", v2beta1.PhaseDone, []func(*Snapshot){toStop}, evacuate.Serve, false, ""},
		{"one that was ordered and does not show yet is the operator's", v2beta1.PhaseDone, []func(*Snapshot){
			withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.AskedConnRate = 1 }),
		}, evacuate.Serve, true, ""},
		{"in an upgrade a node that stays is needed", v2beta1.PhaseProvisioning, []func(*Snapshot){evacuated}, evacuate.Serve, true, ""},
		{"a node that is silent since it was evacuated is told when it is back", v2beta1.PhaseScalingDown, []func(*Snapshot){silent, told}, evacuate.Serve, true, ""},
		{"an upgrade that begins ends it, and says so", v2beta1.PhaseDone, []func(*Snapshot){evacuated, told, another}, evacuate.Serve, true, "EvacuationStopped"},
		{"a drain ends it, and says so", v2beta1.PhaseDone, []func(*Snapshot){
			evacuated, told, onDrained("e-core-green-1"), func(s *Snapshot) { s.NodesWatched = true },
		}, evacuate.Serve, true, "EvacuationStopped"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s := upgrading(test.phase, append(rest[:2:2], test.change...)...)
			decision := Decide(s)
			for _, goal := range decision.Goal.Nodes {
				if goal.Name == node {
					require.Equal(t, test.intent, goal.Intent)
				}
			}
			status := StatusOf(s, decision)
			require.Equal(t, test.toStop, len(status.EvacuationsToStop) == 1, status.EvacuationsToStop)
			reasons := reasonsOf(EventsOf(s.EMQX, decision, status))
			if test.event == "" {
				require.NotContains(t, reasons, "EvacuationStopped")
			} else {
				require.Contains(t, reasons, test.event)
			}
		})
	}
}
