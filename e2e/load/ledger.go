package load

import "sync"

// ledger counts one client's messages: which numbers were acknowledged to their publisher and which have arrived.
// Numbers count from 1. It is safe for concurrent use.
type ledger struct {
	mu       sync.Mutex
	next     uint64          // The next number to be sent.
	acked    map[uint64]bool // Acknowledged, not arrived yet.
	arrived  uint64          // All numbers up to this have arrived.
	early    map[uint64]bool // Arrived, with a gap before.
	repeated uint64
}

func newLedger() *ledger {
	return &ledger{next: 1, acked: map[uint64]bool{}, early: map[uint64]bool{}}
}

// take gives the next number to be sent.
func (l *ledger) take() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	number := l.next
	l.next++
	return number
}

// acknowledge notes that a broker took responsibility for a number.
func (l *ledger) acknowledge(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number > l.arrived && !l.early[number] {
		l.acked[number] = true
	}
}

// receive notes that a number arrived.
func (l *ledger) receive(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number <= l.arrived || l.early[number] {
		l.repeated++
		return
	}
	delete(l.acked, number)
	l.early[number] = true
	for l.early[l.arrived+1] {
		l.arrived++
		delete(l.early, l.arrived)
	}
}

// count says how many numbers were acknowledged and have not arrived, and how many arrived again.
func (l *ledger) count() (missing, repeated uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.acked)), l.repeated
}
