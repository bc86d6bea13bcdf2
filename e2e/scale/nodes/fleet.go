package nodes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// Port is where a node's management API listens: that of EMQX's dashboard.
const Port = 18083

// Config says what the clients of each cluster are like.
type Config struct {
	// Clients is how many a cluster has, give or take those that come and go.
	Clients int
	// Return is how long a client that was cut off takes to come back.
	Return time.Duration
	// Still has no client come or go by itself.
	Still bool
}

// Fleet is all nodes of all clusters.
type Fleet struct {
	config    Config
	listeners []settings.Listener
	routes    []route

	mu       sync.Mutex
	clusters map[string]*Cluster
	order    []*Cluster // As they were made.

	requests  atomic.Int64
	mark      atomic.Int64 // Counts the calls of Mark.
	seen      atomic.Int64
	seenAt    atomic.Int64
	operation sync.Map // Counts by operation, *atomic.Int64.
}

// NewFleet returns a fleet without nodes.
func NewFleet(config Config) (*Fleet, error) {
	layers, err := settings.Load(settings.Source{})
	if err != nil {
		return nil, fmt.Errorf("read EMQX's default configuration: %w", err)
	}
	return &Fleet{config: config, listeners: layers.Effective(nil).Listeners(), routes: routes(), clusters: map[string]*Cluster{}}, nil
}

// Cluster returns the cluster of a name, and makes it when there is none.
func (f *Fleet) Cluster(name string) *Cluster {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.clusters[name]
	if c == nil {
		c = &Cluster{fleet: f, wanted: f.config.Clients, members: map[string]*Node{}}
		f.clusters[name] = c
		f.order = append(f.order, c)
	}
	return c
}

func (f *Fleet) all() []*Cluster {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.order)
}

// Beat is how often evacuations and clients go on.
const beat = 100 * time.Millisecond

// Run lets evacuations and clients go on until ctx ends.
func (f *Fleet) Run(ctx context.Context) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for i, c := range f.all() {
			// Each cluster's clients move once a second, a tenth of the clusters at each beat.
			c.tick(!f.config.Still && (i+turn)%int(time.Second/beat) == 0)
		}
	}
}

// Close ends all nodes.
func (f *Fleet) Close() {
	for _, c := range f.all() {
		for _, n := range c.nodes() {
			n.Stop()
		}
	}
}

// Running is how many nodes run.
func (f *Fleet) Running() int {
	running := 0
	for _, c := range f.all() {
		running += len(c.nodes())
	}
	return running
}

// Requests is how many requests all nodes were asked so far.
func (f *Fleet) Requests() int64 { return f.requests.Load() }

// Operations is how many requests of each kind there were so far.
func (f *Fleet) Operations() map[string]int64 {
	counts := map[string]int64{}
	f.operation.Range(func(name, count any) bool {
		counts[name.(string)] = count.(*atomic.Int64).Load()
		return true
	})
	return counts
}

// Mark forgets which nodes were told about: Seen counts anew.
func (f *Fleet) Mark() {
	f.seen.Store(0)
	f.seenAt.Store(0)
	f.mark.Add(1)
}

// Seen is how many nodes somebody with the API key was told about since Mark, what they are like and how many clients they have,
// and when the last of them was for the first time.
func (f *Fleet) Seen() (int, time.Time) {
	return int(f.seen.Load()), time.Unix(0, f.seenAt.Load())
}

func (f *Fleet) count(operation string) {
	f.requests.Add(1)
	counter, ok := f.operation.Load(operation)
	if !ok {
		counter, _ = f.operation.LoadOrStore(operation, &atomic.Int64{})
	}
	counter.(*atomic.Int64).Add(1)
}

// told notes that somebody was told about a node.
func (f *Fleet) told(n *Node) {
	mark := f.mark.Load()
	if n.mark.Swap(mark) != mark {
		f.seenAt.Store(time.Now().UnixNano())
		f.seen.Add(1)
	}
}

// listen serves a node's API on its address.
func (n *Node) listen(address string) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(Port)))
	if err != nil {
		return fmt.Errorf("listen for node %s: %w", n.name, err)
	}
	n.server = &http.Server{Handler: n, ReadHeaderTimeout: 15 * time.Second}
	go func() {
		if err := n.server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			panic(fmt.Sprintf("the fake of node %s cannot serve: %v", n.name, err)) // No figure would be true.
		}
	}()
	return nil
}
