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

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// durable is how the nodes of the recordings of durable storage were configured.
func durable() []string {
	return []string{"EMQX_DURABLE_SESSIONS__ENABLE=true", "EMQX_DURABLE_STORAGE__MESSAGES__N_SHARDS=2"}
}

// storageGroup is durable storage: who has replicas, how they join and leave, and what becomes of those of a node that is
// dead or has lost its disk. The nodes have the recorded ids of sites, whose order counts.
func storageGroup() group {
	return group{name: "durable storage", steps: []step{
		configured(Settings{Environ: durable()}),
		needsControl(action("start with the recorded sites", startStorage)),
		exchanges("611-613"),
		joinNodes(3, nodeB, nodeC), waitSites(3),
		connectClients(client{name: "old", node: nodeA, options: persistent(5), leave: true}),
		exchanges("614-630"),
		replicasMove("631-633", "633", "PUT replicas", []string{"631", "632"}, nil, 3),
		exchanges("634-635"),
		replicasMove("638-640", "640", "DELETE replica C", []string{"638"}, []string{"639"}, 2),
		holdReplicas(),
		replicaDies(),
		needsControl(action("C comes back without data", startWithNewSite)), waitSites(3),
		exchanges("649"), playing("650", "look at the sites", compareSites),
		holdReplicas(),
		playing("651", "C loses its disk", playLostDisk),
		playing("652", "B dies, too", playLostQuorum),
	}}
}

// recordedSites is the ids of the first sites of A, B and C.
func (r *Runner) recordedSites() (map[string]string, error) {
	rec, err := r.file("633")
	if err != nil {
		return nil, err
	}
	return part[map[string]string](rec, rec.Sites)
}

func startStorage(ctx context.Context, r *Runner) error {
	sites, err := r.recordedSites()
	if err != nil {
		return err
	}
	for node, name := range []string{"A", "B", "C"} {
		r.cfg.Control.Configure(node, Settings{Environ: durable(), Site: sites[name]})
	}
	return r.startNodes(ctx, true, nodeA)
}

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

// waitSites waits until all nodes know a number of sites.
func waitSites(total int) step {
	return action("wait for the sites", func(ctx context.Context, r *Runner) error {
		return r.wait(ctx, fmt.Sprintf("%d sites", total), 30*time.Second, func(ctx context.Context) bool {
			for node := range total {
				if views, err := r.siteViews(ctx, node); err != nil || len(views) != total {
					return false
				}
			}
			return true
		})
	})
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

// replicasMove replays requests that move replicas, at once and when each shard has the given number, and compares the
// timeline.
func replicasMove(covers, n, act string, atOnce, then []string, total int) step {
	s := step{what: "watch " + n, covers: []string{covers}}
	s.do = func(ctx context.Context, r *Runner) error {
		rows, stop := r.watchReplicas(ctx)
		defer stop()
		if err := r.wait(ctx, "first look", 10*time.Second, func(context.Context) bool { return len(rows()) > 0 }); err != nil {
			return err
		}
		begun := time.Now()
		if err := exchanges(atOnce...).do(ctx, r); err != nil {
			return err
		}
		if err := r.waitMoved(ctx, total, rows, nodeA, nodeB, nodeC); err != nil {
			return err
		}
		took := time.Since(begun)
		if err := exchanges(then...).do(ctx, r); err != nil {
			return err
		}
		name, difference, err := r.replicaRowsDiffer(n, act, rows(), took)
		if err == nil {
			r.report.compared(name, difference)
		}
		return err
	}
	return s
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

// holdReplicas gives C a replica of everything.
func holdReplicas() step {
	return needsControl(action("C gets replicas", func(ctx context.Context, r *Runner) error {
		site, err := r.siteOf(ctx, nodeC)
		if err != nil {
			return err
		}
		got, err := r.api(ctx, http.MethodPut, nodeA, "/api/v5/ds/storages/messages/replicas/"+site, nil)
		if err != nil || got.status != http.StatusAccepted {
			return fmt.Errorf("let C join: %d %s %w", got.status, got.raw, err)
		}
		return r.waitReplicas(ctx, 3, nodeA, nodeB, nodeC)
	}))
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

// waitDown waits until A sees the sites of a node down.
func (r *Runner) waitDown(ctx context.Context, node int) error {
	return r.wait(ctx, "its site is down", 30*time.Second, func(ctx context.Context) bool {
		views, err := r.siteViews(ctx, nodeA)
		return err == nil && slices.ContainsFunc(views, func(v siteView) bool { return v.Node == "emqx@"+r.targets[node] && !v.Up })
	})
}

// replicaDies is a node that is killed with its replicas, which are then deleted, and that is made to leave.
func replicaDies() step {
	s := needsControl(step{what: "a node with replicas dies", covers: []string{"641-648"}})
	s.do = func(ctx context.Context, r *Runner) error {
		rows, stop := r.watchReplicas(ctx)
		defer stop()
		if err := r.wait(ctx, "first look", 10*time.Second, func(context.Context) bool { return len(rows()) > 0 }); err != nil {
			return err
		}
		if err := errors.Join(r.cfg.Control.Kill(nodeC), r.waitDown(ctx, nodeC), exchanges("641").do(ctx, r)); err != nil {
			return err
		}
		published, err := r.publishes(ctx, "QoS 1 publish with C dead")
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := errors.Join(exchanges("642").do(ctx, r), r.waitMoved(ctx, 2, rows, nodeA, nodeB)); err != nil {
			return err
		}
		took := time.Since(begun)
		if err := exchanges("643-647").do(ctx, r); err != nil {
			return err
		}
		name, difference, err := r.replicaRowsDiffer("648", "DELETE replica of dead C", rows(), took)
		if err == nil {
			r.report.compared(name, cmp.Or(published, difference))
		}
		return err
	}
	return s
}

// publishes compares a message from one client to another with the row that tells of it.
func (r *Runner) publishes(ctx context.Context, act string) (string, error) {
	row, err := r.rowOf("648", act)
	if err != nil {
		return "", err
	}
	reader, err := r.connectTo(ctx, "reader", nodeA, clean(5))
	if err != nil {
		return "", err
	}
	if err := reader.Subscribe(ctx, "ds/dead", 1); err != nil {
		return "", err
	}
	writer, err := r.connectTo(ctx, "writer", nodeB, clean(5))
	if err != nil {
		return "", err
	}
	defer func() { r.drop("reader"); r.drop("writer") }()
	for _, payload := range row["got"].([]any) {
		if err := writer.Publish(ctx, "ds/dead", []byte(fmt.Sprint(payload)), 1, false); err != nil {
			return fmt.Sprintf("recorded PUBACK, got %v", err), nil
		}
		if err := r.wait(ctx, "the message", 10*time.Second, func(context.Context) bool {
			return slices.ContainsFunc(reader.Events(), func(e mqttclient.Event) bool {
				return !e.Closed && string(e.Packet.Payload) == payload
			})
		}); err != nil {
			return "recorded that the message comes: " + err.Error(), nil
		}
	}
	return "", nil
}

// startWithNewSite starts C without data, under the id that it had in the recording.
func startWithNewSite(ctx context.Context, r *Runner) error {
	views, err := r.sitesOf("650")
	if err != nil {
		return err
	}
	for _, view := range views {
		if view.Node == "emqx@"+r.cfg.Recorded[nodeC] {
			r.cfg.Control.Configure(nodeC, Settings{Environ: durable(), Site: view.Site})
		}
	}
	return joinNodes(3, nodeC).do(ctx, r)
}

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

func compareSites(ctx context.Context, r *Runner) error { return r.sitesDiffer(ctx, "650") }

// playLostDisk is C, with replicas, that comes back without data: it joins and ends, because its name is another site's.
func playLostDisk(ctx context.Context, r *Runner) error {
	rec, err := r.file("651")
	if err != nil {
		return err
	}
	r.cfg.Control.Configure(nodeC, Settings{Environ: durable()})
	if err := errors.Join(r.cfg.Control.Kill(nodeC), r.cfg.Control.Start(nodeC, true, others(nodeC, len(r.targets)))); err != nil {
		return err
	}
	if err := r.wait(ctx, "C ends", 60*time.Second, func(context.Context) bool { return !r.cfg.Control.Running(nodeC) }); err != nil {
		return errors.Join(differs("it runs on; recorded that it ends"), r.cfg.Control.Kill(nodeC))
	}
	members, err := part[[]any](rec, rec.Members)
	if err != nil {
		return err
	}
	if err := errors.Join(r.waitCluster(ctx, nodeA, len(members)), r.waitDown(ctx, nodeC), r.sitesDiffer(ctx, "651")); err != nil {
		return err
	}
	if d := r.comparer(rec.name).differ("members", "", r.translate.value(members), any(r.clusterOf(ctx, nodeA))); d != "" {
		return differs(d)
	}
	return r.storageDiffers(ctx, rec)
}

// playLostQuorum kills B, too: one replica of three is left, and clients notice nothing.
func playLostQuorum(ctx context.Context, r *Runner) error {
	rec, err := r.file("652")
	if err != nil {
		return err
	}
	if err := errors.Join(r.cfg.Control.Kill(nodeB), r.waitDown(ctx, nodeB)); err != nil {
		return err
	}
	first, err := part[map[string]any](rec, rec.Connack)
	if err != nil {
		return err
	}
	durableClients, err := part[map[string]map[string]any](rec, rec.DurableClient)
	if err != nil {
		return err
	}
	c, err := r.connectTo(ctx, "writer", nodeA, clean(5))
	if err != nil {
		return differs("recorded CONNACK, got " + err.Error())
	}
	if d := r.connackIs(first, c); d != "" {
		return differs(d)
	}
	if err := c.Publish(ctx, "ds/quorum", []byte("x"), 1, false); err != nil {
		return differs("recorded PUBACK, got " + err.Error())
	}
	for _, name := range []string{"new", "old"} {
		c, err := r.connectTo(ctx, name, nodeA, persistent(5))
		if err != nil {
			return differs(name + ": recorded CONNACK, got " + err.Error())
		}
		if d := r.connackIs(durableClients[name], c); d != "" {
			return differs(name + ": " + d)
		}
	}
	return r.storageDiffers(ctx, rec)
}

// storageDiffers compares all replicas as A sees them.
func (r *Runner) storageDiffers(ctx context.Context, rec *recording) error {
	want, err := part[map[string]any](rec, rec.Storage)
	if err != nil {
		return err
	}
	return differs(r.comparer(rec.name).differ("storage", "", any(want), any(r.replicas(ctx, nodeA))))
}

// connackIs compares what a client was told with the recorder's short form of it.
func (r *Runner) connackIs(want map[string]any, c *mqttclient.Client) string {
	pk := c.Events()[0].Packet
	got := map[string]any{
		"at": want["at"], "cmd": "connack", "sessionPresent": pk.SessionPresent, "reasonCode": float64(pk.ReasonCode),
		"maximumPacketSize": float64(pk.Properties.MaximumPacketSize), "receiveMaximum": float64(pk.Properties.ReceiveMaximum),
	}
	return r.comparer("").differ("connack", "", want, got)
}
