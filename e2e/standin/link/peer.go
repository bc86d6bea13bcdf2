package link

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// peer is the live connection to one other node: a queue towards it, and the calls that wait for its replies.
type peer struct {
	node        string
	incarnation int64
	wire        *wire
	queueBytes  int

	mu      sync.Mutex
	wake    *sync.Cond
	queue   []frame
	bytes   int
	closing bool // drain the queue, then close
	err     error
	calls   map[uint64]chan frame

	nextID    atomic.Uint64
	lastHeard atomic.Int64    // unix nanoseconds
	ctx       context.Context // ends with the connection
	cancel    context.CancelFunc
	drained   chan struct{}
}

func newPeer(ctx context.Context, node string, incarnation int64, w *wire, queueBytes int) *peer {
	ctx, cancel := context.WithCancel(ctx)
	p := &peer{
		node: node, incarnation: incarnation, wire: w, queueBytes: queueBytes,
		calls: map[uint64]chan frame{}, ctx: ctx, cancel: cancel, drained: make(chan struct{}),
	}
	p.wake = sync.NewCond(&p.mu)
	p.lastHeard.Store(time.Now().UnixNano())
	return p
}

// enqueue puts a frame in the queue and never blocks. At the bound a droppable frame is refused; any other frame
// ends the connection, because the two nodes could not agree on their tables any more.
func (p *peer) enqueue(f frame, droppable bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	if p.closing {
		return ErrPeerDown
	}
	if p.bytes+f.size() > p.queueBytes {
		if droppable {
			return ErrQueueFull
		}
		if p.bytes+f.size() > 2*p.queueBytes {
			p.failLocked(fmt.Errorf("node %s takes nothing from its queue: %w", p.node, ErrQueueFull))
			return p.err
		}
	}
	p.queue = append(p.queue, f)
	p.bytes += f.size()
	p.wake.Signal()
	return nil
}

// fail closes the connection for good and wakes everyone who waits on it.
func (p *peer) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failLocked(err)
}

func (p *peer) failLocked(err error) {
	if p.err != nil {
		return
	}
	p.err = err
	p.queue = nil
	p.cancel()
	_ = p.wire.conn.Close() // the reason is kept in p.err
	p.wake.Broadcast()
}

// drain lets the writer finish what is queued; drained is closed when it has.
func (p *peer) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	p.wake.Signal()
}

// writeLoop sends the queue until the connection ends.
func (p *peer) writeLoop() {
	defer close(p.drained)
	for {
		batch, ok := p.nextBatch()
		if !ok {
			return
		}
		for _, f := range batch {
			if err := writeFrame(p.wire.w, f); err != nil {
				p.fail(fmt.Errorf("send to node %s: %w", p.node, errors.Join(err, ErrPeerDown)))
				return
			}
		}
		if err := p.wire.w.Flush(); err != nil {
			p.fail(fmt.Errorf("send to node %s: %w", p.node, errors.Join(err, ErrPeerDown)))
			return
		}
	}
}

func (p *peer) nextBatch() ([]frame, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) == 0 && p.err == nil && !p.closing {
		p.wake.Wait()
	}
	if p.err != nil || len(p.queue) == 0 {
		return nil, false
	}
	batch := p.queue
	p.queue, p.bytes = nil, 0
	return batch, true
}

// call sends a request and waits for its reply, the end of the connection or ctx.
func (p *peer) call(ctx context.Context, topic string, body []byte) ([]byte, error) {
	id := p.nextID.Add(1)
	reply := make(chan frame, 1)
	p.mu.Lock()
	p.calls[id] = reply
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.calls, id)
		p.mu.Unlock()
	}()
	if err := p.enqueue(frame{kind: frameCall, id: id, topic: topic, body: body}, false); err != nil {
		return nil, fmt.Errorf("call %s on node %s: %w", topic, p.node, err)
	}
	select {
	case f := <-reply:
		if f.kind == frameFailure {
			return nil, &RemoteError{Node: p.node, Topic: topic, Text: string(f.body)}
		}
		return f.body, nil
	case <-p.ctx.Done():
		return nil, fmt.Errorf("call %s on node %s: %w", topic, p.node, ErrPeerDown)
	case <-ctx.Done():
		return nil, fmt.Errorf("call %s on node %s: %w", topic, p.node, context.Cause(ctx))
	}
}

func (p *peer) deliverReply(f frame) {
	p.mu.Lock()
	reply := p.calls[f.id]
	p.mu.Unlock()
	if reply != nil {
		reply <- f // buffered, and an id is answered once
	}
}

func (p *peer) silence(now time.Time) time.Duration {
	return now.Sub(time.Unix(0, p.lastHeard.Load()))
}
