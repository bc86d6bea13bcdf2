package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a load is made of.
type Config struct {
	// Address is the host and port that clients connect to.
	Address string
	// Clients is the number of clients.
	Clients int
	// MessagesPerSecond is how many messages are sent a second, by all clients together.
	MessagesPerSecond int
	// ConnectsPerSecond is how many clients connect a second at the start; zero means 500.
	ConnectsPerSecond int
	// ReturnDelay is how long a client that was cut off waits before it comes back; zero is up to a quarter of a second.
	ReturnDelay time.Duration
	// Prefix begins the client ids and topics, so that several loads do not meet; empty means "load".
	Prefix string
}

// Stats is how a load stands.
type Stats struct {
	// Connected is the number of clients connected now.
	Connected int
	// Away is how many of those that ever connected are not connected now, MaxAway the most there ever were.
	Away, MaxAway int
	// Disconnects is how often clients were cut off, MaxDisconnects how often the unluckiest.
	Disconnects, MaxDisconnects int64
	// SessionsLost is how often a client came back and found no session.
	SessionsLost int64
	// Acked, Received, Lost and Repeated count messages. Lost is only final after Drain.
	Acked, Received, Lost, Repeated uint64
}

// Sample is the number of connected clients at a time.
type Sample struct {
	At        time.Time `json:"at"`
	Connected int       `json:"connected"`
}

// returned notes how long a client that was cut off took to be back.
func (l *Load) returned(c *client) {
	if cutOff := c.cutOff.Swap(0); cutOff != 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.returns = append(l.returns, time.Since(time.Unix(0, cutOff)))
	}
}

// ReturnTime is how long 19 of 20 clients that were cut off took to be back, at most; zero when none was.
func (l *Load) ReturnTime() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.returns) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l.returns))
	return sorted[len(sorted)*19/20]
}

// sampleInterval is how often connected clients are counted.
const sampleInterval = 100 * time.Millisecond

// Load is a running load.
type Load struct {
	config          Config
	clients         []*client
	acked, received atomic.Uint64
	started         atomic.Int64 // Clients that have ever been up.

	mu      sync.Mutex
	returns []time.Duration // How long clients that were cut off took to be back.
	samples []Sample
	maxAway int
	quiet   bool // No new messages.

	sending sync.WaitGroup
	tasks   sync.WaitGroup
}

// New returns a load that has not begun.
func New(config Config) (*Load, error) {
	if config.Clients < 1 || config.Address == "" {
		return nil, errors.New("a load needs an address and at least one client")
	}
	if config.ConnectsPerSecond == 0 {
		config.ConnectsPerSecond = 500
	}
	if config.Prefix == "" {
		config.Prefix = "load"
	}
	l := &Load{config: config}
	for i := range config.Clients {
		l.clients = append(l.clients, &client{
			index: i, topic: fmt.Sprintf("%s/%d", config.Prefix, i), ledger: newLedger(), subscribed: make(chan struct{}),
		})
	}
	return l, nil
}

// Connect connects all clients and waits until each is subscribed. The clients live until ctx ends.
func (l *Load) Connect(ctx context.Context) error {
	pace := time.NewTicker(time.Second / time.Duration(l.config.ConnectsPerSecond))
	defer pace.Stop()
	for _, c := range l.clients {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-pace.C:
		}
		if err := l.connect(ctx, c); err != nil {
			return err
		}
	}
	for _, c := range l.clients {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.subscribed:
			l.started.Add(1)
		}
	}
	return nil
}

// Start begins to count connected clients and to send messages, until Drain or the end of ctx.
func (l *Load) Start(ctx context.Context) {
	l.tasks.Go(func() { l.sample(ctx) })
	if l.config.MessagesPerSecond > 0 {
		l.tasks.Go(func() { l.publish(ctx) })
	}
}

// publish sends to one client after the other at the set rate.
func (l *Load) publish(ctx context.Context) {
	pace := time.NewTicker(time.Second / time.Duration(l.config.MessagesPerSecond))
	defer pace.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		l.mu.Lock()
		quiet := l.quiet
		if !quiet {
			l.sending.Add(1)
		}
		l.mu.Unlock()
		if quiet {
			return
		}
		go func() {
			defer l.sending.Done()
			l.send(ctx, l.clients[i%len(l.clients)])
		}()
	}
}

func (l *Load) sample(ctx context.Context) {
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			connected := l.connectedCount()
			l.mu.Lock()
			l.samples = append(l.samples, Sample{At: now, Connected: connected})
			l.maxAway = max(l.maxAway, int(l.started.Load())-connected)
			l.mu.Unlock()
		}
	}
}

func (l *Load) connectedCount() int {
	count := 0
	for _, c := range l.clients {
		if c.connected.Load() {
			count++
		}
	}
	return count
}

// Stats counts how the load stands.
func (l *Load) Stats() Stats {
	stats := Stats{Connected: l.connectedCount(), Acked: l.acked.Load(), Received: l.received.Load()}
	stats.Away = max(0, int(l.started.Load())-stats.Connected)
	for _, c := range l.clients {
		disconnects := c.disconnects.Load()
		stats.Disconnects += disconnects
		stats.MaxDisconnects = max(stats.MaxDisconnects, disconnects)
		stats.SessionsLost += c.resets.Load()
		missing, repeated := c.ledger.count()
		stats.Lost, stats.Repeated = stats.Lost+missing, stats.Repeated+repeated
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	stats.MaxAway = max(l.maxAway, stats.Away)
	return stats
}

// Samples returns the counts of connected clients so far.
func (l *Load) Samples() []Sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.samples)
}

// Drain sends nothing new and waits until every message that was acknowledged has arrived, at most for the given time.
// It returns the final count.
func (l *Load) Drain(ctx context.Context, limit time.Duration) Stats {
	l.mu.Lock()
	l.quiet = true
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	sent := make(chan struct{})
	go func() {
		l.sending.Wait()
		close(sent)
	}()
	for {
		select {
		case <-sent:
			if stats := l.Stats(); stats.Lost == 0 {
				return stats
			}
		default:
		}
		select {
		case <-ctx.Done():
			return l.Stats()
		case <-ticker.C:
		}
	}
}
