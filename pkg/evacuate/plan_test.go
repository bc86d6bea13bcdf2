package evacuate

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// observed is a node that answers and has so many clients and sessions.
func observed(live, sessions int64, change ...func(*NodeObservation)) NodeObservation {
	node := NodeObservation{Seen: now, Info: NodeInfo{
		Status: "running", LiveConnections: Count{live, true}, Connections: Count{sessions, true},
	}}
	for _, c := range change {
		c(&node)
	}
	return node
}

func evacuated(state State, conn, sess int32) func(*NodeObservation) {
	return func(n *NodeObservation) {
		n.Evacuation = &Status{State: state, ConnEvictRate: conn, SessEvictRate: sess}
	}
}

func asked(conn, sess int32) func(*NodeObservation) {
	return func(n *NodeObservation) { n.AskedConnRate, n.AskedSessRate = conn, sess }
}

func silent(n *NodeObservation) { n.Failure = "no answer" }

func TestPlan(t *testing.T) {
	type rates map[string][2]int32
	node := func(name string, observation NodeObservation) PlanNode {
		return PlanNode{Name: name, Observation: observation}
	}
	for _, test := range []struct {
		reason     string
		conn, sess int32
		outgoing   []PlanNode
		noBody     bool
		want       rates
	}{
		{"equal nodes share equally", 9, 30, []PlanNode{node("a", observed(10, 10)), node("b", observed(10, 10)), node("c", observed(10, 10))}, false,
			rates{"a": {3, 10}, "b": {3, 10}, "c": {3, 10}}},
		{"what does not divide is given out all the same", 10, 10, []PlanNode{node("a", observed(10, 10)), node("b", observed(10, 10)), node("c", observed(10, 10))}, false,
			rates{"a": {4, 4}, "b": {3, 3}, "c": {3, 3}}},
		{"fuller nodes get more, so that all end together", 102, 102, []PlanNode{node("a", observed(9, 99)), node("b", observed(89, 899))}, false,
			rates{"a": {11, 11}, "b": {91, 91}}},
		{"an empty node gets one unit", 10, 10, []PlanNode{node("a", observed(0, 0)), node("b", observed(1000, 1000))}, false,
			rates{"a": {1, 1}, "b": {9, 9}}},
		{"with fewer units than nodes, as many nodes as units, the fullest first", 2, 100,
			[]PlanNode{node("a", observed(5, 5)), node("b", observed(50, 50)), node("c", observed(20, 20))}, false, rates{"b": {1, 71}, "c": {1, 29}}},
		{"the scarcer rate decides", 100, 1, []PlanNode{node("a", observed(5, 5)), node("b", observed(50, 50))}, false, rates{"b": {100, 1}}},
		{"nodes that run keep their rates, the others share the rest", 10, 10,
			[]PlanNode{node("a", observed(10, 10, evacuated(StateEvictingConns, 4, 6))), node("b", observed(10, 10))}, false, rates{"a": {4, 6}, "b": {6, 4}}},
		{"what is about to be ordered counts as running", 10, 10,
			[]PlanNode{node("a", observed(10, 10, asked(7, 7))), node("b", observed(10, 10))}, false, rates{"a": {7, 7}, "b": {3, 3}}},
		{"an empty node needs no rate any more", 10, 10,
			[]PlanNode{node("a", observed(0, 0, evacuated(StateProhibiting, 9, 9))), node("b", observed(10, 10))}, false, rates{"a": {9, 9}, "b": {10, 10}}},
		{"a silent node keeps what it may run at", 10, 10,
			[]PlanNode{node("a", observed(10, 10, evacuated(StateEvictingConns, 4, 4), silent)), node("b", observed(10, 10))}, false, rates{"a": {4, 4}, "b": {6, 6}}},
		{"a silent node that was at rest takes nothing", 10, 10,
			[]PlanNode{node("a", observed(10, 10, silent)), node("b", observed(10, 10))}, false, rates{"b": {10, 10}}},
		{"a node never heard of may run at anything", 10, 10,
			[]PlanNode{node("a", NodeObservation{}), node("b", observed(10, 10))}, false, rates{"a": {10, 10}}},
		{"unless the status tells", 10, 10,
			[]PlanNode{{Name: "a", StatusConnRate: 3, StatusSessRate: 4}, node("b", observed(10, 10))}, false, rates{"a": {3, 4}, "b": {7, 6}}},
		{"lowered rates stop a node that runs at more, and nobody takes its place before", 5, 5,
			[]PlanNode{node("a", observed(10, 10, evacuated(StateEvictingConns, 6, 6))), node("b", observed(10, 10))}, false, rates{}},
		{"without recipients nothing is evacuated", 10, 10, []PlanNode{node("a", observed(10, 10))}, true, rates{}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			input := PlanInput{Outgoing: test.outgoing, ConnEvictRate: test.conn, SessEvictRate: test.sess, WaitTakeover: time.Second, Recipients: []string{"x"}}
			if test.noBody {
				input.Recipients = nil
			}
			got := rates{}
			for name, evacuation := range Plan(input) {
				got[name] = [2]int32{evacuation.ConnEvictRate, evacuation.SessEvictRate}
				require.Equal(t, input.Recipients, evacuation.Recipients)
				require.Equal(t, time.Second, evacuation.WaitTakeover)
			}
			require.Equal(t, test.want, got)
		})
	}
}

// TestPlanSpreadsStarts: a node evicts a second's worth at once, so that nodes begin at different moments of a second.
func TestPlanSpreadsStarts(t *testing.T) {
	input := PlanInput{ConnEvictRate: 9, SessEvictRate: 9, Recipients: []string{"z"}}
	for _, name := range []string{"a", "b", "c"} {
		input.Outgoing = append(input.Outgoing, PlanNode{Name: name, Observation: observed(10, 10)})
	}
	var delays []time.Duration
	for _, evacuation := range Plan(input) {
		delays = append(delays, evacuation.StartDelay)
	}
	require.ElementsMatch(t, []time.Duration{0, time.Second / 3, 2 * time.Second / 3}, delays)
}

// TestPlanNeverExceeds is invariant 4 over random clusters, planned again and again while nodes start, stop and fall
// silent: what runs and what is asked never adds up to more than the rates.
func TestPlanNeverExceeds(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 0))
		input := PlanInput{ConnEvictRate: int32(1 + rng.IntN(30)), SessEvictRate: int32(1 + rng.IntN(30)), Recipients: []string{"x"}}
		for i := range 1 + rng.IntN(6) {
			input.Outgoing = append(input.Outgoing, PlanNode{Name: strconv.Itoa(i), Observation: observed(int64(rng.IntN(100)), int64(rng.IntN(100)))})
		}
		for range 20 {
			planned := Plan(input)
			var conn, sess int32
			for i := range input.Outgoing {
				node := &input.Outgoing[i]
				if evacuation, ok := planned[node.Name]; ok {
					node.Observation.AskedConnRate, node.Observation.AskedSessRate = evacuation.ConnEvictRate, evacuation.SessEvictRate
					require.Positive(t, evacuation.ConnEvictRate)
					require.Positive(t, evacuation.SessEvictRate)
				}
				conn, sess = conn+node.Observation.AskedConnRate, sess+node.Observation.AskedSessRate
			}
			require.LessOrEqual(t, conn, input.ConnEvictRate, "seed %d", seed)
			require.LessOrEqual(t, sess, input.SessEvictRate, "seed %d", seed)
			node := &input.Outgoing[rng.IntN(len(input.Outgoing))].Observation
			switch rng.IntN(4) {
			case 0:
				node.Failure = "silent"
			case 1:
				node.Failure = ""
				if node.AskedConnRate > 0 {
					node.Evacuation = &Status{State: StateEvictingConns, ConnEvictRate: node.AskedConnRate, SessEvictRate: node.AskedSessRate}
				}
			case 2:
				if node.Known() {
					node.Evacuation, node.AskedConnRate, node.AskedSessRate = nil, 0, 0
				}
			case 3:
				node.Info.LiveConnections.Value /= 2
			}
		}
	}
}

func TestOrderFor(t *testing.T) {
	evacuation := Evacuation{ConnEvictRate: 5, SessEvictRate: 6, Recipients: []string{"x", "y"}}
	runs := func(state State, conn int32, recipients ...string) func(*NodeObservation) {
		return func(n *NodeObservation) {
			n.Evacuation = &Status{State: state, ConnEvictRate: conn, SessEvictRate: 6, Recipients: recipients}
		}
	}
	for _, test := range []struct {
		reason string
		intent Intent
		node   NodeObservation
		want   order
	}{
		{"a node that shall serve and does", Serve, observed(5, 5), nothing},
		{"a node that shall serve and is evacuated", Serve, observed(5, 5, runs(StateProhibiting, 5, "x")), stop},
		{"a node that is only observed is left alone", Observe, observed(5, 5, runs(StateEvictingConns, 5, "x")), nothing},
		{"a node to be evacuated", Evacuate, observed(5, 5), start},
		{"one that is, to some of the recipients", Evacuate, observed(5, 5, runs(StateEvictingConns, 5, "y")), nothing},
		{"one whose recipients are gone waits for ever", Evacuate, observed(0, 5, runs(StateEvictingSessions, 5)), restart},
		{"one that forgot its recipients moves to anybody", Evacuate, observed(5, 5, runs(StateEvictingConns, 5, "x", "z")), restart},
		{"one that runs at another rate", Evacuate, observed(5, 5, runs(StateEvictingConns, 4, "x")), restart},
		{"one that is empty is left alone", Evacuate, observed(0, 0, runs(StateProhibiting, 500)), nothing},
	} {
		t.Run(test.reason, func(t *testing.T) {
			require.Equal(t, test.want, orderFor(NodeGoal{Intent: test.intent, Evacuation: evacuation}, test.node))
		})
	}
	require.Equal(t, nothing, orderFor(NodeGoal{Intent: Evacuate}, observed(5, 5)), "never without recipients")
}

func TestEmpty(t *testing.T) {
	for _, test := range []struct {
		reason string
		node   NodeObservation
		want   bool
	}{
		{"prohibiting and nothing left", observed(0, 0, evacuated(StateProhibiting, 1, 1)), true},
		{"with durable sessions prohibiting may never come", observed(0, 0, evacuated(StateEvictingSessions, 1, 1)), true},
		{"a client is left", observed(1, 1, evacuated(StateProhibiting, 1, 1)), false},
		{"a session is left", observed(0, 1, evacuated(StateEvictingSessions, 1, 1)), false},
		{"clients may still come back to a node that waits for takeovers", observed(0, 0, evacuated(StateWaitingTakeover, 1, 1)), false},
		{"a node that is not evacuated takes clients", observed(0, 0), false},
		{"silence is not zero", observed(0, 0, evacuated(StateProhibiting, 1, 1), silent), false},
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

func TestGuard(t *testing.T) {
	for _, test := range []struct {
		reason   string
		baseline int64
		live     int64
		outgoing NodeObservation
		held     bool
		overdue  int64
		hold     bool
	}{
		{"all are there", 1000, 1000, observed(1000, 1000, samples(1000, 1000)), false, 0, false},
		{"a second's worth was just evicted", 1000, 800, observed(800, 1000, samples(1000, 800)), false, 0, false},
		{"they are away for longer than the grace", 1000, 800, observed(800, 1000, samples(1000, 800, 800, 800, 800, 800, 800, 800)), false, 200, true},
		{"as many as are allowed are missing", 1000, 900, observed(900, 1000, samples(900, 900)), false, 100, false},
		{"one more", 1000, 899, observed(899, 1000, samples(899, 899)), false, 101, true},
		{"held, and not half of them are back", 1000, 940, observed(940, 1000, samples(940)), true, 60, true},
		{"held, and half of them are back", 1000, 950, observed(950, 1000, samples(950)), true, 50, false},
		{"more came than were there", 1000, 1200, observed(1000, 1000), false, 0, false},
		{"after a restart nothing is known of what was evicted", 1000, 800, observed(800, 1000), false, 200, true},
	} {
		t.Run(test.reason, func(t *testing.T) {
			input := GuardInput{Now: now, Baseline: test.baseline, Live: test.live, Outgoing: []NodeObservation{test.outgoing}, Grace: 5 * time.Second, Limit: 100, Held: test.held}
			require.Equal(t, test.overdue, Overdue(input))
			require.Equal(t, test.hold, Hold(input))
		})
	}
}

func TestSteady(t *testing.T) {
	minute := slices.Repeat([]int64{500}, 62)
	require.True(t, Steady([]NodeObservation{observed(500, 500, samples(minute...))}, now, time.Minute, 0))
	require.False(t, Steady([]NodeObservation{observed(500, 500, samples(minute[:30]...))}, now, time.Minute, 0), "half a minute is none")
	moved := slices.Clone(minute)
	moved[40] = 499
	require.False(t, Steady([]NodeObservation{observed(500, 500, samples(moved...))}, now, time.Minute, 0))
	require.True(t, Steady([]NodeObservation{observed(500, 500, samples(moved...))}, now, time.Minute, 1))
	require.False(t, Steady(nil, now, time.Minute, 0), "nothing is known of no nodes")
	require.EqualValues(t, 40, Rate([]NodeObservation{observed(0, 0, samples(500, 500, 400, 400, 300, 300))}, now, 5*time.Second))
}

func TestRemaining(t *testing.T) {
	require.Equal(t, 10*time.Second+5*time.Second+2*time.Second, Remaining([]NodeObservation{observed(600, 800), observed(400, 400)}, 100, 100, 5*time.Second))
	require.Equal(t, 2*time.Second, Remaining([]NodeObservation{observed(0, 200, evacuated(StateEvictingSessions, 1, 1))}, 100, 100, 5*time.Second))
	require.Zero(t, Remaining([]NodeObservation{observed(0, 0, evacuated(StateProhibiting, 1, 1))}, 100, 100, 5*time.Second))
}
