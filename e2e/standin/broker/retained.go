package broker

import (
	"log/slog"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

// retained is the retained messages, the same on every node: of two messages to a topic the later one counts, and
// an empty one removes, but is remembered so that no node brings the removed one back.
type retained struct {
	mu    sync.RWMutex
	last  map[string]*session.Message
	index *mqtt.TopicsIndex
	count int
	log   *slog.Logger
	// journal is nil when the messages are kept in memory only.
	journal *journal
}

func newRetained(log *slog.Logger) *retained {
	return &retained{log: log, last: map[string]*session.Message{}, index: mqtt.NewTopicsIndex()}
}

// keep has the messages outlive the process in the file, and takes over what is in it. A fresh broker begins without.
func (r *retained) keep(path string, fresh bool) error {
	j, kept, err := openJournal(path)
	if err != nil {
		return err
	}
	if !fresh {
		for _, m := range kept {
			r.store(m)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.journal = j
	return j.rewrite(r.last)
}

func (r *retained) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.journal == nil {
		return nil
	}
	j := r.journal
	r.journal = nil
	return j.close()
}

// store takes a message that is newer than what is here.
func (r *retained) store(m *session.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.putLocked(m) || r.journal == nil {
		return
	}
	if err := r.journal.add(m, r.last); err != nil {
		r.log.Error("retained message", "topic", m.Topic, "error", err)
	}
}

func (r *retained) putLocked(m *session.Message) bool {
	old := r.last[m.Topic]
	if old != nil && old.Version >= m.Version {
		return false
	}
	had := old != nil && len(old.Payload) > 0
	has := len(m.Payload) > 0
	r.last[m.Topic] = m
	switch {
	case has && !had:
		r.count++
	case had && !has:
		r.count--
	}
	r.index.RetainMessage(packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: true}, TopicName: m.Topic, Payload: m.Payload,
	})
	return true
}

// match lists the retained messages for a new subscription. Shared subscriptions get none.
func (r *retained) match(filter string) []*session.Message {
	if mqtt.IsSharedFilter(filter) {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := time.Now().Unix()
	var list []*session.Message
	for _, pk := range r.index.Messages(filter) {
		if m := r.last[pk.TopicName]; m != nil && (m.Expiry == 0 || m.Expiry >= now) {
			list = append(list, m)
		}
	}
	return list
}

func (r *retained) all() []*session.Message {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*session.Message, 0, len(r.last))
	for _, m := range r.last {
		list = append(list, m)
	}
	return list
}

func (r *retained) size() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.count
}
