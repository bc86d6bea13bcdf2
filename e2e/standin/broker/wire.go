package broker

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

// What brokers say to each other.
const (
	topicPublish     = "broker.publish"
	topicRetain      = "broker.retain"
	topicRoute       = "broker.route"
	topicRegister    = "broker.register"
	topicUnregister  = "broker.unregister"
	topicLock        = "broker.lock"
	topicUnlock      = "broker.unlock"
	topicKeeper      = "broker.keeper"
	topicSync        = "broker.sync"
	topicTakeover    = "broker.takeover"
	topicTakeoverEnd = "broker.takeover_end"
	topicDiscard     = "broker.discard"
	topicAdopt       = "broker.adopt"
	topicForward     = "broker.forward"
	topicSyncWith    = "broker.sync_with"
)

type idMsg struct {
	ID string `json:"id"`
}

// PeerUp gives a node that has just connected everything it must know of this one.
func (b *Broker) PeerUp(node string) {
	b.routes.tell(node)
	b.tellSessions(node)
	if all := b.retained.all(); len(all) > 0 {
		b.castTo(node, topicRetain, all)
	}
}

// PeerDown forgets what a node had, and keeps sessions that were on their way to it.
func (b *Broker) PeerDown(node string) {
	b.routes.forget(node)
	b.registry.removeNode(node)
	b.clients.ReleaseNode(node)
	for _, ch := range b.all() {
		ch.mu.Lock()
		stranded := ch.phase == leaving && ch.movedTo == node
		ch.mu.Unlock()
		if stranded {
			ch.restore()
		}
	}
}

// Cast takes a message from another node's broker.
func (b *Broker) Cast(node, topic string, body []byte) {
	var err error
	switch topic {
	case topicPublish:
		var p publication
		if err = json.Unmarshal(body, &p); err == nil && p.Message != nil {
			b.receive(node, p)
		}
	case topicRetain:
		var list []*session.Message
		if err = json.Unmarshal(body, &list); err == nil {
			for _, m := range list {
				b.retained.store(m)
			}
		}
	case topicRoute:
		var list []routeMsg
		if err = json.Unmarshal(body, &list); err == nil {
			b.routes.learn(node, list)
		}
	case topicRegister:
		var rows []row
		if err = json.Unmarshal(body, &rows); err == nil {
			for _, r := range rows {
				b.learn(r)
			}
		}
	case topicUnregister:
		var r row
		if err = json.Unmarshal(body, &r); err == nil {
			b.registry.remove(r)
		}
	case topicForward:
		var f forwarded
		if err = json.Unmarshal(body, &f); err == nil && f.Delivery.Message != nil {
			b.takeForwarded(f)
		}
	case topicUnlock:
		var m unlockMsg
		if err = json.Unmarshal(body, &m); err == nil {
			b.unlock(m)
		}
	default:
		err = fmt.Errorf("unknown topic %s", topic)
	}
	if err != nil {
		b.log.Error("message from a node", "node", node, "topic", topic, "error", err)
	}
}

// Call answers another node's broker.
func (b *Broker) Call(ctx context.Context, node, topic string, body []byte) ([]byte, error) {
	if b.ctx.Err() != nil {
		return nil, errStopping
	}
	switch topic {
	case topicKeeper:
		return []byte("{}"), nil
	case topicSync:
		b.answerSync()
		return []byte("{}"), nil
	case topicSyncWith:
		var m nodeMsg
		if err := json.Unmarshal(body, &m); err != nil {
			return nil, fmt.Errorf("decode %s: %w", topic, err)
		}
		return []byte("{}"), b.bus.Call(ctx, m.Node, topicSync, struct{}{}, nil)
	case topicLock:
		var m lockMsg
		if err := json.Unmarshal(body, &m); err != nil {
			return nil, fmt.Errorf("decode %s: %w", topic, err)
		}
		ctx, cancel := context.WithTimeout(ctx, m.Wait)
		defer cancel()
		owner, err := b.grant(ctx, m.ID, m.Token, node)
		if err != nil {
			return nil, err
		}
		return json.Marshal(lockAnswer{Owner: owner})
	}
	var m idMsg
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("decode %s: %w", topic, err)
	}
	switch topic {
	case topicTakeover:
		return json.Marshal(b.beginTakeover(m.ID, node))
	case topicTakeoverEnd:
		rest, err := b.endTakeover(m.ID, node)
		if err != nil {
			return nil, err
		}
		return json.Marshal(rest)
	case topicDiscard:
		b.answerDiscard(m.ID)
		return []byte("{}"), nil
	case topicAdopt:
		ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeouts.claim())
		defer cancel()
		return json.Marshal(b.adopt(ctx, m.ID, node))
	default:
		return nil, fmt.Errorf("unknown topic %s", topic)
	}
}
