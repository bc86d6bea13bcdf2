package simulation

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// evacuateByHand has a person evacuate a node that serves, to others that do, at a rate of his own.
func (w *world) evacuateByHand() bool {
	b := w.anyBroker()
	if w.resource() == nil || b == nil || b.refuses() || b.isFrozen(w.now()) || b.owner != w.owner {
		return false
	}
	var recipients []string
	for _, other := range ordered(w.brokers) {
		if other != b && other.served && other.joined && !other.dead && !other.refuses() {
			recipients = append(recipients, other.name)
		}
	}
	if len(recipients) == 0 {
		return false
	}
	b.evac = &evacuation{
		state: emqx.StateWaitingHealthCheck, conn: 1, sess: 1, recipients: recipients,
		initial: int32(w.live(b)), initSes: int32(w.sessions(b)), byHand: w.now(),
	}
	b.stored = b.evac
	w.note("user: evacuates %s", b.name)
	return true
}

// stopByHand has a person end what he began.
func (w *world) stopByHand() {
	for _, b := range ordered(w.brokers) {
		if b.evac != nil && !b.evac.byHand.IsZero() {
			w.note("user: ends the evacuation of %s", b.name)
			b.evac = nil
		}
		if b.stored != nil && !b.stored.byHand.IsZero() {
			b.stored = nil
		}
	}
}

// atRest is how long nothing must have been under way for the operator to be sure of it.
const atRest = time.Minute

// checkStop is that what a person does is left alone while nothing is under way.
func (w *world) checkStop(b *broker) {
	asked := w.resource()
	switch {
	case b.evac.byHand.IsZero() || asked == nil || asked.Status.Upgrade == nil || asked.Status.Upgrade.PhaseStartedTime == nil:
	case asked.Status.Phase != v2beta1.PhaseDone || asked.Status.ObservedGeneration != asked.Generation || w.drained() != nil:
		w.happen("an evacuation by hand that was needed to end")
	case w.sighted() && b.evac.byHand.Sub(asked.Status.Upgrade.PhaseStartedTime.Time) > atRest:
		w.violate("stopped the evacuation of %s that a person began", b.name)
	}
}

// TestEvacuationByHand: what a person does to a node is left alone while nothing is under way, also by an operator that is started
// anew, and does not last longer than that.
func TestEvacuationByHand(t *testing.T) {
	for _, test := range []struct {
		reason string
		begin  func(*world)
	}{
		{"until an upgrade begins", func(w *world) {
			w.edit("upgrade to image 2", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:2" })
		}},
		{"until a machine is drained", func(w *world) {
			for !w.drain() {
				w.step()
			}
		}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.calm, w.watchesNodes = true, true
				w.edit("three nodes", func(spec *v2beta1.EMQXSpec) { spec.CoreTemplate.Spec.Replicas = ptr.To(int32(3)) })
				w.begin()
				defer w.end()
				w.until("the first installation", 5*time.Minute)
				w.connectAll()
				w.runFor(2 * atRest)
				require.True(t, w.evacuateByHand())
				evacuated := func() []*broker {
					return slices.DeleteFunc(ordered(w.brokers), func(b *broker) bool { return b.evac == nil || b.evac.byHand.IsZero() })
				}
				w.runFor(2 * time.Minute)
				w.kill(w.leader())
				w.runFor(2 * time.Minute)
				require.Len(t, evacuated(), 1)
				ready := meta.FindStatusCondition(w.resource().Status.Conditions, v2beta1.ConditionReady)
				require.Equal(t, metav1.ConditionFalse, ready.Status)
				require.Equal(t, "NodeEvacuated", ready.Reason)
				require.Contains(t, ready.Message, "somebody else")
				test.begin(w)
				w.until("the end of it", 10*time.Minute)
				require.Empty(t, evacuated())
			})
		})
	}
}

// runFor has time pass.
func (w *world) runFor(d time.Duration) {
	for end := w.now().Add(d); w.now().Before(end); {
		w.step()
	}
}
