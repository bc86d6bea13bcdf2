package broker

import (
	"context"
	"sync"
	"time"
)

// syncer has many callers wait for one round of confirmations: who comes while a round runs shares the next.
type syncer struct {
	round func() []string // lists the nodes that did not confirm
	mu    sync.Mutex
	busy  bool
	next  *syncRound // the round that has not begun
}

type syncRound struct {
	done    chan struct{}
	missing []string
}

func newSyncer(round func() []string) *syncer { return &syncer{round: round} }

// wait returns after a round that began after the call, with the nodes that did not confirm.
func (s *syncer) wait() []string {
	s.mu.Lock()
	if s.next == nil {
		s.next = &syncRound{done: make(chan struct{})}
	}
	mine := s.next
	if !s.busy {
		s.busy = true
		go s.run()
	}
	s.mu.Unlock()
	<-mine.done
	return mine.missing
}

func (s *syncer) run() {
	for {
		s.mu.Lock()
		mine := s.next
		s.next = nil
		if mine == nil {
			s.busy = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		mine.missing = s.round()
		close(mine.done)
	}
}

// sync waits until every node that answers has taken in what it was sent before, and has sent out what it was about
// to send by older knowledge. It lists the connected nodes that did not confirm that.
func (b *Broker) sync() []string { return b.syncs.wait() }

func (b *Broker) syncRound() []string {
	ctx, cancel := context.WithTimeout(b.ctx, b.cfg.Timeouts.Sync)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var missing []string
	for _, node := range b.bus.Linked() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := b.callResponsive(ctx, node, topicSync, struct{}{}, nil); err != nil {
				b.log.Debug("sync", "node", node, "error", err)
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, node)
			}
		}()
	}
	wg.Wait()
	return missing
}

// answerSync lets every message that is being routed by older knowledge reach its queues.
func (b *Broker) answerSync() {
	b.flow.Lock()
	b.flow.Unlock() //nolint:gocritic,staticcheck // to have held it is the point
}

// responsiveCheck is how often somebody who waits for a node asks whether it still gives signs of life.
const responsiveCheck = 200 * time.Millisecond

// errUnresponsive ends the wait for a node that gives no signs of life.
type errUnresponsive struct{ node string }

// Error says who it is.
func (e errUnresponsive) Error() string { return "node " + e.node + " gives no signs of life" }

// callResponsive asks a node and gives up when it gives no signs of life any more.
func (b *Broker) callResponsive(ctx context.Context, node, topic string, question, answer any) error {
	if !b.bus.Responsive(node) {
		return errUnresponsive{node}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b.cancelWhenSilent(ctx, cancel, node)
	return b.bus.Call(ctx, node, topic, question, answer)
}

// cancelWhenSilent looks after the node until ctx ends. Most calls are over before the first look.
func (b *Broker) cancelWhenSilent(ctx context.Context, cancel context.CancelCauseFunc, node string) {
	timer := time.AfterFunc(responsiveCheck, func() {
		switch {
		case ctx.Err() != nil:
		case b.bus.Responsive(node):
			b.cancelWhenSilent(ctx, cancel, node)
		default:
			cancel(errUnresponsive{node})
		}
	})
	context.AfterFunc(ctx, func() { timer.Stop() })
}
