package simulation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// storage is the durable storage of the cluster: one database of a few shards. A site is the disk of a pod: see diskOf.
//
// A disk that is lost with its pod takes its replicas along; EMQX gives them up after a minute, when told to. The next node of the
// same name ends while the others know of the lost site.
type storage struct {
	sites  map[string]string // The node of each site.
	shards []*shard
	target []string
}

type shard struct {
	replicas []string
	next     time.Time // When the next replica comes or goes.
}

// copyTime is how long a replica takes to come or to go, giveUpTime how long EMQX waits for one whose node is dead.
const copyTime, giveUpTime = 2 * time.Second, time.Minute

// openStorage has every third world have durable storage.
func (w *world) openStorage() {
	if w.seed%3 == 0 {
		w.storage = &storage{sites: map[string]string{}}
		w.happen("durable storage")
	}
}

// register notes the site of a node that joined. The first gets all replicas. It reports false when that ends the node.
func (w *world) register(b *broker) bool {
	s := w.storage
	if s == nil || b.owner != w.owner || w.owner == "" {
		return true
	}
	for _, lost := range slices.Sorted(maps.Keys(s.sites)) {
		switch {
		case !w.anyBeside(b) && !w.exists(lost):
			s.replace(lost, b.site) // Nobody is left who knows of it.
		case s.sites[lost] == b.name && lost != b.site:
			w.note("%s ends: another disk has its name", b.name)
			w.happen("a node that its lost disk ended")
			w.die(b)
			return false
		}
	}
	s.sites[b.site] = b.name
	if len(s.shards) == 0 {
		for range 3 {
			s.shards = append(s.shards, &shard{replicas: []string{b.site}})
		}
		s.target = []string{b.site}
	}
	return true
}

// exists reports whether a pod has a disk.
func (w *world) exists(site string) bool {
	return slices.ContainsFunc(all[*corev1.Pod](w.kube, pods), func(pod *corev1.Pod) bool { return w.diskOf(pod) == site })
}

// anyBeside reports whether another member runs.
func (w *world) anyBeside(b *broker) bool {
	return slices.ContainsFunc(ordered(w.brokers), func(other *broker) bool { return other != b && other.owner == b.owner && other.joined && !other.dead })
}

// replace has an empty site take the place of one whose disk was lost. A shard of which nothing is left begins anew.
func (s *storage) replace(lost, empty string) {
	delete(s.sites, lost)
	for _, shard := range s.shards {
		shard.replicas = slices.DeleteFunc(slices.Clone(shard.replicas), func(site string) bool { return site == lost })
		if len(shard.replicas) == 0 {
			shard.replicas = []string{empty}
		}
	}
	for i := range s.target {
		if s.target[i] == lost {
			s.target[i] = empty
		}
	}
}

// onSite is the node whose disk a site is, if it runs.
func (w *world) onSite(site string) *broker {
	for _, b := range ordered(w.brokers) {
		if b.site == site && b.joined && !b.dead && !w.now().Before(b.frozen) {
			return b
		}
	}
	return nil
}

// tickStorage moves replicas towards their target, one of each shard at a time: what is to go goes when another is there.
func (w *world) tickStorage() {
	if w.storage == nil {
		return
	}
	for _, s := range w.storage.shards {
		if w.now().Before(s.next) {
			continue
		}
		joining, leaving := w.storage.transitions(s)
		alive := func(site string) bool { return w.onSite(site) != nil }
		source := slices.ContainsFunc(s.replicas, alive)
		switch {
		case len(joining) > 0 && alive(joining[0]) && (source || w.lostForGood(s)):
			s.replicas = append(slices.Clone(s.replicas), joining[0])
		case len(leaving) > 0 && slices.ContainsFunc(s.replicas, func(site string) bool { return site != leaving[0] && alive(site) }):
			s.replicas = slices.DeleteFunc(slices.Clone(s.replicas), func(site string) bool { return site == leaving[0] })
		default:
			continue
		}
		w.happen("a replica that moved")
		s.next = w.now().Add(copyTime)
		if len(leaving) > 0 && !alive(leaving[0]) {
			s.next = w.now().Add(giveUpTime)
		}
	}
}

// lostForGood reports whether no disk with a replica of a shard is left.
func (w *world) lostForGood(s *shard) bool {
	return !slices.ContainsFunc(all[*corev1.Pod](w.kube, pods), func(pod *corev1.Pod) bool { return slices.Contains(s.replicas, w.diskOf(pod)) })
}

func (s *storage) transitions(of *shard) (joining, leaving []string) {
	for _, site := range s.target {
		if !slices.Contains(of.replicas, site) {
			joining = append(joining, site)
		}
	}
	for _, site := range of.replicas {
		if !slices.Contains(s.target, site) {
			leaving = append(leaving, site)
		}
	}
	return joining, leaving
}

// holds counts the replicas on a site.
func (s *storage) holds(site string) int {
	count := 0
	for _, shard := range s.shards {
		if slices.Contains(shard.replicas, site) {
			count++
		}
	}
	return count
}

// checkData is invariant 14: no core that holds a replica is removed.
func (w *world) checkData(pod *corev1.Pod) {
	// Where one node is allowed, what a stranger added, or what never served, has what began anew when the other's was lost.
	b := w.brokers[pod.Name]
	if w.storage == nil || w.unlicensed && (ordinalOf(pod.Name) > 0 || b != nil && !b.served) {
		return
	}
	if held := w.storage.holds(w.diskOf(pod)); held > 0 {
		w.violate("pod %s is removed while its site holds %d replicas", pod.Name, held)
	}
}

// checkStorageEnd is that replicas and sites are where the nodes are, and nowhere else.
func (w *world) checkStorageEnd() {
	if w.storage == nil {
		return
	}
	var left []string
	for _, pod := range all[*corev1.Pod](w.kube, pods) {
		left = append(left, w.diskOf(pod))
	}
	for _, site := range slices.Sorted(maps.Keys(w.storage.sites)) {
		if !slices.Contains(left, site) && w.byName(w.storage.sites[site]) == nil {
			w.violate("site %s of %s is left", site, w.storage.sites[site])
		}
	}
	for i, s := range w.storage.shards {
		if !slices.ContainsFunc(s.replicas, func(site string) bool { return slices.Contains(left, site) }) {
			w.violate("no replica of shard %d is left: %v", i, s.replicas)
		}
	}
}

// Storage is GET /ds/sites, /ds/storages and what they name, as EMQX 6.0 has it.
func (a brokerAPI) Storage(ctx context.Context, node emqx.Node, credentials emqx.Credentials) (told emqx.Storage, err error) {
	w := a.by.w
	err = a.reach(ctx, "storage", node, &credentials, true, func(*broker) error {
		if w.storage == nil {
			return fmt.Errorf("%w: simulated", emqx.ErrStorageDisabled)
		}
		for _, site := range slices.Sorted(maps.Keys(w.storage.sites)) {
			told.Sites = append(told.Sites, emqx.Site{ID: site, Node: w.storage.sites[site], Up: w.onSite(site) != nil})
		}
		database := emqx.Database{Name: "mq_state"}
		for i, s := range w.storage.shards {
			joining, leaving := w.storage.transitions(s)
			database.Shards = append(database.Shards, emqx.Shard{ID: strconv.Itoa(i), Replicas: slices.Clone(s.replicas), Joining: joining, Leaving: leaving})
		}
		told.Databases = []emqx.Database{database}
		return nil
	})
	return told, err
}

// SetReplicas is PUT /ds/storages/:ds/replicas.
func (a brokerAPI) SetReplicas(ctx context.Context, node emqx.Node, credentials emqx.Credentials, _ string, sites []string) error {
	w := a.by.w
	return a.reach(ctx, "set replicas", node, &credentials, false, func(*broker) error {
		for _, site := range sites {
			if w.storage.sites[site] == "" {
				return fmt.Errorf("simulated: Unknown sites: %s", site)
			}
		}
		w.note("operator %d: replicas shall be on %v", a.by.life, sites)
		w.storage.target = slices.Clone(sites)
		return w.lostAnswer()
	})
}

// ForgetSite is PUT /ds/sites/:site/forget.
func (a brokerAPI) ForgetSite(ctx context.Context, node emqx.Node, credentials emqx.Credentials, site string) error {
	w := a.by.w
	return a.reach(ctx, "forget site", node, &credentials, false, func(*broker) error {
		switch {
		case w.onSite(site) != nil:
			return errors.New("simulated: Site is up and running")
		case w.storage.holds(site) > 0, slices.Contains(w.storage.target, site):
			return errors.New("simulated: Site is still a member of replica sets of: mq_state")
		}
		w.happen("a site that was forgotten")
		delete(w.storage.sites, site)
		return w.lostAnswer()
	})
}
