package scale

import (
	"maps"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/gauge"
)

// Result is what was measured with one number of clusters.
type Result struct {
	// Clusters and Nodes are how many there were.
	Clusters, Nodes int
	// Built is how long the operator took to build the clusters that were added, with rates and workers that no limit of the
	// API server asks for.
	Built time.Duration
	Start Start
	Rest  Rest
	// Latency is the median time from a change of a resource to the operator's first write, Latencies how many were timed.
	Latency   time.Duration
	Latencies int
	Upgrades  []Upgrade
}

// Start is what was measured from a start of the operator, which finds all clusters there, until all nodes were asked.
type Start struct {
	// Ready is when the operator's caches were filled, Synced when the last node had first answered it.
	Ready, Synced time.Duration
	// Complete is false when not all nodes were asked in time: Missing is how many were not.
	Missing int
	// Rest is when the operator had come to rest.
	Rest time.Duration
	// CPU is the share of a core until Rest, Requests what nodes were asked until then.
	CPU      float64
	Requests int64
	// PeakBytes is the most memory until Synced, and Scrape the longest scrape until Rest.
	PeakBytes uint64
	Scrape    time.Duration
	// Writes are those to the API server until Rest.
	Writes Requests
}

// Rest is what was measured over a window in which nothing but the numbers of clients changed.
type Rest struct {
	Window time.Duration
	// Bytes is the resident memory at the end, PeakBytes the most since the start, CPU the share of a core.
	Bytes, PeakBytes uint64
	CPU              float64
	Goroutines       int
	// NodeConnections are those to EMQX nodes, Connections all, at the end of the window.
	NodeConnections, Connections int
	// RequestsPerSecond are those to EMQX nodes.
	RequestsPerSecond float64
	// Writes and Reads are the operator's requests to the API server, Leases those of its leader election.
	Writes, Reads, Leases Requests
	Scrape                time.Duration
	ScrapeBytes           int
	// HeapBytes and StackBytes are what of the memory is heap and stacks of goroutines, as the operator tells.
	HeapBytes, StackBytes uint64
}

// Upgrade is what was measured of a number of upgrades at once.
type Upgrade struct {
	Count int
	// Median and Last are when a cluster was Ready again, since all were changed.
	Median, Last time.Duration
	// Writes, Events and Reads are requests to the API server, of all upgrades together, and Asked those to EMQX nodes.
	Writes, Events, Reads Requests
	Asked                 int64
	PeakBytes             uint64
	// CPU is the operator's processor time.
	CPU time.Duration
}

// Requests counts requests by what they do: "patch pods/status".
type Requests map[string]int

// Total is how many there are.
func (r Requests) Total() int {
	total := 0
	for _, count := range r {
		total += count
	}
	return total
}

func (r Requests) add(request gauge.Request) Requests {
	if r == nil {
		r = Requests{}
	}
	r[request.Verb+" "+request.Resource]++
	return r
}

// with are both together.
func (r Requests) with(others Requests) Requests {
	both := Requests{}
	maps.Copy(both, r)
	for what, count := range others {
		both[what] += count
	}
	return both
}

// tally is the requests of the operator by kind.
type tally struct{ writes, events, reads, leases Requests }

func (t *tally) add(requests []gauge.Request) {
	for _, request := range requests {
		switch {
		case request.User != userOf(operatorNamespace, operatorAccount):
		case request.Resource == "leases":
			t.leases = t.leases.add(request)
		case request.Resource == "events":
			t.events = t.events.add(request)
		case request.Write():
			t.writes = t.writes.add(request)
		default:
			t.reads = t.reads.add(request)
		}
	}
}

// tally counts the operator's requests since the audit log was last read.
func (r *run) tally() (tally, error) {
	var t tally
	requests, err := r.audit.Next()
	t.add(requests)
	return t, err
}
