package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/show"
	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/secrecy"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// downLimit bounds taking the cluster down, also when the run was interrupted.
const downLimit = time.Minute

// run is one run of the demo.
type run struct {
	config   Config
	begun    time.Time
	target   measure.Target
	observer *measure.Observer
	load     *load.Load
}

// Run makes an upgrade and measures it. The cluster is taken down at the end, also after a failure, unless Keep is set.
// An error means that the upgrade could not be made or measured to its end; figures that miss their limits are no
// error, see Figures.OK.
func Run(ctx context.Context, config Config) (figures measure.Figures, err error) {
	config, err = config.withDefaults()
	if err != nil {
		return figures, err
	}
	r := &run{config: config, begun: time.Now()}
	defer func() {
		if config.Running {
			return
		}
		if config.Keep && r.observer != nil {
			r.lookAround(ctx)
			return
		}
		err = errors.Join(err, r.takeDown(ctx))
	}()
	if err := r.setUp(ctx); err != nil {
		return figures, err
	}
	defer r.observer.Close()
	return r.measured(ctx)
}

// takeDown ends the cluster.
func (r *run) takeDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
	defer cancel()
	err := localkube.Down(ctx, localkube.DownOptions{Dir: r.config.Dir, Registry: r.config.Registry})
	switch {
	case errors.Is(err, localkube.ErrNothingToStop):
		return nil
	case err != nil:
		return fmt.Errorf("take the cluster down: %w", err)
	}
	r.say("the cluster is down; its logs are in %s", r.target.Dir.Path("logs"))
	return nil
}

// measured runs the load and the upgrade. The clients are gone when it returns.
func (r *run) measured(ctx context.Context) (measure.Figures, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := r.connect(ctx); err != nil {
		return measure.Figures{}, err
	}
	keeper, err := secrecy.Keep(ctx, r.target.Kube)
	if err != nil {
		return measure.Figures{}, err
	}
	defer keeper.Close()
	sampler, err := measure.Sample(ctx, r.target, r.observer)
	if err != nil {
		return measure.Figures{}, err
	}
	defer sampler.Wait()
	defer cancel()
	if err := pause(ctx, r.config.Steady); err != nil {
		return measure.Figures{}, err
	}
	r.say("%s clients are connected and %s messages a second under way, steady for %s",
		measure.Count(r.load.Stats().Connected), measure.Count(max(0, r.config.MessagesPerSecond)), r.config.Steady)
	upgrade, err := r.upgrade(ctx, sampler)
	if err != nil {
		return measure.Figures{}, err
	}
	figures, err := upgrade.Figures(ctx, keeper, func(ctx context.Context) (string, error) {
		return r.kubectl(ctx, "", "get", "emqx", r.target.Name, "-n", r.target.Namespace)
	})
	if err != nil {
		return figures, err
	}
	if r.config.Record != "" {
		if err := upgrade.Record(&figures).Write(r.config.Record); err != nil {
			return figures, err
		}
		r.say("the time series of this run is in %s", r.config.Record)
	}
	err = show.Summary(r.config.Out, &figures)
	return figures, err
}

// upgrade changes the specification and waits until the resource is Ready again.
func (r *run) upgrade(ctx context.Context, sampler *measure.Sampler) (*measure.Upgrade, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.config.UpgradeLimit, fmt.Errorf("the upgrade did not end within %s", r.config.UpgradeLimit))
	defer cancel()
	u, err := measure.Begin(ctx, r.target, r.observer, sampler, r.load, r.config.Clients)
	if err != nil {
		return nil, err
	}
	patch := r.config.Patch
	if patch == "" {
		patch = documentedPatch(u.Before())
	}
	r.say("$ kubectl patch emqx %s --type=merge -p '%s'", r.target.Name, patch)
	if _, err := r.kubectl(ctx, "", "patch", "emqx", r.target.Name, "-n", r.target.Namespace, "--type=merge", "-p", patch); err != nil {
		return nil, err
	}
	if err := u.Patched(ctx); err != nil {
		return nil, err
	}
	if err := r.watch(ctx, u); err != nil {
		return nil, fmt.Errorf("watch the upgrade: %w", err)
	}
	err = u.End(ctx)
	return u, err
}

// watch shows the upgrade, runs the hook and looks at the status until the resource is Ready.
func (r *run) watch(ctx context.Context, u *measure.Upgrade) error {
	over, end := context.WithCancel(ctx)
	defer end()
	group, groupCtx := errgroup.WithContext(over)
	group.Go(func() error {
		defer end()
		if err := u.Ready(groupCtx); err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil // Ready, or another goroutine has failed.
	})
	group.Go(func() error { return u.WatchKeys(groupCtx) })
	group.Go(func() error {
		r.callHooks(groupCtx, ctx, u, group)
		return nil
	})
	group.Go(func() error {
		show.Live(groupCtx, r.config.Out, r.begun, u.At)
		return nil
	})
	return group.Wait()
}

// callHooks calls the hook for each phase that begins while ctx lives. A hook may outlive the upgrade: it ends by itself
// or with the run.
func (r *run) callHooks(ctx, runCtx context.Context, u *measure.Upgrade, group *errgroup.Group) {
	if r.config.OnPhase == nil {
		return
	}
	environment := Environment{Target: r.target, Load: r.load, Latest: r.observer.Latest}
	// The first change is the one from before the patch.
	for seen := 1; ; {
		changes, err := u.Changes(ctx, seen)
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

// documentedPatch is the change of EMQX's documentation, or its opposite when the resource has it already.
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
