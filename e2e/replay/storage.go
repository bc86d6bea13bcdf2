package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
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

// replicasMove replays requests that move replicas, at once and when each shard has the given number, and compares the
// timeline. The answers in its rows are those of the requests, and compared with them.
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

// holdReplicas gives C a replica of everything.
func holdReplicas() step {
	return needsControl(action("C gets replicas", func(ctx context.Context, r *Runner) error {
		site, err := r.siteOf(ctx, nodeC)
		if err != nil {
			return err
		}
		got, err := r.api(ctx, http.MethodPut, nodeA, "/api/v5/ds/storages/messages/replicas/"+site, nil)
		if err != nil {
			return err
		}
		if got.status != http.StatusAccepted {
			return fmt.Errorf("let C join: %d %s", got.status, got.raw)
		}
		return r.waitReplicas(ctx, 3, nodeA, nodeB, nodeC)
	}))
}

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

// connackIs compares what a client was told with the recorder's short form of it.
func (r *Runner) connackIs(want map[string]any, c *mqttclient.Client) string {
	pk := c.Events()[0].Packet
	got := map[string]any{
		"at": want["at"], "cmd": "connack", "sessionPresent": pk.SessionPresent, "reasonCode": float64(pk.ReasonCode),
		"maximumPacketSize": float64(pk.Properties.MaximumPacketSize), "receiveMaximum": float64(pk.Properties.ReceiveMaximum),
	}
	return r.comparer("").differ("connack", "", want, got)
}
