package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/link"
)

// handler is the cluster as the mesh sees it.
type handler struct{ c *Cluster }

// Admit lets members in.
func (h handler) Admit(node string) bool {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	return h.c.members[node].Present
}

// Up greets a peer with what this node knows.
func (h handler) Up(node string, _ int64) {
	c := h.c
	c.mu.Lock()
	c.peers[node] = &peerState{linked: true}
	body, err := json.Marshal(facts{Running: c.running, Version: c.cfg.Version, Members: c.members})
	if err == nil {
		err = c.mesh.Cast(node, topicState, body, false)
	}
	c.mu.Unlock()
	if err != nil {
		c.cfg.Log.Debug("greet", "node", node, "error", err)
	}
	c.cfg.Apps.PeerUp(node)
	c.mu.Lock()
	c.notifyLocked()
	c.mu.Unlock()
}

// Down notes when a peer went.
func (h handler) Down(node string, _ int64, reason error) {
	c := h.c
	c.mu.Lock()
	p := c.peers[node]
	wasRunning := p != nil && p.running
	c.peers[node] = &peerState{downAt: time.Now()}
	c.notifyLocked()
	c.mu.Unlock()
	if wasRunning && !errors.Is(reason, link.ErrClosed) {
		c.cfg.Log.Warn("node down", "node", node, "reason", reason)
	}
	c.cfg.Apps.PeerDown(node)
}

// Cast handles what concerns the membership and leaves the rest to the applications.
func (h handler) Cast(node, topic string, body []byte) {
	if topic != topicState {
		h.c.cfg.Apps.Cast(node, topic, body)
		return
	}
	var f facts
	if err := json.Unmarshal(body, &f); err != nil {
		h.c.cfg.Log.Error("membership from a peer", "node", node, "error", err)
		return
	}
	h.c.learn(node, f)
}

// learn takes over what a peer tells about itself and the members.
func (c *Cluster) learn(node string, f facts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if members := c.members.present(); len(members) == 1 && members[0] == c.cfg.Self {
		return // What was on its way when this node left: who joins has adopted the members before it hears of them.
	}
	changed := c.members.merge(f.Members)
	if !c.members[c.cfg.Self].Present {
		c.cfg.Log.Warn("forced to leave the cluster", "by", node)
		c.aloneLocked()
		c.cfg.Apps.Leave()
		return
	}
	if e := c.members[node]; f.Running && e.Present && !e.Seen {
		e.Seen = true
		c.members[node] = e
		changed = true
	}
	if p := c.peers[node]; p != nil && p.linked {
		if f.Running && !p.running {
			c.cfg.Log.Info("node up", "node", node)
		}
		if !f.Running && p.running {
			p.downAt = time.Now()
		}
		p.running, p.version = f.Running, f.Version
	}
	if changed {
		c.updateLocked()
		return
	}
	c.notifyLocked()
}

// Call answers questions about the membership and leaves the rest to the applications.
func (h handler) Call(ctx context.Context, node string, member bool, topic string, body []byte) ([]byte, error) {
	c := h.c
	switch topic {
	case topicInfo:
		return json.Marshal(c.info())
	case topicJoin:
		return c.admitJoin(node)
	default:
		if !member {
			return nil, fmt.Errorf("%s from node %s: %w", topic, node, ErrNotMember)
		}
		return c.cfg.Apps.Call(ctx, node, topic, body)
	}
}

// Info is what a node tells whoever asks, member or not.
type Info struct {
	Node    string    `json:"node"`
	Started time.Time `json:"started"`
	Running bool      `json:"running"` // its applications run, or start
	Ready   bool      `json:"ready"`   // and it is not joining
	Members []string  `json:"members"`
}

func (c *Cluster) info() Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Info{
		Node: c.cfg.Self, Started: c.cfg.Started, Running: c.running, Ready: c.running && !c.joining,
		Members: c.members.present(),
	}
}

// Ask fetches another node's Info.
func (c *Cluster) Ask(ctx context.Context, node string) (Info, error) {
	var info Info
	body, err := c.mesh.Ask(ctx, node, topicInfo, []byte("{}"))
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return info, fmt.Errorf("decode the answer of node %s: %w", node, err)
	}
	return info, nil
}

type joinAnswer struct {
	Busy    bool  `json:"busy"`
	Members table `json:"members"`
}

// admitJoin makes the asking node a member.
func (c *Cluster) admitJoin(node string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running || c.joining {
		return json.Marshal(joinAnswer{Busy: true})
	}
	c.members[node] = entry{Present: true, Version: time.Now().UnixNano()}
	c.updateLocked()
	c.cfg.Log.Info("node joins", "node", node)
	return json.Marshal(joinAnswer{Members: c.members})
}

// RequestJoin asks target to take this node in. The caller stops its applications, calls Adopt with what it got, and
// starts them again. The error is ErrBusy when target is itself joining.
func (c *Cluster) RequestJoin(ctx context.Context, target string) (Membership, error) {
	c.mu.Lock()
	c.joining = true
	c.mu.Unlock()
	body, err := c.mesh.Ask(ctx, target, topicJoin, []byte("{}"))
	var answer joinAnswer
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err == nil && answer.Busy {
		err = ErrBusy
	}
	if err != nil {
		c.mu.Lock()
		c.joining = false
		c.mu.Unlock()
		return Membership{}, fmt.Errorf("join %s: %w", target, err)
	}
	return Membership{table: answer.Members}, nil
}

// Membership is the list of members a node got when it joined.
type Membership struct{ table table }

// Nodes lists the members by name.
func (m Membership) Nodes() []string { return m.table.present() }

// Adopt makes this node a member of the cluster it has asked to join and connects to the others.
func (c *Cluster) Adopt(m Membership) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = m.table.clone()
	c.updateLocked()
}

// Joined ends the joining that RequestJoin began.
func (c *Cluster) Joined() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joining = false
	c.notifyLocked()
}

// Abandon makes this node alone: it forgets all members and ends its connections.
func (c *Cluster) Abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aloneLocked()
}

func (c *Cluster) aloneLocked() {
	c.members = table{c.cfg.Self: {Present: true, Version: time.Now().UnixNano(), Seen: true}}
	if err := c.members.save(c.cfg.DataDir); err != nil {
		c.cfg.Log.Error("remember the members", "error", err)
	}
	c.mesh.Follow(nil)
	c.notifyLocked()
}

// ForceLeave removes another node from the cluster. A running one hears of it, restarts its applications and goes
// on alone; a stopped one is forgotten.
func (c *Cluster) ForceLeave(node string) error {
	if node == c.cfg.Self {
		return ErrSelf
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.members[node].Present {
		return ErrNotMember
	}
	c.members[node] = entry{Version: time.Now().UnixNano()}
	c.updateLocked()
	delete(c.peers, node)
	return nil
}

// Company asks the other members whether one of them runs, and returns the first that says so; empty: none.
func (c *Cluster) Company(ctx context.Context) string {
	for _, name := range c.others() {
		if info, err := c.Ask(ctx, name); err == nil && info.Running && slices.Contains(info.Members, c.cfg.Self) {
			return name
		}
	}
	return ""
}

// Expelled reports whether a node that is remembered as a member answers that this node is not one.
func (c *Cluster) Expelled(ctx context.Context) bool {
	for _, name := range c.others() {
		info, err := c.Ask(ctx, name)
		if errors.Is(err, context.DeadlineExceeded) {
			return false
		}
		if err == nil {
			return !slices.Contains(info.Members, c.cfg.Self)
		}
	}
	return false
}

// others are the members but this node, running or not.
func (c *Cluster) others() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(c.members.present(), func(name string) bool { return name == c.cfg.Self })
}
