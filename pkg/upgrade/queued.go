package upgrade

import (
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// queued says which clusters may begin an upgrade, where not all may be upgraded at once. Those under way are known from
// their status, and from what was decided of them until that shows.
type queued struct {
	caches *informers.Caches
	limit  int // Zero for none.
	wake   func(cache.ObjectName)

	mu      sync.Mutex
	entered map[cache.ObjectName]bool
	waiting map[cache.ObjectName]bool
}

func newQueued(caches *informers.Caches, limit int, wake func(cache.ObjectName)) *queued {
	return &queued{caches: caches, limit: limit, wake: wake, entered: map[cache.ObjectName]bool{}, waiting: map[cache.ObjectName]bool{}}
}

// decide decides with the other clusters that are upgraded in view. Where two would begin in the last place, one does.
func (q *queued) decide(s *machine.Snapshot) machine.Decision {
	s.MaxUpgrades = q.limit
	if q.limit == 0 {
		return machine.Decide(*s)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	name, before := key(s.EMQX), machine.UnderWay(s.EMQX.Status)
	if !before {
		s.Others = q.others(name)
	}
	decision := machine.Decide(*s)
	after := machine.UnderWay(v2beta1.EMQXStatus{Phase: decision.Phase, Upgrade: &decision.Upgrade})
	delete(q.waiting, name)
	switch {
	case decision.Gone, !after && (before || q.entered[name]):
		q.leave(name)
	case after && !before:
		q.entered[name] = true
	case after:
		delete(q.entered, name) // Its status shows it.
	case decision.Waiting.Reason == machine.UpgradesUnderWay:
		q.waiting[name] = true
	}
	return decision
}

// forget drops a cluster that is gone.
func (q *queued) forget(name cache.ObjectName) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leave(name)
}

// leave makes room: whoever waits looks again. The caller holds the lock.
func (q *queued) leave(name cache.ObjectName) {
	delete(q.entered, name)
	delete(q.waiting, name)
	for waiting := range q.waiting {
		q.wake(waiting)
	}
}

// others are the clusters that are upgraded, but for one, by name.
func (q *queued) others(but cache.ObjectName) []string {
	var names []string
	for _, emqx := range q.caches.EMQXes.List() {
		if name := key(emqx); name != but && (machine.UnderWay(emqx.Status) || q.entered[name]) {
			names = append(names, strings.TrimPrefix(name.String(), but.Namespace+"/"))
		}
	}
	slices.Sort(names)
	return names
}
