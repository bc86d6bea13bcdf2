package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A recorded duration of a fault is met when it is within this part of the recorded one, or this much of it.
const (
	faultTolerance = 0.2
	faultSlack     = 1.0 // seconds, for requests that are to be quick on a busy machine
)

// faultEntry is one line of a fault's log: a request, its answer and how long it took, or something done to a node.
type faultEntry struct {
	begun  float64 // seconds since the log's begin
	took   float64
	node   int
	method string
	path   string
	body   any
	status any // a number, "timeout" or "ECONNRESET"
	answer any
	act    string
}

// faultEntries puts a log in the order in which things began.
func (r *Runner) faultEntries(rec *recording, request func(map[string]any) (method, path string, node int, body any)) []faultEntry {
	var list []faultEntry
	var lines []map[string]any
	_ = json.Unmarshal(rec.Log, &lines) // a log of texts has no entries
	for _, line := range lines {
		e := faultEntry{status: line["status"], answer: line["body"]}
		e.act, _ = line["act"].(string)
		at, _ := line["at"].(float64)
		for _, key := range []string{"tookMs", "ms"} {
			if ms, ok := line[key].(float64); ok {
				e.took = ms / 1000
			}
		}
		e.begun = at - e.took
		e.method, e.path, e.node, e.body = request(line)
		list = append(list, e)
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].begun < list[j].begun })
	return list
}

// sentRequest is a request that is under way, and when it had ended in the recording.
type sentRequest struct {
	end  float64
	done chan struct{}
}

// playFault sends every request when it was sent in the recording, in scaled time after the freeze, and compares
// answers and durations. It returns the first difference.
func (r *Runner) playFault(ctx context.Context, file string, list []faultEntry) string {
	var begun time.Time
	var frozenAt float64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var faults []string
	var sent []sentRequest
	note := func(fault string) {
		if fault != "" {
			mu.Lock()
			defer mu.Unlock()
			faults = append(faults, fault)
		}
	}
	for _, e := range list {
		if !begun.IsZero() {
			timer := time.NewTimer(time.Until(begun.Add(r.scaled(e.begun - frozenAt))))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				wg.Wait()
				return ctx.Err().Error()
			}
		}
		switch {
		case strings.HasPrefix(e.act, "SIGSTOP"):
			note(text(r.cfg.Control.Freeze(nodeC)))
			begun, frozenAt = time.Now(), e.begun
		case strings.HasPrefix(e.act, "SIGCONT"):
			note(text(r.cfg.Control.Thaw(nodeC)))
		default:
			for _, earlier := range sent { // what had ended when this was sent in the recording
				if earlier.end <= e.begun {
					<-earlier.done
				}
			}
			done := make(chan struct{})
			sent = append(sent, sentRequest{e.begun + e.took, done})
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer close(done)
				note(r.playFaultRequest(ctx, file, e))
			}()
		}
	}
	wg.Wait()
	if len(faults) > 0 {
		return faults[0]
	}
	return ""
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (r *Runner) playFaultRequest(ctx context.Context, file string, e faultEntry) string {
	name := e.method + " " + e.path
	limit := 2 * time.Minute
	if e.status == "timeout" { // the recorder gave up
		limit = r.scaled(e.took)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	got, err := r.api(ctx, e.method, e.node, e.path, e.body)
	if d := r.faultOutcome(e, got, err); d != "" {
		return name + ": " + d
	}
	expected := r.scaled(e.took).Seconds()
	if off := got.took.Seconds() - expected; off > faultTolerance*expected+faultSlack || off < -faultTolerance*expected-faultSlack {
		return fmt.Sprintf("%s took %s, recorded %.1f s (%.1f s here)", name, got.took.Round(time.Millisecond), e.took, expected)
	}
	if err != nil || e.answer == nil {
		return ""
	}
	if s, cut := e.answer.(string); cut && strings.HasSuffix(s, "…") { // the recorder kept the beginning only
		if len(got.raw) == 0 || got.raw[0] != s[0] {
			return name + ": another kind of body"
		}
		return ""
	}
	body := got.body
	if _, isNodes := e.answer.([]any); isNodes && strings.HasSuffix(e.path, "/nodes") {
		body = abridged(body)
	}
	if d := r.comparer(file).differ("$", "", r.translate.value(e.answer), body); d != "" {
		return name + ": " + d
	}
	return ""
}

// faultOutcome compares how a request ended.
func (r *Runner) faultOutcome(e faultEntry, got reply, err error) string {
	switch e.status {
	case "timeout":
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Sprintf("recorded no answer in %.0f s, got %d after %s", e.took, got.status, got.took.Round(time.Millisecond))
		}
	case "ECONNRESET":
		if !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Sprintf("recorded a reset connection, got %d, %v", got.status, err)
		}
	default:
		if err != nil {
			return err.Error()
		}
		if want, _ := e.status.(float64); float64(got.status) != want {
			return fmt.Sprintf("status: recorded %v, got %d %s", e.status, got.status, short(string(got.raw)))
		}
	}
	return ""
}

// abridged is the form in which the recorder kept lists of nodes.
func abridged(v any) any {
	list, _ := v.([]any)
	out := make([]any, 0, len(list))
	for _, item := range list {
		node, _ := item.(map[string]any)
		short := map[string]any{"node": node["node"], "node_status": node["node_status"]}
		if live, ok := node["live_connections"]; ok {
			short["live"], short["conns"] = live, node["connections"]
		}
		out = append(out, short)
	}
	return out
}

func persistentClients(prefix string, n, node int) step {
	var clients []client
	for i := range n {
		clients = append(clients, client{name: fmt.Sprintf("%s%d", prefix, i), node: node, options: persistent(5)})
	}
	return connectClients(clients...)
}

// frozenGroup freezes a node until the others count it as stopped, and lets it go on.
func frozenGroup() group {
	s := step{what: "freeze a node", covers: []string{"321"}}
	s.do = func(ctx context.Context, r *Runner) error {
		rec, err := r.file("321")
		if err != nil {
			return err
		}
		list := r.faultEntries(rec, func(line map[string]any) (string, string, int, any) {
			act, _ := line["act"].(string)
			switch {
			case strings.Contains(act, "start of frozen C via B"):
				return http.MethodPost, "/api/v5/load_rebalance/emqx@127.0.0.13/evacuation/start", nodeB, map[string]any{}
			case strings.Contains(act, "start of A with frozen C"):
				return http.MethodPost, "/api/v5/load_rebalance/emqx@127.0.0.11/evacuation/start", nodeA,
					map[string]any{"migrate_to": []any{"emqx@127.0.0.13"}}
			}
			path, _ := line["path"].(string)
			return http.MethodGet, path, nodeA, nil
		})
		r.report.compared(rec.name, r.playFault(ctx, rec.name, list))
		return nil
	}
	return group{name: "frozen", steps: []step{
		freshNodes(nodeA, nodeB, nodeC), persistentClients("kf", 12, nodeA), waitFigures(nodeA, 12, 12), needsControl(s),
	}}
}

// frozenLocalGroup freezes a node and asks another one, which has been evacuated, for everything.
func frozenLocalGroup() group {
	s := step{what: "ask while a node is frozen", covers: []string{"331"}}
	s.do = func(ctx context.Context, r *Runner) error {
		rec, err := r.file("331")
		if err != nil {
			return err
		}
		list := r.faultEntries(rec, func(line map[string]any) (string, string, int, any) {
			request, _ := line["request"].(string)
			method, path, _ := strings.Cut(request, " ")
			node := nodeA
			if line["to"] == r.cfg.Recorded[nodeB] {
				node = nodeB
			}
			var body any
			if method == http.MethodPost {
				body = map[string]any{}
			}
			return method, path, node, body
		})
		r.report.compared(rec.name, r.playFault(ctx, rec.name, list))
		return nil
	}
	return group{name: "frozen local", steps: []step{
		freshNodes(nodeA, nodeB, nodeC), persistentClients("kl", 10, nodeA), waitFigures(nodeA, 10, 10),
		action("leave five retained messages", func(ctx context.Context, r *Runner) error {
			c := r.clients["kl0"]
			for i := range 5 {
				if err := c.Publish(ctx, fmt.Sprintf("retained/%d", i), []byte("kept"), 1, true); err != nil {
					return err
				}
			}
			return nil
		}),
		action("evacuate the first node to the second", func(ctx context.Context, r *Runner) error {
			return r.command(ctx, "/api/v5/load_rebalance/emqx@127.0.0.11/evacuation/start", map[string]any{
				"wait_health_check": 0, "wait_takeover": 1, "conn_evict_rate": 2, "sess_evict_rate": 2,
				"migrate_to": []any{"emqx@127.0.0.12"},
			})
		}),
		waitProhibiting(nodeA), needsControl(s),
	}}
}

// killedGroup kills the only recipient while it receives sessions.
func killedGroup() group {
	s := step{what: "kill a recipient", covers: []string{"341"}, control: true}
	s.do = func(ctx context.Context, r *Runner) error {
		rec, err := r.file("341")
		if err != nil {
			return err
		}
		difference, err := r.playKill(ctx)
		if err != nil {
			return err
		}
		r.report.compared(rec.name, difference)
		return nil
	}
	return group{name: "killed", steps: []step{
		freshNodes(nodeA, nodeB, nodeC), persistentClients("ka", 12, nodeA), waitFigures(nodeA, 12, 12), s,
	}}
}

// playKill goes through 341: four of twelve sessions are moved when the recipient dies; then nothing moves and the
// status names no recipient, until the evacuation is stopped and started with another one. The sessions that were moved are
// lost, the others are not.
func (r *Runner) playKill(ctx context.Context) (string, error) {
	path := "/api/v5/load_rebalance/emqx@127.0.0.11/evacuation/"
	options := map[string]any{"wait_health_check": 0, "wait_takeover": 1, "conn_evict_rate": 6, "sess_evict_rate": 1}
	options["migrate_to"] = []any{"emqx@127.0.0.12"}
	if err := r.command(ctx, path+"start", options); err != nil {
		return "", err
	}
	if err := waitFigures(nodeA, 8, 0).do(ctx, r); err != nil {
		return "", err
	}
	if err := r.cfg.Control.Kill(nodeB); err != nil {
		return "", err
	}
	killed := time.Now()
	recipients := func(ctx context.Context) any {
		_, status := r.state(ctx, nodeA)
		return status["session_recipients"]
	}
	if err := r.wait(ctx, "no recipients", time.Second, func(ctx context.Context) bool {
		list, ok := recipients(ctx).([]any)
		return ok && len(list) == 0
	}); err != nil {
		return "session_recipients: recorded [] 0.2 s after the kill, got " + short(recipients(ctx)), nil
	}
	// Nothing moves: watched for a few ticks; the recorder watched for a minute.
	watchCtx, cancel := context.WithDeadline(ctx, killed.Add(4*time.Second))
	defer cancel()
	moved := r.wait(watchCtx, "a change", time.Minute, func(ctx context.Context) bool {
		state, status := r.state(ctx, nodeA)
		stats, _ := status["stats"].(map[string]any)
		return status != nil && (state != "evicting_sessions" || stats["current_sessions"] != float64(9))
	})
	if moved == nil {
		state, status := r.state(ctx, nodeA)
		return fmt.Sprintf("recorded evicting_sessions with 9 sessions for as long as it was watched, got %s %v", state, status["stats"]), nil
	}
	if err := r.command(ctx, path+"stop", nil); err != nil {
		return "", err
	}
	options["migrate_to"] = []any{"emqx@127.0.0.13"}
	options["sess_evict_rate"] = 100
	if err := r.command(ctx, path+"start", options); err != nil {
		return "", err
	}
	if err := waitProhibiting(nodeA).do(ctx, r); err != nil {
		return "", err
	}
	present := 0
	for i := range 12 {
		c, err := r.connectTo(ctx, fmt.Sprintf("ka%d", i), nodeC, persistent(5))
		if err != nil {
			return "", err
		}
		if c.SessionPresent() {
			present++
		}
	}
	if present != 8 {
		return fmt.Sprintf("session_present: recorded 8 of 12, got %d", present), nil
	}
	return "", nil
}
