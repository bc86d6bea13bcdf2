package measure

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/e2e/secrecy"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
)

// drainLimit is how long messages under way may take to arrive, and clients to come back.
const drainLimit = 30 * time.Second

// Target is the EMQX resource that is measured, and how to reach it.
type Target struct {
	// Dir is the local cluster's directory.
	Dir state.Dir
	// State is the cluster's.
	State *state.State
	// Kube and EMQX are clients with all rights.
	Kube kubernetes.Interface
	EMQX versioned.Interface
	// Namespace and Name are those of the resource.
	Namespace, Name string
}

// Upgrade is one upgrade of a target, while it is made and after.
type Upgrade struct {
	target   Target
	observer *Observer
	sampler  *Sampler
	load     *load.Load
	clients  int
	before   *v2beta1.EMQX // As it was before the change.

	patched, ready time.Time
	processors     processorTime // At patched.
	busyShare      float64
	asked          map[string]map[string]int // What EMQX had been asked before.
	askedAfter     map[string]map[string]int
	keysSeen       int
	keysMissing    []string
}

// Begin notes how things are before the change. Clients is the number of clients of the load.
func Begin(ctx context.Context, target Target, observer *Observer, sampler *Sampler, running *load.Load, clients int) (*Upgrade, error) {
	u := &Upgrade{target: target, observer: observer, sampler: sampler, load: running, clients: clients, before: observer.Latest()}
	var err error
	u.asked, err = emqxRequests(ctx, target)
	return u, err
}

// Before is the resource as it was before the change. It must not be changed.
func (u *Upgrade) Before() *v2beta1.EMQX { return u.before }

// Patched waits for the change, from which on everything is measured.
func (u *Upgrade) Patched(ctx context.Context) error {
	var err error
	if u.patched, err = u.observer.Generation(ctx, u.generation()); err != nil {
		return fmt.Errorf("the patch changed nothing of the specification: %w", err)
	}
	u.processors = processors()
	return nil
}

// generation is that of the change.
func (u *Upgrade) generation() int64 { return u.before.Generation + 1 }

// Ready waits until the resource is Ready again.
func (u *Upgrade) Ready(ctx context.Context) error {
	if err := u.observer.Ready(ctx, u.generation()); err != nil {
		return err
	}
	u.ready = time.Now()
	u.busyShare = u.processors.busyUntil(processors())
	return nil
}

// WatchKeys looks, until ctx ends, whether the status has the keys that EMQX's documentation shows.
func (u *Upgrade) WatchKeys(ctx context.Context) (err error) {
	u.keysSeen, u.keysMissing, err = watchKeys(ctx, u.target, u.observer)
	return err
}

// Changes waits for more changes of STATUS than the given number and returns all, the first from before the change.
func (u *Upgrade) Changes(ctx context.Context, than int) ([]StateChange, error) {
	return u.observer.More(ctx, u.patched, than)
}

// End notes how things are once the resource is Ready. Call it right after Ready, before waiting for anything else.
func (u *Upgrade) End(ctx context.Context) error {
	var err error
	u.askedAfter, err = emqxRequests(ctx, u.target)
	return err
}

// Record puts together what is known of the upgrade.
func (u *Upgrade) Record(figures *Figures) *Record {
	return &Record{Connected: u.load.Samples(), Revisions: u.sampler.recorded(), Figures: *figures}
}

// Figures waits for messages and clients under way and measures the upgrade. The keeper knows the cluster's secrets, table prints the
// resource as users see it.
func (u *Upgrade) Figures(ctx context.Context, keeper *secrecy.Keeper, table func(context.Context) (string, error)) (Figures, error) {
	samples := u.load.Samples()
	drained := u.load.Drain(ctx, drainLimit)
	emqx := u.observer.Latest()
	f := Figures{
		From: u.before.Status.CoreNodesStatus.CurrentRevision, To: emqx.Status.CoreNodesStatus.UpdateRevision, Clients: u.clients,
		MessagesAcknowledged: drained.Acked, MessagesLost: drained.Lost, MessagesRepeated: drained.Repeated,
		MaxDisconnects: drained.MaxDisconnects, SessionsLost: drained.SessionsLost, MaxAway: drained.MaxAway,
		ReturnSeconds: u.load.ReturnTime().Seconds(),
		Limit:         limitOf(emqx, u.clients),
		ConnEvictRate: emqx.Spec.UpdateStrategy.EvacuationStrategy.ConnEvictRate,
		States:        u.observer.Since(u.patched), Patched: u.patched, Ready: u.ready,
		BusyShare:       u.busyShare,
		EvacuationsSeen: u.keysSeen, EvacuationKeysMissing: u.keysMissing,
		EMQXRequests: difference(u.asked, u.askedAfter), Floor: u.floor(emqx),
	}
	f.NodesBefore, f.NodesAfter = nodeNames(u.before), nodeNames(emqx)
	// An upgrade that was turned round ends where it began, too, and has moved clients.
	f.InPlace = f.From == f.To && !slices.Contains(stateNames(f.States), string(v2beta1.PhaseEvacuating))
	f.LowestShare, f.LongestGapSeconds = dip(samples, u.patched, u.clients)
	f.OutageSeconds = Outage(samples, u.patched).Seconds()
	var err error
	if f.ClientsBack, err = u.sampler.clientsOf(ctx, f.To, f.Clients); err != nil {
		return f, err
	}
	if f.Leftovers, err = u.sampler.left(ctx); err != nil {
		return f, err
	}
	if f.Table, err = table(ctx); err != nil {
		return f, err
	}
	if f.KubeRequests, err = kubeRequests(u.target.Dir, u.patched, u.ready); err != nil {
		return f, err
	}
	if f.SecretsTold, err = u.secretsTold(ctx, keeper); err != nil {
		return f, err
	}
	f.check()
	return f, nil
}

// secretsTold names the secrets of the cluster that are told anywhere.
func (u *Upgrade) secretsTold(ctx context.Context, keeper *secrecy.Keeper) ([]string, error) {
	place := secrecy.Place{Kube: u.target.Kube, EMQX: u.target.EMQX, Logs: u.target.Dir.PodLogs()}
	pods, err := u.target.Kube.CoreV1().Pods(OperatorNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the pods of the operator: %w", err)
	}
	for _, pod := range pods.Items {
		if address, err := u.target.State.Reach(pod.Status.PodIP); err == nil {
			place.Metrics = append(place.Metrics, fmt.Sprintf("http://%s:8080/metrics", address))
		}
	}
	return keeper.Told(ctx, place)
}

// dip returns the least share of clients connected since the change, and the longest time between two counts.
func dip(samples []load.Sample, patched time.Time, clients int) (lowestShare, longestGapSeconds float64) {
	lowestShare = 1
	var before time.Time
	for _, sample := range samples {
		if sample.At.After(patched) {
			if !before.IsZero() {
				longestGapSeconds = max(longestGapSeconds, sample.At.Sub(before).Seconds())
			}
			lowestShare = min(lowestShare, float64(sample.Connected)/float64(clients))
		}
		before = sample.At
	}
	return lowestShare, longestGapSeconds
}

// Outage is for how long nobody was connected since a time.
func Outage(samples []load.Sample, since time.Time) time.Duration {
	var first, last time.Time
	for _, sample := range samples {
		if sample.Connected > 0 || sample.At.Before(since) {
			continue
		}
		if first.IsZero() {
			first = sample.At
		}
		last = sample.At
	}
	return last.Sub(first)
}

// nodeNames are the names of a cluster's nodes.
func nodeNames(emqx *v2beta1.EMQX) []string {
	var names []string
	for _, node := range emqx.Status.CoreNodes {
		names = append(names, node.Node)
	}
	slices.Sort(names)
	return names
}

// limitOf is how many clients may be away at once.
func limitOf(emqx *v2beta1.EMQX, clients int) int {
	limit := intstr.FromString("10%")
	if asked := emqx.Spec.UpdateStrategy.EvacuationStrategy.MaxUnavailableClients; asked != nil {
		limit = *asked
	}
	value, err := intstr.GetScaledValueFromIntOrPercent(&limit, clients, true)
	if err != nil {
		return 1
	}
	return max(1, value)
}

// The parts of the limit that may be evicted a second: nine tenths when clients are back before the next look at the nodes,
// which comes about half a second after an eviction, else half.
const (
	promptPart, slowPart = 0.9, 0.5
	promptReturn         = 400 * time.Millisecond
)

// floor is the shortest time in which the upgrade could be done: no faster than the rate, than clients may be away, and
// than they came back.
func (u *Upgrade) floor(emqx *v2beta1.EMQX) Floor {
	strategy := &emqx.Spec.UpdateStrategy
	eviction := &strategy.EvacuationStrategy
	limit, back := float64(limitOf(emqx, u.clients)), u.load.ReturnTime()
	part := promptPart
	if back > promptReturn {
		part = slowPart
	}
	rate := min(float64(max(1, eviction.ConnEvictRate)), max(1, part*limit))
	if back > time.Second {
		rate = min(rate, limit/back.Seconds())
	}
	f := Floor{
		InitialDelaySeconds: float64(strategy.InitialDelaySeconds), WaitTakeoverSeconds: float64(eviction.WaitTakeover),
		EvictionSeconds: float64(u.clients) / rate, EvictionRate: rate,
		ReplicasSeconds: replicasSeconds(emqx),
		SessionsSeconds: float64(u.observer.sessionsToMove()) / float64(max(1, eviction.SessEvictRate)),
	}
	for _, pod := range u.observer.present() {
		if pod.revision == emqx.Status.CoreNodesStatus.UpdateRevision && pod.created.After(u.patched) && !pod.ready.IsZero() {
			f.SlowestStartSeconds = max(f.SlowestStartSeconds, pod.ready.Sub(pod.created).Seconds())
		}
	}
	return f
}

// replicasSeconds is how long the stand-in takes to move all replicas of a shard, one after the other; all shards move at once.
func replicasSeconds(emqx *v2beta1.EMQX) float64 {
	scale := 1.0
	for _, variable := range emqx.Spec.CoreTemplate.Spec.Env {
		if value, err := strconv.ParseFloat(variable.Value, 64); variable.Name == "EMQX_STANDIN_STORAGE_SCALE" && err == nil {
			scale = value
		}
	}
	most := int32(0)
	if emqx.Status.DSReplication != nil {
		for _, database := range emqx.Status.DSReplication.DBs {
			most = max(most, database.MaxReplicas)
		}
	}
	return float64(most) * (JoinSeconds + leaveSeconds) * scale
}
