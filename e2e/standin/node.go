package standin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/api"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/licence"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/membership"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/storage"
)

// askTimeout bounds the question a node puts to another one before it joins.
const askTimeout = 3 * time.Second

// busyRetry is the pause when the node to join is itself joining.
const busyRetry = 300 * time.Millisecond

// fetchTimeout bounds how long a joining node asks for what it cannot do without.
const fetchTimeout = 30 * time.Second

// behindPoll is the pause between two looks whether a node that waits for others is still a member, and has to wait.
const behindPoll = 100 * time.Millisecond

// Node is one EMQX node.
type Node struct {
	cfg        Config
	log        *slog.Logger
	started    time.Time
	licence    *licence.Licence
	keys       *api.Keys
	store      *api.Store
	secure     *tls.Config
	membership *membership.Cluster
	storage    *storage.Service
	apps       atomic.Pointer[apps]
	leave      chan struct{}
	busy       bool // the node that was to be joined was itself joining
}

// ErrForgotten is why a node does not start with the data of a member that was made to leave while it was down.
var ErrForgotten = errors.New("failed to merge schema: the cluster has forgotten this node, whose data directory must be emptied")

// New checks the configuration. Nothing is opened before Run.
func New(cfg Config) (*Node, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Log, leave: make(chan struct{}, 1)}
	if n.store, err = api.NewStore(cfg.Layers, cfg.DataDir); err != nil {
		return nil, err
	}
	n.licence = licence.New(n.store.Effective().Text("default", "license", "key"), n.old())
	if n.secure, err = selfSigned(cfg.Address); err != nil {
		return nil, err
	}
	if n.keys, err = api.NewKeys(n.cfg.table("api_keys.json"), n.cfg.Version, n.tellKey); err != nil {
		return nil, err
	}
	return n, nil
}

// Name is the node's name.
func (n *Node) Name() string { return n.cfg.Name }

func (n *Node) old() bool { return strings.HasPrefix(n.cfg.Version, "5.8.") }

// Run boots the node, finds its cluster, serves, and stops in good order when ctx ends; then it returns nil, otherwise why
// the node could not go on.
func (n *Node) Run(ctx context.Context) error {
	n.started = time.Now()
	if !pause(ctx, n.cfg.Timing.Boot) {
		return nil
	}
	if err := n.boot(ctx); err != nil {
		return errors.Join(err, n.halt())
	}
	if err := n.serve(ctx); err != nil {
		return errors.Join(err, n.halt())
	}
	return n.halt()
}

// boot opens the node: alone at first, or with the members it remembers.
func (n *Node) boot(ctx context.Context) error {
	ln, err := net.Listen("tcp", net.JoinHostPort(n.cfg.Address, LinkPort))
	if err != nil {
		return fmt.Errorf("listen for other nodes: %w", err)
	}
	n.membership, err = membership.New(membership.Config{
		Self: n.cfg.Name, Cookie: n.cfg.Cookie, Version: n.cfg.Version, Started: n.started,
		DataDir:  n.cfg.table(""),
		Listener: ln, Resolve: n.cfg.Resolver.Node, Apps: n, Link: n.cfg.Link, Log: n.log,
	})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	if n.storage, err = n.newStorage(); err != nil {
		return err
	}
	a, err := n.newApps(false)
	if err != nil {
		return err
	}
	n.apps.Store(a)
	n.readKeys()
	n.membership.Connect()
	known := n.membership.Clustered()
	if known {
		if err := n.rejoin(ctx); err != nil {
			return err
		}
		if !pause(ctx, 0) {
			return nil
		}
	}
	if err := n.storage.Claim(); err != nil {
		return err
	}
	n.membership.Announce(true)
	if err := n.licensed(ctx); err != nil {
		return err
	}
	if err := n.open(a); err != nil {
		return err
	}
	n.log.Info("EMQX stand-in is running now!", "node", n.cfg.Name, "version", n.cfg.Version)
	if pause(ctx, n.cfg.Timing.Routes) {
		a.api.Ready()
	}
	return nil
}

// readKeys adds the keys of the file. A file that cannot be read is logged, and the node goes on without its keys.
func (n *Node) readKeys() {
	n.readKeyFile(n.cfg.KeyFile)
	for _, line := range n.cfg.KeyLines {
		if err := n.keys.PutLine(line); err != nil {
			n.log.Error("API key", "error", err)
		}
	}
}

// readKeyFile reads a file of keys, if there is one.
func (n *Node) readKeyFile(file string) {
	if file == "" {
		return
	}
	if err := n.keys.Bootstrap(file); err != nil {
		n.log.Error("API keys", "error", err)
	}
}

// reloadKeys is what a change of the root api_key does, on each node: it reads the file that the configuration names, and the keys in
// it overwrite those that all nodes have. On a node without that file nothing happens.
func (n *Node) reloadKeys(tree settings.Tree) {
	file := n.cfg.KeyFile
	if n.cfg.Root != "" {
		file = n.cfg.inPod(tree.Text("", "api_key", "bootstrap_file"))
	}
	n.readKeyFile(file)
}

// rejoin connects a known member with those of the others that run, before it takes clients. While one that ran longer than
// this node is away, and none of those runs, the node waits without opening a port.
func (n *Node) rejoin(ctx context.Context) error {
	for waiting := false; ; waiting = true {
		if n.expelled(ctx) {
			return ErrForgotten
		}
		if !n.membership.Behind() {
			break
		}
		if !waiting {
			n.log.Warn("waiting for nodes that ran when this one had stopped")
		}
		if !pause(ctx, behindPoll) {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.Rejoin)
	defer cancel()
	if err := n.membership.WaitAnswering(ctx); err != nil {
		n.log.Warn("not all members answer", "error", err)
	}
	n.copyConfiguration(ctx)
	return nil
}

func (n *Node) expelled(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.Rejoin)
	defer cancel()
	return n.membership.Expelled(ctx)
}

// copyConfiguration takes over what the cluster has changed, before the applications start with it.
func (n *Node) copyConfiguration(ctx context.Context) {
	node := n.membership.Company(ctx)
	if node == "" {
		return
	}
	var change api.Change
	err := n.membership.Call(ctx, node, topicConfig, struct{}{}, &change)
	if err == nil {
		err = n.apps.Load().api.Learn(change)
	}
	if err != nil {
		n.log.Warn("configuration of the cluster", "node", node, "error", err)
	}
}

// licensed is what EMQX checks when its application of the licence starts: after the node counts as running, and only
// then, so that the node may have been given its licence by the others. A node that has been alone goes on.
func (n *Node) licensed(ctx context.Context) error {
	if n.licence.Clusters() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.Rejoin)
	defer cancel()
	if n.membership.Company(ctx) == "" {
		return nil
	}
	return licence.ErrSingleNode
}

// serve looks for the cluster until the node is in it, and obeys when it is forced out.
func (n *Node) serve(ctx context.Context) error {
	timer := time.NewTimer(n.cfg.Timing.Autocluster)
	defer timer.Stop()
	search := n.cfg.Discover != nil
	for {
		var due <-chan time.Time
		if search {
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.leave:
			search = false // as in EMQX, only the next start looks for a cluster again
			if err := n.restart(ctx, n.alone); err != nil {
				return err
			}
		case <-due:
			done, err := n.search(ctx)
			if err != nil {
				return err
			}
			search = !done
			timer.Reset(n.cfg.Timing.Retry)
			if n.busy {
				timer.Reset(busyRetry)
			}
		}
	}
}

// search is one look for other nodes. It reports true when no more are needed.
func (n *Node) search(ctx context.Context) (bool, error) {
	choice, err := n.membership.Choose(ctx, n.cfg.Discover, askTimeout)
	if err != nil {
		n.log.Warn("autocluster", "error", err)
		return false, nil
	}
	if choice.Target == "" {
		return choice.Complete, nil
	}
	members, err := n.membership.RequestJoin(ctx, choice.Target)
	n.busy = errors.Is(err, membership.ErrBusy)
	if err != nil {
		n.log.Warn("autocluster", "error", err)
		return false, nil
	}
	defer n.membership.Joined()
	n.log.Info("joining", "node", choice.Target)
	err = n.restart(ctx, func() error {
		n.storage.Reset()
		n.membership.Adopt(members)
		linkCtx, cancel := context.WithTimeout(ctx, n.cfg.Timing.Rejoin)
		defer cancel()
		if err := n.membership.WaitAnswering(linkCtx); err != nil {
			n.log.Warn("not all members answer", "error", err)
		}
		n.copyConfiguration(linkCtx)
		return n.joinStorage(ctx, choice.Target)
	})
	return false, err
}

// joinStorage enters durable storage as the cluster has it.
func (n *Node) joinStorage(ctx context.Context, member string) error {
	if !n.storage.Enabled() {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	for {
		err := n.storage.Fetch(limited, member)
		if err == nil {
			return n.storage.Claim()
		}
		if !pause(limited, busyRetry) {
			if ctx.Err() != nil {
				return nil // the node is told to stop
			}
			return err
		}
	}
}

// alone makes the node one that is in no cluster.
func (n *Node) alone() error {
	n.membership.Abandon()
	n.storage.Reset()
	return n.storage.Claim()
}

// restart stops the applications, lets between do its work, and starts them afresh: clients are dropped, listeners
// and API are closed for a while, and what was stored here is gone.
func (n *Node) restart(ctx context.Context, between func() error) error {
	begun := time.Now()
	n.membership.Announce(false)
	if err := n.apps.Load().close(); err != nil {
		n.log.Error("stop the applications", "error", err)
	}
	a, err := n.newApps(true)
	if err != nil {
		return err
	}
	n.apps.Store(a)
	if err := between(); err != nil {
		return err
	}
	// As recorded, the others see the node running after three fifths of the time, and it serves at the end.
	if !pause(ctx, n.cfg.Timing.Restart*3/5-time.Since(begun)) {
		return nil
	}
	n.membership.Announce(true)
	if err := n.licensed(ctx); err != nil {
		return err
	}
	if !pause(ctx, n.cfg.Timing.Restart-time.Since(begun)) {
		return nil
	}
	a.api.Ready()
	return n.open(a)
}

// halt stops the node in good order: nobody new, clients dropped, queues sent out.
func (n *Node) halt() error {
	if n.membership == nil {
		return nil
	}
	n.membership.Announce(false)
	if n.storage != nil {
		n.storage.Close()
	}
	var err error
	if a := n.apps.Load(); a != nil {
		err = a.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.Timing.Stop)
	defer cancel()
	return errors.Join(err, n.membership.Close(ctx))
}

func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
