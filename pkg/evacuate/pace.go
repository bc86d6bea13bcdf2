package evacuate

import (
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// The evacuation is a closed loop: how fast connections are evicted is decided by the clients that come back.
//
//	away      the baseline (the clients when the evacuation began) less those connected now, the just-evicted counted in
//	limit     how many may be away at once
//	tick      what EMQX evicts at once, every second, over all nodes: half of the limit, so that a tick that has happened
//	          and was not seen yet fits beside what was seen; nine tenths while clients are seen to be back at once
//	hold      evictions are stopped when another tick would pass the limit, and go on below half of it
type (
	// PaceInput is what the pace is decided from.
	PaceInput struct {
		// Baseline is the number of clients when the evacuation began.
		Baseline int64
		// Live is the number of clients now, with the last known number for nodes that do not answer.
		Live int64
		// Limit is how many clients may be away at once. Less than 1 counts as 1: who is moved is away for a moment.
		Limit int64
		// ConnEvictRate is the most that may be evicted a second.
		ConnEvictRate int32
		// Held tells that evictions are stopped because too many are away.
		Held bool
		// Prompt tells that clients are seen to be back at once; see Prompt.
		Prompt bool
		// SeenFor is how long ago Live was counted, at a beat.
		SeenFor time.Duration
	}
	// Pace is how connections may be evicted now.
	Pace struct {
		// Away is how many clients are away.
		Away int64
		// Tick is how many connections may be evicted a second, over all nodes, at least 1.
		Tick int32
		// ByLimit tells that the limit and not the rate decides the tick.
		ByLimit bool
		// Hold tells that no connection may be evicted now.
		Hold bool
	}
)

// PaceOf decides the pace.
func PaceOf(input PaceInput) Pace {
	limit := max(1, input.Limit)
	pace := Pace{Away: max(0, input.Baseline-input.Live), Tick: input.ConnEvictRate}
	most := max(1, limit/2)
	if input.Prompt {
		most = max(1, limit*9/10)
	}
	if int64(pace.Tick) > most {
		pace.Tick, pace.ByLimit = int32(most), true //nolint:gosec // Less than an int32.
	}
	pace.Hold = pace.Away+unseen(input.SeenFor)*int64(pace.Tick) > limit || input.Held && pace.Away > limit/2
	return pace
}

// LateAfter is how old the last common look at the nodes may be: by then the next should be there.
const LateAfter = 1300 * time.Millisecond

// unseen is how many ticks there may be that were not seen yet: the next, and one more for every look that did not come.
func unseen(seenFor time.Duration) int64 {
	if seenFor < LateAfter {
		return 1
	}
	return 2 + int64((seenFor-LateAfter)/time.Second)
}

// LiveTogether is the number of clients of the nodes at the last beat that all have answered at: added up from answers of
// different beats, clients on their way from one node to another would be missing, or count twice. A node that does not
// answer counts with what was last known; so do all while there is no such beat, which is zero then.
func LiveTogether(nodes []NodeObservation) (live int64, beat time.Time) {
	beat = togetherAt(nodes)
	if total, known := liveAt(nodes, beat); known {
		return total, beat
	}
	var latest int64
	for _, node := range nodes {
		latest += node.Info.LiveConnections.Value
	}
	return latest, time.Time{}
}

// mayEvict reports whether connections may be evicted on a node, whatever it says or does not.
func mayEvict(node NodeObservation) bool {
	return node.EvictsConnections() || node.Evacuation == nil && node.AskedConnRate > 0
}

// togetherAt is the last beat that all nodes which answer have answered at, and all that may evict: what a node evicts that
// does not answer is not seen. Where there is none, it is the last beat of the one that is furthest behind; zero without any.
func togetherAt(nodes []NodeObservation) time.Time {
	var behind time.Time
	var counted [][]Sample
	for _, node := range nodes {
		if !node.Known() && !mayEvict(node) || len(node.Samples) == 0 {
			continue
		}
		counted = append(counted, node.Samples)
		if last := node.Samples[len(node.Samples)-1].At; behind.IsZero() || last.Before(behind) {
			behind = last
		}
	}
	for at := behind; !at.Before(behind.Add(-SampleWindow)); at = at.Add(-time.Second) {
		if !slices.ContainsFunc(counted, func(samples []Sample) bool { return !sampledAt(samples, at) }) {
			return at
		}
	}
	return behind
}

// sampledAt reports whether there is a sample of exactly that beat. The last ones are the most likely.
func sampledAt(samples []Sample, at time.Time) bool {
	for _, sample := range slices.Backward(samples) {
		if !sample.At.After(at) {
			return sample.At.Equal(at)
		}
	}
	return false
}

// promptLooks is for how many seconds clients must be seen to be back at once.
const promptLooks = 4

// Prompt reports whether evicted clients are seen to be back at once: in the last seconds more than the limit was evicted
// from the leaving nodes, and at no look was a tenth of the limit away.
func Prompt(leaving, all []NodeObservation, baseline, limit int64) bool {
	last := togetherAt(all)
	if last.IsZero() || evictedSince(leaving, last.Add(-promptLooks*time.Second)) <= limit {
		return false
	}
	for i := range promptLooks {
		total, known := liveAt(all, last.Add(-time.Duration(i)*time.Second))
		if !known || baseline-total > limit/10 {
			return false
		}
	}
	return true
}

// Departed reports whether what is missing has left for good: evictions have been stopped for the given time, and in all
// of that time no more than a tenth of the missing came back. So a steady decline departs, too, and one client of ten
// like a million of ten.
func Departed(nodes []NodeObservation, now, heldSince time.Time, duration time.Duration, missing int64) bool {
	if missing <= 0 || now.Sub(heldSince) < duration {
		return false
	}
	lowest, known := liveAt(nodes, now.Add(-duration))
	if !known {
		return false
	}
	last := lowest
	for at := now.Add(-duration); !at.After(now); at = at.Add(time.Second) {
		last, _ = liveAt(nodes, at)
		lowest = min(lowest, last)
	}
	return last-lowest <= missing/10
}

// liveAt is the number of clients of the nodes at a time, by their samples. A node without one of that time counts with
// its nearest later one, or with what was last known: it cannot keep the others from being judged. It reports false when
// no sample at all is that old.
func liveAt(nodes []NodeObservation, at time.Time) (int64, bool) {
	var total int64
	known := false
	for _, node := range nodes {
		live := node.Info.LiveConnections.Value
		for i, sample := range node.Samples {
			if i > 0 && sample.At.After(at) {
				break
			}
			live = sample.Live
			known = known || !sample.At.After(at)
		}
		total += live
	}
	return total, known
}

// evictedSince is how many clients the nodes lost since a time, by their samples.
func evictedSince(nodes []NodeObservation, since time.Time) int64 {
	var lost int64
	for _, node := range nodes {
		if len(node.Samples) == 0 {
			continue
		}
		first := slices.IndexFunc(node.Samples, func(s Sample) bool { return s.At.After(since) })
		if first < 0 {
			continue
		}
		lost += max(0, node.Samples[max(0, first-1)].Live-node.Samples[len(node.Samples)-1].Live)
	}
	return lost
}

// Rate is how many clients left the nodes a second, over the last few seconds of their samples.
func Rate(nodes []NodeObservation, now time.Time, window time.Duration) int64 {
	return evictedSince(nodes, now.Add(-window)) * int64(time.Second) / int64(window)
}

// Course is how an evacuation is expected to go on.
type Course struct {
	// Now is the time that it is told at.
	Now time.Time
	// ConnRate is how many connections are evicted a second, over all nodes, and after Ramp, if that is not over, LaterConnRate.
	ConnRate, LaterConnRate int32
	Ramp                    time.Duration
	// SessRate is how many sessions are moved a second.
	SessRate int32
	// WaitTakeover is how long clients may take their sessions over by themselves.
	WaitTakeover time.Duration
}

// RampTime is how long clients must be watched before they are seen to be back at once; see Prompt.
const RampTime = promptLooks * time.Second

// Remaining is how long the nodes will take to be empty: the connections left, then the time for takeovers, then the sessions
// left. What nodes have that do not answer counts as last known.
func Remaining(nodes []NodeObservation, course Course) time.Duration {
	var live, sessions int64
	takeover := time.Duration(0)
	for _, node := range nodes {
		if node.Empty() {
			continue
		}
		live += node.Info.LiveConnections.Value
		sessions += node.Info.Connections.Value - node.Info.LiveConnections.Value
		takeover = max(takeover, takeoverLeft(node, course))
	}
	return course.evict(live) + takeover + perSecond(sessions, course.SessRate)
}

// evict is how long it takes to evict so many connections.
func (c Course) evict(live int64) time.Duration {
	first := min(max(0, live), int64(c.ConnRate)*int64(c.Ramp/time.Second))
	if c.LaterConnRate <= c.ConnRate {
		return perSecond(live, c.ConnRate)
	}
	return perSecond(first, c.ConnRate) + perSecond(live-first, c.LaterConnRate)
}

// takeoverLeft is how long a node still waits for takeovers. EMQX does not tell since when it does: since the node is seen to
// have no client.
func takeoverLeft(node NodeObservation, course Course) time.Duration {
	switch {
	case node.Evacuation == nil || node.EvictsConnections():
		return course.WaitTakeover
	case node.Evacuation.State != emqx.StateWaitingTakeover:
		return 0
	}
	for i := len(node.Samples) - 1; i >= 0; i-- {
		if node.Samples[i].Live > 0 && i < len(node.Samples)-1 {
			return max(0, course.WaitTakeover-course.Now.Sub(node.Samples[i+1].At))
		}
	}
	return course.WaitTakeover
}

func perSecond(count int64, rate int32) time.Duration {
	return time.Duration(max(0, count)) * time.Second / time.Duration(max(1, rate))
}
