package evacuate

import (
	"hash/fnv"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Turns are when nodes are asked that are at rest, over all clusters: it costs the same however many there are, and with
// many each is asked less often. Nodes of a cluster that is busy do not wait for a turn.
type Turns struct {
	began   time.Time
	nodes   atomic.Int64 // How many there are.
	unasked *rate.Limiter
}

// How many nodes are asked a second at most: of those at rest, about durable storage then, if they do not answer, and if nobody
// has asked them yet.
const (
	restingPerSecond = 7
	storagePerSecond = 1
	silentPerSecond  = 50
	firstPerSecond   = 100
)

// NewTurns returns turns that no node takes yet.
func NewTurns() *Turns {
	return &Turns{began: time.Now(), unasked: rate.NewLimiter(firstPerSecond, firstPerSecond)}
}

// first is how long a node has to wait that nobody has asked yet.
func (t *Turns) first() time.Duration { return t.unasked.Reserve().Delay() }

// next is how long it is until the turn of a cluster's nodes: after an interval, or after as long as it takes when so many nodes are
// asked a second. Each cluster has its own moment in that, at which all its nodes are asked: only so can they be added up.
func (t *Turns) next(cluster string, interval time.Duration, perSecond int64) time.Duration {
	interval = max(interval, time.Duration(t.nodes.Load())*time.Second/time.Duration(perSecond))
	h := fnv.New32a()
	_, _ = h.Write([]byte(cluster)) // Never fails.
	return until(t.began, interval, time.Duration(h.Sum32())*time.Microsecond%interval)
}

// until is how long it takes to the next time that is a phase later than a beat of an interval, counted from a time.
func until(began time.Time, interval, phase time.Duration) time.Duration {
	wait := (phase - time.Since(began)) % interval
	if wait <= 0 {
		wait += interval
	}
	return wait
}
