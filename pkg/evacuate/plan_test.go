package evacuate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"

	"github.com/stretchr/testify/require"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// observed is a node that answers and has so many clients and sessions.
func observed(live, sessions int64, change ...func(*NodeObservation)) NodeObservation {
	node := NodeObservation{Seen: now, Info: emqx.NodeInfo{
		Status: "running", LiveConnections: emqx.Count{Value: live, Known: true}, Connections: emqx.Count{Value: sessions, Known: true},
	}}
	for _, c := range change {
		c(&node)
	}
	return node
}

func evacuated(state emqx.State, conn, sess int32) func(*NodeObservation) {
	return func(n *NodeObservation) {
		n.Evacuation = &emqx.EvacuationStatus{State: state, ConnEvictRate: conn, SessEvictRate: sess}
	}
}

func asked(conn, sess int32) func(*NodeObservation) {
	return func(n *NodeObservation) { n.AskedConnRate, n.AskedSessRate = conn, sess }
}

func silent(n *NodeObservation) { n.Failure = "no answer" }

// told is what a plan has a node do, in short: the rates it is evacuated at, or the intent.
func told(order Order) string {
	if order.Intent != Evacuate {
		return order.Intent.String()
	}
	return fmt.Sprintf("%d/%d", order.Evacuation.ConnEvictRate, order.Evacuation.SessEvictRate)
}

func TestPlan(t *testing.T) {
	node := func(name string, observation NodeObservation) PlanNode {
		return PlanNode{Name: name, Observation: observation}
	}
	type orders map[string]string
	for _, test := range []struct {
		reason     string
		conn, sess int32
		leaving    []PlanNode
		change     func(*PlanInput)
		want       orders
	}{
		{"equal nodes share equally", 9, 30, []PlanNode{node("a", observed(10, 10)), node("b", observed(10, 10)), node("c", observed(10, 10))}, nil,
			orders{"a": "3/10", "b": "3/10", "c": "3/10"}},
		{"what does not divide is given out all the same", 10, 10, []PlanNode{node("a", observed(10, 10)), node("b", observed(10, 10)), node("c", observed(10, 10))}, nil,
			orders{"a": "4/4", "b": "3/3", "c": "3/3"}},
		{"fuller nodes get more, so that all end together", 102, 102, []PlanNode{node("a", observed(9, 99)), node("b", observed(89, 899))}, nil,
			orders{"a": "11/11", "b": "91/91"}},
		{"an empty node gets one unit", 10, 10, []PlanNode{node("a", observed(0, 0)), node("b", observed(1000, 1000))}, nil,
			orders{"a": "1/1", "b": "9/9"}},
		{"with fewer units than nodes, as many nodes as units, the fullest first", 2, 100,
			[]PlanNode{node("a", observed(5, 5)), node("b", observed(50, 50)), node("c", observed(20, 20))}, nil, orders{"a": "Serve", "b": "1/71", "c": "1/29"}},
		{"the scarcer rate decides", 100, 1, []PlanNode{node("a", observed(5, 5)), node("b", observed(50, 50))}, nil, orders{"a": "Serve", "b": "100/1"}},
		{"nodes that run keep their rates, the others share the rest", 10, 10,
			[]PlanNode{node("a", observed(10, 10, evacuated(emqx.StateEvictingConns, 4, 6))), node("b", observed(10, 10))}, nil, orders{"a": "4/6", "b": "6/4"}},
		{"a node that has all of one rate and little of the other shares with one that waits", 242, 369,
			[]PlanNode{node("a", observed(2400, 2400, evacuated(emqx.StateEvictingConns, 1, 369))), node("b", observed(2400, 2400))}, nil, orders{"a": "Serve", "b": "Serve"}},
		{"not for the moment that it still takes", 242, 369,
			[]PlanNode{node("a", observed(3, 2400, evacuated(emqx.StateEvictingConns, 1, 369))), node("b", observed(2400, 2400))}, nil, orders{"a": "1/369", "b": "Serve"}},
		{"what is about to be ordered counts as running", 10, 10,
			[]PlanNode{node("a", observed(10, 10, asked(7, 7))), node("b", observed(10, 10))}, nil, orders{"a": "7/7", "b": "3/3"}},
		{"an empty node needs no rate any more", 10, 10,
			[]PlanNode{node("a", observed(0, 0, evacuated(emqx.StateProhibiting, 9, 9))), node("b", observed(10, 10))}, nil, orders{"a": "9/9", "b": "10/10"}},
		{"a node that waits for takeovers needs no connection rate any more", 10, 10,
			[]PlanNode{node("a", observed(0, 10, evacuated(emqx.StateWaitingTakeover, 9, 5), asked(9, 5))), node("b", observed(10, 10))}, nil, orders{"a": "9/5", "b": "10/5"}},
		{"a silent node is left as it is and keeps what it may run at", 10, 10,
			[]PlanNode{node("a", observed(10, 10, evacuated(emqx.StateEvictingConns, 4, 4), silent)), node("b", observed(10, 10))}, nil, orders{"a": "Observe", "b": "6/6"}},
		{"a silent node that was at rest takes nothing", 10, 10,
			[]PlanNode{node("a", observed(10, 10, silent)), node("b", observed(10, 10))}, nil, orders{"a": "Observe", "b": "10/10"}},
		{"a node never heard of may run at its share, and the others go on", 10, 10,
			[]PlanNode{node("a", NodeObservation{}), node("b", observed(10, 10))}, nil, orders{"a": "Observe", "b": "5/5"}},
		{"unless the status tells", 10, 10,
			[]PlanNode{{Name: "a", StatusConnRate: 3, StatusSessRate: 4}, node("b", observed(10, 10))}, nil, orders{"a": "Observe", "b": "7/6"}},
		{"lowered rates stop a node that runs at more, and nobody takes its place before", 5, 5,
			[]PlanNode{node("a", observed(10, 10, evacuated(emqx.StateEvictingConns, 6, 6))), node("b", observed(10, 10))}, nil, orders{"a": "Serve", "b": "Serve"}},
		{"only as many as needed stop, the emptiest first", 8, 8,
			[]PlanNode{node("a", observed(10, 10, evacuated(emqx.StateEvictingConns, 5, 5))), node("b", observed(90, 90, evacuated(emqx.StateEvictingConns, 5, 5)))}, nil, orders{"a": "Serve", "b": "5/5"}},
		{"raised rates are taken up", 100, 100,
			[]PlanNode{node("a", observed(1000, 1000, evacuated(emqx.StateEvictingConns, 5, 5))), node("b", observed(1000, 1000, evacuated(emqx.StateEvictingConns, 5, 5)))}, nil, orders{"a": "50/50", "b": "50/50"}},
		{"not for a few clients that are gone anyway", 100, 100,
			[]PlanNode{node("a", observed(9, 9, evacuated(emqx.StateEvictingConns, 5, 5))), node("b", observed(9, 9, evacuated(emqx.StateEvictingConns, 5, 5)))}, nil, orders{"a": "5/5", "b": "5/5"}},
		{"nor for a little more", 12, 12,
			[]PlanNode{node("a", observed(1000, 1000, evacuated(emqx.StateEvictingConns, 5, 5))), node("b", observed(1000, 1000, evacuated(emqx.StateEvictingConns, 5, 5)))}, nil, orders{"a": "5/5", "b": "5/5"}},
		{"a node that is done gives its share to one that runs", 10, 10,
			[]PlanNode{node("a", observed(0, 0, evacuated(emqx.StateProhibiting, 5, 5))), node("b", observed(1000, 1000, evacuated(emqx.StateEvictingConns, 5, 5)))}, nil, orders{"a": "5/5", "b": "10/10"}},
		{"a lowered session rate is followed by nodes that move sessions", 10, 4,
			[]PlanNode{node("a", observed(0, 10, evacuated(emqx.StateEvictingSessions, 5, 5))), node("b", observed(0, 10, evacuated(emqx.StateEvictingSessions, 5, 5)))}, nil, orders{"a": "5/2", "b": "5/2"}},
		{"a raised one, too, when that ends sooner", 10, 100,
			[]PlanNode{node("a", observed(0, 1000, evacuated(emqx.StateEvictingSessions, 10, 10)))}, nil, orders{"a": "10/100"}},
		{"not when waiting for takeovers again would cost more", 10, 100,
			[]PlanNode{node("a", observed(0, 40, evacuated(emqx.StateEvictingSessions, 10, 10)))}, nil, orders{"a": "10/10"}},
		{"without recipients nobody is evacuated, and who is past connections stays as it is", 10, 10,
			[]PlanNode{node("a", observed(10, 10)), node("b", observed(5, 5, evacuated(emqx.StateEvictingConns, 5, 5))), node("c", observed(0, 5, evacuated(emqx.StateEvictingSessions, 5, 5)))},
			func(input *PlanInput) { input.Recipients = nil }, orders{"a": "Serve", "b": "Serve", "c": "Observe"}},
		{"a hold stops the eviction of connections, not the moving of sessions", 10, 10,
			[]PlanNode{node("a", observed(10, 10)), node("b", observed(5, 5, evacuated(emqx.StateEvictingConns, 5, 5))), node("c", observed(0, 5, evacuated(emqx.StateEvictingSessions, 5, 5)))},
			func(input *PlanInput) { input.Hold = true }, orders{"a": "Serve", "b": "Serve", "c": "Observe"}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			input := PlanInput{Leaving: test.leaving, ConnEvictRate: test.conn, SessEvictRate: test.sess, WaitTakeover: time.Second, Recipients: []string{"x"}}
			if test.change != nil {
				test.change(&input)
			}
			got := orders{}
			for name, order := range Plan(input) {
				got[name] = told(order)
				if order.Intent == Evacuate {
					require.Equal(t, input.Recipients, order.Evacuation.Recipients)
					require.Equal(t, time.Second, order.Evacuation.WaitTakeover)
				}
			}
			require.Equal(t, test.want, got)
		})
	}
}

// TestPlanSpreadsStarts: a node evicts a second's worth at once. Nodes begin at different moments, all of them between a
// look and the next.
func TestPlanSpreadsStarts(t *testing.T) {
	input := PlanInput{ConnEvictRate: 9, SessEvictRate: 9, Recipients: []string{"z"}}
	for _, name := range []string{"a", "b", "c"} {
		input.Leaving = append(input.Leaving, PlanNode{Name: name, Observation: observed(10, 10)})
	}
	var phases []time.Duration
	for _, order := range Plan(input) {
		phases = append(phases, order.StartPhase)
	}
	require.ElementsMatch(t, []time.Duration{400 * time.Millisecond, 500 * time.Millisecond, 600 * time.Millisecond}, phases)
}

// TestPlanNeverExceeds is invariant 4 over random clusters, planned again and again while nodes start, stop, fall silent
// and go on, and rates change: what runs and what is asked never adds up to more than the rates, but for what ran before
// they were lowered.
func TestPlanNeverExceeds(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		input := PlanInput{ConnEvictRate: int32(1 + rng.IntN(30)), SessEvictRate: int32(1 + rng.IntN(30)), Recipients: []string{"x"}}
		for i := range 1 + rng.IntN(6) {
			input.Leaving = append(input.Leaving, PlanNode{Name: strconv.Itoa(i), Observation: observed(int64(rng.IntN(100)), int64(100+rng.IntN(100)))})
		}
		connLimit, sessLimit := input.ConnEvictRate, input.SessEvictRate
		for range 20 {
			planned := Plan(input)
			var conn, sess int32
			for i := range input.Leaving {
				node := &input.Leaving[i].Observation
				if order := planned[input.Leaving[i].Name]; order.Intent == Evacuate {
					node.AskedConnRate, node.AskedSessRate = max(node.AskedConnRate, order.Evacuation.ConnEvictRate), max(node.AskedSessRate, order.Evacuation.SessEvictRate)
					require.Positive(t, order.Evacuation.ConnEvictRate)
					require.Positive(t, order.Evacuation.SessEvictRate)
				}
				if node.Evacuation == nil || node.EvictsConnections() {
					conn += node.AskedConnRate
				}
				sess += node.AskedSessRate
			}
			require.LessOrEqual(t, conn, connLimit, "seed %d", seed)
			require.LessOrEqual(t, sess, sessLimit, "seed %d", seed)
			advanceOne(rng, &input.Leaving[rng.IntN(len(input.Leaving))].Observation)
			if rng.IntN(5) == 0 {
				input.ConnEvictRate, input.SessEvictRate = int32(1+rng.IntN(30)), int32(1+rng.IntN(30))
			}
			connLimit, sessLimit = max(conn, input.ConnEvictRate), max(sess, input.SessEvictRate)
		}
	}
}

// advanceOne has something happen to a node.
func advanceOne(rng *rand.Rand, node *NodeObservation) {
	switch rng.IntN(5) {
	case 0:
		node.Failure = "silent"
	case 1:
		node.Failure = ""
		if node.AskedConnRate > 0 && node.Evacuation == nil {
			node.Evacuation = &emqx.EvacuationStatus{State: emqx.StateEvictingConns, ConnEvictRate: node.AskedConnRate, SessEvictRate: node.AskedSessRate}
		}
	case 2:
		if node.Known() {
			node.Evacuation, node.AskedConnRate, node.AskedSessRate = nil, 0, 0
		}
	case 3:
		node.Info.LiveConnections.Value /= 2
	case 4:
		if node.Known() && node.Evacuation != nil {
			node.Info.LiveConnections.Value, node.Evacuation.State = 0, emqx.StateWaitingTakeover
		}
	}
}

func TestOrderFor(t *testing.T) {
	evacuation := emqx.Evacuation{ConnEvictRate: 5, SessEvictRate: 6, Recipients: []string{"x", "y"}}
	runs := func(state emqx.State, conn int32, recipients ...string) func(*NodeObservation) {
		return func(n *NodeObservation) {
			n.Evacuation = &emqx.EvacuationStatus{State: state, ConnEvictRate: conn, SessEvictRate: 6, Recipients: recipients}
		}
	}
	for _, test := range []struct {
		reason string
		intent Intent
		node   NodeObservation
		want   order
	}{
		{"a node that shall serve and does", Serve, observed(5, 5), nothing},
		{"a node that shall serve and is evacuated", Serve, observed(5, 5, runs(emqx.StateProhibiting, 5, "x")), stop},
		{"a node that is only observed is left alone", Observe, observed(5, 5, runs(emqx.StateEvictingConns, 5, "x")), nothing},
		{"a node to be evacuated", Evacuate, observed(5, 5), start},
		{"one that is, to some of the recipients", Evacuate, observed(5, 5, runs(emqx.StateEvictingConns, 5, "y")), nothing},
		{"one whose recipients are gone waits for ever", Evacuate, observed(0, 5, runs(emqx.StateEvictingSessions, 5)), restart},
		{"one that forgot its recipients moves to anybody", Evacuate, observed(5, 5, runs(emqx.StateEvictingConns, 5, "x", "z")), restart},
		{"one that runs at another rate", Evacuate, observed(5, 5, runs(emqx.StateEvictingConns, 4, "x")), restart},
		{"one that is empty is left alone", Evacuate, observed(0, 0, runs(emqx.StateProhibiting, 500)), nothing},
	} {
		t.Run(test.reason, func(t *testing.T) {
			require.Equal(t, test.want, orderFor(NodeGoal{Order: Order{Intent: test.intent, Evacuation: evacuation}}, test.node))
		})
	}
	require.Equal(t, nothing, orderFor(NodeGoal{Order: Order{Intent: Evacuate}}, observed(5, 5)), "never without recipients")
}

func TestPanicIsAnErrorOfTheCluster(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		f.change("a", func(n *fakeNode) { n.panics = true })
		d.Pursue(goal(true, Evacuate, Serve))
		pass(3 * time.Second)
		require.Contains(t, d.Observation().Nodes["a"].Failure, "has a bug")
		require.True(t, d.Observation().Nodes["b"].Known(), "the others go on")
		f.change("a", func(n *fakeNode) { n.panics = false })
		pass(3 * time.Second)
		require.True(t, d.Observation().Nodes["a"].Known(), "and so does it")
	})
}

func TestEmpty(t *testing.T) {
	for _, test := range []struct {
		reason string
		node   NodeObservation
		want   bool
	}{
		{"prohibiting and nothing left", observed(0, 0, evacuated(emqx.StateProhibiting, 1, 1)), true},
		{"with durable sessions prohibiting may never come", observed(0, 0, evacuated(emqx.StateEvictingSessions, 1, 1)), true},
		{"a client is left", observed(1, 1, evacuated(emqx.StateProhibiting, 1, 1)), false},
		{"a session is left", observed(0, 1, evacuated(emqx.StateEvictingSessions, 1, 1)), false},
		{"clients may still come back to a node that waits for takeovers", observed(0, 0, evacuated(emqx.StateWaitingTakeover, 1, 1)), false},
		{"a node that is not evacuated takes clients", observed(0, 0), false},
		{"silence is not zero", observed(0, 0, evacuated(emqx.StateProhibiting, 1, 1), silent), false},
		{"nor is never", NodeObservation{}, false},
	} {
		t.Run(test.reason, func(t *testing.T) { require.Equal(t, test.want, test.node.Empty()) })
	}
}

func samples(live ...int64) func(*NodeObservation) {
	return func(n *NodeObservation) {
		for i, count := range live {
			n.Samples = append(n.Samples, Sample{At: now.Add(time.Duration(i-len(live)+1) * time.Second), Live: count})
		}
	}
}

func TestPace(t *testing.T) {
	for _, test := range []struct {
		reason string
		input  PaceInput
		want   Pace
	}{
		{"the rate decides when it is less than half of the limit", PaceInput{Baseline: 1000, Live: 1000, Limit: 100, ConnEvictRate: 10}, Pace{Tick: 10}},
		{"else half of the limit, so that a tick that was not seen yet fits in", PaceInput{Baseline: 1000, Live: 1000, Limit: 100, ConnEvictRate: 1000}, Pace{Tick: 50, ByLimit: true}},
		{"nine tenths of it while clients are back at once", PaceInput{Baseline: 1000, Live: 995, Limit: 100, ConnEvictRate: 1000, Prompt: true}, Pace{Away: 5, Tick: 90, ByLimit: true}},
		{"with a tick away, another fits", PaceInput{Baseline: 1000, Live: 950, Limit: 100, ConnEvictRate: 1000}, Pace{Away: 50, Tick: 50, ByLimit: true}},
		{"with one client more it does not", PaceInput{Baseline: 1000, Live: 949, Limit: 100, ConnEvictRate: 1000}, Pace{Away: 51, Tick: 50, ByLimit: true, Hold: true}},
		{"a small tick fits longer", PaceInput{Baseline: 1000, Live: 910, Limit: 100, ConnEvictRate: 10}, Pace{Away: 90, Tick: 10}},
		{"held, it goes on below half", PaceInput{Baseline: 1000, Live: 949, Limit: 100, ConnEvictRate: 10, Held: true}, Pace{Away: 51, Tick: 10, Hold: true}},
		{"and then does", PaceInput{Baseline: 1000, Live: 950, Limit: 100, ConnEvictRate: 10, Held: true}, Pace{Away: 50, Tick: 10}},
		{"a look that did not come counts as a tick that was not seen", PaceInput{Baseline: 1000, Live: 1000, Limit: 100, ConnEvictRate: 1000, SeenFor: LateAfter}, Pace{Tick: 50, ByLimit: true}},
		{"with one client away there is no room for it", PaceInput{Baseline: 1000, Live: 999, Limit: 100, ConnEvictRate: 1000, SeenFor: LateAfter}, Pace{Away: 1, Tick: 50, ByLimit: true, Hold: true}},
		{"nor at the faster tick", PaceInput{Baseline: 1000, Live: 1000, Limit: 100, ConnEvictRate: 1000, SeenFor: LateAfter, Prompt: true}, Pace{Tick: 90, ByLimit: true, Hold: true}},
		{"two looks that did not come are two", PaceInput{Baseline: 1000, Live: 1000, Limit: 100, ConnEvictRate: 1000, SeenFor: LateAfter + time.Second}, Pace{Tick: 50, ByLimit: true, Hold: true}},
		{"more came than were there", PaceInput{Baseline: 1000, Live: 1200, Limit: 100, ConnEvictRate: 10}, Pace{Tick: 10}},
		{"of ten clients one goes at a time", PaceInput{Baseline: 10, Live: 10, Limit: 1, ConnEvictRate: 1000}, Pace{Tick: 1, ByLimit: true}},
		{"and the next when it is back", PaceInput{Baseline: 10, Live: 9, Limit: 1, ConnEvictRate: 1000}, Pace{Away: 1, Tick: 1, ByLimit: true, Hold: true}},
		{"a limit of nobody is one: who is moved is away for a moment", PaceInput{Baseline: 10, Live: 10, Limit: 0, ConnEvictRate: 1000}, Pace{Tick: 1, ByLimit: true}},
	} {
		t.Run(test.reason, func(t *testing.T) { require.Equal(t, test.want, PaceOf(test.input)) })
	}
}

func TestPrompt(t *testing.T) {
	// The leaving node loses 50 a second, of 1,000 clients with a limit of 100.
	leaving := observed(750, 1000, samples(1000, 950, 900, 850, 800, 750))
	back := observed(245, 245, samples(0, 45, 95, 145, 195, 245))
	late := observed(200, 200, samples(0, 0, 50, 100, 150, 200))
	idle := observed(0, 0, samples(0, 0, 0, 0, 0, 0))
	prompt := func(leaving, staying NodeObservation) bool {
		return Prompt([]NodeObservation{leaving}, []NodeObservation{leaving, staying}, 1000, 100)
	}
	require.True(t, prompt(leaving, back), "five are away at each look")
	require.False(t, prompt(leaving, late), "fifty are")
	require.False(t, prompt(observed(1000, 1000, samples(1000, 1000, 1000, 1000, 1000, 1000)), idle), "nobody was evicted")
	require.False(t, prompt(observed(750, 1000), observed(245, 245)), "without samples nothing was seen")
}

func TestLiveTogether(t *testing.T) {
	beat := func(seconds int, live int64) Sample {
		return Sample{At: now.Add(time.Duration(seconds) * time.Second), Live: live}
	}
	old := observed(80, 80, func(n *NodeObservation) { n.Samples = []Sample{beat(-1, 100), beat(0, 80)} })
	fresh := observed(0, 0, func(n *NodeObservation) { n.Samples = []Sample{beat(-1, 0)} })
	together := func(want int64, at time.Time, reason string, nodes ...NodeObservation) {
		t.Helper()
		live, beat := LiveTogether(nodes)
		require.Equal(t, want, live, reason)
		require.Equal(t, at, beat, reason)
	}
	together(100, now.Add(-time.Second), "the new node has not answered at this beat yet", old, fresh)
	fresh.Samples = append(fresh.Samples, beat(0, 20))
	together(100, now, "now it has", old, fresh)
	gone := observed(7, 7, silent, func(n *NodeObservation) { n.Samples = []Sample{beat(-9, 7)} })
	together(107, now, "a silent node does not keep the others' beat back", old, fresh, gone)
	holed := observed(60, 60, func(n *NodeObservation) { n.Samples = []Sample{beat(-2, 90), beat(-1, 80), beat(1, 60)} })
	fresh.Samples = append([]Sample{beat(-2, 0)}, fresh.Samples...)
	together(80, now.Add(-time.Second), "at the last beat one was not counted", holed, fresh)
	together(12, time.Time{}, "without samples what is known last counts", observed(5, 5), observed(7, 7))
}

func TestDeparted(t *testing.T) {
	flat := slices.Repeat([]int64{500}, 70)
	decline, returning, trickle := slices.Clone(flat), slices.Clone(flat), slices.Clone(flat)
	for i := range flat {
		decline[i] -= int64(i / 2)
		returning[i] += int64(i)
		trickle[i] += int64(i / 40)
	}
	long := now.Add(-time.Hour)
	for _, test := range []struct {
		reason    string
		nodes     []NodeObservation
		heldSince time.Time
		missing   int64
		want      bool
	}{
		{"nobody came back for a minute", []NodeObservation{observed(500, 500, samples(flat...))}, long, 40, true},
		{"one of ten", []NodeObservation{observed(9, 9, samples(slices.Repeat([]int64{9}, 70)...))}, long, 1, true},
		{"a node without samples keeps nobody from being judged", []NodeObservation{observed(500, 500, samples(flat...)), {}, observed(7, 7, silent)}, long, 40, true},
		{"a steady decline", []NodeObservation{observed(466, 466, samples(decline...))}, long, 40, true},
		{"they are coming back", []NodeObservation{observed(569, 569, samples(returning...))}, long, 40, false},
		{"one of forty came back", []NodeObservation{observed(501, 501, samples(trickle...))}, long, 40, true},
		{"one of one did", []NodeObservation{observed(501, 501, samples(trickle...))}, long, 1, false},
		{"evictions were stopped just now", []NodeObservation{observed(500, 500, samples(flat...))}, now.Add(-59 * time.Second), 40, false},
		{"half a minute of samples is no minute", []NodeObservation{observed(500, 500, samples(flat[:30]...))}, long, 40, false},
		{"nothing is missing", []NodeObservation{observed(500, 500, samples(flat...))}, long, 0, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			require.Equal(t, test.want, Departed(test.nodes, now, test.heldSince, time.Minute, test.missing))
		})
	}
	require.EqualValues(t, 40, Rate([]NodeObservation{observed(0, 0, samples(500, 500, 400, 400, 300, 300))}, now, 5*time.Second))
}

func TestRemaining(t *testing.T) {
	now := time.Unix(1000, 0)
	course := Course{Now: now, ConnRate: 100, SessRate: 100, WaitTakeover: 5 * time.Second}
	emptySince := func(seconds int) func(*NodeObservation) {
		return func(n *NodeObservation) {
			for i := -10; i <= 0; i++ {
				live := int64(0)
				if i < -seconds {
					live = 7
				}
				n.Samples = append(n.Samples, Sample{At: now.Add(time.Duration(i) * time.Second), Live: live})
			}
		}
	}
	waiting := evacuated(emqx.StateWaitingTakeover, 1, 1)
	for _, test := range []struct {
		reason string
		nodes  []NodeObservation
		course func(*Course)
		want   time.Duration
	}{
		{"connections, takeovers, sessions", []NodeObservation{observed(600, 800), observed(400, 400)}, nil, 17 * time.Second},
		{"sessions alone", []NodeObservation{observed(0, 200, evacuated(emqx.StateEvictingSessions, 1, 1))}, nil, 2 * time.Second},
		{"nothing", []NodeObservation{observed(0, 0, evacuated(emqx.StateProhibiting, 1, 1))}, nil, 0},
		{"the wait for takeovers has begun", []NodeObservation{observed(0, 200, waiting, emptySince(2))}, nil, 5 * time.Second},
		{"it must be over", []NodeObservation{observed(0, 200, waiting, emptySince(7))}, nil, 2 * time.Second},
		{"nobody knows since when it lasts", []NodeObservation{observed(0, 200, waiting)}, nil, 7 * time.Second},
		{"it goes faster in a moment", []NodeObservation{observed(1000, 1000)}, func(c *Course) { c.LaterConnRate, c.Ramp = 200, 4*time.Second }, 12 * time.Second},
		{"it is over before that", []NodeObservation{observed(300, 300)}, func(c *Course) { c.LaterConnRate, c.Ramp = 200, 4*time.Second }, 8 * time.Second},
	} {
		t.Run(test.reason, func(t *testing.T) {
			course := course
			if test.course != nil {
				test.course(&course)
			}
			require.Equal(t, test.want, Remaining(test.nodes, course))
		})
	}
}
