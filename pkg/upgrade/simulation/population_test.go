package simulation

import (
	"slices"
	"time"
)

// group is a number of MQTT clients with persistent sessions that are all in the same situation.
type group struct {
	n       int
	node    *broker // Where they are connected; nil while they are away.
	session *broker // Where their sessions are; nil when they have none.
	backAt  time.Time
	gone    bool // They left on their own.
	evicted bool // They are away because the broker told them to go.
}

func (w *world) count(of func(*group) bool) (n int64) {
	for _, g := range w.population {
		if of(g) {
			n += int64(g.n)
		}
	}
	return n
}

func (w *world) live(b *broker) int64 { return w.count(func(g *group) bool { return g.node == b }) }

func (w *world) sessions(b *broker) int64 {
	return w.count(func(g *group) bool { return g.session == b })
}

// split takes up to n clients out of a group, as one of their own.
func (w *world) split(g *group, n int) *group {
	n = min(n, g.n)
	part := *g
	part.n = n
	g.n -= n
	w.population = append(w.population, &part)
	return &part
}

// merge puts groups together that nothing tells apart, and drops the empty.
func (w *world) merge() {
	type situation struct {
		node, session *broker
		backAt        time.Time
		gone, evicted bool
	}
	first := map[situation]*group{}
	kept := w.population[:0]
	for _, g := range w.population {
		at := situation{node: g.node, session: g.session, gone: g.gone, evicted: g.evicted}
		if g.node == nil {
			at.backAt = g.backAt
		}
		switch same := first[at]; {
		case g.n == 0:
		case same != nil:
			same.n += g.n
		default:
			first[at] = g
			kept = append(kept, g)
		}
	}
	clear(w.population[len(kept):])
	w.population = kept
}

// connectAll has the clients come: a handful, hundreds, or thousands.
func (w *world) connectAll() {
	w.population = append(w.population, &group{n: w.expected, backAt: w.now()})
	w.tickPopulation()
}

// anyRate is a rate at which an evacuation of all clients takes up to half a minute.
func (w *world) anyRate() int32 { return int32(max(1, w.expected/(1+w.rng.IntN(30)))) }

// clients is how many there are that did not leave on their own.
func (w *world) clients() int { return int(w.count(func(g *group) bool { return !g.gone })) }

// tickPopulation has those come back whose time it is.
func (w *world) tickPopulation() {
	for _, g := range slices.Clone(w.population) {
		if g.node == nil && !g.gone && !w.now().Before(g.backAt) {
			w.connect(g)
		}
	}
	w.merge()
}

// connect has a group try the door, a share of it each.
func (w *world) connect(g *group) {
	doors := w.doors()
	if len(doors) == 0 {
		g.backAt = w.now().Add(500 * time.Millisecond)
		return
	}
	first := w.rng.IntN(len(doors))
	share := (g.n + len(doors) - 1) / len(doors)
	for i := range doors {
		if g.n > 0 {
			w.enter(w.split(g, share), w.brokers[doors[(first+i)%len(doors)]])
		}
	}
}

// enter has a group connect to a node. Their sessions are taken over from where they were.
func (w *world) enter(g *group, b *broker) {
	g.backAt = w.now().Add(500 * time.Millisecond)
	switch {
	case b == nil || !b.joined || b.dead || b.refuses() || w.now().Before(b.frozen):
		return
	case w.anyFrozen() && w.rng.IntN(3) > 0:
		g.backAt = w.now().Add(30 * time.Second) // The cluster waits for the member that is silent.
		return
	case g.session != nil && (g.session.isGivenUp(w.now()) || b.isGivenUp(w.now())): // It gets a new one.
	case g.session != nil && !g.session.dead && (w.now().Before(g.session.frozen) || !w.sees(b, g.session)):
		return // The node with the session does not answer: the broker lets them wait.
	}
	g.node, g.session, g.evicted = b, b, false
	b.served = true
}

// evict closes connections of a node: a second's worth at once. Who is evicted comes back sooner or later. Those count for the limit whom
// the operator has evicted, at its own rate and not at a person's.
func (w *world) evict(b *broker, rate int, counted bool) {
	for _, g := range slices.Clone(w.population) {
		if g.node != b || rate <= 0 {
			continue
		}
		evicted := w.split(g, rate)
		rate -= evicted.n
		evicted.node, evicted.evicted = nil, counted
		for _, part := range w.inParts(evicted, 4) {
			part.backAt = w.now().Add(time.Duration(w.rng.Int64N(int64(w.slowest))))
		}
	}
	w.merge()
}

// inParts splits a group in up to so many.
func (w *world) inParts(g *group, parts int) []*group {
	split := []*group{g}
	for share := g.n / parts; share > 0 && len(split) < parts; {
		split = append(split, w.split(g, share))
	}
	return split
}

// moveSessions moves up to so many sessions of a node.
func (w *world) moveSessions(b *broker, rate int, recipients []*broker) {
	for _, g := range slices.Clone(w.population) {
		if g.session == b && rate > 0 {
			moved := w.split(g, rate)
			rate -= moved.n
			moved.session = recipients[w.rng.IntN(len(recipients))]
		}
	}
	w.merge()
}

// scatter is what the end of a node does to its clients and sessions: what it held in memory is gone.
func (w *world) scatter(b *broker) {
	for _, g := range w.population {
		if g.node == b {
			g.node, g.backAt, g.evicted = nil, w.now().Add(time.Second), false
		}
		if g.session == b {
			g.session = nil
		}
	}
	w.merge()
}

// depart has some clients leave for good, with their sessions left behind.
func (w *world) depart() bool {
	for _, g := range w.population {
		if g.node != nil && g.n > 0 {
			departed := w.split(g, 1+w.rng.IntN(max(1, g.n/10)))
			w.note("%d clients leave on their own", departed.n)
			departed.gone, departed.node, departed.evicted = true, nil, false
			w.truth.departed += departed.n
			w.merge()
			return true
		}
	}
	return false
}
