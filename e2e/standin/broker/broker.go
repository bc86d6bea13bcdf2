package broker

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/lock"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

// topicAliasMaximum is what EMQX tells clients in CONNACK.
const topicAliasMaximum = 65535

// largestPacket is the most that MQTT allows.
const largestPacket = 268435455

// Limits is what clients that connect from now on are told, and held to.
type Limits struct {
	MaxPacketBytes uint32 // of a packet from a client; default 1 MiB
	ReceiveMaximum uint16 // default 32
	MaxQoS         byte   // 2 is not told
}

func (l Limits) withDefaults() Limits {
	if l.MaxPacketBytes == 0 {
		l.MaxPacketBytes = 1 << 20
	}
	if l.ReceiveMaximum == 0 {
		l.ReceiveMaximum = 32
	}
	return l
}

// Bus is how this node talks with the others.
type Bus interface {
	Self() string
	// Linked lists the connected nodes, whether their applications run or not.
	Linked() []string
	// Others lists the running nodes but this one.
	Others() []string
	// Responsive reports whether the node gave a sign of life lately.
	Responsive(node string) bool
	Cast(node, topic string, v any, droppable bool) error
	CastRaw(node, topic string, body []byte, droppable bool) error
	Call(ctx context.Context, node, topic string, question, answer any) error
}

// Timeouts bounds what the broker waits for. Zero values stand for the defaults.
type Timeouts struct {
	Takeover time.Duration // handing a session over between nodes; default 10 s
	Sync     time.Duration // a node's confirmation of what it was sent; default 2 s
	Lock     time.Duration // the home's answer on a client's lock; default 75 s: who has it may wait twice for a frozen member
	Member   time.Duration // a member's answer when a lock is taken or given back; default 30 s, as recorded
	Connect  time.Duration // from the opened connection to CONNECT; default 15 s
	Sweep    time.Duration // between two looks at expired sessions and delayed wills; default 500 ms
	Count    time.Duration // between two counts of the sessions for the licence; default 5 s
}

func (t Timeouts) withDefaults() Timeouts {
	t.Takeover = cmp.Or(t.Takeover, 10*time.Second)
	t.Sync = cmp.Or(t.Sync, 2*time.Second)
	t.Lock = cmp.Or(t.Lock, 75*time.Second)
	t.Member = cmp.Or(t.Member, 30*time.Second)
	t.Connect = cmp.Or(t.Connect, 15*time.Second)
	t.Sweep = cmp.Or(t.Sweep, 500*time.Millisecond)
	t.Count = cmp.Or(t.Count, 5*time.Second)
	return t
}

// claim bounds the time until a client has its session.
func (t Timeouts) claim() time.Duration { return t.Lock + t.Member + t.Takeover }

// Config is what a Broker needs.
type Config struct {
	Bus      Bus
	Timeouts Timeouts
	// SessionExpiry is how long a session of MQTT 3 with clean_session=0 is kept. Default 2 h.
	SessionExpiry time.Duration
	// Limits are the first; see SetLimits.
	Limits Limits
	// MaxSessions is how many sessions the licence allows the cluster; a client without one is refused when there are as
	// many. nil is no limit.
	MaxSessions func() int
	// RetainedFile keeps retained messages over restarts; empty: they are kept in memory only.
	RetainedFile string
	// Fresh begins without what is in the file.
	Fresh bool
	Log   *slog.Logger
}

// Broker is one node's MQTT broker. Its tables live from New to Close; clients can connect to listeners that were
// opened with Listen.
type Broker struct {
	cfg    Config
	bus    Bus
	log    *slog.Logger
	server *mqtt.Server
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// flow is held for reading from the look at the routes until the message is in every queue. Holding it for writing
	// waits for all who are in between.
	flow  sync.RWMutex
	seqMu sync.Mutex
	seq   uint64
	marks marks

	mu       sync.RWMutex
	channels map[string]*channel
	conns    map[*mqtt.Client]*channel
	closed   bool

	listenMu  sync.Mutex
	listeners map[string]*listener

	index    *mqtt.TopicsIndex // subscriptions of the sessions here, by client id
	routes   *routes
	registry *registry
	// registryOrder keeps the news about the sessions here in order on their way to other nodes.
	registryOrder sync.Mutex
	retained      *retained
	delayed       delayed
	clients       *lock.Table // client locks whose home is here
	local         *lock.Table // one connect at a time for a client id on this node
	syncs         *syncer
	ghosts        ghosts
	refusal       atomic.Pointer[Refusal]
	limits        atomic.Pointer[Limits]
	counted       atomic.Int64 // sessions of the cluster when the licence last looked
	connSeq       atomic.Uint64
	version       atomic.Int64
	metrics       Metrics
}

// Refusal makes the broker turn new connections down.
type Refusal struct {
	// ServerReference is sent to MQTT 5 clients; empty: nothing.
	ServerReference string
}

// New makes a broker without listeners.
func New(cfg Config) (*Broker, error) {
	cfg.Timeouts = cfg.Timeouts.withDefaults()
	if cfg.SessionExpiry == 0 {
		cfg.SessionExpiry = 2 * time.Hour
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &Broker{
		cfg: cfg, bus: cfg.Bus, log: cfg.Log, ctx: ctx, cancel: cancel,
		seq:      uint64(time.Now().UnixNano()), // higher than anything an earlier run of this node sent
		channels: map[string]*channel{}, conns: map[*mqtt.Client]*channel{}, listeners: map[string]*listener{},
		index: mqtt.NewTopicsIndex(), registry: newRegistry(), retained: newRetained(cfg.Log),
		clients: lock.New(), local: lock.New(),
	}
	b.SetLimits(cfg.Limits)
	if cfg.RetainedFile != "" {
		if err := b.retained.keep(cfg.RetainedFile, cfg.Fresh); err != nil {
			cancel()
			return nil, err
		}
	}
	b.routes = newRoutes(b)
	b.syncs = newSyncer(b.syncRound)
	b.server = mqtt.New(&mqtt.Options{
		Capabilities:             b.capabilities(),
		ClientNetReadBufferSize:  1 << 10,
		ClientNetWriteBufferSize: 1 << 10,
		SysTopicResendInterval:   math.MaxInt32, // EMQX's $SYS topics are not imitated
		Logger:                   slog.New(slog.DiscardHandler),
	})
	if err := b.server.AddHook(&hook{b: b}, nil); err != nil {
		cancel()
		return nil, fmt.Errorf("attach to the MQTT library: %w", err)
	}
	if err := b.server.Serve(); err != nil {
		cancel()
		return nil, fmt.Errorf("start the MQTT library: %w", err)
	}
	for topic := range b.server.Topics.Retained.GetAll() { // the library's own $SYS messages
		b.server.Topics.Retained.Delete(topic)
	}
	b.wg.Add(1)
	go b.sweepLoop()
	return b, nil
}

func (b *Broker) capabilities() *mqtt.Capabilities {
	c := mqtt.NewDefaultServerCapabilities()
	c.ReceiveMaximum = math.MaxUint16 // what is told is in OnPacketEncode, and what counts in OnPacketRead
	c.TopicAliasMaximum = topicAliasMaximum
	c.MaximumPacketSize = largestPacket
	c.MaximumClientWritesPending = 1 // deliveries do not take the library's queue
	c.MaximumMessageExpiryInterval = 0
	return c
}

// Listen opens a listener for clients. id is EMQX's, such as tcp:default; kind is tcp, ssl, ws or wss, and secure is
// what ssl and wss need.
func (b *Broker) Listen(id, kind, address string, secure *tls.Config) error {
	b.listenMu.Lock()
	defer b.listenMu.Unlock()
	if b.listeners[id] != nil {
		return fmt.Errorf("listener %s: %w", id, mqtt.ErrListenerIDExists)
	}
	config := net.ListenConfig{KeepAlive: -1} // MQTT has a keep-alive of its own, and a connection costs four system calls less.
	ln, err := config.Listen(b.ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listener %s: %w", id, err)
	}
	if kind == "ssl" || kind == "wss" {
		ln = tls.NewListener(ln, secure)
	}
	l := newListener(b, id, strings.HasPrefix(kind, "ws"), ln)
	b.listeners[id] = l
	l.serve()
	return nil
}

// Unlisten closes a listener, its clients' connections and their sessions. It does nothing when there is none.
func (b *Broker) Unlisten(id string) {
	b.listenMu.Lock()
	l := b.listeners[id]
	delete(b.listeners, id)
	b.listenMu.Unlock()
	if l != nil {
		l.close()
	}
}

// Listening reports whether the listener is open.
func (b *Broker) Listening(id string) bool {
	b.listenMu.Lock()
	defer b.listenMu.Unlock()
	return b.listeners[id] != nil
}

// Close drops all clients and ends the sessions. What was published stays queued on the bus, whose Close sends it.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closed = true
	b.delayed.stop()
	all := make([]*channel, 0, len(b.channels))
	for _, ch := range b.channels {
		all = append(all, ch)
	}
	b.mu.Unlock()
	b.listenMu.Lock()
	open := b.listeners
	b.listeners = map[string]*listener{}
	b.listenMu.Unlock()
	for _, l := range open {
		l.stopAccepting()
	}
	told := make([]<-chan struct{}, 0, len(all))
	for _, ch := range all {
		told = append(told, ch.shutDown())
	}
	b.cancel()
	for _, done := range told {
		<-done
	}
	for _, l := range open {
		l.shut()
	}
	b.wg.Wait()
	err := b.retained.close()
	if stopErr := b.server.Close(); stopErr != nil {
		err = errors.Join(err, fmt.Errorf("stop the MQTT library: %w", stopErr))
	}
	return err
}

// Refuse makes the broker turn new connections down, or take them again when r is nil.
func (b *Broker) Refuse(r *Refusal) { b.refusal.Store(r) }

// SetLimits holds clients that connect from now on to other limits.
func (b *Broker) SetLimits(l Limits) {
	l = l.withDefaults()
	b.limits.Store(&l)
}

// nextVersion orders registrations of this node; it never goes back.
func (b *Broker) nextVersion() int64 {
	for {
		last := b.version.Load()
		next := max(time.Now().UnixNano(), last+1)
		if b.version.CompareAndSwap(last, next) {
			return next
		}
	}
}

func (b *Broker) channel(id string) *channel {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.channels[id]
}

func (b *Broker) channelOf(cl *mqtt.Client) *channel {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.conns[cl]
}

// errStopping is returned to whoever asks a broker that is being closed.
var errStopping = errors.New("broker is stopping")

// retainedFor lists what a new subscription gets at once.
func (b *Broker) retainedFor(filter string) []*session.Message { return b.retained.match(filter) }
