package simulation

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"
)

// call is something the operator asks. It waits on the desk until its turn.
type call struct {
	by *operator
	// id says what is asked, by whom and of whom: calls of the same moment are answered in the order of their ids.
	id string
	// question tells that answering changes nothing.
	question bool
	// serve answers; the goroutine of the simulation runs it. What it returns is for how long the answer is not there yet,
	// after which it is asked again; zero for an answer.
	serve func() time.Duration
	wait  time.Duration
	done  chan struct{}
}

// desk holds the calls that wait.
type desk struct {
	mu    sync.Mutex
	calls []*call
	bell  chan struct{} // Has room for one: somebody came.
	// settle has everything happen that comes of what was answered.
	settle func()
}

// ask lays a call on the desk and waits for its answer, or for the end of the context.
func (d *desk) ask(ctx context.Context, by *operator, question bool, id string, serve func() time.Duration) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &call{by: by, id: id, question: question, serve: serve, done: make(chan struct{})}
		d.mu.Lock()
		d.calls = append(d.calls, c)
		d.mu.Unlock()
		select {
		case d.bell <- struct{}{}:
		default:
		}
		<-c.done // The desk answers at once, always.
		if c.wait == 0 {
			return nil
		}
		timer := time.NewTimer(c.wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// take returns the calls that wait, in the order in which they are answered.
func (d *desk) take() []*call {
	d.mu.Lock()
	defer d.mu.Unlock()
	calls := d.calls
	d.calls = nil
	slices.SortFunc(calls, func(a, b *call) int {
		return cmp.Or(cmp.Compare(a.by.life, b.by.life), strings.Compare(a.id, b.id))
	})
	return calls
}

// mostRounds is how often the operator may ask again, at one moment, because of what it was answered.
const mostRounds = 1_000

// answer answers all that is asked at this moment of virtual time: questions together, and each order by itself, once
// everything that came of the one before has been seen.
func (d *desk) answer() {
	var waiting []*call
	for round := 0; ; round++ {
		if round > mostRounds {
			panic("the operator asks for ever: " + waiting[0].id)
		}
		synctest.Wait()
		waiting = append(d.take(), waiting...)
		if len(waiting) == 0 {
			return
		}
		served := 0
		for served < len(waiting) && waiting[served].question {
			served++
		}
		served = max(served, 1)
		for _, c := range waiting[:served] {
			c.wait = c.serve()
		}
		d.settle() // The caches see what was written before the writer goes on.
		for _, c := range waiting[:served] {
			close(c.done)
		}
		waiting = waiting[served:]
	}
}

// pass lets virtual time pass and answers what is asked meanwhile.
func (d *desk) pass(duration time.Duration) {
	tick := time.NewTimer(duration)
	defer tick.Stop()
	for over := false; !over; d.answer() {
		select {
		case <-d.bell:
		case <-tick.C:
			over = true
		}
	}
}
