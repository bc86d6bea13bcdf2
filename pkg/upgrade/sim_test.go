package upgrade

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kubefake "k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	emqxfake "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/fake"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// The simulation runs the whole operator, informers, queue and driver included, in virtual time against a simulated
// Kubernetes and a simulated EMQX, with random events and faults, and checks the invariants at every step. A failure
// names its seed: go test ./pkg/upgrade -run TestSimulation -sim.seed N -sim.runs 1 -v
var (
	simRuns = flag.Int("sim.runs", 20, "how many upgrades to simulate")
	simSeed = flag.Uint64("sim.seed", 1, "the seed of the first; each next has the next")
)

func TestSimulation(t *testing.T) {
	klog.SetLogger(klog.Logger{})
	happened := &tally{counts: map[string]int{}}
	t.Cleanup(func() {
		t.Logf("%d upgrades simulated, seeds %d to %d; in how many of them what happened: %s", *simRuns, *simSeed, *simSeed+uint64(*simRuns)-1, happened)
	})
	for i := range *simRuns {
		seed := *simSeed + uint64(i)
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { happened.add(simulate(t, seed)) })
		})
	}
}

// tally counts in how many simulated upgrades what happened.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

// add takes what happened from the history of a world.
func (h *tally) add(w *simWorld) {
	history := strings.Join(w.history, "\n")
	h.mu.Lock()
	defer h.mu.Unlock()
	for what, words := range map[string]string{
		"another revision in mid-upgrade": "user: change to image 3", "a revert": "user: change back", "a bad image": "user: change to a bad image",
		"a pause": "user: pause", "other rates": "user: change the rates", "a kill of the operator": "is killed right after", "a lost write": "which fails",
		"a frozen node": "is frozen until", "a crash": " crashes", "a lost object": "somebody deletes", "a stranger's doing": "a stranger",
		"evictions held for clients": "evictions are stopped", "evictions held for a silent member": "which may have clients",
	} {
		if strings.Contains(history, words) {
			h.counts[what]++
		}
	}
	if w.slowest > 2*time.Second {
		h.counts["slow clients"]++
	}
	if w.seed%5 == 0 {
		h.counts["an adoption"]++
	}
}

// String lists what happened, the most frequent first.
func (h *tally) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(h.counts), func(a, b string) int {
		return cmp.Or(h.counts[b]-h.counts[a], strings.Compare(a, b))
	})
	var told []string
	for _, name := range names {
		told = append(told, fmt.Sprintf("%s %d", name, h.counts[name]))
	}
	return strings.Join(told, ", ")
}

const simName = "emqx"

// simWorld is a Kubernetes and an EMQX, and who plays with them.
type simWorld struct {
	t        *testing.T
	rng      *rand.Rand
	template *v2beta1.EMQX
	kube     *kubefake.Clientset
	emqx     *emqxfake.Clientset
	meta     *metadatafake.FakeMetadataClient

	mu        sync.Mutex
	nodes     map[string]*simNode
	members   map[string]bool
	password  string // Of the operator's API key, as the nodes know it.
	clients   []*simClient
	startAt   map[any]time.Time // When a pod's container starts, or when a pod that is deleted is gone.
	requests  map[string]int
	addresses int
	uids      int
	version   int // The resource version of the last write.
	history   []string
	seed      uint64
	drawn     map[string]int

	slowest   time.Duration      // How long an evicted client takes to come back at most.
	strangers map[types.UID]bool // Pods that a stranger deleted.
	outage    time.Time          // Since when nobody is led to anybody although somebody could be; zero for not.
	excused   int                // Clients that nodes evicted which nobody could stop.
	uncounted int                // Clients that were away when they were counted.
	mostAway  float64            // The most clients that were away at once, of those that may be.

	operator  *simOperator
	calm      bool // No more faults.
	killAfter int  // Kill the operator after this many writes; 0 for never.
}

// simOperator is one life of the operator.
type simOperator struct {
	controller *Controller
	began      time.Time
	cancel     context.CancelFunc
	done       chan struct{}
	dead       bool // It was killed: nothing it does reaches anybody any more.
}

func simulate(t *testing.T, seed uint64) *simWorld {
	w := newWorld(t, seed)
	// Every fifth cluster was built by emqx-operator 2.x.
	inherited, otherImage := seed%5 == 0, seed%15 == 0
	if inherited {
		w.inherit(seed%2 == 0, otherImage)
	}
	w.start()
	defer func() { w.stop() }()
	w.until("the first installation or adoption", 5*time.Minute)
	switch {
	case t.Failed():
		return w
	case !inherited:
		w.connectAll()
	case !otherImage:
		w.checkAdopted()
	}
	w.plan()
	w.until("the end", 40*time.Minute)
	if !t.Failed() { // What failed on the way never came to an end to judge.
		w.checkEnd()
	}
	return w
}

func newWorld(t *testing.T, seed uint64) *simWorld {
	w := &simWorld{
		t: t, seed: seed, drawn: map[string]int{}, rng: rand.New(rand.NewPCG(seed, seed)),
		strangers: map[types.UID]bool{}, slowest: time.Duration(1500) * time.Millisecond,
		nodes: map[string]*simNode{}, members: map[string]bool{}, startAt: map[any]time.Time{}, requests: map[string]int{},
		kube: kubefake.NewSimpleClientset(), emqx: emqxfake.NewSimpleClientset(), meta: metadatafake.NewSimpleMetadataClient(metadataScheme()),
	}
	if seed%7 == 0 {
		w.slowest = 30 * time.Second
	}
	w.template = &v2beta1.EMQX{
		ObjectMeta: metav1.ObjectMeta{Name: simName, Namespace: simNamespace, UID: "emqx-uid", Generation: 1},
		Spec: v2beta1.EMQXSpec{
			Image: "emqx/emqx:1",
			CoreTemplate: v2beta1.EMQXCoreTemplate{Spec: v2beta1.EMQXCoreTemplateSpec{
				EMQXReplicantTemplateSpec: v2beta1.EMQXReplicantTemplateSpec{Replicas: ptr.To(int32(1 + w.rng.IntN(3)))},
			}},
			UpdateStrategy: v2beta1.UpdateStrategy{
				InitialDelaySeconds: int32(w.rng.IntN(4)),
				EvacuationStrategy: v2beta1.EvacuationStrategy{
					WaitTakeover: int32(w.rng.IntN(4)), ConnEvictRate: int32(1 + w.rng.IntN(20)), SessEvictRate: int32(1 + w.rng.IntN(20)),
				},
			},
		},
	}
	w.must(w.emqx.Tracker().Create(emqxesResource, w.template.DeepCopy(), simNamespace), "create the resource")
	w.hook()
	return w
}

func metadataScheme() *runtime.Scheme {
	scheme := metadatafake.NewTestScheme()
	_ = metav1.AddMetaToScheme(scheme) // Cannot fail with these types.
	return scheme
}

func (w *simWorld) now() time.Time { return time.Now() }

func (w *simWorld) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%s %s", w.now().Format("04:05.000"), fmt.Sprintf(format, args...)))
}

// chance is true once in n times, drawn for each kind of event by itself, so that the order in which goroutines come
// changes nothing.
func (w *simWorld) chance(kind string, n uint64) bool {
	w.drawn[kind]++
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, w.seed, kind, w.drawn[kind]) // A hash takes everything.
	return h.Sum64()%n == 0
}

func (w *simWorld) lostAnswer(n *simNode) error {
	if !w.calm && w.chance("answer of "+n.name, 20) {
		return fmt.Errorf("%w: simulated: the answer was lost", emqx.ErrSilent)
	}
	return nil
}

func (w *simWorld) resource() *v2beta1.EMQX {
	object, err := w.emqx.Tracker().Get(emqxesResource, simNamespace, simName)
	w.must(err, "read the resource")
	return object.(*v2beta1.EMQX)
}

// edit changes the specification as a user does.
func (w *simWorld) edit(what string, change func(*v2beta1.EMQXSpec)) {
	w.note("user: %s", what)
	emqx := w.resource().DeepCopy()
	change(&emqx.Spec)
	emqx.Generation++
	w.stamp(emqx)
	w.must(w.emqx.Tracker().Update(emqxesResource, emqx, simNamespace), "edit the resource")
}

// start begins a life of the operator.
func (w *simWorld) start() {
	ctx, cancel := context.WithCancel(context.Background())
	caches, err := informers.New(informers.Clients{Kube: w.kube, EMQX: w.emqx, Metadata: w.meta}, nil)
	require.NoError(w.t, err)
	controller, err := New(Config{Kube: w.kube, EMQX: w.emqx, Caches: caches, Registry: prometheus.NewRegistry(), EMQXAPI: simAPI{w}})
	require.NoError(w.t, err)
	operator := &simOperator{controller: controller, began: w.now(), cancel: cancel, done: make(chan struct{})}
	w.operator = operator
	cachesCtx, stopCaches := context.WithCancel(context.Background())
	go func() {
		defer close(operator.done)
		defer caches.Wait()
		defer stopCaches()
		if err := caches.Run(cachesCtx); err == nil {
			// Virtual time goes on when every watch has begun. What is made before a fake's watch begins comes in any order
			// of versions, other than from an API server, and a cache would seem to be behind for ever.
			time.Sleep(time.Millisecond)
			controller.Run(ctx)
		}
	}()
}

// stop ends the life of the operator. What it still tries to do after it was killed reaches nobody.
func (w *simWorld) stop() {
	w.operator.cancel()
	<-w.operator.done
}

func (w *simWorld) connectAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range 5 + w.rng.IntN(40) {
		client := &simClient{backAt: w.now()}
		w.clients = append(w.clients, client)
		w.connect(client)
	}
}

// simTick is the step of the world.
const simTick = 250 * time.Millisecond

// until lets time pass until the cluster is as it was asked for and nothing is planned any more.
func (w *simWorld) until(what string, limit time.Duration) {
	for end := w.now().Add(limit); w.now().Before(end); time.Sleep(simTick) {
		synctest.Wait()
		w.mu.Lock()
		w.tickEMQX()
		w.tickKube()
		killed := w.operator.dead
		if !w.calm {
			w.disturb()
		}
		w.checkAway()
		if w.now().Sub(w.now().Truncate(time.Second)) < simTick {
			w.checkServing()
		}
		settled := w.settled()
		w.mu.Unlock()
		if killed {
			w.stop()
			w.start()
		}
		if settled || w.t.Failed() {
			return
		}
	}
	w.t.Fatalf("%s was not reached in %s: %+v\n%s\n%s", what, limit, w.resource().Status.Upgrade, strings.Join(w.history, "\n"), w.dump())
}

func (w *simWorld) settled() bool {
	emqx := w.resource()
	_, planned := w.startAt["calm"]
	return (w.calm || !planned) && emqx.Status.ObservedGeneration == emqx.Generation && emqx.Status.State == machine.StateReady
}

// plan draws what will happen.
func (w *simWorld) plan() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.edit("upgrade to image 2", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:2" })
	w.killAfter = w.rng.IntN(60)
	w.startAt["calm"] = w.now().Add(time.Duration(w.rng.IntN(60)) * time.Second)
}

// disturb has something happen now and then, until it gets calm.
func (w *simWorld) disturb() {
	calmAt, planned := w.startAt["calm"]
	if !planned {
		return
	}
	if !w.now().Before(calmAt) {
		w.calm = true
		w.note("it gets calm")
		if w.resource().Spec.UpdateStrategy.Paused {
			w.edit("unpause", func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = false })
		}
		if strings.Contains(w.resource().Spec.Image, "bad") {
			w.edit("correct the image", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:5" })
		}
		return
	}
	switch w.rng.IntN(160) {
	case 0:
		w.edit("change to image 3", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:3" })
	case 1:
		w.edit("change back to image 1", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:1" })
	case 2:
		w.edit("change to a bad image", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/bad:4" })
	case 3:
		w.edit("pause or unpause", func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = !spec.UpdateStrategy.Paused })
	case 4, 5:
		if n := w.anyNode(); n != nil {
			n.frozen = w.now().Add(time.Duration(1+w.rng.IntN(60)) * time.Second)
			w.note("%s is frozen until %s", n.name, n.frozen.Format("04:05"))
		}
	case 6:
		if n := w.anyNode(); n != nil {
			w.note("%s crashes", n.name)
			w.kill(n)
		}
	case 7:
		c := w.clients[w.rng.IntN(len(w.clients))]
		c.gone, c.node = true, nil
	case 8:
		if _, exists := w.secretPassword(); exists { // What is lost can be put back only by an operator that lives.
			w.killAfter = 1 + w.rng.IntN(10)
		}
	case 9:
		w.lose(servicesResource, w.template.ListenersServiceName())
	case 10:
		// An operator that knows the password puts it back. With one that does not, a person must help, as the README says.
		if !w.operator.dead && w.operator.controller.fleet.password(w.resource()) == w.password {
			w.killAfter = 0
			w.lose(secretsResource, w.template.BootstrapAPIKeySecretName())
		}
	case 12, 13, 14:
		w.interfere()
	case 15:
		w.edit("change the rates a lot", func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.EvacuationStrategy.ConnEvictRate = int32(1 + w.rng.IntN(20))
			spec.UpdateStrategy.EvacuationStrategy.SessEvictRate = int32(1 + w.rng.IntN(20))
		})
	case 11:
		w.edit("change the rates", func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.EvacuationStrategy.ConnEvictRate++
			spec.UpdateStrategy.EvacuationStrategy.SessEvictRate++
		})
	}
}

// interfere has a stranger change something that is not his.
func (w *simWorld) interfere() {
	sets, pods := w.sets(), w.pods()
	switch w.rng.IntN(6) {
	case 0:
		if len(pods) > 0 {
			pod := pods[w.rng.IntN(len(pods))]
			if pod.DeletionTimestamp.IsZero() {
				w.note("a stranger deletes pod %s", pod.Name)
				w.strangers[pod.UID] = true
				w.terminate(pod)
			}
		}
	case 1:
		if len(sets) > 0 {
			set := sets[w.rng.IntN(len(sets))]
			w.note("a stranger scales set %s up", set.Name)
			*set.Spec.Replicas++
			set.Generation++
			w.must(w.update(setsResource, &set, simNamespace), "scale a set")
		}
	case 2:
		if len(sets) > 0 {
			set := sets[w.rng.IntN(len(sets))]
			w.note("a stranger takes the labels off set %s", set.Name)
			set.Labels = nil
			w.must(w.update(setsResource, &set, simNamespace), "relabel a set")
		}
	case 3:
		for _, service := range w.services() {
			if service.Name == w.template.ListenersServiceName() {
				w.note("a stranger adds to the selector of the listeners Service")
				service.Spec.Selector = labels.Merge(service.Spec.Selector, map[string]string{"nobody": "has"})
				w.must(w.update(servicesResource, &service, simNamespace), "edit a Service")
			}
		}
	case 4:
		w.lose(servicesResource, w.template.HeadlessServiceName())
	case 5:
		for _, name := range w.configMaps() {
			w.note("a stranger deletes ConfigMap %s", name)
			w.touch(configMapsResource, name)
			w.must(w.kube.Tracker().Delete(configMapsResource, simNamespace, name), "lose a ConfigMap")
			w.unmirror(configMapsResource, name)
			return
		}
	}
}

func (w *simWorld) anyNode() *simNode {
	var names []string
	for name, n := range w.nodes {
		if n.joined && !n.dead {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return w.nodes[names[w.rng.IntN(len(names))]]
}
