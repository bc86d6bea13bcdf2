package machine

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// TestNotices: a field without effect is told when Done is entered, and once a generation in it.
func TestNotices(t *testing.T) {
	replace := withSpec(func(spec *v2beta1.EMQXSpec) { spec.Config.Mode = v2beta1.ConfigModeReplace })
	limit := withSpec(func(spec *v2beta1.EMQXSpec) { spec.RevisionHistoryLimit = ptr.To(int32(5)) })
	observed := func(generation int64) func(*Snapshot) {
		return func(s *Snapshot) { s.EMQX.Status.ObservedGeneration = generation }
	}
	for _, test := range []struct {
		reason           string
		s                Snapshot
		event, condition bool
	}{
		{"a value of the user's, when Done is entered", upgrading(v2beta1.PhasePending, without("blue"), observed(2), replace), true, true},
		{"in Done, at another generation", upgrading(v2beta1.PhaseDone, without("blue"), observed(1), replace), true, true},
		{"at the same generation the event is not repeated", upgrading(v2beta1.PhaseDone, without("blue"), observed(2), replace), false, true},
		{"what has an effect", upgrading(v2beta1.PhaseDone, without("blue"), observed(1), limit), false, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			decision := Decide(test.s)
			status := StatusOf(test.s, decision)
			told := false
			for _, event := range EventsOf(test.s.EMQX, decision, status) {
				told = told || event.Reason == fieldHasNoEffect
			}
			require.Equal(t, test.event, told)
			ready := meta.FindStatusCondition(status.Conditions, v2beta1.ConditionReady).Message
			if test.condition {
				require.Contains(t, ready, "spec.config.mode has no effect")
			} else {
				require.NotContains(t, ready, "has no effect")
			}
		})
	}
}
