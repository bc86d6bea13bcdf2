package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// restartGroups are the recordings of nodes that restart: in the middle of an evacuation, with the data of a member that
// was made to leave, or with none. How long a start takes is the node's own business.
func restartGroups() []group {
	return []group{
		restartGroup("501", "evicting_conns", syscallTerm), restartGroup("502", "evicting_sessions", syscallKill),
		restartGroup("503", "prohibiting", syscallTerm),
		forgottenGroup(), leavingGroup(), emptyGroup("512", syscallTerm), emptyGroup("513", syscallKill),
		coldStartGroup(),
	}
}

// How a node ends.
const (
	syscallTerm = "SIGTERM"
	syscallKill = "SIGKILL"
)

func (r *Runner) end(node int, signal string) error {
	if signal == syscallKill {
		return r.cfg.Control.Kill(node)
	}
	return r.cfg.Control.Stop(node)
}

// playing is a step that replays one recording in a way of its own.
func playing(n, what string, play func(context.Context, *Runner) error) step {
	return needsControl(step{what: what, covers: []string{n}, do: func(ctx context.Context, r *Runner) error {
		rec, err := r.file(n)
		if err != nil {
			return nil //nolint:nilerr // it is not among the recordings
		}
		err = play(ctx, r)
		var difference *differenceError
		if err == nil || errors.As(err, &difference) {
			r.report.compared(rec.name, text(err))
			return nil
		}
		return err
	}})
}

// differenceError is what differs from a recording; other errors mean that it could not be replayed.
type differenceError struct{ text string }

// Error says what differs.
func (e *differenceError) Error() string { return e.text }

func differs(text string) error {
	if text == "" {
		return nil
	}
	return &differenceError{text}
}

const evacuationOfC = "/api/v5/load_rebalance/emqx@127.0.0.13/evacuation/"

// restartGroup ends C in a state of its evacuation and starts it again with what it had.
func restartGroup(n, state, signal string) group {
	return group{name: "restart " + n, steps: []step{
		freshNodes(nodeA, nodeB, nodeC), persistentClients("r"+n+"-", 6, nodeC), waitFigures(nodeC, 6, 6),
		playing(n, "restart an evacuated node", func(ctx context.Context, r *Runner) error {
			start, err := r.rowOf(n, "evacuation of C started")
			if err != nil {
				return err
			}
			body, _ := start["body"].(map[string]any)
			if err := r.command(ctx, evacuationOfC+"start", body); err != nil {
				return err
			}
			if err := r.wait(ctx, state, 60*time.Second, func(ctx context.Context) bool {
				now, _ := r.state(ctx, nodeC)
				moved, _ := r.node(ctx, nodeB)["connections"].(float64)
				return now == state && (state != "evicting_sessions" || moved >= 2)
			}); err != nil {
				return err
			}
			if d := r.savedDiffers(n); d != "" {
				return differs(d)
			}
			if err := errors.Join(r.end(nodeC, signal), r.waitListed(ctx, 3), r.startAgain(ctx, nodeC, 3)); err != nil {
				return err
			}
			return r.afterRestart(ctx, n)
		}),
	}}
}

// savedDiffers compares the file that brings an evacuation back.
func (r *Runner) savedDiffers(n string) string {
	row, err := r.rowOf(n, ".evacuation file")
	if err != nil {
		return err.Error()
	}
	data, err := r.cfg.Control.File(nodeC, ".evacuation")
	if err != nil {
		return err.Error()
	}
	var want, got map[string]any
	if err := errors.Join(json.Unmarshal([]byte(fmt.Sprint(row["text"])), &want), json.Unmarshal(data, &got)); err != nil {
		return err.Error()
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Sprintf(".evacuation: recorded %v, got %v", want, got)
	}
	return ""
}

// afterRestart is what was recorded of every node that had come back: it refuses clients and is evacuated to all others, until
// it is told to stop.
func (r *Runner) afterRestart(ctx context.Context, n string) error {
	if err := waitProhibiting(nodeC).do(ctx, r); err != nil {
		return differs("the evacuation does not go on: " + err.Error())
	}
	_, status := r.state(ctx, nodeC)
	if got := fmt.Sprint(status["session_recipients"]); got != r.translate.text("[emqx@127.0.0.11 emqx@127.0.0.12]") {
		return differs("session_recipients: recorded all others, got " + got)
	}
	_, err := r.connectTo(ctx, "refused", nodeC, clean(5))
	var refused *mqttclient.RefusedError
	if !errors.As(err, &refused) || refused.Code != 156 {
		return differs(fmt.Sprintf("a connect: recorded code 156, got %v", err))
	}
	if d := r.savedDiffers(n); d != "" {
		return differs(d)
	}
	if err := r.command(ctx, evacuationOfC+"stop", map[string]any{}); err != nil {
		return differs(err.Error())
	}
	if state, _ := r.state(ctx, nodeC); state != "disabled" {
		return differs("after stop: recorded disabled, got " + state)
	}
	if _, err := r.cfg.Control.File(nodeC, ".evacuation"); err == nil {
		return differs(".evacuation is still there")
	}
	if _, err := r.connectTo(ctx, "accepted", nodeC, clean(5)); err != nil {
		return differs(fmt.Sprintf("a connect after stop: %v", err))
	}
	second, err := r.rowOf(n, "second stop")
	if err != nil {
		return err
	}
	got, err := r.api(ctx, http.MethodPost, nodeA, evacuationOfC+"stop", map[string]any{})
	if err != nil {
		return err
	}
	answer := []any{float64(got.status), got.body}
	if d := r.comparer(n).differ("second stop", "", r.translate.value(second["answer"]), any(answer)); d != "" {
		return differs(d)
	}
	return r.cameBack(ctx, n)
}

// cameBack connects the recorded clients to B. Which sessions had moved is chance, how many is not.
func (r *Runner) cameBack(ctx context.Context, n string) error {
	row, err := r.rowOf(n, "the six clients come to B")
	if err != nil {
		return err
	}
	want, got := 0, 0
	present, _ := row["session_present"].(map[string]any)
	for _, name := range keysOf(present) {
		if present[name] == true {
			want++
		}
		c, err := r.connectTo(ctx, name, nodeB, persistent(5))
		if err != nil {
			return err
		}
		if c.SessionPresent() {
			got++
		}
	}
	if got != want {
		return differs(fmt.Sprintf("session_present: recorded %d of %d, got %d", want, len(present), got))
	}
	return nil
}

// forgottenGroup is a core that is made to leave while it is down: it does not start again with its old data.
func forgottenGroup() group {
	doesNotBoot := func(n string) step {
		return playing(n, "start with old data", func(ctx context.Context, r *Runner) error {
			if err := r.cfg.Control.Start(nodeC, false, others(nodeC, len(r.targets))); err != nil {
				return err
			}
			opened := false
			if err := r.wait(ctx, "it ends", 60*time.Second, func(ctx context.Context) bool {
				opened = opened || r.port(ctx, nodeC, "18083") == "open"
				return opened || !r.cfg.Control.Running(nodeC)
			}); err != nil {
				return errors.Join(differs("it runs on; recorded that it ends"), r.cfg.Control.Kill(nodeC))
			}
			if opened {
				return errors.Join(differs("its API answers; recorded that it does not start"), r.cfg.Control.Kill(nodeC))
			}
			if size := len(r.clusterOf(ctx, nodeA)); size != 2 {
				return differs(fmt.Sprintf("the others see %d members; recorded 2", size))
			}
			return nil
		})
	}
	return group{name: "forgotten", steps: []step{
		freshNodes(nodeA, nodeB, nodeC),
		action("evacuate C", func(ctx context.Context, r *Runner) error {
			return errors.Join(r.command(ctx, evacuationOfC+"start", map[string]any{"wait_health_check": 0, "wait_takeover": 0}),
				waitProhibiting(nodeC).do(ctx, r))
		}),
		needsControl(action("stop C", func(ctx context.Context, r *Runner) error { return r.stopListed(ctx, nodeC, 3) })),
		exchanges("504", "506-508"), doesNotBoot("509"), doesNotBoot("510"), doesNotBoot("516"), joinsEmpty("517", 3),
	}}
}

// joinsEmpty starts C without data and waits until all see three nodes, and each once.
func joinsEmpty(n string, total int) step {
	return playing(n, "start without data", func(ctx context.Context, r *Runner) error {
		if err := joinNodes(total, nodeC).do(ctx, r); err != nil {
			return differs(err.Error())
		}
		if err := r.waitListed(ctx, total); err != nil {
			return differs("recorded that each node is listed once: " + err.Error())
		}
		return nil
	})
}

// leavingGroup is a running core that is made to leave: it goes on alone until it is restarted.
func leavingGroup() group {
	return group{name: "leaving", steps: []step{
		freshNodes(nodeA, nodeB, nodeC), connectClients(client{name: "left", node: nodeC, options: clean(5)}),
		playing("511", "make a running node leave", func(ctx context.Context, r *Runner) error {
			got, err := r.api(ctx, http.MethodDelete, nodeA, "/api/v5/cluster/emqx@127.0.0.13/force_leave", nil)
			if err != nil || got.status != http.StatusNoContent {
				return differs(fmt.Sprintf("force_leave: recorded 204, got %d, %v", got.status, err))
			}
			if err := errors.Join(r.waitCluster(ctx, nodeC, 1), r.waitCluster(ctx, nodeA, 2), r.waitListed(ctx, 2)); err != nil {
				return differs(err.Error())
			}
			select {
			case <-r.clients["left"].Done():
			case <-time.After(10 * time.Second):
				return differs("its client is still connected")
			}
			// Its applications start again: recorded a second later.
			if err := r.wait(ctx, "the lone node takes a client", 10*time.Second, func(ctx context.Context) bool {
				_, err := r.connectTo(ctx, "lone", nodeC, clean(5))
				return err == nil
			}); err != nil {
				return differs(err.Error())
			}
			if err := errors.Join(r.cfg.Control.Stop(nodeC), r.startAgain(ctx, nodeC, 3)); err != nil {
				return differs("after a restart: " + err.Error())
			}
			return nil
		}),
	}}
}

// emptyGroup is a core that comes back without data under its old name.
func emptyGroup(n, signal string) group {
	return group{name: "empty " + n, steps: []step{
		freshNodes(nodeA, nodeB, nodeC),
		action("evacuate C", func(ctx context.Context, r *Runner) error {
			return errors.Join(r.command(ctx, evacuationOfC+"start", map[string]any{"wait_health_check": 0, "wait_takeover": 0}),
				waitProhibiting(nodeC).do(ctx, r))
		}),
		needsControl(action("end C", func(ctx context.Context, r *Runner) error {
			return errors.Join(r.end(nodeC, signal), r.waitListed(ctx, 3))
		})),
		joinsEmpty(n, 3), exchanges("514"),
	}}
}

// coldWatch is how long a node that waits for others is watched; recorded were 40 seconds.
const coldWatch = 5 * time.Second

// coldStartGroup is a cluster whose nodes have all stopped: the first of them waits for the last.
func coldStartGroup() group {
	return group{name: "cold start", steps: []step{
		freshNodes(nodeA, nodeB, nodeC),
		needsControl(action("stop A, B and C in this order", func(ctx context.Context, r *Runner) error {
			return errors.Join(
				r.cfg.Control.Stop(nodeA), r.waitCluster(ctx, nodeB, 2), r.waitCluster(ctx, nodeC, 2),
				r.cfg.Control.Stop(nodeB), r.waitCluster(ctx, nodeC, 1), r.cfg.Control.Stop(nodeC))
		})),
		playing("515", "start in the wrong order", func(ctx context.Context, r *Runner) error {
			if err := r.cfg.Control.Start(nodeA, false, others(nodeA, len(r.targets))); err != nil {
				return err
			}
			if err := r.wait(ctx, "A opens a port", coldWatch, func(ctx context.Context) bool {
				return r.port(ctx, nodeA, "18083") == "open"
			}); err == nil || !r.cfg.Control.Running(nodeA) {
				return differs("A opens a port or ends; recorded that it waits")
			}
			if err := r.startAgain(ctx, nodeC, 2); err != nil {
				return differs("when the last to stop starts: " + err.Error())
			}
			want := r.translate.value(map[string]any{
				"emqx@127.0.0.11": "running", "emqx@127.0.0.12": "stopped", "emqx@127.0.0.13": "running",
			})
			if err := r.wait(ctx, "the nodes of A", 20*time.Second, func(ctx context.Context) bool {
				return reflect.DeepEqual(want, r.statuses(ctx, nodeA))
			}); err != nil {
				return differs(fmt.Sprintf("%v; recorded %v, got %v", err, want, r.statuses(ctx, nodeA)))
			}
			if err := r.startAgain(ctx, nodeB, 3); err != nil {
				return differs("when the third starts: " + err.Error())
			}
			return nil
		}),
	}}
}

// statuses are the members by name as a node lists them.
func (r *Runner) statuses(ctx context.Context, node int) any {
	got, err := r.api(ctx, http.MethodGet, node, "/api/v5/nodes", nil)
	list, _ := got.body.([]any)
	if err != nil {
		return nil
	}
	states := map[string]any{}
	for _, item := range list {
		if member, ok := item.(map[string]any); ok {
			name, _ := member["node"].(string)
			states[name] = member["node_status"]
		}
	}
	return states
}
