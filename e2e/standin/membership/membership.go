package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sort"
	"sync"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/link"
)

// The topics of the membership itself; everything else goes to Apps.
const (
	topicState = "cluster.state"
	topicInfo  = "cluster.info"
	topicJoin  = "cluster.join"
)

// The two states a member is listed in.
const (
	StatusRunning = "running"
	StatusStopped = "stopped"
)

// Errors of Join and ForceLeave.
var (
	// ErrBusy is returned by a node that is itself starting or joining.
	ErrBusy = errors.New("node is busy joining")
	// ErrNotMember is returned for a name that is in no cluster with this node.
	ErrNotMember = errors.New("node_not_in_cluster")
	// ErrSelf is returned when a node is asked to force itself out.
	ErrSelf = errors.New("can't leave self")
)

// Apps is what runs on top of the membership: broker, evacuation, API. Peer methods and Cast must not block.
type Apps interface {
	PeerUp(node string)
	PeerDown(node string)
	Cast(node, topic string, body []byte)
	Call(ctx context.Context, node, topic string, body []byte) ([]byte, error)
	// Leave says that this node has been forced out and is alone: its applications must restart. It must not block.
	Leave()
}

// Config is what a Cluster needs.
type Config struct {
	Self     string
	Cookie   string
	Version  string    // of the release, told to the others
	Started  time.Time // the older of two nodes is joined by the younger
	DataDir  string    // where members are remembered; empty: not at all
	Listener net.Listener
	Resolve  func(ctx context.Context, node string) (string, error)
	Apps     Apps
	// StoppedAfter is how long a member that went down is in neither list, as recorded. Default 35 ms.
	StoppedAfter time.Duration
	// Link holds the intervals and bounds of the connections; names, listener and handler are filled in.
	Link link.Config
	Log  *slog.Logger
}

// Member is one node of the cluster as this node sees it.
type Member struct {
	Name    string
	Status  string
	Version string // of the release; empty when stopped
}

// facts is what a node tells about itself when it connects and when it changes.
type facts struct {
	Running bool   `json:"running"`
	Version string `json:"version"`
	Members table  `json:"members"`
}

// peerState is what this node knows of a connected peer.
type peerState struct {
	linked  bool
	running bool
	version string
	downAt  time.Time
}

// Cluster is one node's membership.
type Cluster struct {
	cfg  Config
	mesh *link.Mesh

	mu      sync.Mutex
	members table
	peers   map[string]*peerState
	running bool
	joining bool
	// survivors count while this node starts.
	survivors survivors
	changed   chan struct{} // closed and replaced at every change
}

// New loads the remembered membership and opens the mesh, but connects to nobody before Connect.
func New(cfg Config) (*Cluster, error) {
	if cfg.StoppedAfter == 0 {
		cfg.StoppedAfter = 35 * time.Millisecond
	}
	members, err := loadTable(cfg.DataDir, cfg.Self)
	if err != nil {
		return nil, err
	}
	last, err := loadSurvivors(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, members: members, survivors: last, peers: map[string]*peerState{}, changed: make(chan struct{})}
	lc := cfg.Link
	lc.Self, lc.Cookie, lc.Incarnation = cfg.Self, cfg.Cookie, cfg.Started.UnixNano()
	lc.Listener, lc.Resolve, lc.Handler, lc.Log = cfg.Listener, cfg.Resolve, handler{c}, cfg.Log
	c.mesh = link.New(lc)
	return c, nil
}

// Connect begins to answer other nodes and to dial the members. It is called once.
func (c *Cluster) Connect() {
	c.mesh.Start()
	c.mu.Lock()
	names := c.members.present()
	c.mu.Unlock()
	c.mesh.Follow(names)
}

// Close says goodbye, sends what is queued as far as ctx allows and ends all connections.
func (c *Cluster) Close(ctx context.Context) error { return c.mesh.Close(ctx) }

// Self is this node's name.
func (c *Cluster) Self() string { return c.cfg.Self }

// Clustered reports whether there are other members, running or not.
func (c *Cluster) Clustered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.members.present()) > 1
}

// Announce tells all members whether this node's applications run.
func (c *Cluster) Announce(running bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = running
	c.tellAllLocked()
	c.notifyLocked()
}

// Running lists the running members including this node, sorted.
func (c *Cluster) Running() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runningLocked()
}

func (c *Cluster) runningLocked() []string {
	var names []string
	for _, name := range c.members.present() {
		if c.runsLocked(name) {
			names = append(names, name)
		}
	}
	return names
}

func (c *Cluster) runsLocked(name string) bool {
	if name == c.cfg.Self {
		return c.running
	}
	p := c.peers[name]
	return p != nil && p.linked && p.running
}

// Others lists the running members without this node, sorted.
func (c *Cluster) Others() []string {
	names := c.Running()
	others := names[:0]
	for _, name := range names {
		if name != c.cfg.Self {
			others = append(others, name)
		}
	}
	return others
}

// Members lists the running members by name, then the stopped ones.
func (c *Cluster) Members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	running := c.runningLocked()
	isRunning := map[string]bool{}
	list := make([]Member, 0, len(c.members))
	for _, name := range running {
		isRunning[name] = true
		version := c.cfg.Version
		if p := c.peers[name]; p != nil && name != c.cfg.Self {
			version = p.version
		}
		list = append(list, Member{Name: name, Status: StatusRunning, Version: version})
	}
	now := time.Now()
	for _, name := range c.members.present() {
		if isRunning[name] || !c.members[name].Seen || name == c.cfg.Self {
			continue
		}
		if p := c.peers[name]; p != nil && now.Sub(p.downAt) < c.cfg.StoppedAfter {
			continue
		}
		list = append(list, Member{Name: name, Status: StatusStopped})
	}
	return list
}

// Known reports whether the name is or was a member: what EMQX calls an existing atom.
func (c *Cluster) Known(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, known := c.members[name]
	return known
}

// State tells whether a node is a member, and whether it runs.
func (c *Cluster) State(node string) (member, running bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	member = c.members[node].Present
	return member, member && c.runsLocked(node)
}

// Changed is closed at the next change of members or of what they do.
func (c *Cluster) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Responsive reports whether the node gave a sign of life lately. This node always is.
func (c *Cluster) Responsive(node string) bool {
	return node == c.cfg.Self || c.mesh.Responsive(node)
}

// Cast queues v for a node. A droppable cast is dropped when the node takes nothing for long.
func (c *Cluster) Cast(node, topic string, v any, droppable bool) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", topic, err)
	}
	return c.mesh.Cast(node, topic, body, droppable)
}

// CastRaw is Cast of something encoded already.
func (c *Cluster) CastRaw(node, topic string, body []byte, droppable bool) error {
	return c.mesh.Cast(node, topic, body, droppable)
}

// Call asks a node and decodes its answer into answer, which may be nil. Asking this node itself works the same, without
// the network.
func (c *Cluster) Call(ctx context.Context, node, topic string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("encode %s: %w", topic, err)
	}
	var reply []byte
	if node == c.cfg.Self {
		reply, err = c.cfg.Apps.Call(ctx, node, topic, body)
	} else {
		reply, err = c.mesh.Call(ctx, node, topic, body)
	}
	if err != nil {
		return err
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(reply, answer); err != nil {
		return fmt.Errorf("decode the answer of node %s to %s: %w", node, topic, err)
	}
	return nil
}

// Linked lists the connected nodes, running or not.
func (c *Cluster) Linked() []string { return c.mesh.Peers() }

// WaitAnswering waits until every member that can be reached is connected, or ctx ends. A member that refuses the
// connection outright, as a stopped one does, is not waited for.
func (c *Cluster) WaitAnswering(ctx context.Context) error {
	var wg sync.WaitGroup
	var missing sync.Map
	for _, name := range c.others() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := c.Ask(ctx, name); err != nil && ctx.Err() == nil {
				return
			}
			if err := c.waitLinked(ctx, name); err != nil {
				missing.Store(name, err)
			}
		}()
	}
	wg.Wait()
	var errs []error
	missing.Range(func(_, err any) bool {
		errs = append(errs, err.(error))
		return true
	})
	return errors.Join(errs...)
}

func (c *Cluster) waitLinked(ctx context.Context, node string) error {
	for {
		c.mu.Lock()
		changed := c.changed
		p := c.peers[node]
		linked := p != nil && p.linked
		c.mu.Unlock()
		if linked {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", node, context.Cause(ctx))
		}
	}
}

func (c *Cluster) tellAllLocked() {
	body, err := json.Marshal(facts{Running: c.running, Version: c.cfg.Version, Members: c.members})
	if err != nil {
		c.cfg.Log.Error("encode the membership", "error", err)
		return
	}
	for name, p := range c.peers {
		if p.linked {
			_ = c.mesh.Cast(name, topicState, body, false) // a peer that went down hears it when it is back
		}
	}
}

func (c *Cluster) notifyLocked() {
	c.survivorsLocked()
	close(c.changed)
	c.changed = make(chan struct{})
}

// updateLocked stores the membership, follows it and tells the others.
func (c *Cluster) updateLocked() {
	if err := c.members.save(c.cfg.DataDir); err != nil {
		c.cfg.Log.Error("remember the members", "error", err)
	}
	c.tellAllLocked()
	c.mesh.Follow(c.members.present())
	c.notifyLocked()
}

func sorted(names []string) []string {
	out := append([]string(nil), names...)
	sort.Strings(out)
	return out
}
