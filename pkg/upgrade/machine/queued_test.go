package machine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// TestQueued: an upgrade waits for others where not all may be at once. What is under way goes on, and a cluster that serves
// nobody is built.
func TestQueued(t *testing.T) {
	limited := func(limit int, others ...string) func(*Snapshot) {
		return func(s *Snapshot) { s.MaxUpgrades, s.Others = limit, others }
	}
	finished := withUpgrade(func(u *v2beta1.UpgradeStatus) { u.FinishedTime = at(testNow) })
	for _, test := range []struct {
		reason string
		s      Snapshot
		waits  string
	}{
		{"no limit", upgrading(v2beta1.PhasePending, serving("blue"), finished, limited(0, "a", "b")), ""},
		{"there is room", upgrading(v2beta1.PhasePending, serving("blue"), finished, limited(2, "a")), ""},
		{"there is none", upgrading(v2beta1.PhasePending, serving("blue"), finished, limited(2, "a", "n/b")),
			"a, n/b to be upgraded first: at most 2 clusters are at a time"},
		{"many", upgrading(v2beta1.PhasePending, serving("blue"), finished, limited(5, "a", "b", "c", "d", "e")),
			"a, b, c and 2 more to be upgraded first: at most 5 clusters are at a time"},
		{"an upgrade that began goes on with another revision", upgrading(v2beta1.PhasePending, serving("blue"), limited(1, "a")), ""},
		{"a first installation", upgrading(v2beta1.PhasePending, finished, without("blue"), without("green"), func(s *Snapshot) { s.Services = nil }, limited(1, "a")), ""},
	} {
		t.Run(test.reason, func(t *testing.T) {
			decision := Decide(test.s)
			require.Equal(t, test.waits, decision.Waiting.Message)
			if test.waits != "" {
				require.Equal(t, v2beta1.PhasePending, decision.Phase)
				require.Equal(t, UpgradesUnderWay, decision.Waiting.Reason)
				require.Equal(t, test.s.upgradeStatus(), decision.Upgrade, "nothing has begun")
			} else {
				require.Equal(t, v2beta1.PhaseProvisioning, decision.Phase)
			}
		})
	}
	require.Equal(t, v2beta1.PhaseEvacuating, Decide(upgrading(v2beta1.PhaseEvacuating, limited(1, "a"))).Phase)
}
