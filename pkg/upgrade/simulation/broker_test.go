package simulation

import (
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// broker is a node of the simulated EMQX: one life of its process.
type broker struct {
	name, ip string
	owner    types.UID // Of the EMQX resource: nodes of different ones have different cookies.
	bootAt   time.Time // When its API answers; it joins the cluster a second later.
	joined   bool
	cookie   string
	frozen   time.Time // Until when it is frozen.
	givenUp  time.Time // Since when the others count it as stopped, until it joins them again; zero for never.
	dead     bool
	diedAt   time.Time   // When it, or its process before, died.
	served   bool        // It ever had a client: the truth, whatever was noted.
	evac     *evacuation // Nil for none.
	stored   *evacuation // What its disk remembers over a restart of its container.
	site     string      // Of its disk, in durable storage.
	delayed  int64       // How many delayed messages it has, which nobody moves.
	donates  bool        // It gives clients to a rebalance.
	// unlicensed tells that it ended because its licence allows one node.
	unlicensed bool
}

type evacuation struct {
	state            emqx.State
	conn, sess       int32
	waitTakeover     time.Duration
	recipients       []string // Empty after a restart: the broker does not store them.
	until, next      time.Time
	stuck            time.Time // Until when it waits for a frozen member, and its node says nothing of it.
	initial, initSes int32
	byHand           time.Time // Since when it runs, where a person started it; zero where the operator did.
}

// byName is the node of a name; nil when there is none.
func (w *world) byName(node string) *broker {
	pod, _, _ := strings.Cut(strings.TrimPrefix(node, "emqx@"), ".")
	if b := w.brokers[pod]; b != nil && b.name == node {
		return b
	}
	return nil
}

func (b *broker) up(now time.Time) bool { return !b.dead && !now.Before(b.bootAt) }

func (b *broker) refuses() bool { return b.evac != nil || b.donates }

// isFrozen reports whether a member is there and does not move.
func (b *broker) isFrozen(now time.Time) bool {
	return !b.dead && b.joined && now.Before(b.frozen) && !b.isGivenUp(now)
}

// isGivenUp reports whether the others count a node as stopped that was frozen for long, and it them.
func (b *broker) isGivenUp(now time.Time) bool { return !b.givenUp.IsZero() && !now.Before(b.givenUp) }

func (w *world) anyFrozen() bool {
	for _, b := range w.brokers {
		if b.isFrozen(w.now()) {
			return true
		}
	}
	return false
}

// sees reports whether what one node sends reaches another.
func (w *world) sees(a, b *broker) bool {
	return a.owner == b.owner && a.cookie == b.cookie && !a.isGivenUp(w.now()) && !b.isGivenUp(w.now()) && !w.now().Before(w.cuts[[2]string{min(a.name, b.name), max(a.name, b.name)}])
}

// boot starts the process of a pod's container. On the disk of one that ran before is its evacuation.
func (w *world) boot(pod *corev1.Pod, restarted bool) *broker {
	b := &broker{
		name: "emqx@" + pod.Name + "." + pod.Spec.Containers[0].Env[0].Value, ip: pod.Status.PodIP, owner: w.ownerOf(pod), site: w.diskOf(pod),
		bootAt: w.now().Add(time.Duration(500+w.rng.IntN(1500)) * time.Millisecond), cookie: w.cookieOfSecret(),
	}
	if w.seed%4 == 0 {
		b.delayed = 2
	}
	w.checkDisk(pod)
	if before := w.brokers[pod.Name]; restarted || before != nil && before.site == b.site {
		b.stored, b.diedAt = w.brokers[pod.Name].stored, w.brokers[pod.Name].diedAt
	}
	w.brokers[pod.Name] = b
	if password, exists := w.secretPassword(); exists {
		w.password = password // A node that starts tells the whole cluster the API keys of the Secret.
	}
	return b
}

// ownerOf is the UID of the resource that a pod belongs to; empty for one whose set has gone.
func (w *world) ownerOf(pod *corev1.Pod) types.UID {
	for _, set := range all[*appsv1.StatefulSet](w.kube, statefulSets) {
		if metav1.IsControlledBy(pod, set) && metav1.GetControllerOfNoCopy(set) != nil {
			return metav1.GetControllerOfNoCopy(set).UID
		}
	}
	return ""
}

// secretPassword is what the Secret of the API keys holds for the operator; false when there is no Secret.
func (w *world) secretPassword() (string, bool) {
	secret, exists := get[*corev1.Secret](w.kube, secrets, w.names.BootstrapAPIKeySecretName())
	if !exists {
		return "", false
	}
	own, _ := resources.OperatorKeys(secret.Data)
	if own == nil {
		return "", false
	}
	return own.Secret, true
}

// cookieOfSecret is what the Secret of the cookie holds.
func (w *world) cookieOfSecret() string {
	secret, exists := get[*corev1.Secret](w.kube, secrets, w.names.NodeCookieSecretName())
	if !exists {
		return w.cookie
	}
	return string(secret.Data[resources.NodeCookieKey])
}

// anyWith reports whether a node of the cluster lives that has a cookie.
func (w *world) anyWith(cookie string) bool {
	return slices.ContainsFunc(ordered(w.brokers), func(b *broker) bool { return !b.dead && b.owner == w.owner && b.cookie == cookie })
}

// healTime is how long a node that was given up takes to notice that it is alone, and to start again what runs in it.
const healTime = 17 * time.Second

// heal starts a node's applications again that the others had given up: what it held in memory is gone.
func (w *world) heal(b *broker) {
	w.note("%s starts again, since the others had given it up", b.name)
	w.happen("a node that was given up and came back")
	w.scatter(b)
	b.joined, b.givenUp, b.bootAt, b.evac = false, time.Time{}, w.now().Add(time.Second), nil
}

// die ends a node's process.
func (w *world) die(b *broker) {
	b.dead, b.diedAt, b.joined = true, w.now(), false
	w.scatter(b)
}

// tickBrokers lets the nodes do what they do.
func (w *world) tickBrokers() {
	w.tickStorage()
	w.tickRebalances()
	for _, b := range ordered(w.brokers) {
		if !b.dead && b.isGivenUp(w.now()) && !w.now().Before(b.frozen.Add(healTime)) {
			w.heal(b)
		}
		if b.up(w.now()) && b.owner == w.owner && b.cookie != w.cookie && !w.anyWith(w.cookie) {
			w.cookie = b.cookie // Nobody is left whom it would have to join.
		}
		if b.up(w.now()) && !b.joined && b.cookie == w.cookie && !w.now().Before(b.frozen) && (len(w.members) == 0 || !w.now().Before(b.bootAt.Add(time.Second))) {
			b.joined = true
			if !w.licensed(b) {
				continue
			}
			if b.owner == w.owner && w.owner != "" {
				w.members[b.name] = true
			}
			if !w.register(b) {
				continue
			}
			if b.stored != nil {
				restored := *b.stored
				restored.state, restored.recipients, restored.next = emqx.StateEvictingConns, nil, w.now()
				b.evac = &restored
			}
		}
		if b.evac != nil && b.joined && !b.dead && !w.now().Before(b.frozen) {
			if back := w.now().Add(-unsupervised / 2); b.evac.state == emqx.StateEvictingConns && (back.Before(b.frozen) || back.Before(b.bootAt)) {
				w.truth.blind(w.now()) // It thawed, or started, and evicts before anybody can tell it otherwise.
			}
			w.tickEvacuation(b)
		}
	}
}

func (w *world) tickEvacuation(b *broker) {
	e := b.evac
	if w.now().Before(e.next) {
		return
	}
	if e.state == emqx.StateWaitingHealthCheck {
		e.state = emqx.StateEvictingConns
	}
	switch e.state {
	case emqx.StateWaitingHealthCheck:
	case emqx.StateEvictingConns:
		e.next = w.now().Add(time.Second)
		if w.live(b) == 0 {
			e.state, e.until = emqx.StateWaitingTakeover, w.now().Add(e.waitTakeover)
			return
		}
		w.evict(b, int(e.conn), true)
		if !e.byHand.IsZero() {
			w.truth.blind(w.now()) // Who was evicted so is found out by looking.
		}
	case emqx.StateWaitingTakeover:
		if !w.now().Before(e.until) {
			e.state = emqx.StateEvictingSessions
		}
	case emqx.StateEvictingSessions:
		e.next = w.now().Add(time.Second)
		w.moveOn(b, e)
	case emqx.StateProhibiting:
	}
}

// moveOn moves sessions for a second. While a member is frozen, each takes a minute, and the node says nothing of it.
func (w *world) moveOn(b *broker, e *evacuation) {
	recipients := w.available(b, e)
	switch {
	case w.sessions(b) == 0:
		e.state = emqx.StateProhibiting
	case len(recipients) == 0:
		e.next = w.now().Add(30 * time.Second)
	case w.anyFrozen():
		e.next, e.stuck = w.now().Add(time.Minute), w.now().Add(time.Minute)
		w.happen("a session that waits for a frozen member")
		w.moveSessions(b, 1, recipients)
	default:
		w.moveSessions(b, int(e.sess), recipients)
	}
}

// available are the recipients of an evacuation that can take sessions now.
func (w *world) available(b *broker, e *evacuation) []*broker {
	var found []*broker
	for _, other := range ordered(w.brokers) {
		named := len(e.recipients) == 0 || slices.Contains(e.recipients, other.name)
		if other != b && named && other.joined && !other.dead && !other.refuses() && !w.now().Before(other.frozen) && w.sees(b, other) {
			found = append(found, other)
		}
	}
	return found
}
