package nodes

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/evacuate"
)

// Cluster is one EMQX cluster.
type Cluster struct {
	fleet *Fleet

	mu      sync.Mutex
	wanted  int
	keys    map[string]string
	members map[string]*Node
	doors   []string
	next    int
	// away are the clients that were cut off, by when they come back; those of a cluster that has just been made have yet to
	// come for the first time.
	away []absence
	came bool
}

// absence is clients that were cut off together.
type absence struct {
	until time.Time
	count int
	// from is the node that they were at; nil for clients that come for the first time.
	from *Node
}

// Node is one EMQX node. What changes of it is guarded by its cluster's lock.
type Node struct {
	cluster *Cluster
	name    string
	version string
	started time.Time
	server  *http.Server
	mark    atomic.Int64

	running  bool
	refuses  bool
	live     int
	sessions int
	machine  evacuate.Machine
}

// Start starts a node on an address, as a member of the cluster. The keys are those of its file of API keys: secrets by key.
func (c *Cluster) Start(name, address, version string, keys map[string]string) (*Node, error) {
	n := &Node{cluster: c, name: name, version: version, started: time.Now(), running: true}
	n.mark.Store(-1)
	if err := n.listen(address); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys = keys
	c.members[name] = n
	return n, nil
}

// Stop ends a node as Kubernetes does. It stays a member of the cluster, stopped.
func (n *Node) Stop() {
	c := n.cluster
	c.mu.Lock()
	was := n.running
	n.running = false
	c.cutOff(n, n.live)
	n.live, n.sessions = 0, 0
	c.mu.Unlock()
	if was {
		_ = n.server.Close() // It has gone, whatever that says.
	}
}

// Lead says which nodes the listeners Service leads clients to, by name.
func (c *Cluster) Lead(doors []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doors = doors
	if !c.came && len(doors) > 0 {
		c.came = true
		c.away = append(c.away, absence{until: time.Now(), count: c.wanted})
	}
}

// Clients is how many clients are connected, and how many are away.
func (c *Cluster) Clients() (connected, away int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.members {
		connected += n.live
	}
	for _, a := range c.away {
		away += a.count
	}
	return connected, away
}

// nodes are those that run.
func (c *Cluster) nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runningNodes()
}

func (c *Cluster) runningNodes() []*Node {
	var running []*Node
	for _, name := range c.names() {
		running = append(running, c.members[name])
	}
	return running
}

// names are those of the nodes that run, in order.
func (c *Cluster) names() []string {
	var names []string
	for name, n := range c.members {
		if n.running {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// cutOff has clients of a node come back later. The caller holds the lock.
func (c *Cluster) cutOff(n *Node, count int) {
	if count > 0 {
		c.away = append(c.away, absence{until: time.Now().Add(c.fleet.config.Return), count: count, from: n})
	}
}

// tick lets evacuations go on and clients come back, and lets some come and go.
func (c *Cluster) tick(move bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.members {
		if due := n.machine.Due(); n.running && !due.IsZero() {
			n.machine.Step(time.Now, world{n})
		}
	}
	c.comeBack()
	if move {
		c.comeAndGo()
	}
}

// open are the nodes that take clients.
func (c *Cluster) open() []*Node {
	var open []*Node
	for _, name := range c.doors {
		if n := c.members[name]; n != nil && n.running && !n.refuses {
			open = append(open, n)
		}
	}
	return open
}

func (c *Cluster) comeBack() {
	open := c.open()
	if len(open) == 0 {
		return
	}
	now := time.Now()
	c.away = slices.DeleteFunc(c.away, func(a absence) bool {
		if now.Before(a.until) {
			return false
		}
		for range a.count {
			n := open[c.next%len(open)]
			c.next++
			n.live++
			n.sessions++
		}
		c.takeOver(a)
		return true
	})
}

// takeOver ends the sessions that clients which are back had before, wherever these are by now.
func (c *Cluster) takeOver(a absence) {
	left := a.count
	for _, n := range append([]*Node{a.from}, c.runningNodes()...) {
		if n == nil || left == 0 {
			continue
		}
		taken := min(left, max(0, n.sessions-n.live))
		n.sessions -= taken
		left -= taken
	}
}

// comeAndGo has up to one client in three hundred come to or go from a node a second, so that there are always about as many as there
// should be.
func (c *Cluster) comeAndGo() {
	open := c.open()
	if len(open) == 0 {
		return
	}
	total := 0
	for _, n := range c.members {
		total += n.live
	}
	for _, a := range c.away {
		total += a.count
	}
	n := open[rand.IntN(len(open))] //nolint:gosec // A lot, no secret.
	step := max(1, c.wanted/300)
	change := rand.IntN(2*step+1) - step //nolint:gosec // A lot, no secret.
	if far := total - c.wanted; far > step && change > 0 || far < -step && change < 0 {
		change = -change
	}
	change = max(change, -n.live)
	n.live += change
	n.sessions += change
}

// world is a node as its evacuation sees it. Its methods are called with the lock held.
type world struct{ *Node }

// Live is the number of clients.
func (w world) Live() int { return w.live }

// Sessions is the number of sessions.
func (w world) Sessions() int { return w.sessions }

// Admit lets clients in.
func (w world) Admit() { w.refuses = false }

// Refuse turns clients away.
func (w world) Refuse(string) { w.refuses = true }

// EvictConnections cuts clients off.
func (w world) EvictConnections(n int, _ string) {
	n = min(n, w.live)
	w.live -= n
	w.cluster.cutOff(w.Node, n)
}

// Recipients are those that can take sessions.
func (w world) Recipients(migrateTo []string) []string {
	candidates := w.cluster.names()
	if migrateTo != nil {
		candidates = slices.Clone(migrateTo)
		slices.Reverse(candidates)
	}
	recipients := []string{}
	for _, name := range candidates {
		if n := w.cluster.members[name]; name != w.name && n != nil && n.available() {
			recipients = append(recipients, name)
		}
	}
	return recipients
}

// MoveSessions moves sessions to the recipients.
func (w world) MoveSessions(n int, recipients []string) {
	n = min(n, w.sessions)
	w.sessions -= n
	for i := range n {
		w.cluster.members[recipients[i%len(recipients)]].sessions++
	}
}

// available reports whether the node runs and is not being evacuated.
func (n *Node) available() bool { return n.running && n.machine.State() == evacuate.Disabled }

// Name is the node's name.
func (n *Node) Name() string { return n.name }
