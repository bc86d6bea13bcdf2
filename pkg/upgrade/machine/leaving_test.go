package machine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// TestServed: what is known of a set's nodes counts more than what was noted of it.
func TestServed(t *testing.T) {
	closed := func(s *Snapshot) {
		for i := range s.set("red").Pods {
			s.set("red").Pods[i].OnServing = false
		}
	}
	known := func(live, sessions int64) func(*Snapshot) {
		return withNode("e-core-red-1", func(n *evacuate.NodeObservation) {
			n.Seen = testNow
			clients(live, sessions)(n)
		})
	}
	for _, tt := range []struct {
		name   string
		change []func(*Snapshot)
		served bool
	}{
		{"it was never switched to", []func(*Snapshot){closed}, false},
		{"a note says so", []func(*Snapshot){closed, withSet("red", func(set *Set) { set.ServingSince = testNow })}, true},
		{"a node has a client", []func(*Snapshot){closed, known(1, 0)}, true},
		{"a node has a session", []func(*Snapshot){closed, known(0, 1)}, true},
		{"its nodes have nobody", []func(*Snapshot){closed, known(0, 0)}, false},
		{"a gate is open and nobody was asked", nil, true},
		{"clients were told of, on a node that was never heard of", []func(*Snapshot){closed, withNode("e-core-red-1", func(n *evacuate.NodeObservation) {
			*n = evacuate.NodeObservation{Life: n.Life, Failure: "no answer"}
		}), func(s *Snapshot) {
			s.EMQX.Status.CoreNodes = []v2beta1.EMQXNode{{Node: "emqx@e-core-red-1.pods", PodUID: "red-1", Connections: 1}}
		}}, true},
		{"the status calls it current", []func(*Snapshot){closed, withCurrent("red"), func(s *Snapshot) { s.Services = nil }}, true},
		{"another operator made it", []func(*Snapshot){closed, foreign("red")}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := upgrading(v2beta1.PhaseEvacuating, append([]func(*Snapshot){withRed}, tt.change...)...)
			require.Equal(t, tt.served, s.served(*s.set("red")))
		})
	}
}
