package broker

import (
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// sweepLoop ends expired sessions, publishes delayed wills and releases connections that broke before CONNACK was out;
// the library says nothing about those. It also counts the sessions for the licence, which so lags behind.
func (b *Broker) sweepLoop() {
	defer b.wg.Done()
	ticker, count := time.NewTicker(b.cfg.Timeouts.Sweep), time.NewTicker(b.cfg.Timeouts.Count)
	defer ticker.Stop()
	defer count.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-count.C:
			b.counted.Store(int64(b.registry.size()))
		case <-ticker.C:
			b.sweep(time.Now())
		}
	}
}

func (b *Broker) sweep(now time.Time) {
	for _, ch := range b.all() {
		ch.mu.Lock()
		expired := ch.phase == active && ch.conn == nil && !ch.expiresAt.IsZero() && now.After(ch.expiresAt)
		var due *will
		if !expired && ch.conn == nil && !ch.willAt.IsZero() && now.After(ch.willAt) {
			due, ch.will, ch.willAt = ch.will, nil, time.Time{}
		}
		var broken *mqtt.Client
		if ch.conn != nil && !ch.ready && ch.conn.Closed() {
			broken = ch.conn
		}
		ch.mu.Unlock()
		switch {
		case expired:
			b.endSession(ch)
		case broken != nil:
			b.release(broken, true)
		default:
			b.publishWill(due)
		}
	}
}
