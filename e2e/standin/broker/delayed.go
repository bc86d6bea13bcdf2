package broker

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

// delayed are the messages to $delayed/SECONDS/TOPIC that are not due (emqx_delayed.erl): on the node where they came in, and on no
// other. EMQX has them on its disk; here they end with the process.
type delayed struct {
	mu     sync.Mutex
	timers map[*session.Message]*time.Timer
}

const (
	delayedPrefix = "$delayed/"
	// largestDelay is the first number that is no delay but a time, in seconds since 1970.
	largestDelay = 4294967
)

// delayOf tells where a message goes to and when; false for one that is to be published at once.
func delayOf(topic string, now time.Time) (string, time.Duration, bool) {
	rest, delays := strings.CutPrefix(topic, delayedPrefix)
	number, topic, whole := strings.Cut(rest, "/")
	seconds, err := strconv.ParseInt(number, 10, 64)
	if !delays || !whole || err != nil {
		return "", 0, false
	}
	if seconds < largestDelay {
		return topic, time.Duration(seconds) * time.Second, true
	}
	return topic, time.Unix(seconds, 0).Sub(now), true
}

// add has publish called when a message is due, unless stop comes before.
func (d *delayed) add(m *session.Message, wait time.Duration, publish func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timers == nil {
		d.timers = map[*session.Message]*time.Timer{}
	}
	d.timers[m] = time.AfterFunc(wait, func() {
		d.mu.Lock()
		_, due := d.timers[m]
		delete(d.timers, m)
		d.mu.Unlock()
		if due {
			publish()
		}
	})
}

func (d *delayed) size() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.timers)
}

// stop drops what is not due.
func (d *delayed) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for m, timer := range d.timers {
		timer.Stop()
		delete(d.timers, m)
	}
}
