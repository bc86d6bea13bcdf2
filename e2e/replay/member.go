package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// memberGroups are the recordings of an evacuation while a member is frozen or killed, each a part of its own: twelve
// sessions on A move to B, one a second, and new clients come to a healthy node all the time.
//
// Which sessions and clients have to do with the frozen member is chance, and so their number is not compared, but
// whether there are any, how long they wait, and what has become of the sessions in the end.
func memberGroups() []group {
	var groups []group
	for _, n := range []string{"551", "552", "553", "554", "555", "556", "557", "558"} {
		groups = append(groups, group{name: "member " + n, steps: []step{
			freshNodes(nodeA, nodeB, nodeC), persistentClients("s"+n+"-", memberSessions, nodeA), waitFigures(nodeA, memberSessions, memberSessions),
			needsControl(step{what: "evacuate while a member is hurt", covers: []string{n}, do: func(ctx context.Context, r *Runner) error {
				rec, err := r.file(n)
				if err != nil {
					return err
				}
				difference, err := r.playMember(ctx, rec)
				if err != nil {
					return err
				}
				r.report.compared(rec.name, difference)
				return nil
			}}),
		}})
	}
	return groups
}

const memberSessions = 12

// memberPlan is what a recording says was done and came of it.
type memberPlan struct {
	node    int  // that was hurt
	killed  bool // or frozen
	before  bool // the evacuation started
	body    map[string]any
	recover float64 // seconds after the freeze when it was thawed, where that was before the others gave it up
	stalls  bool    // some new clients got no CONNACK in time
	moves   bool    // A has moved everything while the member was frozen, or given up
	watched float64 // seconds from the fault to the end
	came    int     // sessions that the clients found in the end
}

func planOf(rec *recording) (memberPlan, error) {
	var p memberPlan
	var hit, thawed, started float64
	for _, raw := range rec.Rows {
		var row struct {
			T       float64
			Act     string
			Body    map[string]any
			Present *int `json:"session_present"`
		}
		if json.Unmarshal(raw, &row) != nil { // a row of another form
			continue
		}
		signal, name, _ := strings.Cut(row.Act, " ")
		switch {
		case signal == "SIGSTOP", signal == "SIGKILL":
			node, known := nodeNamed(name)
			if !known {
				return p, fmt.Errorf("recording %s: %s", rec.name, row.Act)
			}
			p.node, p.killed, hit, p.before = node, signal == "SIGKILL", row.T, started == 0
		case signal == "SIGCONT":
			thawed = row.T
		case strings.HasPrefix(row.Act, "POST evacuation/start"):
			started, p.body = row.T, row.Body
		case row.Act == "A is not prohibiting after 150 s":
			p.watched = row.T - hit
		case row.Act == "[connections, cluster_sessions]":
			p.watched = max(p.watched, row.T-hit)
		case row.Present != nil:
			p.came = *row.Present
		}
	}
	if thawed > 0 && thawed-hit < 60 {
		p.recover = thawed - hit
	}
	for _, probe := range rec.Probes {
		p.stalls = p.stalls || strings.HasPrefix(fmt.Sprint(probe["connack"]), "none")
	}
	only, _ := p.body["migrate_to"].([]any)
	p.moves = p.node != nodeB || p.killed || len(only) != 1
	return p, nil
}

// probe is a new client that came while the member was hurt.
type probe struct {
	begun, took time.Duration // after the fault
	in          bool
}

func (r *Runner) playMember(ctx context.Context, rec *recording) (string, error) {
	p, err := planOf(rec)
	if err != nil {
		return "", err
	}
	start := func() error {
		return r.command(ctx, "/api/v5/load_rebalance/emqx@127.0.0.11/evacuation/start", p.body)
	}
	hurt := func() error {
		if p.killed {
			return r.cfg.Control.Kill(p.node)
		}
		return r.cfg.Control.Freeze(p.node)
	}
	if p.before {
		err = errors.Join(hurt(), start())
	} else {
		err = errors.Join(start(), r.wait(ctx, "two sessions have moved", 40*time.Second, func(ctx context.Context) bool {
			sessions, known := r.node(ctx, nodeA)["connections"].(float64)
			return known && sessions <= memberSessions-2
		}), hurt())
	}
	if err != nil {
		return "", err
	}
	w := r.watchMember(ctx, p, time.Now())
	if d := w.difference(r, p); d != "" {
		return d, nil
	}
	return r.afterMember(ctx, p)
}

// memberWatch is what was seen from the fault to the end.
type memberWatch struct {
	probes   []probe
	silences []time.Duration // how long A's own status had to be waited for, where it was long
	left     []int           // sessions on A, whenever that changed
	ended    time.Duration   // when A was prohibiting; 0: not in time
}

// watchMember lets new clients come to a healthy node and asks A, until A has moved everything or the recorder stopped.
func (r *Runner) watchMember(ctx context.Context, p memberPlan, hit time.Time) *memberWatch {
	limit := r.scaled(max(p.watched, 165)) + 20*time.Second // ticks are not scaled
	if !p.moves {
		limit = r.scaled(100)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w := &memberWatch{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	wg.Add(2)
	go func() {
		defer wg.Done()
		r.probeWith(ctx, p, hit, &wg, func(one probe) {
			mu.Lock()
			defer mu.Unlock()
			w.probes = append(w.probes, one)
		})
	}()
	go func() { // what A tells of itself while it moves sessions
		defer wg.Done()
		_ = r.wait(ctx, "figures", limit, func(ctx context.Context) bool {
			n, known := r.node(ctx, nodeA)["connections"].(float64)
			mu.Lock()
			defer mu.Unlock()
			if known && (len(w.left) == 0 || w.left[len(w.left)-1] != int(n)) {
				w.left = append(w.left, int(n))
			}
			return false
		})
	}()
	if p.recover > 0 {
		timer := time.AfterFunc(r.scaled(p.recover), func() { _ = r.cfg.Control.Thaw(p.node) })
		defer timer.Stop()
	}
	patience := time.Duration(0)
	if p.killed {
		patience = 10 * time.Second
	}
	_ = r.wait(ctx, "prohibiting", limit, func(ctx context.Context) bool {
		begun := time.Now()
		state, _ := r.state(ctx, nodeA)
		if took := time.Since(begun); took > max(r.scaled(10), patience) {
			w.silences = append(w.silences, took)
		}
		if state == "prohibiting" {
			w.ended = time.Since(hit)
		}
		return state == "prohibiting"
	})
	cancel()
	wg.Wait()
	sort.Slice(w.probes, func(i, j int) bool { return w.probes[i].begun < w.probes[j].begun })
	return w
}

// probeWith connects a new client every three seconds, each for up to thirty.
func (r *Runner) probeWith(ctx context.Context, p memberPlan, hit time.Time, wg *sync.WaitGroup, note func(probe)) {
	at := nodeB
	if p.node == nodeB {
		at = nodeC
	}
	limit := r.scaled(30)
	if !p.stalls {
		limit = time.Minute // all get in, however slow this machine is
	}
	ticker := time.NewTicker(max(r.scaled(3), 200*time.Millisecond))
	defer ticker.Stop()
	for i := 0; ; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			begun := time.Now()
			dialCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
			defer cancel()
			o := clean(5)
			o.Address, o.ClientID = r.targets[at]+":1883", fmt.Sprintf("new-%d", i)
			c, err := mqttclient.Connect(dialCtx, o)
			note(probe{begun: begun.Sub(hit), took: time.Since(begun), in: err == nil})
			if err == nil {
				c.Disconnect()
			}
		}()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *memberWatch) difference(r *Runner, p memberPlan) string {
	none := 0
	for _, one := range w.probes {
		if !one.in {
			none++
		}
	}
	switch {
	case p.stalls && none == 0:
		return fmt.Sprintf("all %d new clients got CONNACK in time; recorded that some do not", len(w.probes))
	case !p.stalls && none > 0:
		return fmt.Sprintf("%d of %d new clients got no CONNACK in time; recorded that all do", none, len(w.probes))
	case p.stalls && none == len(w.probes) && len(w.probes) > 60:
		return "no new client got CONNACK; recorded that some do at once"
	case p.killed && len(w.silences) > 0:
		return fmt.Sprintf("A's status took %s; recorded that it always answers", w.silences[0])
	case !p.killed && p.recover == 0 && len(w.silences) == 0:
		return "A's status always answered; recorded that it is silent while a move waits"
	case p.moves && w.ended == 0:
		return fmt.Sprintf("A was not prohibiting in the end; sessions: %v", w.left)
	case !p.moves && w.ended > 0:
		return fmt.Sprintf("A was prohibiting after %s; recorded that nothing moves", w.ended)
	case !p.killed && p.recover == 0 && p.moves && w.ended < r.scaled(100):
		return fmt.Sprintf("A was prohibiting %s after the freeze; recorded that it takes until the member is given up", w.ended)
	}
	return ""
}

// afterMember thaws the member, stops the evacuation, and has all clients come back.
func (r *Runner) afterMember(ctx context.Context, p memberPlan) (string, error) {
	if !p.killed {
		if err := r.cfg.Control.Thaw(p.node); err != nil {
			return "", err
		}
		for _, node := range []int{nodeA, nodeB, nodeC} {
			if err := r.waitCluster(ctx, node, 3); err != nil {
				return "", err
			}
		}
	}
	if p.moves {
		if err := r.command(ctx, "/api/v5/load_rebalance/emqx@127.0.0.11/evacuation/stop", nil); err != nil {
			return "", err
		}
	}
	if !p.moves {
		return "", nil // what is lost there depends on the restart by autoheal, which is not imitated
	}
	present := 0
	for name := range r.clients {
		if !strings.HasPrefix(name, "s") {
			continue
		}
		at := nodeB
		if p.node == nodeB {
			at = nodeC
		}
		c, err := r.connectTo(ctx, name, at, persistent(5))
		if err != nil {
			return "", err
		}
		if c.SessionPresent() {
			present++
		}
	}
	if want := memberSessions - 1 - p.came; memberSessions-present > want { // one of the recorder's clients had come before
		return fmt.Sprintf("%d of %d sessions are there in the end; recorded %d of %d", present, memberSessions, p.came, memberSessions-1), nil
	}
	return "", nil
}
