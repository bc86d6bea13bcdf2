package simulation

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// TestRequests counts what an upgrade of three nodes and ten idle minutes cost, and prints it.
func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.calm, w.slowest, w.expected = true, 100*time.Millisecond, 30
		w.edit("three nodes, and room for clients to be away", func(spec *v2beta1.EMQXSpec) {
			spec.CoreTemplate.Spec.Replicas = ptr.To(int32(3))
			strategy := &spec.UpdateStrategy.EvacuationStrategy
			strategy.MaxUnavailableClients, strategy.ConnEvictRate, strategy.SessEvictRate = ptr.To(intstr.FromString("100%")), 10, 10
		})
		w.begin()
		defer w.end()
		w.until("the first installation", 5*time.Minute)
		w.connectAll()
		w.edit("upgrade to image 2", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:2" })
		clear(w.requests)
		began := w.now()
		w.until("the upgrade", 10*time.Minute)
		w.report("one upgrade of three nodes in "+w.now().Sub(began).String(), w.requests)
		require.Equal(t, 2, w.requests["apply services"], "one write a Service")
		require.Equal(t, 1, w.requests["apply poddisruptionbudgets"], "the move of the selector")
		require.Equal(t, 1, w.requests["create statefulsets"])
		require.Equal(t, 1, w.requests["delete statefulsets"])
		require.Equal(t, 1+3, w.requests["apply statefulsets"], "marked once, scaled down one by one")
		require.Equal(t, 3, w.requests["apply status of pods"], "one gate a node")
		require.Equal(t, 3, w.requests["evacuation start"], "no evacuation was started twice")
		writes := 0
		for what, count := range w.requests {
			if what != "emqx" && what != "evacuation start" {
				writes += count
			}
		}
		require.LessOrEqual(t, writes, 25, "all that is written to Kubernetes")

		clear(w.requests)
		for end := w.now().Add(10 * time.Minute); w.now().Before(end); {
			w.step()
		}
		w.report("ten idle minutes", w.requests)
		require.Equal(t, []string{"emqx"}, slices.Collect(maps.Keys(w.requests)), "nothing is written to Kubernetes")
		require.LessOrEqual(t, w.requests["emqx"], 3*21*4, "four questions a node every half minute")
	})
}

func (w *world) report(what string, requests map[string]int) {
	w.t.Logf("requests of %s:", what)
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		w.t.Logf("  %-28s %d", name, requests[name])
	}
}
