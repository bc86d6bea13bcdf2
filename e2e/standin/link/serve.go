package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

func (m *Mesh) acceptLoop() {
	defer m.wg.Done()
	for {
		conn, err := m.cfg.Listener.Accept()
		if err != nil {
			if m.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				m.cfg.Log.Error("accept a link", "error", err)
			}
			return
		}
		m.wg.Add(1)
		go func() {
			defer m.wg.Done()
			m.serve(newWire(conn))
		}()
	}
}

// serve handles a connection somebody else opened.
func (m *Mesh) serve(w *wire) {
	theirs, err := m.answerHandshake(w, time.Now().Add(m.cfg.DialTimeout))
	if err != nil {
		m.cfg.Log.Debug("handshake", "node", theirs.Node, "error", err)
		_ = w.conn.Close()
		return
	}
	if theirs.Purpose == purposeAsk {
		m.serveQuestions(w, theirs.Node)
		return
	}
	v := m.judge(theirs)
	if v.Verdict != verdictOK {
		_ = w.sendJSON(v) // they see the connection close if this fails
		_ = w.conn.Close()
		return
	}
	p := m.attach(theirs, w)
	if p == nil {
		_ = w.sendJSON(verdict{Verdict: verdictDouble})
		_ = w.conn.Close()
		return
	}
	// The verdict goes first: whatever Up queues is written by run, which starts after it.
	if err := errors.Join(w.sendJSON(v), w.conn.SetDeadline(time.Time{})); err != nil {
		p.fail(fmt.Errorf("accept node %s: %w", theirs.Node, errors.Join(err, ErrPeerDown)))
	}
	m.run(p)
}

// judge decides on a node that wants a lasting connection. When both dial at once, the dial of the node whose name
// sorts first wins.
func (m *Mesh) judge(theirs hello) verdict {
	if !m.cfg.Handler.Admit(theirs.Node) {
		return verdict{Verdict: verdictRefused, Reason: "node " + theirs.Node + " is not a member"}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return verdict{Verdict: verdictRefused, Reason: "node " + m.cfg.Self + " is stopping"}
	}
	if !m.healedLocked(theirs.Node) {
		return verdict{Verdict: verdictRefused, Reason: "node " + theirs.Node + " was silent for too long"}
	}
	if old := m.peers[theirs.Node]; old != nil {
		if old.incarnation == theirs.Incarnation {
			return verdict{Verdict: verdictDouble}
		}
		old.fail(fmt.Errorf("node %s has started anew: %w", theirs.Node, ErrPeerDown))
		return verdict{Verdict: verdictDouble} // it dials again in a moment, when the old one is gone
	}
	if m.dialing[theirs.Node] && m.cfg.Self < theirs.Node {
		return verdict{Verdict: verdictDouble}
	}
	return verdict{Verdict: verdictOK}
}

// healedLocked reports whether a node may connect; one that was given up for its silence has to wait.
func (m *Mesh) healedLocked(node string) bool {
	heard, silent := m.silent[node]
	switch {
	case !silent:
		return true
	case heard.IsZero():
		m.silent[node] = time.Now()
		return false
	case time.Since(heard) < m.cfg.Heal:
		return false
	default:
		delete(m.silent, node)
		return true
	}
}

// attach enters a connection as the node's peer, or returns nil when there is one already.
func (m *Mesh) attach(theirs hello, w *wire) *peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.peers[theirs.Node] != nil {
		return nil
	}
	p := newPeer(m.ctx, theirs.Node, theirs.Incarnation, w, m.cfg.QueueBytes)
	m.peers[theirs.Node] = p
	return p
}

// run serves an attached peer until its connection ends.
func (m *Mesh) run(p *peer) {
	m.cfg.Handler.Up(p.node, p.incarnation)
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		p.writeLoop()
	}()
	err := m.readLoop(p)
	p.fail(err)
	m.mu.Lock()
	if m.peers[p.node] == p {
		delete(m.peers, p.node)
	}
	m.mu.Unlock()
	p.mu.Lock()
	reason := p.err
	p.mu.Unlock()
	m.cfg.Handler.Down(p.node, p.incarnation, reason)
}

func (m *Mesh) readLoop(p *peer) error {
	for {
		f, err := readFrame(p.wire.r)
		if err != nil {
			return fmt.Errorf("node %s: %w", p.node, errors.Join(err, ErrPeerDown))
		}
		p.lastHeard.Store(time.Now().UnixNano())
		switch f.kind {
		case frameCast:
			m.cfg.Handler.Cast(p.node, f.topic, f.body)
		case frameCall:
			m.wg.Add(1)
			go func() {
				defer m.wg.Done()
				m.answer(p, f)
			}()
		case frameReply, frameFailure:
			p.deliverReply(f)
		case framePing:
		case frameBye:
			return fmt.Errorf("node %s stopped: %w", p.node, ErrPeerDown)
		default:
			return fmt.Errorf("node %s sent a frame of type %d: %w", p.node, f.kind, ErrPeerDown)
		}
	}
}

// answer runs a call and queues its reply. The call ends with the connection it came by.
func (m *Mesh) answer(p *peer, f frame) {
	body, err := m.cfg.Handler.Call(p.ctx, p.node, true, f.topic, f.body)
	reply := frame{kind: frameReply, id: f.id, body: body}
	if err != nil {
		reply = frame{kind: frameFailure, id: f.id, body: []byte(err.Error())}
	}
	if err := p.enqueue(reply, false); err != nil {
		m.cfg.Log.Debug("reply", "node", p.node, "topic", f.topic, "error", err)
	}
}

func (m *Mesh) serveQuestions(w *wire, node string) {
	m.mu.Lock()
	m.asking[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.asking, w)
		m.mu.Unlock()
		_ = w.conn.Close()
	}()
	if err := w.sendJSON(verdict{Verdict: verdictOK}); err != nil {
		return
	}
	if err := w.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return
	}
	f, err := readFrame(w.r)
	if err != nil {
		return
	}
	body, err := m.cfg.Handler.Call(m.ctx, node, false, f.topic, f.body)
	reply := frame{kind: frameReply, id: f.id, body: body}
	if err != nil {
		reply = frame{kind: frameFailure, id: f.id, body: []byte(err.Error())}
	}
	if err := writeFrame(w.w, reply); err == nil {
		_ = w.w.Flush() // the asker sees the connection close if this fails
	}
}

// keepLink dials a member again and again while it is followed and not connected.
func (m *Mesh) keepLink(ctx context.Context, node string) {
	defer m.wg.Done()
	ticker := time.NewTicker(m.cfg.Redial)
	defer ticker.Stop()
	for {
		if m.peer(node) == nil {
			m.dialPeer(ctx, node)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (m *Mesh) dialPeer(ctx context.Context, node string) {
	m.mu.Lock()
	m.dialing[node] = true
	m.mu.Unlock()
	w, theirs, err := m.dial(ctx, node, purposePeer)
	m.mu.Lock()
	delete(m.dialing, node)
	m.mu.Unlock()
	if err != nil {
		m.cfg.Log.Debug("dial", "node", node, "error", err)
		return
	}
	m.mu.Lock()
	healed := m.healedLocked(node)
	m.mu.Unlock()
	if !healed {
		_ = w.conn.Close()
		return
	}
	p := m.attach(theirs, w)
	if p == nil {
		_ = w.conn.Close()
		return
	}
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		m.run(p)
	}()
}

func (m *Mesh) dial(ctx context.Context, node, purpose string) (*wire, hello, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.DialTimeout)
	defer cancel()
	address, err := m.cfg.Resolve(ctx, node)
	if err != nil {
		return nil, hello{}, fmt.Errorf("find node %s: %w", node, err)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, hello{}, fmt.Errorf("dial node %s: %w", node, err)
	}
	w := newWire(conn)
	deadline, _ := ctx.Deadline()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	theirs, err := m.callHandshake(w, purpose, deadline)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && theirs.Node != node {
		err = fmt.Errorf("at %s is node %s: %w", address, theirs.Node, ErrRefused)
	}
	if err != nil {
		_ = conn.Close()
		return nil, theirs, err
	}
	return w, theirs, nil
}

// heartbeatLoop sends signs of life to the peers and ends connections to peers that were silent for too long. After
// this process has itself been stopped for a while the peers' silence means nothing, so they are given a fresh start.
func (m *Mesh) heartbeatLoop() {
	defer m.wg.Done()
	ticker := time.NewTicker(m.cfg.Heartbeat)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		slept := now.Sub(last) > 10*m.cfg.Heartbeat
		last = now
		for _, node := range m.Peers() {
			p := m.peer(node)
			if p == nil {
				continue
			}
			if slept {
				p.lastHeard.Store(now.UnixNano())
			}
			if p.silence(now) > m.cfg.PeerTimeout {
				m.mu.Lock()
				m.silent[node] = time.Time{}
				m.mu.Unlock()
				p.fail(fmt.Errorf("node %s was silent for %s: %w", node, m.cfg.PeerTimeout, ErrPeerDown))
				continue
			}
			_ = p.enqueue(frame{kind: framePing}, true) // a full queue says enough
		}
	}
}
