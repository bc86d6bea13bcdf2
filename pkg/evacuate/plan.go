package evacuate

import (
	"cmp"
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// PlanNode is a leaving node, for planning.
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
	// Leaving are the nodes to be evacuated.
	Leaving []PlanNode
	// Recipients are the nodes that stay, answer and take clients.
	Recipients []string
	// ConnEvictRate and SessEvictRate are for the cluster, at least 1 each.
	ConnEvictRate, SessEvictRate int32
	// WaitTakeover is how long clients may take their sessions over by themselves.
	WaitTakeover time.Duration
	// Hold tells that no connection is to be evicted now. The moving of sessions, which disconnects nobody, goes on.
	Hold bool
}

// The part of a beat in which evacuations are started: late enough that what the last look showed has been decided, and
// early enough that evicted clients are back at the next.
const (
	firstStartPhase = 400 * time.Millisecond
	lastStartPhase  = 700 * time.Millisecond
)

// Plan says what each leaving node shall do now. The rates of all nodes together, those of nodes that do not answer
// included, never exceed the cluster's; each is at least 1, so that when the cluster's rate has fewer units than there
// are nodes, as many nodes go at once as it has units, and the others serve until it is their turn.
//
// To change a rate, EMQX must stop the evacuation and start it again. So nodes that run keep their rates while these fit
// and make use of most of what there is.
func Plan(input PlanInput) map[string]Order {
	p := &planning{PlanInput: input, orders: map[string]Order{}}
	p.conn, p.sess = input.ConnEvictRate, input.SessEvictRate
	for _, node := range input.Leaving {
		p.settle(node)
	}
	p.move()
	p.lower()
	p.raise()
	p.start()
	for i, node := range input.Leaving {
		order := p.orders[node.Name]
		order.StartPhase = firstStartPhase + (lastStartPhase-firstStartPhase)*time.Duration(i)/time.Duration(len(input.Leaving))
		p.orders[node.Name] = order
	}
	return p.orders
}

// planning is a plan that is being made.
type planning struct {
	PlanInput
	orders map[string]Order
	// conn and sess are what is left of the cluster's rates.
	conn, sess int32
	// moving are the nodes that are past the moving of connections, running those that evict connections, and waiting
	// those that could be started.
	moving, running []runningNode
	waiting         []PlanNode
}

// runningNode is a node that runs at the given rates.
type runningNode struct {
	PlanNode
	connRate, sessRate int32
}

// settle decides what a node does whose order does not depend on the others, and reserves what it runs at, or may.
func (p *planning) settle(node PlanNode) {
	observed := node.Observation
	connRate, sessRate := reserved(node, p.PlanInput)
	held := p.Hold || len(p.Recipients) == 0
	switch {
	case observed.Empty():
		// It needs no rate any more; what it runs is kept, so that it goes on refusing clients.
		p.evacuate(node.Name, observed.Evacuation.ConnEvictRate, observed.Evacuation.SessEvictRate)
	case !observed.Known() && held && mayEvict(observed):
		// It may evict: it shall stop as soon as it hears of it.
		p.orders[node.Name] = Order{Intent: Serve}
		p.reserve(connRate, sessRate)
	case !observed.Known():
		// It is not known what it would be told to do.
		p.orders[node.Name] = Order{Intent: Observe}
		p.reserve(connRate, sessRate)
	case observed.Evacuation != nil && !observed.EvictsConnections() && held:
		// With nobody to move sessions to it is left as it is: that no recipient answers for a moment is no reason to have
		// it serve again.
		p.orders[node.Name] = Order{Intent: Observe}
		p.reserve(0, sessRate)
	case observed.Evacuation != nil && !observed.EvictsConnections():
		// It needs no connection rate any more: the others may have its share.
		p.moving = append(p.moving, runningNode{PlanNode: node, connRate: observed.Evacuation.ConnEvictRate, sessRate: observed.Evacuation.SessEvictRate})
		p.reserve(0, sessRate)
	case held:
		p.orders[node.Name] = Order{Intent: Serve}
		p.reserve(connRate, sessRate)
	case connRate > 0:
		p.running = append(p.running, runningNode{PlanNode: node, connRate: connRate, sessRate: sessRate})
		p.reserve(connRate, sessRate)
	default:
		p.waiting = append(p.waiting, node)
	}
}

// move has the nodes that move sessions go on at their rates, unless these are more than there is, or there is so much
// more that to start them again, takeovers included, ends sooner.
func (p *planning) move() {
	var used int32
	for _, node := range p.moving {
		used += node.sessRate
	}
	available := used + p.sess
	alone := len(p.running) == 0 && len(p.waiting) == 0
	shares := split(max(0, available), p.moving, runningNode.sessions)
	for i, node := range p.moving {
		share := shares[i]
		saved := time.Duration(node.sessions()) * time.Second / time.Duration(max(1, node.sessRate))
		saved -= time.Duration(node.sessions()) * time.Second / time.Duration(max(1, share))
		raise := alone && share-node.sessRate <= p.sess && saved > p.WaitTakeover+nearlyDone*time.Second
		switch {
		case raise:
			p.reserve(0, share-node.sessRate)
			node.sessRate = share
		case used > available && share < node.sessRate:
			node.sessRate = share // What that frees is given out when it is seen.
		}
		if node.sessRate < 1 {
			p.orders[node.Name] = Order{Intent: Observe}
			continue
		}
		p.evacuate(node.Name, min(node.connRate, p.ConnEvictRate), node.sessRate)
	}
}

func (p *planning) reserve(connRate, sessRate int32) {
	p.conn, p.sess = p.conn-connRate, p.sess-sessRate
}

func (p *planning) evacuate(name string, connRate, sessRate int32) {
	p.orders[name] = Order{Intent: Evacuate, Evacuation: emqx.Evacuation{
		ConnEvictRate: connRate, SessEvictRate: sessRate, WaitTakeover: p.WaitTakeover, Recipients: p.Recipients,
	}}
}

// lower has nodes that run at more than there is stop, the fullest last. Nobody takes their place before they are seen to
// have stopped: from then on they share with the others.
func (p *planning) lower() {
	slices.SortStableFunc(p.running, func(a, b runningNode) int {
		return cmp.Or(cmp.Compare(b.live(), a.live()), cmp.Compare(a.Name, b.Name))
	})
	connLeft, sessLeft := p.conn, p.sess
	for i := len(p.running) - 1; i >= 0 && (connLeft < 0 || sessLeft < 0); i-- {
		node := p.running[i]
		p.orders[node.Name] = Order{Intent: Serve}
		connLeft, sessLeft = connLeft+node.connRate, sessLeft+node.sessRate
		p.running = slices.Delete(p.running, i, i+1)
	}
}

const (
	// usedEnough is the part of a rate that must be in use for running nodes to keep theirs.
	usedEnough = 0.75
	// nearlyDone is how many seconds a node may have left for a change of its rate not to be worth it.
	nearlyDone = 3
)

// raise gives running nodes what nobody uses, when that is worth starting them again.
func (p *planning) raise() {
	var connUsed int32
	worth := false
	for _, node := range p.running {
		connUsed += node.connRate
		worth = worth || node.live() > int64(nearlyDone*node.connRate)
	}
	available := connUsed + max(0, p.conn)
	if worth && len(p.waiting) > 0 && min(p.conn, p.sess) < 1 && float64(connUsed) < usedEnough*float64(available) {
		// They have one of the rates and little of the other, and nobody can start beside them: they stop, and share with who waits.
		for _, node := range p.running {
			p.orders[node.Name] = Order{Intent: Serve}
		}
		return
	}
	connShares := make([]int32, len(p.running))
	if worth && len(p.waiting) == 0 && float64(connUsed) < usedEnough*float64(available) {
		connShares = split(available, p.running, runningNode.live)
	}
	sessUsed := int32(0)
	for _, node := range p.running {
		sessUsed += node.sessRate
	}
	sessShares := split(sessUsed+max(0, p.sess), p.running, runningNode.sessions)
	for i, node := range p.running {
		if share := connShares[i]; share > node.connRate && share-node.connRate <= p.conn {
			// Started again anyway, it takes its part of the other rate, too.
			sess := max(node.sessRate, min(sessShares[i], node.sessRate+max(0, p.sess)))
			p.reserve(share-node.connRate, sess-node.sessRate)
			node.connRate, node.sessRate = share, sess
		}
		p.evacuate(node.Name, node.connRate, node.sessRate)
	}
}

// start gives the waiting nodes what is left of the rates, in proportion to the clients and sessions they have, so that
// all are empty at the same time; the fullest first when it does not suffice for all.
func (p *planning) start() {
	slices.SortStableFunc(p.waiting, func(a, b PlanNode) int {
		return cmp.Or(cmp.Compare(b.live(), a.live()), cmp.Compare(a.Name, b.Name))
	})
	started := p.waiting[:min(len(p.waiting), int(max(0, min(p.conn, p.sess))))]
	connRates, sessRates := split(p.conn, started, PlanNode.live), split(p.sess, started, PlanNode.sessions)
	for i, node := range started {
		p.evacuate(node.Name, connRates[i], sessRates[i])
	}
	for _, node := range p.waiting[len(started):] {
		p.orders[node.Name] = Order{Intent: Serve}
	}
}

func (n PlanNode) live() int64     { return n.Observation.Info.LiveConnections.Value }
func (n PlanNode) sessions() int64 { return n.Observation.Info.Connections.Value }

// reserved are the rates that a node runs at, or may run at.
func reserved(node PlanNode, input PlanInput) (connRate, sessRate int32) {
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
		// Never heard of, as after a restart of the operator: it may run at its share.
		count := int32(len(input.Leaving)) //nolint:gosec // A cluster has few nodes.
		return (input.ConnEvictRate + count - 1) / count, (input.SessEvictRate + count - 1) / count
	}
}

// split divides rate over nodes in proportion to their weight, at least 1 each, in whole numbers that add up to rate.
// With fewer units than nodes, the first get one each.
func split[N any](rate int32, nodes []N, weight func(N) int64) []int32 {
	shares := make([]int32, len(nodes))
	spare := int64(rate) - int64(len(nodes))
	if spare < 0 {
		for i := range max(0, rate) {
			shares[i] = 1
		}
		return shares
	}
	var total int64
	for _, node := range nodes {
		total += weight(node) + 1 // Nobody weighs nothing.
	}
	left := spare
	for i, node := range nodes {
		part := spare * (weight(node) + 1) / total
		shares[i] = int32(1 + part) //nolint:gosec // At most rate, which is an int32.
		left -= part
	}
	for i := 0; left > 0 && len(shares) > 0; i, left = (i+1)%len(shares), left-1 {
		shares[i]++
	}
	return shares
}
