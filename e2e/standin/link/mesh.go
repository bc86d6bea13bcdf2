package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sort"
	"sync"
	"time"
)

// Errors a caller may branch on.
var (
	// ErrPeerDown is returned when there is no connection to the node, or it ended before the reply.
	ErrPeerDown = errors.New("node is down")
	// ErrQueueFull is returned when the node has not taken what was sent to it for so long that its queue is full.
	ErrQueueFull = errors.New("queue to the node is full")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("mesh is closed")
)

// RemoteError is an error that the handler of a call returned on the other node.
type RemoteError struct {
	Node  string // who returned it
	Topic string // what was called
	Text  string // the error's text
}

// Error gives the other node's text.
func (e *RemoteError) Error() string { return e.Text }

// Handler is called with what happens in the mesh. All methods may be called from several goroutines, but for one peer,
// Up, its casts and Down come one after the other, in the order in which they happened.
type Handler interface {
	// Admit reports whether the node may hold a lasting connection, that is whether it is a member.
	Admit(node string) bool
	// Up is called when the connection stands, before anything from the node is delivered.
	Up(node string, incarnation int64)
	// Down is called when the connection has ended.
	Down(node string, incarnation int64, reason error)
	// Cast delivers a message. It must not block: until it returns nothing else is read from that node.
	Cast(node, topic string, body []byte)
	// Call answers a request, in a goroutine of its own. member is false for a node that only asks.
	Call(ctx context.Context, node string, member bool, topic string, body []byte) ([]byte, error)
}

// Config is what a Mesh needs. All fields are required unless a default is given.
type Config struct {
	Self        string // this node's name
	Incarnation int64  // tells this run of the node from others; unix nanoseconds of its start
	Cookie      string // the shared secret
	Listener    net.Listener
	Handler     Handler
	// Resolve gives host:port of a node's link listener.
	Resolve func(ctx context.Context, node string) (string, error)
	// Heartbeat is the pause between two signs of life; a node that is silent for three is not responsive. Default 500 ms.
	Heartbeat time.Duration
	// PeerTimeout is how long a silent node stays connected. Default 144 s, as recorded.
	PeerTimeout time.Duration
	// Heal is how long a node that was silent for too long and gives signs of life again is kept out. Default 15 s.
	Heal time.Duration
	// Redial is the pause between two attempts to reach a member. Default 500 ms.
	Redial time.Duration
	// DialTimeout bounds one attempt, handshake included. Default 3 s.
	DialTimeout time.Duration
	// QueueBytes bounds what is held for one node. At the bound droppable casts are dropped; at twice the bound the
	// connection is ended. Default 64 MiB.
	QueueBytes int
	Log        *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Heartbeat = cmp.Or(c.Heartbeat, 500*time.Millisecond)
	c.PeerTimeout = cmp.Or(c.PeerTimeout, 144*time.Second)
	c.Heal = cmp.Or(c.Heal, 15*time.Second)
	c.Redial = cmp.Or(c.Redial, 500*time.Millisecond)
	c.DialTimeout = cmp.Or(c.DialTimeout, 3*time.Second)
	c.QueueBytes = cmp.Or(c.QueueBytes, 64<<20)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Mesh holds one connection to every member that can be reached.
type Mesh struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	wanted  map[string]context.CancelFunc // members we keep dialling
	dialing map[string]bool
	peers   map[string]*peer
	asking  map[*wire]struct{}
	silent  map[string]time.Time // given up for their silence; when they were heard again, zero before
	closed  bool
}

// New makes a mesh on cfg.Listener, which it owns from then on. It can ask, but answers nobody before Start.
func New(cfg Config) *Mesh {
	ctx, cancel := context.WithCancel(context.Background())
	return &Mesh{
		cfg: cfg.withDefaults(), ctx: ctx, cancel: cancel,
		wanted: map[string]context.CancelFunc{}, dialing: map[string]bool{},
		peers: map[string]*peer{}, asking: map[*wire]struct{}{}, silent: map[string]time.Time{},
	}
}

// Start begins to answer other nodes. It is called once.
func (m *Mesh) Start() {
	m.wg.Add(2)
	go m.acceptLoop()
	go m.heartbeatLoop()
}

// Follow sets whom the mesh keeps a connection with; connections to anybody else are ended.
func (m *Mesh) Follow(nodes []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	keep := map[string]bool{}
	for _, node := range nodes {
		if node == m.cfg.Self {
			continue
		}
		keep[node] = true
		if m.wanted[node] == nil {
			ctx, cancel := context.WithCancel(m.ctx)
			m.wanted[node] = cancel
			m.wg.Add(1)
			go m.keepLink(ctx, node)
		}
	}
	for node, cancel := range m.wanted {
		if keep[node] {
			continue
		}
		cancel()
		delete(m.wanted, node)
		if p := m.peers[node]; p != nil {
			p.drain() // what is queued, such as the farewell, still goes out
			m.wg.Add(1)
			go m.endDrained(p)
		}
	}
}

// endDrained closes a connection when its queue is out, or after the dial timeout when the node takes nothing.
func (m *Mesh) endDrained(p *peer) {
	defer m.wg.Done()
	timer := time.NewTimer(m.cfg.DialTimeout)
	defer timer.Stop()
	select {
	case <-p.drained:
	case <-p.ctx.Done():
	case <-timer.C:
	}
	p.fail(fmt.Errorf("no longer followed: %w", ErrPeerDown))
}

// Peers lists the nodes with a live connection, sorted.
func (m *Mesh) Peers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	nodes := make([]string, 0, len(m.peers))
	for node := range m.peers {
		nodes = append(nodes, node)
	}
	sort.Strings(nodes)
	return nodes
}

// Responsive reports whether the node is connected and gave a sign of life within three heartbeats.
func (m *Mesh) Responsive(node string) bool {
	p := m.peer(node)
	return p != nil && p.silence(time.Now()) < 3*m.cfg.Heartbeat
}

func (m *Mesh) peer(node string) *peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[node]
}

// Cast queues a message to a node and returns at once. A message that may be lost when the node takes nothing for
// long is droppable.
func (m *Mesh) Cast(node, topic string, body []byte, droppable bool) error {
	p := m.peer(node)
	if p == nil {
		return fmt.Errorf("cast %s to node %s: %w", topic, node, ErrPeerDown)
	}
	return p.enqueue(frame{kind: frameCast, topic: topic, body: body}, droppable)
}

// Call asks a connected node and waits for its reply. The error is ErrPeerDown, ctx's or a *RemoteError.
func (m *Mesh) Call(ctx context.Context, node, topic string, body []byte) ([]byte, error) {
	p := m.peer(node)
	if p == nil {
		return nil, fmt.Errorf("call %s on node %s: %w", topic, node, ErrPeerDown)
	}
	return p.call(ctx, topic, body)
}

// Ask puts one question to any node that knows the cookie, on a connection of its own.
func (m *Mesh) Ask(ctx context.Context, node, topic string, body []byte) ([]byte, error) {
	w, _, err := m.dial(ctx, node, purposeAsk)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", node, err)
	}
	defer func() { _ = w.conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = w.conn.Close() })
	defer stop()
	if err := writeFrame(w.w, frame{kind: frameCall, id: 1, topic: topic, body: body}); err != nil {
		return nil, fmt.Errorf("ask node %s: %w", node, err)
	}
	if err := w.w.Flush(); err != nil {
		return nil, fmt.Errorf("ask node %s: %w", node, err)
	}
	f, err := readFrame(w.r)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", node, errors.Join(err, context.Cause(ctx)))
	}
	if f.kind == frameFailure {
		return nil, &RemoteError{Node: node, Topic: topic, Text: string(f.body)}
	}
	return f.body, nil
}

// Close sends what is queued, as far as the nodes take it before ctx ends, and ends all connections.
func (m *Mesh) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	m.closed = true
	peers := make([]*peer, 0, len(m.peers))
	for _, p := range m.peers {
		peers = append(peers, p)
	}
	m.mu.Unlock()
	err := m.cfg.Listener.Close()
	for _, p := range peers {
		_ = p.enqueue(frame{kind: frameBye}, false)
		p.drain()
	}
	for _, p := range peers {
		select {
		case <-p.drained:
		case <-p.ctx.Done():
		case <-ctx.Done():
		}
		p.fail(ErrClosed)
	}
	m.cancel()
	m.mu.Lock()
	for w := range m.asking {
		_ = w.conn.Close()
	}
	m.mu.Unlock()
	m.wg.Wait()
	if err != nil {
		return fmt.Errorf("close the link listener: %w", err)
	}
	return nil
}
