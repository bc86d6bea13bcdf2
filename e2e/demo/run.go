package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
)

const (
	// drainLimit is how long messages under way may take to arrive, and clients to come back.
	drainLimit = 30 * time.Second
	// downLimit bounds taking the cluster down, also when the run was interrupted.
	downLimit = time.Minute
)

// run is one run of the demo.
type run struct {
	config          Config
	begun           time.Time
	dir             state.Dir
	state           *state.State
	kube            kubernetes.Interface
	emqx            versioned.Interface
	namespace, name string
	observer        *observer
	load            *load.Load
}

// Run makes an upgrade and measures it. The cluster is taken down at the end, also after a failure, unless Keep is set.
// An error means that the upgrade could not be made or measured to its end; figures that miss their limits are no
// error, see Figures.OK.
func Run(ctx context.Context, config Config) (figures Figures, err error) {
	config, err = config.withDefaults()
	if err != nil {
		return Figures{}, err
	}
	r := &run{config: config, begun: time.Now()}
	defer func() {
		if config.Keep && r.observer != nil {
			r.lookAround(ctx)
			return
		}
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
		defer cancel()
		failure := localkube.Down(down, localkube.DownOptions{Dir: config.Dir, Registry: config.Registry})
		if failure == nil {
			r.say("the cluster is down; its logs are in %s", r.dir.Path("logs"))
		} else if !errors.Is(failure, localkube.ErrNothingToStop) {
			err = errors.Join(err, fmt.Errorf("take the cluster down: %w", failure))
		}
	}()
	if err := r.setUp(ctx); err != nil {
		return Figures{}, err
	}
	defer r.observer.close()
	return r.measured(ctx)
}

// measured runs the load and the upgrade. The clients are gone when it returns.
func (r *run) measured(ctx context.Context) (Figures, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := r.connect(ctx); err != nil {
		return Figures{}, err
	}
	nodes, err := r.sample(ctx)
	if err != nil {
		return Figures{}, err
	}
	defer nodes.tasks.Wait()
	defer cancel()
	if err := pause(ctx, r.config.Steady); err != nil {
		return Figures{}, err
	}
	r.say("%s clients are connected and %s messages a second under way, steady for %s",
		count(r.load.Stats().Connected), count(max(0, r.config.MessagesPerSecond)), r.config.Steady)
	u := &upgrade{run: r, nodes: nodes, before: r.observer.latest()}
	if err := u.make(ctx); err != nil {
		return Figures{}, err
	}
	figures, err := u.figures(ctx)
	if err != nil {
		return figures, err
	}
	if r.config.Record != "" {
		if err := u.record(&figures).write(r.config.Record); err != nil {
			return figures, err
		}
		r.say("the time series of this run is in %s", r.config.Record)
	}
	err = printSummary(r.config.Out, &figures)
	return figures, err
}

// upgrade is the change and what is seen of it.
type upgrade struct {
	run    *run
	nodes  *sampler
	before *v2beta1.EMQX // As it was before the change.

	patched, ready time.Time
	asked          map[string]map[string]int // What EMQX had been asked before.
	askedAfter     map[string]map[string]int
	drained        load.Stats
	keysSeen       int
	keysMissing    []string
}

// make changes the specification and waits until the resource is Ready again.
func (u *upgrade) make(ctx context.Context) error {
	r := u.run
	ctx, cancel := context.WithTimeoutCause(ctx, r.config.UpgradeLimit, fmt.Errorf("the upgrade did not end within %s", r.config.UpgradeLimit))
	defer cancel()
	var err error
	if u.asked, err = r.emqxRequests(ctx); err != nil {
		return err
	}
	patch := r.config.Patch
	if patch == "" {
		patch = documentedPatch(u.before)
	}
	r.say("$ kubectl patch emqx %s --type=merge -p '%s'", r.name, patch)
	if _, err := r.kubectl(ctx, "", "patch", "emqx", r.name, "-n", r.namespace, "--type=merge", "-p", patch); err != nil {
		return err
	}
	generation := u.before.Generation + 1
	if err := r.observer.wait(ctx, func() bool { return !r.observer.generationAt[generation].IsZero() }); err != nil {
		return fmt.Errorf("the patch changed nothing of the specification: %w", err)
	}
	r.observer.mu.Lock()
	u.patched = r.observer.generationAt[generation]
	r.observer.mu.Unlock()
	if err := u.watch(ctx, generation); err != nil {
		return fmt.Errorf("watch the upgrade: %w", err)
	}
	u.askedAfter, err = r.emqxRequests(ctx)
	return err
}

// watch shows the upgrade, runs the hook and looks at the status until the resource is Ready at a generation.
func (u *upgrade) watch(ctx context.Context, generation int64) error {
	r := u.run
	over, end := context.WithCancel(ctx)
	defer end()
	group, groupCtx := errgroup.WithContext(over)
	group.Go(func() error {
		defer end()
		if err := r.observer.wait(groupCtx, func() bool { return ready(r.observer.emqx, generation) }); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil // Another goroutine has failed.
		}
		u.ready = time.Now()
		return nil
	})
	group.Go(func() (err error) {
		u.keysSeen, u.keysMissing, err = r.watchKeys(groupCtx)
		return err
	})
	group.Go(func() error {
		u.callHooks(groupCtx, ctx, group)
		return nil
	})
	group.Go(func() error {
		u.show(groupCtx)
		return nil
	})
	return group.Wait()
}

// callHooks calls the hook for each phase that begins while ctx lives. A hook may outlive the upgrade: it ends by itself
// or with the run.
func (u *upgrade) callHooks(ctx, runCtx context.Context, group *errgroup.Group) {
	r := u.run
	if r.config.OnPhase == nil {
		return
	}
	environment := Environment{
		Dir: r.dir, State: r.state, Kube: r.kube, EMQX: r.emqx, Namespace: r.namespace, Name: r.name,
		Load: r.load, Latest: r.observer.latest,
	}
	// The first is the one from before the change.
	for seen := 1; ; {
		var changes []StateChange
		err := r.observer.wait(ctx, func() bool {
			changes = changesSince(r.observer.states, u.patched)
			return len(changes) > seen
		})
		if err != nil {
			return
		}
		for _, change := range changes[seen:] {
			group.Go(func() error {
				if err := r.config.OnPhase(runCtx, environment, change.Phase); err != nil {
					return fmt.Errorf("hook of phase %s: %w", change.Phase, err)
				}
				return nil
			})
		}
		seen = len(changes)
	}
}

// figures waits for what is under way and takes the measure of the upgrade.
func (u *upgrade) figures(ctx context.Context) (Figures, error) {
	r := u.run
	samples := r.load.Samples()
	u.drained = r.load.Drain(ctx, drainLimit)
	emqx := r.observer.latest()
	f := Figures{
		From: u.before.Status.CoreNodesStatus.CurrentRevision, To: emqx.Status.CoreNodesStatus.UpdateRevision, Clients: r.config.Clients,
		MessagesAcknowledged: u.drained.Acked, MessagesLost: u.drained.Lost, MessagesRepeated: u.drained.Repeated,
		MaxDisconnects: u.drained.MaxDisconnects, SessionsLost: u.drained.SessionsLost, MaxAway: u.drained.MaxAway, LowestShare: 1,
		ConnEvictRate: emqx.Spec.UpdateStrategy.EvacuationStrategy.ConnEvictRate,
		States:        r.observer.since(u.patched), Patched: u.patched, Ready: u.ready,
		EvacuationsSeen: u.keysSeen, EvacuationKeysMissing: u.keysMissing,
		EMQXRequests: difference(u.asked, u.askedAfter), Floor: u.floor(emqx),
	}
	for i, sample := range samples {
		if sample.At.After(u.patched) {
			if i > 0 {
				f.LongestGapSeconds = max(f.LongestGapSeconds, sample.At.Sub(samples[i-1].At).Seconds())
			}
			f.LowestShare = min(f.LowestShare, float64(sample.Connected)/float64(r.config.Clients))
		}
	}
	var err error
	if f.ClientsBack, err = u.nodes.clientsOf(ctx, f.To, f.Clients); err != nil {
		return f, err
	}
	if f.Leftovers, err = r.left(ctx, u.nodes); err != nil {
		return f, err
	}
	if f.Table, err = r.kubectl(ctx, "", "get", "emqx", r.name, "-n", r.namespace); err != nil {
		return f, err
	}
	if f.KubeRequests, err = r.kubeRequests(u.patched, u.ready); err != nil {
		return f, err
	}
	f.check()
	return f, nil
}

// clientsOf asks the nodes of a revision for their clients until there are as many as expected, for a limited time.
func (s *sampler) clientsOf(ctx context.Context, revision string, expected int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	for {
		sum := 0
		for _, pod := range s.run.observer.present() {
			if pod.revision != revision {
				continue
			}
			clients, err := s.clients(ctx, pod)
			if err != nil {
				return 0, fmt.Errorf("count the clients of revision %s: %w", revision, err)
			}
			sum += clients
		}
		if sum == expected || pause(ctx, askInterval) != nil {
			return sum, nil
		}
	}
}

// floor is the shortest time in which the upgrade could be done.
func (u *upgrade) floor(emqx *v2beta1.EMQX) Floor {
	strategy := &emqx.Spec.UpdateStrategy
	eviction := &strategy.EvacuationStrategy
	f := Floor{
		InitialDelaySeconds: float64(strategy.InitialDelaySeconds), WaitTakeoverSeconds: float64(eviction.WaitTakeover),
		EvictionSeconds: float64(u.run.config.Clients) / float64(max(1, eviction.ConnEvictRate)),
	}
	for _, pod := range u.run.observer.present() {
		if pod.revision == emqx.Status.CoreNodesStatus.UpdateRevision && pod.created.After(u.patched) && !pod.ready.IsZero() {
			f.SlowestStartSeconds = max(f.SlowestStartSeconds, pod.ready.Sub(pod.created).Seconds())
		}
	}
	u.run.observer.mu.Lock()
	defer u.run.observer.mu.Unlock()
	for _, sessions := range u.run.observer.sessionsLeft {
		f.SessionsSeconds += float64(sessions) / float64(max(1, eviction.SessEvictRate))
	}
	return f
}

// documentedPatch is the change of EMQX's documentation, or its opposite when it was made already.
func documentedPatch(emqx *v2beta1.EMQX) string {
	policy := "Never"
	if string(emqx.Spec.ImagePullPolicy) == policy {
		policy = "IfNotPresent"
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"imagePullPolicy": policy}})
	if err != nil {
		return "" // Two strings can always be written.
	}
	return string(patch)
}

// pause waits for a time.
func pause(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// say prints a line with the time since the run began.
func (r *run) say(format string, arguments ...any) {
	_, _ = fmt.Fprintf(r.config.Out, "[%6.1fs] %s\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, arguments...))
}
