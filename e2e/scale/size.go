package scale

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/nodes"
)

const (
	// buildLimit bounds the making of clusters.
	buildLimit = 15 * time.Minute
	// scrapeInterval is how often the operator is scraped once it knows all nodes, as a Prometheus does, and startInterval before
	// that, to meet the longest scrape.
	scrapeInterval, startInterval = 30 * time.Second, 2 * time.Second
)

// size measures with a number of clusters.
func (r *run) size(ctx context.Context, clusters int) (result Result, err error) {
	result = Result{Clusters: clusters, Nodes: clusters * r.config.Nodes}
	if result.Built, err = r.build(ctx, clusters); err != nil {
		return result, err
	}
	if _, err := r.audit.Next(); err != nil {
		return result, err
	}
	r.fleet.Mark()
	asked := r.fleet.Requests()
	o, err := r.start(ctx, r.config.OperatorFlags...)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, o.stop()) }()
	r.say("%d clusters: the operator's caches are filled after %s", clusters, time.Since(o.started).Round(time.Millisecond))
	result.Start.Ready = time.Since(o.started)
	if err := r.settle(ctx, o, &result, asked); err != nil {
		return result, err
	}
	for _, name := range []string{"heap", "goroutine", "allocs"} {
		if err := o.profile(ctx, name, filepath.Join(r.config.Dir, fmt.Sprintf("%s-%d.pprof", name, clusters))); err != nil {
			return result, err
		}
	}
	if result.Latency, result.Latencies, err = r.latency(ctx); err != nil {
		return result, err
	}
	for _, count := range r.config.Upgrades {
		if count > clusters {
			break
		}
		upgrade, err := r.upgrades(ctx, o, count)
		if err != nil {
			return result, err
		}
		result.Upgrades = append(result.Upgrades, upgrade)
	}
	return result, nil
}

func nameOf(i int) string { return "c" + strconv.Itoa(i) }

// build adds clusters until there are so many, by an operator that nothing slows down.
func (r *run) build(ctx context.Context, clusters int) (took time.Duration, err error) {
	began := time.Now()
	o, err := r.start(ctx, "--kube-api-qps", "2000", "--kube-api-burst", "4000", "--workers", "32")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, o.stop()) }()
	added := clusters - r.clusters
	told := time.Now()
	// Some at a time: an operator that builds a thousand at once asks thousands of nodes every second.
	wanted := map[string]int64{}
	err = until(ctx, buildLimit, "all clusters to be Ready", func() (bool, error) {
		at := r.watcher.ready(wanted)
		for name := range at {
			delete(wanted, name)
		}
		if time.Since(told) > progressInterval {
			told = time.Now()
			r.say("%d of %d new clusters are Ready", added-(clusters-r.clusters)-len(wanted), added)
		}
		if err := r.create(ctx, min(clusters-r.clusters, buildAtOnce-len(wanted)), wanted); err != nil {
			return false, err
		}
		return len(wanted) == 0, o.alive()
	})
	r.say("%d clusters are Ready, %d of them new, with %d nodes", clusters, added, r.fleet.Running())
	return time.Since(began), err
}

const (
	// buildAtOnce is how many clusters are being built at the same time, creators how many are made.
	buildAtOnce, creators = 30, 8
	// progressInterval is how often it is told how far something is.
	progressInterval = 15 * time.Second
)

// create makes so many more resources, and notes their generations.
func (r *run) create(ctx context.Context, count int, generations map[string]int64) error {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(creators)
	for range count {
		emqx := r.template.DeepCopy()
		emqx.Name = nameOf(r.clusters)
		r.clusters++
		group.Go(func() error {
			made, err := r.emqx.AppsV2beta1().EMQXes(namespace).Create(ctx, emqx, metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("make EMQX %s: %w", emqx.Name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			generations[made.Name] = made.Generation
			return nil
		})
	}
	return group.Wait()
}

// alive is an error once the operator has ended.
func (o *operator) alive() error {
	select {
	case <-o.ended:
		return fmt.Errorf("the operator has ended: %w", o.err)
	default:
		return nil
	}
}

// settle measures from the start on until the operator is at rest: two windows in which nodes are asked as often.
func (r *run) settle(ctx context.Context, o *operator, result *Result, asked int64) error {
	scraping := scrapes(ctx, o)
	err := until(ctx, r.config.Rest, "all nodes to be asked", func() (bool, error) {
		seen, at := r.fleet.Seen()
		result.Start.Missing = result.Nodes - seen
		result.Start.Synced = at.Sub(o.started)
		return seen >= result.Nodes, o.alive()
	})
	if err != nil && (ctx.Err() != nil || o.alive() != nil) {
		return errors.Join(err, scraping.stop())
	}
	if _, result.Start.PeakBytes, err = o.process.Memory(); err != nil {
		return errors.Join(err, scraping.stop())
	}
	scraping.calm()
	r.say("%d of %d nodes were asked, the last after %s", result.Nodes-result.Start.Missing, result.Nodes, result.Start.Synced.Round(10*time.Millisecond))
	if err := r.restAfter(ctx, o, result, asked); err != nil {
		return errors.Join(err, scraping.stop())
	}
	if err := scraping.stop(); err != nil {
		return err
	}
	result.Start.Scrape = scraping.longest
	return nil
}

// restAfter looks at windows until two of them are alike. The last is the one at rest.
func (r *run) restAfter(ctx context.Context, o *operator, result *Result, asked int64) error {
	var before float64
	for first := true; ; first = false {
		used, err := o.process.CPU()
		if err != nil {
			return err
		}
		result.Start.Rest = time.Since(o.started)
		result.Start.CPU = used.Seconds() / result.Start.Rest.Seconds()
		result.Start.Requests = r.fleet.Requests() - asked
		counted, err := r.tally()
		if err != nil {
			return err
		}
		// What was written in a window that was none of rest belongs to the start.
		result.Start.Writes = result.Start.Writes.with(counted.writes).with(counted.events).with(result.Rest.Writes)
		if result.Rest, err = r.window(ctx, o); err != nil {
			return err
		}
		now := result.Rest.RequestsPerSecond
		r.say("in %s: %.1f %% of a core, %.1f requests a second to nodes, %d writes, %d connections to nodes, %d goroutines, %d MiB",
			result.Rest.Window.Round(time.Second), 100*result.Rest.CPU, now, result.Rest.Writes.Total(), result.Rest.NodeConnections, result.Rest.Goroutines, result.Rest.Bytes>>20)
		alike := !first && now <= before*1.1+1 && before <= now*1.1+1
		if alike || time.Since(o.started) > r.config.Rest {
			return nil
		}
		before = now
	}
}

// window looks at the operator for a while.
func (r *run) window(ctx context.Context, o *operator) (Rest, error) {
	var rest Rest
	cpu, err := o.process.CPU()
	if err != nil {
		return rest, err
	}
	asked, began := r.fleet.Requests(), time.Now()
	err = until(ctx, 2*r.config.Window, "the end of a window", func() (bool, error) {
		if time.Since(began) >= r.config.Window {
			return true, nil
		}
		return false, o.alive()
	})
	if err != nil {
		return rest, err
	}
	rest.Window = time.Since(began)
	rest.RequestsPerSecond = float64(r.fleet.Requests()-asked) / rest.Window.Seconds()
	used, err := o.process.CPU()
	if err != nil {
		return rest, err
	}
	rest.CPU = (used - cpu).Seconds() / rest.Window.Seconds()
	if rest.Bytes, rest.PeakBytes, err = o.process.Memory(); err != nil {
		return rest, err
	}
	if rest.NodeConnections, rest.Connections, err = o.process.Connections(r.addresses(), nodes.Port); err != nil {
		return rest, err
	}
	counted, err := r.tally()
	if err != nil {
		return rest, err
	}
	rest.Writes, rest.Reads, rest.Leases = counted.writes.with(counted.events), counted.reads, counted.leases
	scrape, err := o.scrape(ctx)
	if err != nil {
		return rest, fmt.Errorf("scrape the operator: %w", err)
	}
	goroutines, _ := scrape.Sum("go_goroutines", "")
	heap, _ := scrape.Sum("go_memstats_heap_inuse_bytes", "")
	stacks, _ := scrape.Sum("go_memstats_stack_inuse_bytes", "")
	rest.Goroutines, rest.HeapBytes, rest.StackBytes, rest.Scrape, rest.ScrapeBytes = int(goroutines), uint64(heap), uint64(stacks), scrape.Took, scrape.Bytes
	return rest, nil
}

// scraper scrapes again and again.
type scraper struct {
	longest time.Duration
	err     error
	calmed  chan struct{}
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// scrapes begins to scrape the operator, until stop.
func scrapes(ctx context.Context, o *operator) *scraper {
	s := &scraper{calmed: make(chan struct{})}
	ctx, s.cancel = context.WithCancel(ctx)
	s.done.Go(func() { s.run(ctx, o) })
	return s
}

func (s *scraper) run(ctx context.Context, o *operator) {
	ticker := time.NewTicker(startInterval)
	defer ticker.Stop()
	calmed := s.calmed
	for {
		scrape, err := o.scrape(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.err = fmt.Errorf("scrape the operator: %w", err)
			return
		}
		s.longest = max(s.longest, scrape.Took)
		select {
		case <-ctx.Done():
			return
		case <-calmed:
			ticker.Reset(scrapeInterval)
			calmed = nil
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		case <-ticker.C:
		}
	}
}

// calm has it scrape as seldom as a Prometheus does.
func (s *scraper) calm() { close(s.calmed) }

func (s *scraper) stop() error {
	s.cancel()
	s.done.Wait()
	return s.err
}
