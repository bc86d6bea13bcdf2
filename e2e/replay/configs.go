package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// changingConfig is emqx.conf of the nodes whose configuration was changed while they ran.
const changingConfig = `node.role = core
dashboard.listeners.http.bind = 18083
listeners.ssl.default { bind = 8883, enable = false }
mqtt.max_inflight = 20
`

// configGroups are the recordings of configurations that are changed while nodes run.
func configGroups() []group {
	return []group{changesGroup(), dashboardGroup(), mergeGroup(), frozenChangeGroup(), authenticationGroup(),
		failedBindGroup(), keptDashboardGroup("file", "592", Settings{Config: changingConfig}),
		keptDashboardGroup("environment", "598", Settings{
			Config:  strings.ReplaceAll(changingConfig, "dashboard.listeners.http.bind = 18083\n", ""),
			Environ: []string{"EMQX_DASHBOARD__LISTENERS__HTTP__BIND=18083"},
		})}
}

// put sends a change that was not recorded, or whose recording is not there.
func put(n, mode, body string) step {
	return step{what: "change the configuration", covers: []string{n}, do: func(ctx context.Context, r *Runner) error {
		if rec, err := r.file(n); err == nil {
			if !r.report.wants(rec.name) {
				return r.makeSituation(ctx, rec)
			}
			r.report.compared(rec.name, r.exchange(ctx, rec))
			return nil
		}
		_, err := r.send(ctx, request{
			method: http.MethodPut, host: r.targets[nodeA] + ":18083", path: "/api/v5/configs?mode=" + mode, auth: "Basic opkey:opsecret",
			header: map[string]string{"Content-Type": "text/plain"}, body: []byte(body), hasBody: true,
		})
		if errors.Is(err, io.EOF) { // a node is frozen
			return nil
		}
		return err
	}}
}

func changesGroup() group {
	nodes := Settings{Config: changingConfig, Environ: []string{"EMQX_MQTT__RETRY_INTERVAL=25s"}}
	moved := nodes
	moved.Config += "listeners.tcp.default.bind = 1886\n"
	ports := map[string]string{"p": "1883", "c": "1883", "q": "1884", "x": "1885", "y": "1885", "z": "1884"}
	steps := []step{
		configured(nodes, nodeA, nodeB),
		look("455", "before"), connectClients(client{name: "old", node: nodeB, options: clean(5)}),
		exchanges("451"), look("455", "after merge of"), packetSizes(), exchanges("452-454"), look("455", "after replace"), rowsOf("455"),
	}
	for _, n := range []string{"456", "457", "458", "459", "460", "461", "462", "463", "464"} {
		steps = append(steps, listenerChange(n, ports))
	}
	steps = append(steps,
		put("465", "replace", `listeners { ssl { default { bind = 8883, enable = false } }, tcp { default { bind = "1884" } } }`),
		exchanges("466"), listenerChange("467", ports), exchanges("468"), look("489", "after the failed PUT"),
		exchanges("470"), look("489", "log level"), exchanges("471"), look("489", "after read-only"),
		exchanges("472"), look("489", "after a bad value"), exchanges("473"), look("489", "after unknown field"),
		exchanges("474"), look("489", "PUT retry_interval"), exchanges("475"), look("489", "PUT max_inflight"),
		exchanges("476", "478-481"),
		needsControl(action("stop B", func(ctx context.Context, r *Runner) error { return r.stopListed(ctx, nodeB, 2) })),
		exchanges("482"),
		needsControl(action("start B again", func(ctx context.Context, r *Runner) error { return r.startAgain(ctx, nodeB, 2) })),
		look("489", "B restarted: emqx.conf"),
		joinNodes(3, nodeC), exchanges("483-484"), look("489", "new node C joined"),
		needsControl(action("restart B with another address", func(ctx context.Context, r *Runner) error {
			r.cfg.Control.Configure(nodeB, moved)
			if err := r.cfg.Control.Stop(nodeB); err != nil {
				return err
			}
			return r.startAgain(ctx, nodeB, 3)
		})),
		look("489", "B restarted with emqx.conf"),
		freeze(nodeB), exchanges("486"), look("489", "PUT with frozen member"), exchanges("487"), thaw(nodeB),
		eventually("489", "B continued"),
		needsControl(action("kill C", func(ctx context.Context, r *Runner) error {
			if err := r.cfg.Control.Kill(nodeC); err != nil {
				return err
			}
			return r.waitCluster(ctx, nodeA, 2)
		})),
		exchanges("488"), rowsOf("489"),
	)
	return group{name: "changes", steps: steps}
}

func dashboardGroup() group {
	return group{name: "dashboard port", steps: []step{
		configured(Settings{Config: changingConfig}, nodeA, nodeB),
		put("490", "merge", `dashboard { listeners { http { bind = 18084 } } }`), eventually("493", "ports 2.0 s later"), exchanges("491-492"),
		eventually("493", "after bind = 0"),
		needsControl(action("restart A", func(_ context.Context, r *Runner) error {
			if err := r.cfg.Control.Stop(nodeA); err != nil {
				return err
			}
			return r.cfg.Control.Start(nodeA, false, others(nodeA, 2))
		})),
		eventually("493", "A restarted"), rowsOf("493"),
	}}
}

func mergeGroup() group {
	ports := map[string]string{"f": "1883", "2": "1883", "t": "1885"}
	steps := []step{
		configured(Settings{Config: changingConfig}, nodeA, nodeB),
		look("565", "start"), exchanges("561"), look("565", "merge max_packet_size"),
		put("562", "merge", "mqtt { max_topic_levels = 64 }"), look("565", "merge max_topic_levels"),
		exchanges("563"), look("565", "merge of all three"), exchanges("564"), look("565", "merge of mqtt {}"), rowsOf("565"),
	}
	for _, n := range []string{"566", "567", "568", "569", "570"} {
		steps = append(steps, listenerChange(n, ports))
	}
	steps = append(steps, put("571", "replace", `listeners { tcp { default { bind = "0.0.0.0:1883" } } }`), exchanges("572"))
	for _, n := range []string{"573", "574", "575", "576", "577", "578"} {
		steps = append(steps, listenerChange(n, ports))
	}
	return group{name: "merge", steps: steps}
}

func frozenChangeGroup() group {
	return group{name: "change while frozen", steps: []step{
		configured(Settings{Config: changingConfig}, nodeA, nodeB, nodeC),
		freeze(nodeB), put("589", "merge", "mqtt { max_topic_levels = 44 }"), exchanges("590"), thaw(nodeB),
		eventually("591", "", "A", "C"), eventually("591", "members"), rowsOf("591"),
	}}
}

func authenticationGroup() group {
	chain := `authentication = [ { mechanism = password_based, backend = built_in_database, user_id_type = username } ]`
	return group{name: "authentication", steps: []step{
		configured(Settings{Config: changingConfig}, nodeA, nodeB), put("579", "merge", chain), exchanges("580-587"),
	}}
}

func failedBindGroup() group {
	ports := map[string]string{"a": "1883", "b": "1883"}
	return group{name: "failed bind", steps: []step{
		configured(Settings{Config: changingConfig}, nodeA, nodeB),
		connectClients(client{name: "other-1", node: nodeB, options: clean(5)}, client{name: "other-2", node: nodeB, options: clean(5)}),
		listenerChange("594", ports), listenerChange("595", ports), listenerChange("596", ports), listenerChange("597", ports),
	}}
}

func keptDashboardGroup(name, n string, settings Settings) group {
	rows := fmt.Sprintf("%s9%c", n[:1], n[2]+1) // the recording after it
	return group{name: "dashboard by " + name, steps: []step{
		configured(settings, nodeA, nodeB), look(rows, ""), exchanges(n), look(rows, "API port 5.0 s later"), rowsOf(rows),
	}}
}

func freeze(node int) step {
	return needsControl(action("freeze a node", func(_ context.Context, r *Runner) error { return r.cfg.Control.Freeze(node) }))
}

func thaw(node int) step {
	return needsControl(action("thaw it", func(_ context.Context, r *Runner) error { return r.cfg.Control.Thaw(node) }))
}

// stopListed stops a node and waits until the first one lists it as stopped.
func (r *Runner) stopListed(ctx context.Context, node, total int) error {
	if err := r.cfg.Control.Stop(node); err != nil {
		return err
	}
	return r.waitListed(ctx, total)
}

func (r *Runner) waitListed(ctx context.Context, total int) error {
	return r.wait(ctx, "the stopped node is listed", 20*time.Second, func(ctx context.Context) bool {
		got, err := r.api(ctx, http.MethodGet, nodeA, "/api/v5/nodes", nil)
		list, _ := got.body.([]any)
		return err == nil && len(list) == total
	})
}

// startAgain starts a node with what it had and waits until it is in the cluster.
func (r *Runner) startAgain(ctx context.Context, node, total int) error {
	if err := r.cfg.Control.Start(node, false, others(node, len(r.targets))); err != nil {
		return err
	}
	for _, other := range []int{nodeA, node} {
		if err := r.waitCluster(ctx, other, total); err != nil {
			return err
		}
	}
	return nil
}

// packetSizes is what clients from before and after a change of the largest packet saw.
func packetSizes() step {
	return action("send large packets", func(ctx context.Context, r *Runner) error {
		young, err := r.connectTo(ctx, "young", nodeB, clean(5))
		if err != nil {
			return err
		}
		note := func(what string, recorded, got any) {
			if r.rows["455"] == "" && fmt.Sprint(recorded) != fmt.Sprint(got) {
				r.rows["455"] = fmt.Sprintf("%s: recorded %v, got %v", what, recorded, got)
			}
		}
		note("largest packet of a new client", 2097152, young.Events()[0].Packet.Properties.MaximumPacketSize)
		large := make([]byte, 1500000)
		note("the new client sends 1.5 MB", nil, young.Publish(ctx, "large", large, 1, false))
		old := r.clients["old"]
		_ = old.Publish(ctx, "large", large, 1, false)
		select {
		case <-old.Done():
		case <-time.After(10 * time.Second):
		}
		code, _ := old.DisconnectCode()
		note("DISCONNECT to the old one", 149, code)
		return nil
	})
}

func (r *Runner) port(ctx context.Context, node int, port string) string {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", r.targets[node]+":"+port)
	if err != nil {
		return "ConnectionRefusedError"
	}
	_ = conn.Close()
	return "open"
}

func nodeNamed(name string) (int, bool) {
	at := strings.Index("ABC", name)
	return at, len(name) == 1 && at >= 0
}

// listenerClient is a client of a recording about listeners: its name begins with its node and ends with its listener.
func listenerClient(name string, ports map[string]string) (node int, o mqttclient.Options) {
	name = strings.TrimPrefix(name, "f-") // of 594-597
	node, _ = nodeNamed(strings.ToUpper(name[:1]))
	o = clean(5)
	switch {
	case strings.HasPrefix(name[1:], "4"):
		o = clean(4)
	case strings.HasSuffix(name, "p"):
		o = persistent(5)
	}
	o.Address = ":" + ports[name[len(name)-1:]]
	return node, o
}
