package scale

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/gauge"
)

const (
	// upgradeLimit bounds upgrades, changeLimit the operator's answer to a change of a resource.
	upgradeLimit, changeLimit = 15 * time.Minute, time.Minute
)

// alone is how often a single upgrade is measured: it may end a tick of EMQX's evictions sooner or later, which are a second
// apart. What happens between many evens out.
const alone = 3

// upgrades measures upgrades at once. Of single ones the middle one counts.
func (r *run) upgrades(ctx context.Context, o *operator, count int) (Upgrade, error) {
	if count > 1 || r.config.Quick {
		return r.upgrade(ctx, o, count)
	}
	var all []Upgrade
	for range alone {
		one, err := r.upgrade(ctx, o, count)
		if err != nil {
			return one, err
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Upgrade) int { return cmp.Compare(a.Last, b.Last) })
	return all[alone/2], nil
}

// upgrade upgrades clusters at once, and waits until all are Ready again.
func (r *run) upgrade(ctx context.Context, o *operator, count int) (Upgrade, error) {
	result := Upgrade{Count: count}
	if _, err := r.audit.Next(); err != nil {
		return result, err
	}
	asked, began := r.fleet.Requests(), time.Now()
	before, err := o.process.CPU()
	if err != nil {
		return result, err
	}
	generations, err := r.change(ctx, count)
	if err != nil {
		return result, err
	}
	var at map[string]time.Time
	told := time.Now()
	err = until(ctx, upgradeLimit, fmt.Sprintf("%d upgrades", count), func() (bool, error) {
		at = r.watcher.ready(generations)
		if time.Since(told) > progressInterval {
			told = time.Now()
			r.say("%d of %d upgrades are done", len(at), count)
		}
		return len(at) == count, o.alive()
	})
	if err != nil {
		return result, err
	}
	var took []time.Duration
	for _, ready := range at {
		took = append(took, ready.Sub(began))
	}
	slices.Sort(took)
	result.Median, result.Last = took[len(took)/2], took[len(took)-1]
	counted, err := r.tally()
	if err != nil {
		return result, err
	}
	result.Writes, result.Events, result.Reads, result.Asked = counted.writes, counted.events, counted.reads, r.fleet.Requests()-asked
	used, err := o.process.CPU()
	if err != nil {
		return result, err
	}
	result.CPU = used - before
	_, result.PeakBytes, err = o.process.Memory()
	r.say("%d upgrades at once took %s, the median %s; each %.1f writes, %.1f events, %.1f reads", count, result.Last.Round(10*time.Millisecond), result.Median.Round(10*time.Millisecond),
		each(result.Writes, count), each(result.Events, count), each(result.Reads, count))
	return result, err
}

// change has clusters be upgraded, all at once, and returns the generations of their resources.
func (r *run) change(ctx context.Context, count int) (map[string]int64, error) {
	generations := make([]int64, count)
	group, groupCtx := errgroup.WithContext(ctx)
	for i := range count {
		name, policy := nameOf(i), "Always"
		if r.always[name] {
			policy = "IfNotPresent"
		}
		r.always[name] = !r.always[name]
		group.Go(func() error {
			patched, err := r.emqx.AppsV2beta1().EMQXes(namespace).Patch(groupCtx, name, types.MergePatchType, []byte(`{"spec":{"imagePullPolicy":"`+policy+`"}}`), metav1.PatchOptions{})
			if err != nil {
				return fmt.Errorf("change EMQX %s: %w", name, err)
			}
			generations[i] = patched.Generation
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	byName := map[string]int64{}
	for i, generation := range generations {
		byName[nameOf(i)] = generation
	}
	return byName, nil
}

func each(requests Requests, count int) float64 { return float64(requests.Total()) / float64(count) }

// latency times the operator's first write after a change of a resource: it is paused, and goes on.
func (r *run) latency(ctx context.Context) (median time.Duration, timed int, err error) {
	if _, err := r.audit.Next(); err != nil {
		return 0, 0, err
	}
	for i := range r.config.Probes {
		name := nameOf(i / 2 % r.clusters)
		paused := i%2 == 0
		patch := fmt.Appendf(nil, `{"spec":{"updateStrategy":{"paused":%t}}}`, paused)
		patched, err := r.timed.AppsV2beta1().EMQXes(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			return 0, 0, fmt.Errorf("change EMQX %s: %w", name, err)
		}
		err = until(ctx, changeLimit, "the operator to say that EMQX "+name+" is changed", func() (bool, error) {
			state := r.watcher.state(name, patched.Generation)
			return state != "" && (state == "Paused") == paused, nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	requests, err := r.audit.Next()
	if err != nil {
		return 0, 0, err
	}
	all := firstWrites(requests)
	if len(all) == 0 {
		return 0, 0, nil
	}
	slices.Sort(all)
	r.say("from a change of a resource to the first write: median %s, longest %s of %d", all[len(all)/2], all[len(all)-1], len(all))
	return all[len(all)/2], len(all), nil
}

// firstWrites are the times from the end of each timed change to when the API server got the operator's first write for the
// same cluster.
func firstWrites(requests []gauge.Request) []time.Duration {
	var all []time.Duration
	for _, change := range requests {
		if change.User != userOf(namespace, timedAccount) || !change.Write() {
			continue
		}
		first := slices.IndexFunc(requests, func(write gauge.Request) bool {
			return write.User == userOf(operatorNamespace, operatorAccount) && write.Write() && write.Received.After(change.Received) &&
				(write.Name == change.Name || strings.HasPrefix(write.Name, change.Name+"-"))
		})
		if first >= 0 {
			all = append(all, max(0, requests[first].Received.Sub(change.Ended)))
		}
	}
	return all
}
