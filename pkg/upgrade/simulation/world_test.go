package simulation

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// name is that of the one EMQX resource.
const name = "emqx"

// world is a Kubernetes and an EMQX, and who plays with them. Only the goroutine of the simulation touches it.
type world struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	desk  *desk
	kube  *apiserver
	owner types.UID // Of the resource.

	// names is the resource as it began: the names of all that belongs to it come from it.
	names *v2beta1.EMQX

	// Kubernetes' controllers and kubelets.
	machines      []*host
	startAt       map[types.UID]time.Time // When a pod's container starts, or when a pod that is deleted is gone.
	restarts      map[types.UID]int       // How often a pod's container was started.
	unschedulable time.Time               // Until when no machine takes a new pod.
	addresses     int
	strangers     map[types.UID]bool // Pods that somebody else deleted.
	replaced      map[types.UID]bool // Pods that were deleted so that their nodes are replaced in place.

	// EMQX and its clients.
	brokers    map[string]*broker
	members    map[string]bool
	unlicensed bool                    // EMQX has no licence.
	storage    *storage                // Nil for none.
	forgotten  map[string]bool         // Disks of nodes that were made to leave.
	cuts       map[[2]string]time.Time // Between which nodes nothing gets through, until when.
	password   string                  // Of the operator's API key, as the nodes know it.
	cookie     string                  // Of the cluster.
	population []*group
	expected   int // How many clients will come.
	rebalances []*rebalance
	asks       int           // How many Rebalances were made.
	slowest    time.Duration // How long an evicted client takes to come back at most.

	// The operator.
	watchesNodes bool
	operators    []*operator
	lives        int
	nextLife     time.Time // When the next life begins; zero while nobody died.
	requests     map[string]int

	// What is to come.
	calmAt  time.Time // When nothing happens any more; zero while nothing is planned.
	calm    bool
	refused string         // What the API server refuses, such as "apply services"; empty for nothing.
	reborn  time.Time      // When a resource that was deleted is made again; zero for none.
	cookies time.Time      // When somebody puts a cookie back that was changed; zero for none.
	changed *corev1.Secret // As it was before.
	asked   int            // How often somebody asked for what can be had without a licence.
	most    int32          // The most nodes that were asked for.

	// What happened, and the truth about it.
	history  []string
	happened map[string]bool
	drawn    map[string]uint64
	truth    truth
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, seed)),
		startAt: map[types.UID]time.Time{}, restarts: map[types.UID]int{}, strangers: map[types.UID]bool{}, replaced: map[types.UID]bool{},
		brokers: map[string]*broker{}, members: map[string]bool{}, cuts: map[[2]string]time.Time{}, forgotten: map[string]bool{},
		slowest: 1500 * time.Millisecond, requests: map[string]int{}, happened: map[string]bool{}, drawn: map[string]uint64{},
	}
	w.kube = newAPIServer(w)
	w.desk = &desk{bell: make(chan struct{}, 1), settle: w.kube.deliver}
	w.watchesNodes = seed%2 == 0
	for i := range 3 {
		h := &host{name: fmt.Sprintf("machine-%d", i)}
		w.machines = append(w.machines, h)
		w.cordon(h, false)
	}
	if seed%7 == 0 {
		w.slowest = 30 * time.Second
		w.happen("slow clients")
	}
	nodes := 1 + w.rng.IntN(3)
	if w.rng.IntN(6) == 0 {
		nodes = 4 + w.rng.IntN(2)
	}
	w.expected = 5 + w.rng.IntN(40)
	switch w.rng.IntN(4) {
	case 0:
		w.expected = 100 + w.rng.IntN(900)
		w.happen("hundreds of clients")
	case 1:
		w.expected = 1000 + w.rng.IntN(4000)
		w.happen("thousands of clients")
	}
	w.names = &v2beta1.EMQX{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Generation: 1},
		Spec: v2beta1.EMQXSpec{
			Image: "emqx/emqx:1",
			CoreTemplate: v2beta1.EMQXCoreTemplate{Spec: v2beta1.EMQXCoreTemplateSpec{
				EMQXReplicantTemplateSpec: v2beta1.EMQXReplicantTemplateSpec{Replicas: ptr.To(int32(nodes))},
			}},
			UpdateStrategy: v2beta1.UpdateStrategy{
				InitialDelaySeconds: int32(w.rng.IntN(4)),
				EvacuationStrategy: v2beta1.EvacuationStrategy{
					WaitTakeover: int32(w.rng.IntN(4)), ConnEvictRate: w.anyRate(), SessEvictRate: w.anyRate(),
				},
			},
		},
	}
	w.openStorage()
	w.openVolumes()
	w.loseLicence()
	w.happen(fmt.Sprintf("%d nodes", *w.names.Spec.CoreTemplate.Spec.Replicas))
	w.create(w.names.DeepCopy())
	return w
}

func (w *world) now() time.Time { return time.Now() }

// note tells the history of the world.
func (w *world) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%s %s", w.now().Format("04:05.000"), fmt.Sprintf(format, args...)))
}

// happen notes what is counted over all runs.
func (w *world) happen(what string) { w.happened[what] = true }

// once is true once in n times, drawn for each kind of thing by itself: another thing that happens more often or less
// changes nothing.
func (w *world) once(kind string, n uint64) bool {
	w.drawn[kind]++
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, w.seed, kind, w.drawn[kind]) // A hash takes everything.
	return h.Sum64()%n == 0
}

// resource is the EMQX resource; nil while there is none.
func (w *world) resource() *v2beta1.EMQX {
	found, _ := get[*v2beta1.EMQX](w.kube, emqxes, name)
	return found
}

// edit changes the specification as a user does.
func (w *world) edit(what string, change func(*v2beta1.EMQXSpec)) bool {
	emqx := w.resource()
	if emqx == nil {
		return false
	}
	w.note("user: %s", what)
	w.happen(what)
	emqx = emqx.DeepCopy()
	change(&emqx.Spec)
	emqx.Generation++
	w.kube.put(emqxes, emqx)
	for _, o := range w.operators {
		if w.now().Before(o.late[emqxes]) {
			w.truth.blind(o.late[emqxes]) // It does not know what is asked.
		}
	}
	return true
}

// operator is one life of the operator.
type operator struct {
	w         *world
	life      int
	began     time.Time
	cancel    context.CancelFunc
	done      chan struct{}
	dead      bool // Nothing it does reaches anybody any more.
	killAfter int  // It is killed after this many writes; 0 for never.
	asleep    time.Time
	diesAt    time.Time
	late      map[schema.GroupVersionResource]time.Time // Until when a watch lags.
	relist    map[schema.GroupVersionResource]time.Time // Until when a list is held.
	expired   map[schema.GroupVersionResource]int       // From before which version no watch begins.
	took      string                                    // The password that nodes took from it last.
}

// lags reports whether what changes is not told yet.
func (o *operator) lags(resource schema.GroupVersionResource) bool {
	now := o.w.now()
	return o.dead || now.Before(o.asleep) || now.Before(o.late[resource])
}

// begin starts a life of the operator.
func (w *world) begin() *operator {
	ctx, cancel := context.WithCancel(context.Background())
	w.lives++
	o := &operator{
		w: w, life: w.lives, began: w.now(), cancel: cancel, done: make(chan struct{}),
		late: map[schema.GroupVersionResource]time.Time{}, relist: map[schema.GroupVersionResource]time.Time{},
		expired: map[schema.GroupVersionResource]int{},
	}
	w.note("operator %d begins", o.life)
	kube, resources := kubeClient{by: o}, emqxClient{by: o}
	caches, err := informers.New(informers.Clients{Kube: kube, EMQX: resources, Metadata: metadataClient{by: o}}, nil)
	require.NoError(w.t, err)
	if w.watchesNodes {
		require.NoError(w.t, caches.WatchNodes(kube))
	}
	controller, err := upgrade.New(upgrade.Config{
		Kube: kube, EMQX: resources, Caches: caches, Registry: prometheus.NewRegistry(), EMQXAPI: brokerAPI{o}, Workers: 1,
	})
	require.NoError(w.t, err)
	w.operators = append(w.operators, o)
	go func() {
		defer close(o.done)
		defer caches.Wait()
		if caches.Run(ctx) == nil {
			controller.Run(ctx)
		}
	}()
	return o
}

// kill ends a life: what it still tries to do reaches nobody. The next begins when another has the lease.
func (w *world) kill(o *operator) {
	if o.dead {
		return
	}
	w.note("operator %d is killed", o.life)
	o.dead = true
	o.cancel()
	if o == w.leader() {
		w.nextLife = w.now().Add(time.Duration(w.rng.IntN(16000)) * time.Millisecond)
	}
}

// leader is the newest life, dead or not.
func (w *world) leader() *operator { return w.operators[len(w.operators)-1] }

// tickOperators begins and ends lives that are due.
func (w *world) tickOperators() {
	for _, o := range w.operators {
		if !o.diesAt.IsZero() && !w.now().Before(o.diesAt) {
			w.kill(o)
		}
	}
	if !w.nextLife.IsZero() && !w.now().Before(w.nextLife) {
		w.nextLife = time.Time{}
		w.begin()
	}
}

// end ends all lives and waits for their goroutines.
func (w *world) end() {
	for _, o := range w.operators {
		o.dead = true
		o.cancel()
	}
	ended := func(o *operator) bool {
		select {
		case <-o.done:
			return true
		default:
			return false
		}
	}
	for !every(w.operators, ended) {
		w.desk.pass(tick)
	}
}

func every[T any](items []T, is func(T) bool) bool {
	return !slices.ContainsFunc(items, func(item T) bool { return !is(item) })
}

// tick is the step of the world.
const tick = 250 * time.Millisecond

// step lets the world do what it does, and time pass.
func (w *world) step() {
	w.tickBrokers()
	w.tickPopulation()
	w.tickKubernetes()
	w.tickOperators()
	w.disturb()
	w.kube.undelivered = true // Also what has lagged till now.
	w.kube.deliver()
	w.checkAlways()
	w.desk.pass(tick)
}

// until lets time pass until the cluster is as it was asked for and nothing is planned any more.
func (w *world) until(what string, limit time.Duration) {
	w.desk.answer()
	since := time.Time{}
	for end := w.now().Add(limit); w.now().Before(end); {
		w.step()
		switch {
		case !w.settled():
			since = time.Time{}
		case since.IsZero():
			since = w.now()
		}
		if w.t.Failed() || !since.IsZero() && (!w.calm || w.now().Sub(since) >= settleTime) {
			return
		}
	}
	status := "there is no resource"
	if emqx := w.resource(); emqx != nil {
		status = fmt.Sprintf("%s %+v\n%+v", emqx.Status.State, emqx.Status.Upgrade, emqx.Status.Conditions)
	}
	w.t.Fatalf("%s was not reached in %s: %s\n%s\n%s", what, limit, status, strings.Join(w.history, "\n"), w.dump())
}

// settleTime is how long all must be well at the end: what the operator has not heard of yet is no end.
const settleTime = 15 * time.Second

func (w *world) settled() bool {
	emqx := w.resource()
	return emqx != nil && w.drained() == nil && (w.calmAt.IsZero() || w.allRebalanced()) && (w.calm || w.calmAt.IsZero()) && w.nextLife.IsZero() && len(w.living()) == 1 &&
		emqx.Status.ObservedGeneration == emqx.Generation && emqx.Status.State == machine.StateReady
}

// living are the lives that are not over.
func (w *world) living() []*operator {
	return slices.DeleteFunc(slices.Clone(w.operators), func(o *operator) bool { return o.dead })
}

// ordered returns the values of a map by its keys.
func ordered[K cmp.Ordered, V any](m map[K]V) []V {
	values := make([]V, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[key])
	}
	return values
}
