package evacuate

import (
	"cmp"
	"slices"
	"time"
)

// PlanNode is an outgoing node, for planning.
type PlanNode struct {
	// Name is the name of the node.
	Name string
	// Observation is what is known of it.
	Observation NodeObservation
	// StatusConnRate and StatusSessRate are the rates that the resource's status last told for it, 0 for none. They
	// are what is left to go by when the operator was restarted and the node does not answer.
	StatusConnRate, StatusSessRate int32
}

// PlanInput is what a plan is made of.
type PlanInput struct {
	// Outgoing are the nodes to be evacuated.
	Outgoing []PlanNode
	// Recipients are the nodes that stay and answer.
	Recipients []string
	// ConnEvictRate and SessEvictRate are for the cluster.
	ConnEvictRate, SessEvictRate int32
	// WaitTakeover is how long clients may take their sessions over by themselves.
	WaitTakeover time.Duration
}

// Plan decides which nodes are to be evacuated now, and how. Nodes that it leaves out wait. Its rates together, those
// of nodes that do not answer included, never exceed the cluster's; each is at least 1, so that when the cluster's
// rate has fewer units than there are nodes, as many nodes go at once as it has units.
//
// A node that is already being evacuated keeps its rates: changing them would mean to stop and start it. The others
// share what is left, in proportion to the clients and sessions they have, so that all are empty at the same time.
func Plan(input PlanInput) map[string]Evacuation {
	plan := map[string]Evacuation{}
	if len(input.Recipients) == 0 {
		return plan // Sessions would have nowhere to go, and the broker would wait for ever.
	}
	conn, sess := input.ConnEvictRate, input.SessEvictRate
	var waiting []PlanNode
	for _, node := range input.Outgoing {
		connRate, sessRate := reserved(node, input)
		switch {
		case node.Observation.Empty():
			// It needs no rate any more; what it runs is kept, so that it goes on refusing clients.
			plan[node.Name] = evacuation(input, node.Observation.Evacuation.ConnEvictRate, node.Observation.Evacuation.SessEvictRate)
		case connRate > 0 && connRate <= conn && sessRate <= sess:
			conn, sess = conn-connRate, sess-sessRate
			plan[node.Name] = evacuation(input, connRate, sessRate)
		case !node.Observation.Known() || connRate > 0:
			// Silent nodes keep what they may be running at. So does, until it is seen to have stopped, a node that runs at
			// more than there is because the rates were lowered: from the next time on it shares with the others.
			conn, sess = max(0, conn-connRate), max(0, sess-sessRate)
		default:
			waiting = append(waiting, node)
		}
	}
	return share(plan, waiting, input, conn, sess)
}

// reserved are the rates that a node runs at, or may run at.
func reserved(node PlanNode, input PlanInput) (int32, int32) {
	observed := node.Observation
	switch {
	case observed.AskedConnRate > 0:
		return observed.AskedConnRate, observed.AskedSessRate
	case !observed.Seen.IsZero() && observed.Evacuation != nil:
		return observed.Evacuation.ConnEvictRate, observed.Evacuation.SessEvictRate
	case !observed.Seen.IsZero():
		return 0, 0 // This operator has seen it at rest and has asked nothing of it since.
	case node.StatusConnRate > 0:
		return node.StatusConnRate, node.StatusSessRate
	default:
		// Never heard of, as after a restart of the operator: it may run at anything.
		return input.ConnEvictRate, input.SessEvictRate
	}
}

func evacuation(input PlanInput, connRate, sessRate int32) Evacuation {
	return Evacuation{ConnEvictRate: connRate, SessEvictRate: sessRate, WaitTakeover: input.WaitTakeover, Recipients: input.Recipients}
}

// share gives the waiting nodes what is left of the rates, the fullest nodes first when it does not suffice for all, and
// spreads their starts over a second.
func share(plan map[string]Evacuation, waiting []PlanNode, input PlanInput, conn, sess int32) map[string]Evacuation {
	slices.SortStableFunc(waiting, func(a, b PlanNode) int {
		return cmp.Or(cmp.Compare(b.Observation.Info.LiveConnections.Value, a.Observation.Info.LiveConnections.Value), cmp.Compare(a.Name, b.Name))
	})
	waiting = waiting[:min(len(waiting), int(min(conn, sess)))]
	live := func(n PlanNode) int64 { return n.Observation.Info.LiveConnections.Value }
	sessions := func(n PlanNode) int64 { return n.Observation.Info.Connections.Value }
	connRates, sessRates := split(conn, waiting, live), split(sess, waiting, sessions)
	for i, node := range waiting {
		planned := evacuation(input, connRates[i], sessRates[i])
		planned.StartDelay = time.Duration(i) * time.Second / time.Duration(len(waiting))
		plan[node.Name] = planned
	}
	return plan
}

// split divides rate over nodes in proportion to their weight, at least 1 each, in whole numbers that add up to rate.
// There are at most as many nodes as the rate has units.
func split(rate int32, nodes []PlanNode, weight func(PlanNode) int64) []int32 {
	shares := make([]int32, len(nodes))
	if len(nodes) == 0 {
		return shares
	}
	var total int64
	for _, node := range nodes {
		total += weight(node) + 1 // Nobody weighs nothing.
	}
	spare := int64(rate) - int64(len(nodes))
	left := spare
	for i, node := range nodes {
		part := spare * (weight(node) + 1) / total
		shares[i] = int32(1 + part) //nolint:gosec // At most rate, which is an int32.
		left -= part
	}
	for i := 0; left > 0; i, left = (i+1)%len(shares), left-1 {
		shares[i]++
	}
	return shares
}
