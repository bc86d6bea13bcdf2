package replay

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"
)

// siteView is a site as the API and the recordings have it.
type siteView struct {
	Site   string           `json:"site,omitempty"`
	Node   string           `json:"node"`
	Up     bool             `json:"up"`
	Shards []map[string]any `json:"shards"`
}

// siteViews lists the sites as a node sees them.
func (r *Runner) siteViews(ctx context.Context, node int) ([]siteView, error) {
	got, err := r.api(ctx, http.MethodGet, node, "/api/v5/ds/sites", nil)
	if err != nil {
		return nil, err
	}
	ids, _ := got.body.([]any)
	views := make([]siteView, 0, len(ids))
	for _, id := range ids {
		one, err := r.api(ctx, http.MethodGet, node, fmt.Sprintf("/api/v5/ds/sites/%v", id), nil)
		if err != nil {
			return nil, err
		}
		view := siteView{Site: fmt.Sprint(id)}
		if err := json.Unmarshal(one.raw, &view); err != nil {
			return nil, fmt.Errorf("site %v: %w", id, err)
		}
		views = append(views, view)
	}
	return views, nil
}

// replicas is the shards of the database in the recorder's form: the sites of each, with their status.
func (r *Runner) replicas(ctx context.Context, node int) map[string]any {
	got, err := r.api(ctx, http.MethodGet, node, "/api/v5/ds/storages/messages", nil)
	if err != nil || got.status != http.StatusOK {
		return nil
	}
	var view struct {
		Shards []struct {
			ID       string
			Replicas []struct{ Site, Status string }
		}
	}
	if json.Unmarshal(got.raw, &view) != nil {
		return nil
	}
	shards := map[string]any{}
	for _, shard := range view.Shards {
		list := []any{}
		for _, replica := range shard.Replicas {
			list = append(list, []any{replica.Site, replica.Status})
		}
		shards[shard.ID] = map[string]any{"replicas": list}
	}
	return shards
}

// waitReplicas waits until the given nodes see a number of replicas of each shard.
func (r *Runner) waitReplicas(ctx context.Context, total int, nodes ...int) error {
	return r.wait(ctx, fmt.Sprintf("%d replicas", total), 60*time.Second, func(ctx context.Context) bool {
		return !slices.ContainsFunc(nodes, func(node int) bool { return !eachHas(r.replicas(ctx, node), total) })
	})
}

func eachHas(shards map[string]any, total int) bool {
	for _, shard := range shards {
		if list, _ := shard.(map[string]any)["replicas"].([]any); len(list) != total {
			return false
		}
	}
	return len(shards) > 0
}

// waitMoved waits until all nodes see a number of replicas, the watch too.
func (r *Runner) waitMoved(ctx context.Context, total int, rows func() []row, nodes ...int) error {
	if err := r.waitReplicas(ctx, total, nodes...); err != nil {
		return err
	}
	return r.wait(ctx, "it is noted", 10*time.Second, func(context.Context) bool {
		list := rows()
		return eachHas(list[len(list)-1].value, total)
	})
}

func (r *Runner) watchReplicas(ctx context.Context) (rows func() []row, stop func()) {
	return r.watch(ctx, func(ctx context.Context) map[string]any { return r.replicas(ctx, nodeA) })
}

// replicaRowsDiffer compares what each shard went through, and how long the whole took from an act on. Which of two shards is
// first is chance.
func (r *Runner) replicaRowsDiffer(n, act string, got []row, took time.Duration) (name, difference string, err error) {
	rec, err := r.file(n)
	if err != nil {
		return "", "", err
	}
	asked, err := r.rowOf(n, act)
	if err != nil {
		return "", "", err
	}
	want := map[string][]any{}
	var last float64
	for _, raw := range rec.Rows {
		var line struct {
			T      float64
			Shards map[string]any
		}
		if err := json.Unmarshal(raw, &line); err != nil {
			return "", "", fmt.Errorf("read recording %s: %w", rec.name, err)
		}
		if line.Shards != nil {
			addSteps(want, line.Shards)
			last = line.T
		}
	}
	seen := map[string][]any{}
	for _, line := range got {
		addSteps(seen, line.value)
	}
	for _, shard := range slices.Sorted(maps.Keys(want)) {
		if d := r.comparer(rec.name).differ("shard "+shard, "", any(want[shard]), any(seen[shard])); d != "" {
			return rec.name, d, nil
		}
	}
	at, _ := asked["t"].(float64)
	expected := r.scaled(last - at).Seconds()
	if off := took.Seconds() - expected; off > faultTolerance*expected+faultSlack || off < -faultTolerance*expected-faultSlack {
		return rec.name, fmt.Sprintf("took %s, recorded %.1f s (%.1f s here)", took.Round(time.Millisecond), last-at, expected), nil
	}
	return rec.name, "", nil
}

// addSteps notes the shards that are another way than before.
func addSteps(steps map[string][]any, shards map[string]any) {
	for id, shard := range shards {
		if list := steps[id]; len(list) == 0 || !reflect.DeepEqual(list[len(list)-1], shard) {
			steps[id] = append(list, shard)
		}
	}
}

func (r *Runner) siteOf(ctx context.Context, node int) (string, error) {
	views, err := r.siteViews(ctx, nodeA)
	for _, view := range views {
		if view.Node == "emqx@"+r.targets[node] {
			return view.Site, nil
		}
	}
	return "", fmt.Errorf("no site of node %d: %w", node, cmp.Or(err, errNoSite))
}

var errNoSite = errors.New("none is known")

// sitesOf is the sites that a recording lists.
func (r *Runner) sitesOf(n string) ([]siteView, error) {
	rec, err := r.file(n)
	if err != nil {
		return nil, err
	}
	return part[[]siteView](rec, rec.Sites)
}

// sitesDiffer compares all sites as A sees them.
func (r *Runner) sitesDiffer(ctx context.Context, n string) error {
	want, err := r.sitesOf(n)
	if err != nil {
		return err
	}
	got, err := r.siteViews(ctx, nodeA)
	if err != nil {
		return err
	}
	recorded, err := generic(want)
	if err != nil {
		return err
	}
	seen, err := generic(got)
	if err != nil {
		return err
	}
	return differs(r.comparer(n).differ("sites", "", r.translate.value(recorded), seen))
}

// generic is a value as JSON has it.
func generic(v any) (any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	var out any
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return out, nil
}

// storageDiffers compares all replicas as A sees them.
func (r *Runner) storageDiffers(ctx context.Context, rec *recording) error {
	want, err := part[map[string]any](rec, rec.Storage)
	if err != nil {
		return err
	}
	return differs(r.comparer(rec.name).differ("storage", "", any(want), any(r.replicas(ctx, nodeA))))
}
