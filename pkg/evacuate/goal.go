package evacuate

import (
	"net"
	"slices"
	"strconv"
	"time"
)

// Intent says what a node is to be.
type Intent int

const (
	// Observe leaves the node as it is.
	Observe Intent = iota
	// Serve stops an evacuation that runs on the node.
	Serve
	// Evacuate starts the evacuation, and starts it again when the node forgot it or runs another.
	Evacuate
)

// String names the intent for logs.
func (i Intent) String() string {
	return [...]string{"Observe", "Serve", "Evacuate"}[i]
}

// Evacuation is how a node is to be evacuated.
type Evacuation struct {
	// ConnEvictRate and SessEvictRate are this node's share of the cluster's rates, at least 1 each.
	ConnEvictRate, SessEvictRate int32
	// WaitTakeover is how long clients may take their sessions over by themselves; EMQX counts whole seconds.
	WaitTakeover time.Duration
	// Recipients are the nodes that take its sessions, never empty and never a node that does not answer.
	Recipients []string
	// StartDelay puts off the order to start it, by less than a second. EMQX evicts a second's worth of connections at
	// once: nodes that are started together shall not do so at the same moment. What runs does not differ by it.
	StartDelay time.Duration
}

// NodeGoal is what one node shall be like.
type NodeGoal struct {
	Node
	// Intent says whether it is to be evacuated.
	Intent Intent
	// Evacuation is how, when Intent is Evacuate.
	Evacuation Evacuation
	// Listeners are the listeners to ask about, such as "tcp:default"; usually none.
	Listeners []string
}

func (g NodeGoal) equal(other NodeGoal) bool {
	return g.Node == other.Node && g.Intent == other.Intent && slices.Equal(g.Listeners, other.Listeners) &&
		g.Evacuation.ConnEvictRate == other.Evacuation.ConnEvictRate && g.Evacuation.SessEvictRate == other.Evacuation.SessEvictRate &&
		g.Evacuation.WaitTakeover == other.Evacuation.WaitTakeover && slices.Equal(g.Evacuation.Recipients, other.Evacuation.Recipients)
}

// Goal is what the EMQX of one cluster shall be like. The zero value asks for nothing.
type Goal struct {
	// Nodes are all nodes of the cluster that have an address.
	Nodes []NodeGoal
	// Absent are nodes that have left Kubernetes and shall leave EMQX.
	Absent []string
	// Busy asks for an observation every second instead of now and then.
	Busy bool
}

// Observation is what the EMQX of one cluster was seen to be like. It is immutable: share it, do not change it.
type Observation struct {
	// Nodes holds what is known of each node of the goal, by name. A node that was never asked is missing.
	Nodes map[string]NodeObservation
	// Left holds the nodes of Goal.Absent that are no members any more.
	Left map[string]bool
	// Failure says why a member could not be made to leave, empty when there is nothing to say.
	Failure string
}

// Sample is the number of clients of a node at a time.
type Sample struct {
	At   time.Time
	Live int64
}

// NodeObservation is what a node last told of itself. All but the failures is as of Seen.
type NodeObservation struct {
	// Seen is when it last answered everything; zero for never.
	Seen time.Time
	// Failure says why the last question got no whole answer; empty when it did.
	Failure string
	// OrderFailure says why the node did not take the last order to start or stop an evacuation; empty when it did, or
	// when none is due.
	OrderFailure string
	// Unauthorized tells that EMQX refuses the operator's API key.
	Unauthorized bool
	// Info is what it tells of itself.
	Info NodeInfo
	// Members are the running nodes of its cluster as it sees them, sorted.
	Members []string
	// MembersSince is when Members was first seen as it is.
	MembersSince time.Time
	// Available tells whether it takes clients.
	Available bool
	// Evacuation is its evacuation, nil when there is none.
	Evacuation *Status
	// Listeners tells which of the listeners asked about run.
	Listeners map[string]bool
	// AskedConnRate and AskedSessRate are the rates of an evacuation that the driver orders, ordered or may have ordered,
	// and that has not been seen to be over; 0 for none.
	AskedConnRate, AskedSessRate int32
	// Samples are its clients of the last SampleWindow, oldest first, while the goal is busy.
	Samples []Sample
}

// SampleWindow is how far back samples go.
const SampleWindow = 75 * time.Second

// Known reports whether the node has answered for itself at its last asking. What is not known is not zero.
func (n NodeObservation) Known() bool { return n.Failure == "" && !n.Seen.IsZero() }

// Running reports whether the node is known to run and to know its own counts.
func (n NodeObservation) Running() bool {
	return n.Known() && n.Info.Status == "running" && n.Info.Connections.Known && n.Info.LiveConnections.Known
}

// Empty reports whether the node is known to have no client and no session, with an evacuation that is past the moving
// of connections: then nothing comes back. The state alone would not do: with durable sessions it may never be reached.
func (n NodeObservation) Empty() bool {
	if !n.Running() || n.Evacuation == nil || n.Info.LiveConnections.Value > 0 || n.Info.Connections.Value > 0 {
		return false
	}
	return n.Evacuation.State == StateEvictingSessions || n.Evacuation.State == StateProhibiting
}

// URL is the root of a node's HTTP API.
func URL(ip string, port int32, tls bool) string {
	scheme := "http"
	if tls {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(ip, strconv.Itoa(int(port)))
}
