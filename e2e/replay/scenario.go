package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// The recorded nodes, by their place.
const (
	nodeA = iota
	nodeB
	nodeC
)

// scenario is everything that was recorded, in order: what was done to make each situation, and which recordings belong
// to it.
func scenario() []group {
	groups := []group{
		bootGroup(),
		clusterGroup(),
		{name: "listeners", steps: []step{freshNodes(nodeA), exchanges("203-210")}},
		rebalanceGroup(),
		frozenGroup(),
		frozenLocalGroup(),
		killedGroup(),
	}
	groups = append(groups, memberGroups()...)
	groups = append(groups, restartGroups()...)
	groups = append(groups, keysGroup(), licenceGroup(), limitGroup(), storageGroup())
	return append(groups, configGroups()...)
}

func clean(version byte) mqttclient.Options {
	return mqttclient.Options{Version: version, Clean: true, KeepAlive: 30}
}

// persistent is a client whose session outlives it: an hour with MQTT 5, EMQX's two hours with MQTT 3.
func persistent(version byte) mqttclient.Options {
	o := mqttclient.Options{Version: version, KeepAlive: 30}
	if version == 5 {
		o.Expiry = 3600
	}
	return o
}

// clusterGroup is the long recording: one node, then three, an evacuation from its start to its end, configuration,
// and a node that goes, comes back and is forced out.
func clusterGroup() group {
	steps := []step{
		otherwise(freshNodes(nodeA), action("sessions of before", leaveSessions)),
		needsOwn(exchanges("001")),
		needsOwn(connectClients(
			client{name: "s0", options: clean(5)}, client{name: "s1", options: persistent(5)},
			client{name: "s2", options: clean(5)}, client{name: "s3", options: persistent(5)},
		)),
		needsOwn(singleEvacuation()),
		needsOwn(exchanges("004-005")),
		needsOwn(mqttStep("006", "s1", nodeA, persistent(5))),
		otherwise(joinNodes(3, nodeB, nodeC), action("nothing", nothing)),
		waitFigures(nodeA, 2, 0),
		exchanges("007-054"),
	}
	steps = append(steps, recordedClients()...)
	steps = append(steps, exchanges("055-059"), fullEvacuation(), seenByClients(), exchanges("121"),
		mqttStep("123", "pers5-2", nodeB, persistent(5)),
		mqttStep("124", "off5-1", nodeB, persistent(5)),
		mqttStep("125", "off5-2", nodeB, persistent(5)),
		mqttStep("126", "pers311-1", nodeB, persistent(4)),
		exchanges("127-130"),
		mqttStep("131", "afterwards5", nodeA, clean(5)),
		exchanges("132-155"),
		dropClients("pers5-1", "onB"), waitFigures(nodeA, 0, 0),
		exchanges("156-159"), waitProhibiting(nodeA), exchanges("160-168"),
	)
	steps = append(steps, stoppedHalfway()...)
	steps = append(steps, restarted()...)
	return group{name: "cluster", steps: steps}
}

func nothing(context.Context, *Runner) error { return nil }

// otherwise says what is done with nodes that are not ours.
func otherwise(s, instead step) step {
	s.otherwise = &instead
	return s
}

// needsOwn is a step that is left out, with its recordings, when the nodes are not ours.
func needsOwn(s step) step {
	return otherwise(needsControl(s), skipped("needs a fresh node of one's own", s.covers...))
}

// leaveSessions makes the two sessions that the recording of a single node left behind.
func leaveSessions(ctx context.Context, r *Runner) error {
	for _, name := range []string{"s1", "s3"} {
		if _, err := r.connectTo(ctx, name, nodeA, persistent(5)); err != nil {
			return err
		}
		r.drop(name)
	}
	return nil
}

// mqttStep connects a client as one was recorded to, and disconnects it.
func mqttStep(n, name string, node int, o mqttclient.Options) step {
	return step{what: "connect " + name, covers: []string{n}, do: func(ctx context.Context, r *Runner) error {
		if err := r.mqttConnect(ctx, n, name, node, o); err != nil {
			return err
		}
		r.drop(name)
		return nil
	}}
}

// singleEvacuation evacuates the only node there is: nobody can take its sessions.
func singleEvacuation() step {
	s := step{what: "evacuate a single node", covers: []string{"002", "003"}}
	s.do = func(ctx context.Context, r *Runner) error {
		start, err := r.file("002")
		if err != nil {
			return err
		}
		timeline, err := r.file("003")
		if err != nil {
			return err
		}
		rows, stop := r.watch(ctx, r.progress(nodeA, "state", "stats", "session_recipients"))
		defer stop()
		r.report.compared(start.name, r.exchange(ctx, start))
		if err := r.wait(ctx, "all states", 30*time.Second, func(context.Context) bool {
			return len(rows()) >= len(timeline.Timeline)
		}); err != nil {
			r.report.compared(timeline.name, r.compareTimeline(timeline.name, timeline.Timeline, rows(), false))
			return nil
		}
		// The recorder watched for twelve seconds, in which nothing more happened.
		timer := time.NewTimer(4 * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		r.report.compared(timeline.name, r.compareTimeline(timeline.name, timeline.Timeline, rows(), false))
		return nil
	}
	return s
}

// recordedClients are those of 055: sixteen sessions on the first node, twelve of them connected.
func recordedClients() []step {
	var clients []client
	for i := 1; i <= 4; i++ {
		clients = append(clients, client{name: fmt.Sprintf("clean5-%d", i), options: clean(5)})
	}
	for i := 1; i <= 4; i++ {
		clients = append(clients, client{name: fmt.Sprintf("pers5-%d", i), options: persistent(5), subscribe: fmt.Sprintf("pers/%d", i)})
	}
	for i := 1; i <= 2; i++ {
		clients = append(clients, client{name: fmt.Sprintf("pers311-%d", i), options: persistent(4), subscribe: fmt.Sprintf("p3/%d", i)})
	}
	web := clean(5)
	web.WebSocket = true
	clients = append(clients, client{name: "clean311", options: clean(4)}, client{name: "ws5", options: web})
	for i := 1; i <= 2; i++ {
		clients = append(clients, client{
			name: fmt.Sprintf("off5-%d", i), options: persistent(5), subscribe: fmt.Sprintf("off/%d", i), leave: true,
		})
	}
	clients = append(clients, client{name: "onB", node: nodeB, options: clean(5)})
	return []step{
		connectClients(clients...), waitFigures(nodeA, 16, 12), waitFigures(nodeB, 1, 1),
		action("publish to absent clients", func(ctx context.Context, r *Runner) error {
			c, err := r.connectTo(ctx, "publisher", nodeB, clean(5))
			if err != nil {
				return err
			}
			defer r.drop("publisher")
			for i := 1; i <= 2; i++ {
				payload := []byte(fmt.Sprintf("queued while offline %d", i))
				if err := c.Publish(ctx, fmt.Sprintf("off/%d", i), payload, 1, false); err != nil {
					return err
				}
			}
			return nil
		}),
		waitFigures(nodeB, 1, 1), waitSessions(nodeA, 17), waitSessions(nodeB, 17), waitSessions(nodeC, 17),
	}
}

// fullEvacuation goes through all states; in each, the recorded requests and connects are replayed as soon as the
// state is seen.
func fullEvacuation() step {
	s := step{what: "evacuate a node of three", covers: []string{"060-119"}}
	s.do = func(ctx context.Context, r *Runner) error {
		timeline, err := r.file("119")
		if err != nil {
			return err
		}
		rows, stop := r.watch(ctx, r.progress(nodeA, "state", "stats"))
		defer stop()
		if err := exchanges("060-061").do(ctx, r); err != nil {
			return err
		}
		for _, part := range []struct {
			state string
			steps []step
		}{
			{"waiting_health_check", []step{
				exchanges("063-071"), mqttStep("072", "new5", nodeA, clean(5)), mqttStep("073", "new4", nodeA, clean(4)),
			}},
			{"evicting_conns", []step{
				exchanges("074-082"), mqttStep("083", "new5", nodeA, clean(5)), mqttStep("084", "new4", nodeA, clean(4)),
			}},
			{"waiting_takeover", []step{
				exchanges("085-093"), mqttStep("094", "new5", nodeA, clean(5)), mqttStep("095", "new4", nodeA, clean(4)),
				takeover(),
			}},
			{"evicting_sessions", []step{
				exchanges("097-105"), mqttStep("106", "new5", nodeA, clean(5)), mqttStep("107", "new4", nodeA, clean(4)),
			}},
			{"prohibiting", []step{
				exchanges("108-116"), mqttStep("117", "new5", nodeA, clean(5)), mqttStep("118", "new4", nodeA, clean(4)),
			}},
		} {
			if err := r.wait(ctx, part.state, 60*time.Second, func(context.Context) bool {
				list := rows()
				return len(list) > 0 && list[len(list)-1].value["state"] == part.state
			}); err != nil {
				return err
			}
			for _, step := range part.steps {
				if err := step.do(ctx, r); err != nil {
					return err
				}
			}
		}
		r.report.compared(timeline.name, r.compareTimeline(timeline.name, timeline.Timeline, rows(), false))
		return nil
	}
	return s
}

// takeover is the client that comes back in time; its new connection was recorded under another name.
func takeover() step {
	return step{what: "reconnect pers5-1", covers: []string{"096"}, do: func(ctx context.Context, r *Runner) error {
		old := r.clients["pers5-1"]
		if old == nil {
			return errors.New("client pers5-1 is not there")
		}
		r.watched["pers5-1"] = old.Events()
		if err := r.mqttConnect(ctx, "096", "pers5-1", nodeB, persistent(5)); err != nil {
			return err
		}
		r.watched["takeover5"] = r.clients["pers5-1"].Events()
		return nil
	}}
}

// stoppedHalfway stops an evacuation in the middle, and lets another one run to its end.
func stoppedHalfway() []step {
	var clients []client
	for i := range 6 {
		o := clean(5)
		if i%2 == 1 {
			o = persistent(5)
		}
		clients = append(clients, client{name: fmt.Sprintf("m%d", i), options: o})
	}
	return []step{
		connectClients(clients...), waitFigures(nodeA, 6, 6),
		exchanges("172"),
		action("wait for the third tick", func(ctx context.Context, r *Runner) error {
			return r.wait(ctx, "two clients evicted", 20*time.Second, func(ctx context.Context) bool {
				_, status := r.state(ctx, nodeA)
				stats, _ := status["stats"].(map[string]any)
				return stats["current_connected"] == float64(4)
			})
		}),
		exchanges("173-175"), clientsLeft(),
		action("evacuate to the end in its place", func(ctx context.Context, r *Runner) error {
			return r.command(ctx, "/api/v5/load_rebalance/emqx@127.0.0.11/evacuation/start",
				map[string]any{"wait_health_check": 1, "wait_takeover": 2, "conn_evict_rate": 1})
		}),
		waitProhibiting(nodeA),
		exchanges("181"),
	}
}

func clientsLeft() step {
	return step{what: "see who is left", covers: []string{"177"}, do: func(_ context.Context, r *Runner) error {
		rec, err := r.file("177")
		if err != nil {
			return err
		}
		var left []any
		for i := range 6 {
			name := fmt.Sprintf("m%d", i)
			select {
			case <-r.clients[name].Done():
			default:
				left = append(left, name)
			}
		}
		var want []any
		for _, name := range rec.Left {
			want = append(want, name)
		}
		r.report.compared(rec.name, r.comparer(rec.name).differ("$", "", want, left))
		return nil
	}}
}

// restarted is a node that stops while it is evacuated, comes back, and is forced out.
func restarted() []step {
	return []step{
		exchanges("182"), waitProhibiting(nodeC),
		needsControl(action("stop a node", func(ctx context.Context, r *Runner) error {
			if err := r.cfg.Control.Stop(nodeC); err != nil {
				return err
			}
			return r.wait(ctx, "it is listed as stopped", 10*time.Second, func(ctx context.Context) bool {
				got, err := r.api(ctx, "GET", nodeA, "/api/v5/nodes", nil)
				list, _ := got.body.([]any)
				return err == nil && len(list) == 3
			})
		})),
		exchanges("183-191"),
		needsControl(action("start it again", func(_ context.Context, r *Runner) error {
			return r.cfg.Control.Start(nodeC, false, others(nodeC, len(r.targets)))
		})),
		waitProhibiting(nodeC),
		exchanges("192-194"), mqttStep("195", "new5", nodeC, clean(5)), exchanges("196-197"),
		waitSteady(nodeC, 1),
		exchanges("198-200"),
	}
}

// rebalanceGroup is a rebalance of three nodes whose clients stay away once they are evicted.
func rebalanceGroup() group {
	var clients []client
	for i := range 20 {
		node := nodeA
		if i >= 16 {
			node = nodeB + i%2
		}
		clients = append(clients, client{name: fmt.Sprintf("r%d", i), node: node, options: persistent(5)})
	}
	timeline := step{what: "rebalance", covers: []string{"303-309"}}
	timeline.do = func(ctx context.Context, r *Runner) error {
		rec, err := r.file("309")
		if err != nil {
			return err
		}
		if err := exchanges("303").do(ctx, r); err != nil {
			return err
		}
		rows, stop := r.watch(ctx, func(ctx context.Context) map[string]any {
			got, err := r.api(ctx, "GET", nodeC, "/api/v5/load_rebalance/global_status", nil)
			object, ok := got.body.(map[string]any)
			if err != nil || !ok {
				return nil
			}
			list, _ := object["rebalances"].([]any)
			if len(list) == 0 {
				return map[string]any{"state": "absent"}
			}
			item, _ := list[0].(map[string]any)
			v := map[string]any{}
			for _, key := range []string{"state", "connection_goal", "donor_conn_avg", "disconnected_session_goal"} {
				if value, ok := item[key]; ok {
					v[key] = value
				}
			}
			return v
		})
		defer stop()
		if err := exchanges("304-308").do(ctx, r); err != nil {
			return err
		}
		waited := r.wait(ctx, "the rebalance ends", 60*time.Second, func(context.Context) bool {
			list := rows()
			return len(list) > 0 && list[len(list)-1].value["state"] == "absent"
		})
		r.report.compared(rec.name, r.compareTimeline(rec.name, rec.Timeline, rows(), true))
		return waited
	}
	return group{name: "rebalance", steps: []step{
		freshNodes(nodeA, nodeB, nodeC), connectClients(clients...), waitFigures(nodeA, 16, 16),
		exchanges("301"), timeline, exchanges("310-311"),
	}}
}

// seenByClients compares what every client of the evacuation saw.
func seenByClients() step {
	return step{what: "see what clients saw", covers: []string{"120"}, do: compareSeen}
}
