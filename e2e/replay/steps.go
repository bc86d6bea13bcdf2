package replay

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// group is a part of the scenario that begins with a known situation.
type group struct {
	name  string
	steps []step
}

// step makes a situation, replays recordings, or both.
type step struct {
	what      string
	covers    []string // numbers of recordings, or ranges of them
	control   bool     // needs Control
	otherwise *step    // what is done instead without it
	do        func(context.Context, *Runner) error
}

// exchanges replays recorded requests one after the other.
func exchanges(covers ...string) step {
	s := step{what: "replay " + strings.Join(covers, ", "), covers: covers}
	s.do = func(ctx context.Context, r *Runner) error {
		for _, name := range r.filesOf(s) {
			rec := r.all[name]
			if rec.Request == nil || r.report.has(name) {
				continue
			}
			if !r.report.wants(name) {
				if err := r.makeSituation(ctx, rec); err != nil {
					return err
				}
				continue
			}
			r.askRelease(ctx)
			if reason, other := releaseFiles[number(name)]; other && r.comparer(name).otherRelease {
				r.report.add(name, Skipped, reason)
				continue
			}
			r.report.compared(name, r.exchange(ctx, rec))
		}
		return nil
	}
	return s
}

// makeSituation sends a recorded request for what it does, when its answer does not count.
func (r *Runner) makeSituation(ctx context.Context, rec *recording) error {
	if rec.Request.method() == http.MethodGet {
		return nil
	}
	_, err := r.sendRecorded(ctx, rec)
	return err
}

// skipped names recordings that cannot be replayed, with the reason.
func skipped(reason string, covers ...string) step { return step{what: reason, covers: covers} }

// action is a step that replays nothing.
func action(what string, do func(context.Context, *Runner) error) step {
	return step{what: what, do: do}
}

// needsControl marks a step.
func needsControl(s step) step {
	s.control = true
	return s
}

// freshNodes starts the given nodes without anything they had and waits until they are one cluster.
func freshNodes(nodes ...int) step { return configured(Settings{}, nodes...) }

// configured are fresh nodes with other settings than usual.
func configured(settings Settings, nodes ...int) step {
	return needsControl(action(fmt.Sprintf("start %d fresh nodes", len(nodes)), func(ctx context.Context, r *Runner) error {
		for i := range r.targets {
			if err := r.cfg.Control.Stop(i); err != nil {
				return err
			}
			r.cfg.Control.Configure(i, settings)
		}
		return r.startNodes(ctx, true, nodes...)
	}))
}

// startNodes starts nodes one after the other, so that the first is the oldest.
func (r *Runner) startNodes(ctx context.Context, fresh bool, nodes ...int) error {
	for _, node := range nodes {
		if err := r.cfg.Control.Start(node, fresh, others(node, len(r.targets))); err != nil {
			return err
		}
		if err := r.wait(ctx, "the API answers", 30*time.Second, func(ctx context.Context) bool {
			return len(r.clusterOf(ctx, node)) > 0
		}); err != nil {
			return err
		}
	}
	for _, node := range nodes {
		if err := r.waitCluster(ctx, node, len(nodes)); err != nil {
			return err
		}
	}
	return nil
}

// joinNodes starts further nodes and waits until all are one cluster.
func joinNodes(total int, nodes ...int) step {
	return needsControl(action("start further nodes", func(ctx context.Context, r *Runner) error {
		for _, node := range nodes {
			if err := r.cfg.Control.Start(node, true, others(node, len(r.targets))); err != nil {
				return err
			}
		}
		for node := range total {
			if err := r.waitCluster(ctx, node, total); err != nil {
				return err
			}
		}
		return nil
	}))
}

func others(node, total int) []int {
	var list []int
	for i := range total {
		if i != node {
			list = append(list, i)
		}
	}
	return list
}

func (r *Runner) clusterOf(ctx context.Context, node int) []any {
	got, err := r.api(ctx, http.MethodGet, node, "/api/v5/cluster", nil)
	if err != nil || got.status != http.StatusOK {
		return nil
	}
	object, _ := got.body.(map[string]any)
	list, _ := object["nodes"].([]any)
	return list
}

func (r *Runner) waitCluster(ctx context.Context, node, size int) error {
	return r.wait(ctx, fmt.Sprintf("node %d sees %d nodes", node, size), 60*time.Second, func(ctx context.Context) bool {
		return len(r.clusterOf(ctx, node)) == size
	})
}

// state is the state of a node's evacuation.
func (r *Runner) state(ctx context.Context, node int) (string, map[string]any) {
	got, err := r.api(ctx, http.MethodGet, node, "/api/v5/load_rebalance/status", nil)
	object, ok := got.body.(map[string]any)
	if err != nil || !ok {
		return "", nil
	}
	state, _ := object["state"].(string)
	if object["status"] == "disabled" {
		state = "disabled"
	}
	return state, object
}

// waitProhibiting waits until a node's evacuation is at its end.
func waitProhibiting(node int) step {
	return action("wait until a node is evacuated", func(ctx context.Context, r *Runner) error {
		return r.wait(ctx, "prohibiting", 60*time.Second, func(ctx context.Context) bool {
			now, _ := r.state(ctx, node)
			return now == "prohibiting"
		})
	})
}

// command posts to the first node and wants 200.
func (r *Runner) command(ctx context.Context, path string, body any) error {
	got, err := r.api(ctx, http.MethodPost, nodeA, path, body)
	if err != nil {
		return err
	}
	if got.status != http.StatusOK {
		return fmt.Errorf("POST %s: %d %s", path, got.status, short(string(got.raw)))
	}
	return nil
}

// client is one client of a situation.
type client struct {
	name      string
	node      int
	options   mqttclient.Options
	subscribe string
	leave     bool // disconnects at once
}

// connectClients connects clients in their order.
func connectClients(clients ...client) step {
	return action("connect clients", func(ctx context.Context, r *Runner) error {
		for _, c := range clients {
			conn, err := r.connectTo(ctx, c.name, c.node, c.options)
			if err != nil {
				return err
			}
			if c.subscribe != "" {
				if err := conn.Subscribe(ctx, c.subscribe, 1); err != nil {
					return err
				}
			}
			if c.leave {
				r.drop(c.name)
				r.watched[c.name] = conn.Events()
			}
		}
		return nil
	})
}

// dropClients disconnects clients and waits until the cluster has noticed.
func dropClients(names ...string) step {
	return action("disconnect clients", func(_ context.Context, r *Runner) error {
		for _, name := range names {
			r.drop(name)
		}
		return nil
	})
}

// waitFigures waits until a node shows a number of sessions and connected clients.
func waitFigures(node, sessions, live int) step {
	return action("wait for the clients", func(ctx context.Context, r *Runner) error {
		return r.wait(ctx, fmt.Sprintf("%d sessions, %d connected", sessions, live), 20*time.Second, func(ctx context.Context) bool {
			info := r.node(ctx, node)
			return info["connections"] == float64(sessions) && info["live_connections"] == float64(live)
		})
	})
}

// waitSessions waits until a node counts a number of sessions in the cluster.
func waitSessions(node, sessions int) step {
	return action("wait for the cluster's sessions", func(ctx context.Context, r *Runner) error {
		return r.wait(ctx, fmt.Sprintf("%d sessions in the cluster", sessions), 20*time.Second, func(ctx context.Context) bool {
			return r.node(ctx, node)["cluster_sessions"] == float64(sessions)
		})
	})
}

// waitSteady waits until a node has seen a number of nodes for a second: while its applications restart it may answer
// once before it is gone for a moment.
func waitSteady(node, size int) step {
	return action("wait until the cluster is steady", func(ctx context.Context, r *Runner) error {
		var since time.Time
		return r.wait(ctx, "steady cluster", 30*time.Second, func(ctx context.Context) bool {
			if len(r.clusterOf(ctx, node)) != size {
				since = time.Time{}
				return false
			}
			if since.IsZero() {
				since = time.Now()
			}
			return time.Since(since) > time.Second
		})
	})
}

// node is what a node tells about itself.
func (r *Runner) node(ctx context.Context, node int) map[string]any {
	got, err := r.api(ctx, http.MethodGet, node, "/api/v5/nodes/emqx@"+r.cfg.Recorded[node], nil)
	if err != nil {
		return nil
	}
	info, _ := got.body.(map[string]any)
	return info
}

// timelineTolerance is how far the time between two rows may be from the recorded one: a tick, and somewhat more
// because both were seen by polling.
const timelineTolerance = 1200 * time.Millisecond

// row is a state that was seen, and when.
type row struct {
	at    time.Time
	value map[string]any
}

// watch polls a value and notes it whenever it changes, until stop is called.
func (r *Runner) watch(ctx context.Context, look func(context.Context) map[string]any) (rows func() []row, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var list []row
	changed := make(chan []row, 1)
	changed <- nil
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(pollPause)
		defer ticker.Stop()
		for {
			if v := look(ctx); v != nil && ctx.Err() == nil && (len(list) == 0 || !reflect.DeepEqual(list[len(list)-1].value, v)) {
				list = append(list, row{time.Now(), v})
				<-changed
				changed <- append([]row(nil), list...)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	rows = func() []row {
		list := <-changed
		changed <- list
		return list
	}
	return rows, func() { cancel(); <-done }
}

// compareTimeline compares rows that were seen with recorded ones. Keys that were not recorded do not count.
func (r *Runner) compareTimeline(file string, want []map[string]any, got []row, skipFirst bool) string {
	var recordedBefore float64
	var seenBefore time.Time
	for i, w := range want {
		if i >= len(got) {
			return fmt.Sprintf("row %d: nothing after %s where %v was recorded", i, short(lastValue(got)), short(w))
		}
		for _, key := range keysOf(w) {
			if key == "t" {
				continue
			}
			g, ok := got[i].value[key]
			if !ok {
				return fmt.Sprintf("row %d: no %s where %v was recorded", i, key, short(w[key]))
			}
			if d := r.comparer(file).differ(fmt.Sprintf("row %d.%s", i, key), key, r.translate.value(w[key]), g); d != "" {
				return d
			}
		}
		at, _ := w["t"].(float64)
		recorded := time.Duration((at - recordedBefore) * float64(time.Second))
		seen := got[i].at.Sub(seenBefore)
		recordedBefore, seenBefore = at, got[i].at
		if i == 0 || (skipFirst && i == 1) {
			continue
		}
		if off := seen - recorded; off > timelineTolerance || off < -timelineTolerance {
			return fmt.Sprintf("row %d: %s after the one before, recorded %s", i, seen.Round(time.Millisecond), recorded.Round(time.Millisecond))
		}
	}
	if len(got) > len(want) {
		return fmt.Sprintf("row %d: %v where nothing was recorded", len(want), short(got[len(want)].value))
	}
	return ""
}

func lastValue(rows []row) any {
	if len(rows) == 0 {
		return nil
	}
	return rows[len(rows)-1].value
}

// progress is the part of a node's status that was recorded in timelines.
func (r *Runner) progress(node int, keys ...string) func(context.Context) map[string]any {
	return func(ctx context.Context) map[string]any {
		_, status := r.state(ctx, node)
		if status == nil || status["status"] == "disabled" {
			return nil
		}
		v := map[string]any{}
		for _, key := range keys {
			v[key] = status[key]
		}
		return v
	}
}
