package scale

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/controllers"
	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/gauge"
	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/nodes"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
)

// downLimit bounds the end of the control plane.
const downLimit = time.Minute

// run is one run of the benchmark.
type run struct {
	config Config
	began  time.Time

	dir   state.Dir
	state *state.State
	admin *rest.Config
	kube  kubernetes.Interface
	emqx  versioned.Interface
	// timed is a client whose requests are in the audit log.
	timed versioned.Interface

	fleet    *nodes.Fleet
	audit    *gauge.Audit
	watcher  *watcher
	template *v2beta1.EMQX
	clusters int
	// always is the other pull policy of each upgrade.
	always map[string]bool
}

// Run measures all sizes.
func Run(ctx context.Context, config Config) (results []Result, err error) {
	config, err = config.complete()
	if err != nil {
		return nil, err
	}
	r := &run{config: config, began: time.Now(), always: map[string]bool{}}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the benchmark's directory: %w", err)
	}
	if r.template, err = template(config); err != nil {
		return nil, err
	}
	up := localkube.UpOptions{Dir: filepath.Join(config.Dir, "cluster"), ClusterBinary: config.ClusterBinary, APIOnly: true}
	if dir, err := state.OpenDir(up.Dir); err != nil {
		return nil, err
	} else if _, err := dir.Load(); err == nil {
		return nil, fmt.Errorf("start the control plane: one is up in %s; `cluster down --dir %s --purge` ends it", up.Dir, up.Dir)
	}
	up.Progress = func(sentence string) { r.say("%s", sentence) }
	if err := localkube.Up(ctx, up); err != nil {
		return nil, err
	}
	if !config.Keep {
		defer func() {
			down, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
			defer cancel()
			err = errors.Join(err, localkube.Down(down, localkube.DownOptions{Dir: up.Dir, Purge: true}))
		}()
	}
	if err := r.prepare(ctx, up.Dir); err != nil {
		return nil, err
	}
	return r.measure(ctx)
}

// measure runs the fakes, and measures all sizes beside them.
func (r *run) measure(ctx context.Context) (results []Result, err error) {
	// The fakes outlive the operator, whatever ends the run.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if r.fleet, err = nodes.NewFleet(nodes.Config{Clients: r.config.Clients, Return: 250 * time.Millisecond}); err != nil {
		return nil, err
	}
	defer r.fleet.Close()
	var fakes sync.WaitGroup
	defer fakes.Wait()
	defer stop(nil)
	acting, err := controllers.New(controllers.Config{
		Kube: r.kube, Fleet: r.fleet, Addresses: r.addresses(), Start: r.config.PodStart, Stop: r.config.PodStop,
		Failed: func(err error) { r.say("the fakes: %v", err) },
	})
	if err != nil {
		return nil, err
	}
	fakes.Go(func() { r.fleet.Run(ctx) })
	fakes.Go(func() {
		if err := acting.Run(ctx); err != nil {
			stop(err)
		}
	})
	if r.watcher, err = watch(ctx, r.emqx); err != nil {
		return nil, err
	}
	for _, size := range r.config.Sizes {
		result, err := r.size(ctx, size)
		if err != nil {
			return results, fmt.Errorf("measure %d clusters: %w", size, err)
		}
		results = append(results, result)
	}
	return results, nil
}

// addresses is the network of the pods' loopback addresses.
func (r *run) addresses() netip.Prefix {
	control := r.state.ControlAddress().As4()
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{control[0], control[1], 0, 0}), r.state.Plan().PodPrefix().Bits())
}

// operatorAddress is where the operator serves metrics, probes and profiles: not where anything else listens.
func (r *run) operatorAddress() string {
	return r.addresses().Addr().Next().Next().String()
}

// say tells how it goes, with the time since the beginning.
func (r *run) say(format string, arguments ...any) {
	_, _ = fmt.Fprintf(r.config.Out, "[%6.1fs] %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, arguments...)) // To a person.
}

// poll is how often a condition is looked at.
const poll = 50 * time.Millisecond

// until waits until a condition holds, for as long as limit at most.
func until(ctx context.Context, limit time.Duration, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		done, err := holds()
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
