package evacuate

import "time"

// GuardInput is what the guard judges.
type GuardInput struct {
	// Now is the time of the judgement.
	Now time.Time
	// Baseline is the number of clients when the evacuation began.
	Baseline int64
	// Live is the number of clients now, with the last known number for nodes that do not answer.
	Live int64
	// Outgoing are the nodes that are being evacuated.
	Outgoing []NodeObservation
	// Grace is how long an evicted client may take to come back.
	Grace time.Duration
	// Limit is how many clients may be overdue.
	Limit int64
	// Held tells that evictions are stopped because of the guard.
	Held bool
}

// Overdue is how many clients were evicted longer than the grace ago and are still missing: baseline - live - those
// evicted within the grace. The broker evicts a second's worth at once, so a dip as deep as that is normal.
func Overdue(input GuardInput) int64 {
	overdue := input.Baseline - input.Live
	for _, node := range input.Outgoing {
		overdue -= evictedSince(node.Samples, input.Now.Add(-input.Grace))
	}
	return max(0, overdue)
}

// Hold decides whether evictions must be stopped. They are started again when half of the allowed number is missing at
// most, so that they are not stopped and started in turn.
func Hold(input GuardInput) bool {
	limit := input.Limit
	if input.Held {
		limit /= 2
	}
	return Overdue(input) > limit
}

// evictedSince is how many clients a node lost since a time, by its samples.
func evictedSince(samples []Sample, since time.Time) int64 {
	if len(samples) == 0 {
		return 0
	}
	from := samples[0]
	for _, sample := range samples {
		if sample.At.After(since) {
			break
		}
		from = sample
	}
	return max(0, from.Live-samples[len(samples)-1].Live)
}

// Steady reports whether the sum of the nodes' clients has stayed within tolerance for the given time, by their
// samples; it is false when the samples do not go back as far.
func Steady(nodes []NodeObservation, now time.Time, duration time.Duration, tolerance int64) bool {
	since := now.Add(-duration)
	var low, high, total int64
	for i, at := 0, since; !at.After(now); i, at = i+1, at.Add(time.Second) {
		total = 0
		for _, node := range nodes {
			live, ok := liveAt(node.Samples, at)
			if !ok {
				return false
			}
			total += live
		}
		if i == 0 {
			low, high = total, total
		}
		low, high = min(low, total), max(high, total)
	}
	return len(nodes) > 0 && high-low <= tolerance
}

func liveAt(samples []Sample, at time.Time) (int64, bool) {
	var live int64
	found := false
	for _, sample := range samples {
		if sample.At.After(at) {
			break
		}
		live, found = sample.Live, true
	}
	return live, found
}

// Rate is how many clients left the nodes a second, over the last few seconds of their samples.
func Rate(nodes []NodeObservation, now time.Time, window time.Duration) int64 {
	var left int64
	for _, node := range nodes {
		left += evictedSince(node.Samples, now.Add(-window))
	}
	return left * int64(time.Second) / int64(window)
}

// Remaining is how long the nodes will take to be empty at the given rates of the cluster: the connections left, then the
// time for takeovers, then the sessions left. What nodes have that do not answer counts as last known.
func Remaining(nodes []NodeObservation, connRate, sessRate int32, waitTakeover time.Duration) time.Duration {
	var live, sessions int64
	takeover := time.Duration(0)
	for _, node := range nodes {
		if node.Empty() {
			continue
		}
		live += node.Info.LiveConnections.Value
		sessions += node.Info.Connections.Value - node.Info.LiveConnections.Value
		if node.Evacuation == nil || node.Evacuation.State != StateEvictingSessions {
			takeover = waitTakeover
		}
	}
	perSecond := func(count int64, rate int32) time.Duration {
		return time.Duration(max(0, count)) * time.Second / time.Duration(rate)
	}
	return perSecond(live, connRate) + takeover + perSecond(sessions, sessRate)
}
