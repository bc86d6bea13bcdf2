package upgrade

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// simNode is a node of the simulated EMQX.
type simNode struct {
	name, ip string
	bootAt   time.Time // When its API answers; it joins the cluster a second later.
	joined   bool
	frozen   time.Time // Until when it is frozen.
	dead     bool
	diedAt   time.Time
	evac     *simEvacuation
	served   bool           // It ever had a client: the truth, whatever was noted.
	stored   *simEvacuation // What its disk remembers over a restart of its container.
}

type simEvacuation struct {
	state            emqx.State
	conn, sess       int32
	waitTakeover     time.Duration
	recipients       []string // Empty after a restart: the broker does not store them.
	until, nextTick  time.Time
	initial, initSes int32
}

// simClient is an MQTT client with a persistent session.
type simClient struct {
	node    *simNode // Where it is connected; nil while it is away.
	session *simNode // Where its session is; nil when it has none.
	backAt  time.Time
	gone    bool // It left on its own.
	moved   int  // How often its session was taken over.
	evicted bool // It is away because the broker told it to go.
}

func (n *simNode) up(now time.Time) bool { return !n.dead && !now.Before(n.bootAt) }

func (n *simNode) refuses() bool { return n.evac != nil }

func (w *simWorld) live(n *simNode) (count int64) {
	for _, c := range w.clients {
		if c.node == n {
			count++
		}
	}
	return count
}

func (w *simWorld) sessions(n *simNode) (count int64) {
	for _, c := range w.clients {
		if c.session == n {
			count++
		}
	}
	return count
}

// tickEMQX lets the brokers and the clients do what they do.
func (w *simWorld) tickEMQX() {
	for _, n := range w.nodes {
		alone := len(w.members) == 0 && *w.template.Spec.CoreTemplate.Spec.Replicas == 1
		if n.up(w.now()) && !n.joined && (alone || !w.now().Before(n.bootAt.Add(time.Second))) {
			n.joined = true
			w.members[n.name] = true
			if n.stored != nil {
				restored := *n.stored
				restored.state, restored.recipients, restored.nextTick = emqx.StateEvictingConns, nil, w.now()
				n.evac = &restored
			}
		}
		if n.evac != nil && n.joined && !n.dead && !w.now().Before(n.frozen) {
			if n.evac.state == emqx.StateEvictingConns && w.now().Sub(n.frozen) < simTick {
				w.excused += int(n.evac.conn) // It thaws, and evicts before anybody can tell it otherwise.
			}
			w.tickEvacuation(n)
		}
	}
	for _, c := range w.clients {
		if c.node == nil && !c.gone && !w.now().Before(c.backAt) {
			w.connect(c)
		}
	}
}

// readPassword is what a node does when it starts: it tells the whole cluster the API keys of the Secret.
func (w *simWorld) readPassword() {
	if password, exists := w.secretPassword(); exists {
		w.password = password
	}
}

// secretPassword is what the Secret of the API keys holds for the operator; false when there is no Secret.
func (w *simWorld) secretPassword() (string, bool) {
	object, err := w.kube.Tracker().Get(secretsResource, simNamespace, w.template.BootstrapAPIKeySecretName())
	if err != nil {
		return "", false
	}
	return resources.OperatorSecret(string(object.(*corev1.Secret).Data[resources.BootstrapAPIKeyKey]))
}

func (w *simWorld) tickEvacuation(n *simNode) {
	e := n.evac
	switch e.state {
	case emqx.StateWaitingHealthCheck:
		e.state, e.nextTick = emqx.StateEvictingConns, w.now()
	case emqx.StateEvictingConns:
		if w.now().Before(e.nextTick) {
			return
		}
		e.nextTick = w.now().Add(time.Second)
		if w.live(n) == 0 {
			e.state, e.until = emqx.StateWaitingTakeover, w.now().Add(e.waitTakeover)
			return
		}
		w.evict(n, int(e.conn))
	case emqx.StateWaitingTakeover:
		if !w.now().Before(e.until) {
			e.state, e.nextTick = emqx.StateEvictingSessions, w.now()
		}
	case emqx.StateEvictingSessions:
		if w.now().Before(e.nextTick) {
			return
		}
		e.nextTick = w.now().Add(time.Second)
		w.moveSessions(n, e)
	case emqx.StateProhibiting:
	}
}

func (w *simWorld) evict(n *simNode, rate int) {
	for _, c := range w.clients {
		if c.node == n && rate > 0 {
			c.node, c.backAt = nil, w.now().Add(time.Duration(w.rng.Int64N(int64(w.slowest))))
			c.evicted = true
			rate--
		}
	}
}

func (w *simWorld) moveSessions(n *simNode, e *simEvacuation) {
	if w.sessions(n) == 0 {
		e.state = emqx.StateProhibiting
		return
	}
	recipients := w.available(n, e)
	if len(recipients) == 0 {
		e.nextTick = w.now().Add(30 * time.Second)
		return
	}
	moved := int32(0)
	for _, c := range w.clients {
		if c.session == n && moved < e.sess {
			c.session = recipients[w.rng.IntN(len(recipients))]
			moved++
		}
	}
}

// available are the recipients of an evacuation that can take sessions now.
func (w *simWorld) available(n *simNode, e *simEvacuation) []*simNode {
	var nodes []*simNode
	for _, other := range w.nodes {
		named := len(e.recipients) == 0 || slices.Contains(e.recipients, other.name)
		if other != n && named && other.joined && !other.dead && !other.refuses() && !w.now().Before(other.frozen) {
			nodes = append(nodes, other)
		}
	}
	return nodes
}

// connect has a client come back through the listeners Service. Its session is taken over from where it was.
func (w *simWorld) connect(c *simClient) {
	c.backAt = w.now().Add(500 * time.Millisecond)
	node := w.nodes[w.pick()]
	if node == nil || !node.joined || node.dead || node.refuses() || w.now().Before(node.frozen) {
		return
	}
	if c.session != nil && !c.session.dead && w.now().Before(c.session.frozen) {
		return // The old node does not answer: the broker lets the client wait.
	}
	if c.session != nil && c.session != node {
		c.moved++
	}
	c.node, c.session, c.evicted = node, node, false
	node.served = true
}

// kill ends a node's process. What it held in memory is gone.
func (w *simWorld) kill(n *simNode) {
	n.dead, n.diedAt, n.joined = true, w.now(), false
	for _, c := range w.clients {
		if c.node == n {
			c.node, c.backAt, c.evicted = nil, w.now().Add(time.Second), false
		}
		if c.session == n {
			c.session = nil
		}
	}
}

// The simulated EMQX as the driver sees it.

// reach is a request that reaches a node, with an API key that the cluster knows.
func (w *simWorld) reach(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (*simNode, error) {
	n, err := w.connectTo(ctx, node)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if credentials.Secret != w.password {
		return nil, fmt.Errorf("%w: simulated", emqx.ErrUnauthorized)
	}
	return n, nil
}

// connectTo is a request that reaches a node.
func (w *simWorld) connectTo(ctx context.Context, node emqx.Node) (*simNode, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests["emqx"]++
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if w.operator.dead {
		return nil, fmt.Errorf("%w: the operator is dead", emqx.ErrSilent)
	}
	n := w.byURL(node.URL)
	if n == nil || !n.up(w.now()) {
		return nil, fmt.Errorf("%w: connection refused", emqx.ErrSilent)
	}
	if frozen := n.frozen.Sub(w.now()); frozen > 0 {
		w.mu.Unlock()
		timer := time.NewTimer(min(frozen, 4*time.Second))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		w.mu.Lock()
		if w.now().Before(n.frozen) || ctx.Err() != nil {
			return nil, fmt.Errorf("%w: no answer in time", emqx.ErrSilent)
		}
	}
	if n.dead {
		return nil, fmt.Errorf("%w: connection reset", emqx.ErrSilent)
	}
	return n, nil
}

func (w *simWorld) byURL(url string) *simNode {
	for _, n := range w.nodes {
		if !n.dead && strings.Contains(url, "//"+n.ip+":") {
			return n
		}
	}
	return nil
}

type simAPI struct{ w *simWorld }

func (a simAPI) Info(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (emqx.NodeInfo, error) {
	n, err := a.w.reach(ctx, node, credentials)
	if err != nil {
		return emqx.NodeInfo{}, err
	}
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	return emqx.NodeInfo{
		Node: n.name, Status: "running", Role: "core", Version: "6.0.1",
		Connections:     emqx.Count{Value: a.w.sessions(n), Known: true},
		LiveConnections: emqx.Count{Value: a.w.live(n), Known: true},
	}, nil
}

func (a simAPI) Members(ctx context.Context, node emqx.Node, credentials emqx.Credentials) ([]string, error) {
	n, err := a.w.reach(ctx, node, credentials)
	if err != nil {
		return nil, err
	}
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	if !n.joined {
		return []string{n.name}, nil
	}
	var names []string
	for _, other := range a.w.nodes {
		if other.joined && !other.dead && a.w.members[other.name] {
			names = append(names, other.name)
		}
	}
	return names, nil
}

func (a simAPI) Available(ctx context.Context, node emqx.Node) (bool, error) {
	n, err := a.w.connectTo(ctx, node)
	if err != nil {
		return false, err
	}
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	return !n.refuses(), nil
}

func (a simAPI) ListenerRunning(ctx context.Context, node emqx.Node, credentials emqx.Credentials, _ string) (bool, error) {
	_, err := a.w.reach(ctx, node, credentials)
	return err == nil, err
}

func (a simAPI) Evacuation(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (*emqx.EvacuationStatus, error) {
	n, err := a.w.reach(ctx, node, credentials)
	if err != nil {
		return nil, err
	}
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	if n.evac == nil {
		return nil, nil
	}
	status := &emqx.EvacuationStatus{
		State: n.evac.state, ConnEvictRate: n.evac.conn, SessEvictRate: n.evac.sess,
		InitialConnected: n.evac.initial, InitialSessions: n.evac.initSes,
	}
	for _, recipient := range a.w.available(n, n.evac) {
		status.Recipients = append(status.Recipients, recipient.name)
	}
	return status, nil
}

func (a simAPI) Start(ctx context.Context, node emqx.Node, credentials emqx.Credentials, evacuation emqx.Evacuation) error {
	n, err := a.w.reach(ctx, node, credentials)
	if err != nil {
		return err
	}
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.w.requests["evacuation start"]++
	if n.evac != nil {
		return nil // already_started, which the client takes for success.
	}
	for _, recipient := range evacuation.Recipients {
		if other := a.w.nodes[recipient]; other == nil || other.dead || !other.joined || other.refuses() {
			return fmt.Errorf("%w: %s", emqx.ErrRecipients, recipient)
		}
	}
	n.evac = &simEvacuation{
		state: emqx.StateWaitingHealthCheck, conn: evacuation.ConnEvictRate, sess: evacuation.SessEvictRate,
		waitTakeover: evacuation.WaitTakeover, recipients: evacuation.Recipients,
		initial: int32(a.w.live(n)), initSes: int32(a.w.sessions(n)),
	}
	n.stored = n.evac
	a.w.checkStart(n, evacuation)
	return a.w.lostAnswer(n)
}

func (a simAPI) Stop(ctx context.Context, node emqx.Node, credentials emqx.Credentials) error {
	n, err := a.w.reach(ctx, node, credentials)
	if err != nil {
		return err
	}
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	n.evac, n.stored = nil, nil
	return a.w.lostAnswer(n)
}

func (a simAPI) ForceLeave(ctx context.Context, node emqx.Node, credentials emqx.Credentials, member string) error {
	n, err := a.w.reach(ctx, node, credentials)
	if err != nil {
		return err
	}
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	if other := a.w.nodes[member]; other != nil && !other.dead {
		a.w.violate("made %s leave while it runs", member)
	}
	delete(a.w.members, member)
	return a.w.lostAnswer(n)
}
