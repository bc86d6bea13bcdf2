package machine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
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
