package simulation

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"
)

// A failure names its seed: go test ./pkg/upgrade/simulation -run TestSimulation -sim.seed N -sim.runs 1 -v
var (
	simRuns = flag.Int("sim.runs", 20, "how many upgrades to simulate")
	simSeed = flag.Uint64("sim.seed", 1, "the seed of the first; each next has the next")
)

func init() {
	klog.SetLogger(klog.Logger{})
	// They count what all simulations of this process do together, by a clock that each has for itself.
	utilruntime.ErrorHandlers = nil
}

func TestSimulation(t *testing.T) {
	told := &tally{counts: map[string]int{}}
	t.Cleanup(func() {
		t.Logf("%d upgrades simulated, seeds %d to %d; in how many of them what happened: %s", *simRuns, *simSeed, *simSeed+uint64(*simRuns)-1, told)
	})
	for i := range *simRuns {
		seed := *simSeed + uint64(i)
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { told.add(simulate(t, seed)) })
		})
	}
}

// TestSameSeedSameHistory: what a seed shows can be shown again.
func TestSameSeedSameHistory(t *testing.T) {
	for seed := uint64(1); seed <= 12; seed++ {
		var histories [2][]string
		for i := range histories {
			synctest.Test(t, func(t *testing.T) { histories[i] = simulate(t, seed).history })
		}
		for i := range min(len(histories[0]), len(histories[1])) {
			require.Equal(t, histories[0][i], histories[1][i], "seed %d, after\n%s", seed, strings.Join(histories[0][max(0, i-5):i], "\n"))
		}
		require.Len(t, histories[1], len(histories[0]))
	}
}

// simulate lives through one seed.
func simulate(t *testing.T, seed uint64) *world {
	w := newWorld(t, seed)
	// Every fifth cluster was built by emqx-operator 2.x.
	inherited, otherImage, midway := seed%5 == 0, seed%15 == 0, seed%20 == 5
	switch {
	case midway:
		w.inheritMidway()
	case inherited:
		w.inherit(seed%2 == 0, otherImage)
	}
	w.begin()
	defer w.end()
	w.until("the first installation or adoption", 5*time.Minute)
	switch {
	case t.Failed():
		return w
	case !inherited:
		w.connectAll()
	case !otherImage && !midway:
		w.checkAdopted()
	}
	if !inherited && w.once("a Rebalance before the upgrade", 3) {
		w.crowd()
		w.askRebalance()
		w.runFor(time.Duration(seed%20) * time.Second)
	}
	w.plan()
	w.until("the end", 40*time.Minute)
	if !t.Failed() { // What failed on the way never came to an end to judge.
		w.checkEnd()
	}
	return w
}

// tally counts in how many simulated upgrades what happened.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (h *tally) add(w *world) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for what := range w.happened {
		h.counts[what]++
	}
}

// String lists what happened, the most frequent first.
func (h *tally) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(h.counts), func(a, b string) int {
		return cmp.Or(h.counts[b]-h.counts[a], strings.Compare(a, b))
	})
	var told []string
	for _, what := range names {
		told = append(told, fmt.Sprintf("%s %d", what, h.counts[what]))
	}
	return strings.Join(told, ", ")
}
