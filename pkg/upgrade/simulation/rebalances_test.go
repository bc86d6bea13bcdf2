package simulation

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	applyemqx "github.com/emqx-bg/emqx-bg-operator/pkg/generated/applyconfiguration/apps/v2beta1"
	typedemqx "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/typed/apps/v2beta1"
)

// rebalance is one that runs in EMQX. It is nowhere but in the memory of the nodes that take part.
type rebalance struct {
	coordinator *broker
	asked       emqx.Rebalance
	state       emqx.RebalanceState
	donors      []*broker
	recipients  []*broker
	until, next time.Time
}

// even reports whether EMQX takes it for even enough.
func (r *rebalance) even(w *world) bool {
	donors, recipients := w.average(r.donors), w.average(r.recipients)
	relative, _ := strconv.ParseFloat(r.asked.RelConnThreshold, 64) // The schema lets pass nothing else.
	return donors <= recipients+float64(r.asked.AbsConnThreshold) || donors <= recipients*relative
}

func (w *world) average(brokers []*broker) float64 {
	total := 0.0
	for _, b := range brokers {
		total += float64(w.live(b))
	}
	return total / float64(max(1, len(brokers)))
}

// donation is the rebalance that a node gives clients to; nil for none.
func (w *world) donation(b *broker) *rebalance {
	for _, r := range w.rebalances {
		if slices.Contains(r.donors, b) {
			return r
		}
	}
	return nil
}

// StartRebalance is POST /load_rebalance/:node/start.
func (a brokerAPI) StartRebalance(ctx context.Context, node emqx.Node, credentials emqx.Credentials, asked emqx.Rebalance) error {
	w := a.by.w
	return a.reach(ctx, "start a rebalance", node, &credentials, false, func(b *broker) error {
		if slices.ContainsFunc(w.rebalances, func(r *rebalance) bool { return r.coordinator == b }) {
			return w.lostAnswer() // already_started, which the client takes for success.
		}
		r := &rebalance{coordinator: b, asked: asked, state: emqx.RebalanceWaitHealthCheck, until: w.now().Add(time.Duration(asked.WaitHealthCheck) * time.Second)}
		var all []*broker
		for _, name := range asked.Nodes {
			other := w.byName(name)
			switch {
			case other != nil && other.isFrozen(w.now()):
				return fmt.Errorf("%w: simulated: %s is frozen", emqx.ErrSilent, name)
			case other == nil || other.dead || !other.joined || other.refuses() || !w.sees(b, other):
				return fmt.Errorf("%w: %s", emqx.ErrRecipients, name)
			}
			all = append(all, other)
		}
		for _, other := range all {
			if float64(w.live(other)) >= w.average(all) {
				r.donors = append(r.donors, other)
			} else {
				r.recipients = append(r.recipients, other)
			}
		}
		if len(r.recipients) == 0 || r.even(w) {
			return emqx.ErrNothingToBalance
		}
		w.checkRebalance(a.by, b)
		w.rebalances = append(w.rebalances, r)
		for _, donor := range r.donors {
			donor.donates = true
		}
		return w.lostAnswer()
	})
}

// StopRebalance is POST /load_rebalance/:node/stop.
func (a brokerAPI) StopRebalance(ctx context.Context, node emqx.Node, credentials emqx.Credentials) error {
	w := a.by.w
	return a.reach(ctx, "stop a rebalance", node, &credentials, false, func(b *broker) error {
		for _, r := range slices.Clone(w.rebalances) {
			if r.coordinator == b {
				w.happen("a rebalance that was stopped")
				w.endRebalance(r, "is stopped")
			}
		}
		return w.lostAnswer()
	})
}

func (w *world) endRebalance(r *rebalance, why string) {
	w.note("the rebalance that %s coordinates %s", r.coordinator.name, why)
	for _, donor := range r.donors {
		donor.donates = false
	}
	w.rebalances = slices.DeleteFunc(w.rebalances, func(other *rebalance) bool { return other == r })
}

// tickRebalances lets them go on. One of whose nodes one has died ends.
func (w *world) tickRebalances() {
	for _, r := range slices.Clone(w.rebalances) {
		took := slices.Concat([]*broker{r.coordinator}, r.donors, r.recipients)
		switch {
		case slices.ContainsFunc(took, func(b *broker) bool { return b.dead || !b.joined || b.isGivenUp(w.now()) }):
			w.happen("a rebalance that lost a node")
			w.endRebalance(r, "ends, since a node that took part has gone")
		case slices.ContainsFunc(took, func(b *broker) bool { return b.isFrozen(w.now()) }): // It waits for an answer.
		case r.state == emqx.RebalanceWaitHealthCheck && !w.now().Before(r.until):
			r.state = emqx.RebalanceEvictingConns
		case r.state == emqx.RebalanceEvictingConns && !w.now().Before(r.next):
			r.next = w.now().Add(time.Second)
			if r.even(w) {
				r.state, r.until = emqx.RebalanceWaitTakeover, w.now().Add(time.Duration(r.asked.WaitTakeover)*time.Second)
				break
			}
			for _, donor := range r.donors {
				w.evict(donor, int(r.asked.ConnEvictRate), false)
			}
		case r.state == emqx.RebalanceWaitTakeover && !w.now().Before(r.until):
			w.happen("a rebalance to its end")
			w.endRebalance(r, "is over")
		}
	}
}

// checkRebalance is that one runs at a time, and none while an upgrade or a drain evacuates.
func (w *world) checkRebalance(by *operator, b *broker) {
	w.note("operator %d: a rebalance starts on %s", by.life, b.name)
	w.happen("a rebalance")
	if !w.sighted() {
		return
	}
	if len(w.rebalances) > 0 {
		w.violate("a rebalance is started on %s beside that of %s", b.name, w.rebalances[0].coordinator.name)
	}
	for _, other := range ordered(w.brokers) {
		if other.evac != nil && !other.dead && other.owner == w.owner {
			w.violate("a rebalance is started while %s is evacuated", other.name)
		}
	}
}

// crowd has most clients come back to one node, as when the others were started again.
func (w *world) crowd() {
	b := w.anyBroker()
	if b == nil || b.refuses() || !b.joined || b.owner != w.owner || w.anyFrozen() {
		return
	}
	for _, g := range slices.Clone(w.population) {
		if g.node != nil && g.node != b && g.n > 1 && w.sees(b, g.node) && !g.node.refuses() {
			moved := w.split(g, g.n*9/10)
			moved.node, moved.session = b, b
		}
	}
	b.served = true
	w.merge()
	w.note("most clients came back to %s", b.name)
}

// rebalancesNow are the Rebalances that there are.
func (w *world) rebalancesNow() []*v2beta1.Rebalance {
	return all[*v2beta1.Rebalance](w.kube, rebalanceResources)
}

// askRebalance has a user make a Rebalance.
func (w *world) askRebalance() {
	w.asks++
	w.kube.put(rebalanceResources, &v2beta1.Rebalance{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("rebalance-%d", w.asks), Namespace: namespace, Generation: 1},
		Spec: v2beta1.RebalanceSpec{InstanceName: name, RebalanceStrategy: v2beta1.RebalanceStrategy{
			ConnEvictRate: int32(w.expected/20 + 1), SessEvictRate: 500, WaitHealthCheck: 2, WaitTakeover: 3,
			AbsConnThreshold: int32(w.expected/10 + 1), AbsSessThreshold: 1000, RelConnThreshold: "1.1", RelSessThreshold: "1.1",
		}},
	})
	w.note("user: makes Rebalance %d", w.asks)
	w.happen("a Rebalance")
}

// dropRebalance has a user delete a Rebalance.
func (w *world) dropRebalance(r *v2beta1.Rebalance) {
	if !r.DeletionTimestamp.IsZero() {
		return
	}
	w.note("user: deletes %s, which is %s", r.Name, r.Status.Phase)
	w.happen(fmt.Sprintf("a Rebalance deleted that was %q", r.Status.Phase))
	if len(r.Finalizers) == 0 {
		w.kube.remove(rebalanceResources, r.Name)
		return
	}
	r = r.DeepCopy()
	r.DeletionTimestamp = ptr.To(metav1.NewTime(w.now()))
	w.kube.put(rebalanceResources, r)
}

// tickRebalanceUsers has users make and delete Rebalances at any time, and look at how long those stay that they deleted.
func (w *world) tickRebalanceUsers() {
	if w.resource() != nil && !w.calm && !w.calmAt.IsZero() && w.once("Rebalance", 150) {
		if w.resource().Status.Phase == v2beta1.PhaseDone {
			w.crowd()
		}
		w.askRebalance()
	}
	for _, r := range w.rebalancesNow() {
		if !w.calmAt.IsZero() && w.once("a Rebalance deleted", 200) {
			w.dropRebalance(r)
		}
		if since := r.DeletionTimestamp; since != nil && w.now().Sub(since.Time) > letGoWithin && w.sighted() && w.now().Sub(w.leader().began) > letGoWithin {
			w.violate("%s is not let go: %+v", r.Name, r.Status)
		}
	}
}

// letGoWithin is how long a Rebalance that is deleted may stay: the operator waits for two minutes at most, and looks at a cluster that
// is at rest every half.
const letGoWithin = 3 * time.Minute

// allRebalanced reports whether every Rebalance is over.
func (w *world) allRebalanced() bool {
	return len(w.rebalances) == 0 && every(w.rebalancesNow(), func(r *v2beta1.Rebalance) bool {
		return r.Status.Phase == v2beta1.RebalanceCompleted && len(r.Finalizers) == 0 && r.DeletionTimestamp.IsZero()
	})
}

type (
	restOfRebalances struct{ typedemqx.RebalanceInterface }
	rebalancesClient = client[*v2beta1.Rebalance, *v2beta1.RebalanceList, *applyemqx.RebalanceApplyConfiguration]
	rebalancesOf     struct {
		restOfRebalances
		rebalancesClient
	}
)

func (c emqxGroup) Rebalances(string) typedemqx.RebalanceInterface {
	return rebalancesOf{rebalancesClient: rebalancesClient{by: c.by, resource: rebalanceResources, fresh: func() *v2beta1.Rebalance { return &v2beta1.Rebalance{} },
		listOf: func(meta metav1.ListMeta, items []*v2beta1.Rebalance) *v2beta1.RebalanceList {
			return &v2beta1.RebalanceList{ListMeta: meta, Items: values(items)}
		}}}
}

// Patch is the JSON patch with which the finalizers or the status are replaced. With its last finalizer, what is deleted goes.
func (c rebalancesOf) Patch(ctx context.Context, name string, _ types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (result *v2beta1.Rebalance, err error) {
	changes, err := operations(data)
	if err != nil {
		return nil, err
	}
	patched := &v2beta1.Rebalance{}
	for _, change := range changes {
		target := map[string]any{"/metadata/finalizers": &patched.Finalizers, "/status": &patched.Status, "/metadata/resourceVersion": &patched.ResourceVersion}[change.Path]
		if err := json.Unmarshal(change.Value, target); err != nil {
			return nil, err
		}
	}
	details := fmt.Sprintf("%s %v", patched.Status.Phase, patched.Finalizers)
	err = c.server().write(ctx, c.by, "patch", rebalanceResources, name, details, func() error {
		existing, exists := get[*v2beta1.Rebalance](c.server(), rebalanceResources, name)
		if !exists {
			return apierrors.NewNotFound(rebalanceResources.GroupResource(), name)
		}
		if err := checkPreconditions(rebalanceResources, existing, "", patched.ResourceVersion); err != nil {
			return err
		}
		result = existing.DeepCopy()
		for _, change := range changes {
			switch change.Path {
			case "/metadata/finalizers":
				result.Finalizers = patched.Finalizers
			case "/status":
				result.Status = patched.Status
			}
		}
		c.server().put(rebalanceResources, result)
		if !result.DeletionTimestamp.IsZero() && len(result.Finalizers) == 0 {
			c.server().remove(rebalanceResources, name)
		}
		result = result.DeepCopy()
		return nil
	})
	return result, err
}

// TestRebalances: one that runs goes on under the next operator, is started again when EMQX lost it or an upgrade needed the nodes, and
// goes when it is deleted, whatever its coordinator says. Its status is written a few times.
func TestRebalances(t *testing.T) {
	for _, test := range []struct {
		reason string
		change func(*world)
		starts int // How often EMQX starts one.
		stays  bool
	}{
		{"it runs to its end", func(*world) {}, 1, true},
		{"under the next operator, too", func(w *world) { w.kill(w.leader()) }, 1, true},
		{"a node that took part has died", func(w *world) {
			w.die(w.rebalances[0].recipients[0])
		}, 3, true}, // The node that came back has none: when the two others are even with each other, they are not with it.
		{"an upgrade begins, which spreads the clients evenly", func(w *world) {
			w.edit("upgrade to image 2", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:2" })
			w.runFor(20 * time.Second)
			require.Empty(w.t, w.rebalances)
			require.Equal(w.t, v2beta1.RebalanceProcessing, w.rebalancesNow()[0].Status.Phase)
		}, 1, true},
		{"it is deleted", func(w *world) { w.dropRebalance(w.rebalancesNow()[0]) }, 1, false},
		{"it is deleted, and its coordinator is frozen", func(w *world) {
			w.rebalances[0].coordinator.frozen = w.now().Add(20 * time.Minute)
			w.dropRebalance(w.rebalancesNow()[0])
		}, 1, false},
		{"it is deleted, and its cluster is", func(w *world) {
			w.kube.remove(emqxes, name)
			w.dropRebalance(w.rebalancesNow()[0])
		}, 1, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.calm, w.unlicensed, w.expected = true, false, 1000
				w.edit("three nodes", func(spec *v2beta1.EMQXSpec) { spec.CoreTemplate.Spec.Replicas = ptr.To(int32(3)) })
				w.begin()
				defer w.end()
				w.until("the first installation", 5*time.Minute)
				w.connectAll()
				w.runFor(atRest)
				w.crowd()
				w.askRebalance()
				w.runFor(8 * time.Second)
				require.Len(t, w.rebalances, 1)
				test.change(w)
				over := func() bool {
					return test.stays && w.allRebalanced() || !test.stays && len(w.rebalancesNow()) == 0
				}
				for end := w.now().Add(10 * time.Minute); !over(); w.step() {
					require.True(t, w.now().Before(end), strings.Join(w.history, "\n"))
				}
				starts := 0
				for _, line := range w.history {
					if strings.Contains(line, "a rebalance starts") {
						starts++
					}
				}
				require.Equal(t, test.starts, starts)
				require.Equal(t, test.stays, len(w.rebalancesNow()) > 0)
				if test.stays {
					require.Equal(t, v2beta1.RebalanceCompleted, w.rebalancesNow()[0].Status.Phase)
				}
				require.Less(t, w.requests["patch rebalances"], 22)
				t.Logf("%d writes", w.requests["patch rebalances"])
			})
		})
	}
}
