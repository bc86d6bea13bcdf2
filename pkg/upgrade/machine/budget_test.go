package machine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// TestBudget: in every phase the budget is that of the set that serves.
func TestBudget(t *testing.T) {
	budget := func(change func(*Budget)) func(*Snapshot) { return func(s *Snapshot) { change(&s.Budget) } }
	lost := budget(func(b *Budget) { *b = Budget{} })
	outdated := budget(func(b *Budget) { b.State = Outdated })
	of := func(revision string) func(*Snapshot) { return budget(func(b *Budget) { b.Revision = revision }) }
	one := func(revision string) func(*Snapshot) {
		return withSet(revision, func(set *Set) { set.Asked, set.Replicas, set.NodeCount, set.Pods = 1, 1, 1, set.Pods[:1] })
	}
	asking := withSpec(func(spec *v2beta1.EMQXSpec) { spec.CoreTemplate.Spec.MinAvailable = ptr.To(intstr.FromInt32(1)) })
	theirs := budget(func(b *Budget) { *b = Budget{State: Outdated, UID: "budget", Inheritance: []byte("fields")} })
	protects := func(revision string) []Action { return []Action{ApplyBudget{Revision: revision}} }
	deleted := []Action{DeleteBudget{UID: "budget"}}
	for _, test := range []struct {
		reason string
		s      Snapshot
		want   []Action
	}{
		{"at rest nothing is written", upgrading(v2beta1.PhaseDone, without("blue")), nil},
		{"new nodes are not protected before they serve", upgrading(v2beta1.PhaseProvisioning, serving("blue")), nil},
		{"it is made while only the new nodes may change, too", upgrading(v2beta1.PhaseProvisioning, serving("blue"), lost), protects("blue")},
		{"it is not moved before the listeners Service is", upgrading(v2beta1.PhaseSwitching, serving("blue")), nil},
		{"it is moved once that is", upgrading(v2beta1.PhaseSwitching, of("blue")), protects("green")},
		{"whatever phase shows it", upgrading(v2beta1.PhaseEvacuating, of("blue")), protects("green")},
		{"it goes back with the Services", upgrading(v2beta1.PhasePending, serving("blue"), of("green")), protects("blue")},
		{"lost in mid-upgrade", upgrading(v2beta1.PhaseEvacuating, lost), protects("green")},
		{"changed by somebody", upgrading(v2beta1.PhaseDone, without("blue"), outdated), protects("green")},
		{"also while paused", upgrading(v2beta1.PhaseEvacuating, lost, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })), protects("green")},
		{"also while only a person can help", upgrading(v2beta1.PhaseEvacuating, lost, func(s *Snapshot) { s.CookieSecret = Missing }), protects("green")},
		{"without Services it is that of the revision that was last seen to serve", upgrading(v2beta1.PhaseProvisioning, servicesOff, lost), protects("blue")},
		{"a single node has none", upgrading(v2beta1.PhaseDone, without("blue"), one("green"), wanting(1)), deleted},
		{"nor gets one", upgrading(v2beta1.PhaseDone, without("blue"), one("green"), wanting(1), lost), nil},
		{"unless it is asked for", upgrading(v2beta1.PhaseDone, without("blue"), one("green"), wanting(1), lost, asking), protects("green")},
		{"several that serve have theirs while a single one is built", upgrading(v2beta1.PhaseProvisioning, serving("blue"), one("green"), wanting(1), lost), protects("blue")},
		{"a single one that serves has none while several are built", upgrading(v2beta1.PhaseProvisioning, serving("blue"), one("blue")), deleted},
		{"a stranger who scales a set to one takes none away", upgrading(v2beta1.PhaseDone, without("blue"), withSet("green", func(set *Set) { set.Asked, set.Replicas = 2, 1 })), nil},
		{"nor does one who scales it up make one", upgrading(v2beta1.PhaseDone, without("blue"), one("green"), wanting(1), lost, withSet("green", func(set *Set) { set.Replicas, set.NodeCount = 2, 2 })), nil},
		{"unless that is what is asked for", upgrading(v2beta1.PhaseDone, without("blue"), lost, withSet("green", func(set *Set) { set.Asked = 1 })), protects("green")},
		{"more nodes that are asked for and not there yet", upgrading(v2beta1.PhasePending, without("blue"), one("green"), lost), nil},
		{"nodes that cannot be taken away are protected", upgrading(v2beta1.PhaseDone, without("blue"), wanting(1)), nil},
		{"one of somebody else's is left alone", upgrading(v2beta1.PhaseDone, without("blue"), budget(func(b *Budget) { *b = Budget{State: Unavailable} })), nil},
		{"also where none is wanted", upgrading(v2beta1.PhaseDone, without("blue"), one("green"), wanting(1), budget(func(b *Budget) { *b = Budget{State: Unavailable} })), nil},
		{"that of emqx-operator 2.x stays until its set is adopted", upgrading(v2beta1.PhasePending, without("blue"), foreign("green"), unselective(), theirs, withCurrent("green")), nil},
		{"and until its Services select a revision", upgrading(v2beta1.PhasePending, without("blue"), unselective(), theirs), nil},
		{"then it is taken over", upgrading(v2beta1.PhaseDone, without("blue"), theirs), []Action{InheritBudget{Patch: []byte("fields")}, ApplyBudget{Revision: "green"}}},
		{"or taken away", upgrading(v2beta1.PhaseDone, without("blue"), one("green"), wanting(1), theirs), deleted},
		{"nobody serves yet", upgrading(v2beta1.PhaseProvisioning, without("blue"), lost, withSet("green", func(set *Set) { set.ServingSince = time.Time{} }), func(s *Snapshot) { s.Services = map[resources.ServiceKind]Service{} }), nil},
	} {
		t.Run(test.reason, func(t *testing.T) {
			var got []Action
			for _, action := range flat(Decide(test.s).Groups) {
				switch action.(type) { //nolint:gochecksumtype // The others have tests of their own.
				case ApplyBudget, InheritBudget, DeleteBudget:
					got = append(got, action)
				}
			}
			require.Equal(t, test.want, got)
		})
	}
}
