package evacuate

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
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

// Order is what one node shall do.
type Order struct {
	// Intent says whether it is to be evacuated.
	Intent Intent
	// Evacuation is how, when Intent is Evacuate.
	Evacuation emqx.Evacuation
	// StartPhase is the moment within a beat of the driver at which an evacuation is started. EMQX evicts a second's
	// worth of connections at once and then waits a second: started in the middle between two looks, a look shows who is
	// back, and a stop still comes before the next eviction. What runs does not differ by it. Zero means at once.
	StartPhase time.Duration
}

// Focus is what matters of a node each second while its cluster is busy. What else there is to ask, is asked every fifth second,
// and at once when the node did not answer the last time.
type Focus int

const (
	// FocusAll is all that can be asked.
	FocusAll Focus = iota
	// FocusClients is how many clients and sessions it has.
	FocusClients
	// FocusEvacuation is that, and its evacuation.
	FocusEvacuation
)

// NodeGoal is what one node shall be like.
type NodeGoal struct {
	emqx.Node
	Order
	// Focus is what matters of it at the moment.
	Focus Focus
	// Life tells the lives of the node apart, such as the ID of its container: what was known of one says nothing of the
	// next. Empty when unknown.
	Life string
	// Listeners are the listeners to ask about, such as "tcp:default"; usually none.
	Listeners []string
	// Licence asks for the node's licence, too.
	Licence bool
	// Delayed asks how many delayed messages it has, which are on no other node.
	Delayed bool
}

func (g NodeGoal) equal(other NodeGoal) bool {
	return g.Node == other.Node && g.Life == other.Life && g.Focus == other.Focus && g.Licence == other.Licence && g.Delayed == other.Delayed && g.Intent == other.Intent && slices.Equal(g.Listeners, other.Listeners) &&
		g.Evacuation.ConnEvictRate == other.Evacuation.ConnEvictRate && g.Evacuation.SessEvictRate == other.Evacuation.SessEvictRate &&
		g.Evacuation.WaitTakeover == other.Evacuation.WaitTakeover && slices.Equal(g.Evacuation.Recipients, other.Evacuation.Recipients)
}

// Goal is what the EMQX of one cluster shall be like. The zero value asks for nothing.
type Goal struct {
	// Nodes are all nodes of the cluster that have an address.
	Nodes []NodeGoal
	// Absent are nodes that have left Kubernetes and shall leave EMQX, with their sites of its durable storage.
	Absent []string
	// Storage is where the data of durable storage shall be.
	Storage StorageGoal
	// Keys is which API keys the nodes shall know.
	Keys KeysGoal
	// Rebalance is the rebalance that is to run, or to be stopped.
	Rebalance RebalanceGoal
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
	// Storage is what is known of durable storage.
	Storage StorageObservation
	// Keys is what is known of the API keys.
	Keys KeysObservation
	// Rebalance is what came of the order to rebalance, or to stop that.
	Rebalance RebalanceObservation
}

// Sample is the number of clients of a node at a beat: the nodes of a cluster are asked together, so that samples of one
// beat can be added up.
type Sample struct {
	// At is the time of the beat.
	At   time.Time
	Live int64
}

// NodeObservation is what a node last told of itself. All but the failures is as of Seen, or of Whole where it was not asked.
type NodeObservation struct {
	// Life is that of the node it is about, see NodeGoal: it says nothing of another.
	Life string
	// Seen is when it last answered everything that it was asked; zero for never.
	Seen time.Time
	// Whole is when it was last asked, and answered, everything that there is.
	Whole time.Time
	// Failure says why the last question got no whole answer; empty when it did. It stays the same while the cause does.
	Failure string
	// OrderFailure says why the node did not take the last order to start or stop an evacuation; empty when it did, or
	// when none is due.
	OrderFailure string
	// Refusal says why the node, which does answer, tells the operator nothing; empty when it does, or when it does not answer.
	Refusal Refusal
	// Info is what it tells of itself.
	Info emqx.NodeInfo
	// Members are the running nodes of its cluster as it sees them, sorted.
	Members []string
	// MembersSince is when Members was first seen as it is.
	MembersSince time.Time
	// Available tells whether it takes clients.
	Available bool
	// Moves is what moves clients off it: its evacuation, or a rebalance that it gives clients to.
	emqx.Moves
	// Licence is its licence, as it last told it in this life, where LicenceKnown says that it was asked.
	Licence      emqx.Licence
	LicenceKnown bool
	// Delayed is how many delayed messages it has that are not due; not known where nobody asked.
	Delayed emqx.Count
	// Listeners tells which of the listeners asked about run.
	Listeners map[string]bool
	// AskedConnRate and AskedSessRate are the rates of an evacuation that the driver orders, ordered or may have ordered,
	// and that has not been seen to be over; 0 for none.
	AskedConnRate, AskedSessRate int32
	// Samples are its clients of the last SampleWindow, oldest first, while the goal is busy.
	Samples []Sample
}

// Refusal is a reason why a node that answers is asked in vain.
type Refusal string

// Why a node is asked in vain.
const (
	// Unauthorized: EMQX knows none of the operator's API keys.
	Unauthorized Refusal = "Unauthorized"
	// Forbidden: it knows the key, which must not do what is asked.
	Forbidden Refusal = "Forbidden"
	// Untrusted: who answers cannot be told to be the node, and is told no key.
	Untrusted Refusal = "Untrusted"
)

func refusalOf(err error) Refusal {
	switch {
	case errors.Is(err, emqx.ErrUnauthorized):
		return Unauthorized
	case errors.Is(err, emqx.ErrForbidden):
		return Forbidden
	case errors.Is(err, emqx.ErrUntrusted):
		return Untrusted
	}
	return ""
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
	return n.Evacuation.State == emqx.StateEvictingSessions || n.Evacuation.State == emqx.StateProhibiting
}

// Ordered reports whether an evacuation may run, or be about to, that the driver ordered and that has not been seen to be over.
func (n NodeObservation) Ordered() bool { return n.AskedConnRate > 0 || n.AskedSessRate > 0 }

// moves reports whether anything moves clients off the node, as it last told.
func (n NodeObservation) moves() bool { return n.Moves != emqx.Moves{} }

// EvictsConnections reports whether an evacuation runs on the node, as it last told, that closes connections: what comes
// after that disconnects nobody.
func (n NodeObservation) EvictsConnections() bool {
	return n.Evacuation != nil && (n.Evacuation.State == emqx.StateEvictingConns || n.Evacuation.State == emqx.StateWaitingHealthCheck)
}

// URL is the root of a node's HTTP API.
func URL(ip string, port int32, tls bool) string {
	scheme := "http"
	if tls {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(ip, strconv.Itoa(int(port)))
}
