package agent

import "sync"

// mailbox hands functions to the goroutine that owns a pod. Senders never block.
type mailbox struct {
	mu     sync.Mutex
	queue  []func()
	notify chan struct{}
}

func newMailbox() *mailbox { return &mailbox{notify: make(chan struct{}, 1)} }

// post adds a function to be run by the owner.
func (m *mailbox) post(f func()) {
	m.mu.Lock()
	m.queue = append(m.queue, f)
	m.mu.Unlock()
	select {
	case m.notify <- struct{}{}:
	default:
	}
}

// drain runs what has been posted.
func (m *mailbox) drain() {
	m.mu.Lock()
	queue := m.queue
	m.queue = nil
	m.mu.Unlock()
	for _, f := range queue {
		f()
	}
}
