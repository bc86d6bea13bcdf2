package machine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// TestDelayedMessages: those of leaving nodes are counted and told of, once, before they are lost; those of nodes that stay are
// nobody's business.
func TestDelayedMessages(t *testing.T) {
	has := func(pod string, count int64) func(*Snapshot) {
		return withNode(pod, func(n *evacuate.NodeObservation) { n.Delayed = emqx.Count{Value: count, Known: true} })
	}
	known := withUpgrade(func(u *v2beta1.UpgradeStatus) { u.DelayedMessages = 7 })
	for _, test := range []struct {
		reason string
		change []func(*Snapshot)
		count  int64
		told   bool
	}{
		{"nobody has any", nil, 0, false},
		{"both old nodes do", []func(*Snapshot){has("e-core-blue-0", 2), has("e-core-blue-1", 3)}, 5, true},
		{"it is told once", []func(*Snapshot){has("e-core-blue-0", 2), known}, 2, false},
		{"a new node does", []func(*Snapshot){has("e-core-green-0", 2)}, 0, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s := upgrading(v2beta1.PhaseEvacuating, test.change...)
			decision := Decide(s)
			status := StatusOf(s, decision)
			require.Equal(t, test.count, status.Upgrade.DelayedMessages)
			reasons := reasonsOf(EventsOf(s.EMQX, decision, status))
			require.Equal(t, test.told, len(reasons) > 0 && reasons[len(reasons)-1] == "DelayedMessagesLeft", reasons)
			for _, node := range decision.Goal.Nodes {
				require.Equal(t, s.leaves(s.byNode()[node.Name]), node.Delayed, node.Name)
			}
		})
	}
}
