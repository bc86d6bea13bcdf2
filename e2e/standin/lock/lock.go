// Package lock is a table of locks that nodes of a cluster hold and wait for.
package lock

import (
	"context"
	"fmt"
	"sync"
)

// Table is a set of named locks that are held by tokens and waited for in order.
type Table struct {
	mu   sync.Mutex
	held map[string]*state
}

type state struct {
	token   string
	node    string
	waiters []*waiter
}

type waiter struct {
	token string
	node  string
	ready chan struct{}
}

// New makes a table of free locks.
func New() *Table { return &Table{held: map[string]*state{}} }

// Acquire waits until token holds the lock on name for node, or ctx ends.
func (t *Table) Acquire(ctx context.Context, name, token, node string) error {
	t.mu.Lock()
	s := t.held[name]
	if s == nil {
		t.held[name] = &state{token: token, node: node}
		t.mu.Unlock()
		return nil
	}
	w := &waiter{token: token, node: node, ready: make(chan struct{})}
	s.waiters = append(s.waiters, w)
	t.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		t.Release(name, token)
		return fmt.Errorf("wait for the lock: %w", context.Cause(ctx))
	}
}

// Release gives the lock back, or stops waiting for it.
func (t *Table) Release(name, token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.held[name]
	if s == nil {
		return
	}
	if s.token == token {
		t.passLocked(name, s)
		return
	}
	for i, w := range s.waiters {
		if w.token == token {
			s.waiters = append(s.waiters[:i], s.waiters[i+1:]...)
			return
		}
	}
}

func (t *Table) passLocked(name string, s *state) {
	if len(s.waiters) == 0 {
		delete(t.held, name)
		return
	}
	next := s.waiters[0]
	s.waiters = s.waiters[1:]
	s.token, s.node = next.token, next.node
	close(next.ready)
}

// ReleaseNode gives back what a node that went down held or waited for.
func (t *Table) ReleaseNode(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, s := range t.held {
		kept := s.waiters[:0]
		for _, w := range s.waiters {
			if w.node != node {
				kept = append(kept, w)
			}
		}
		s.waiters = kept
		if s.node == node {
			t.passLocked(name, s)
		}
	}
}
