package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// bootGroup is what can be seen from outside while nodes start, join, stop and are killed.
func bootGroup() group {
	return group{name: "boot", steps: []step{
		needsControl(action("stop all nodes", func(_ context.Context, r *Runner) error {
			for i := range r.targets {
				if err := r.cfg.Control.Stop(i); err != nil {
					return err
				}
			}
			return nil
		})),
		bootTimeline("000a", func(_ context.Context, r *Runner) error { return r.cfg.Control.Start(nodeA, true, nil) }),
		bootTimeline("000b", func(_ context.Context, r *Runner) error { return r.cfg.Control.Start(nodeB, true, []int{nodeA}) }),
		bootTimeline("000c", func(_ context.Context, r *Runner) error { return r.cfg.Control.Stop(nodeB) }),
		needsControl(action("start it again", func(ctx context.Context, r *Runner) error {
			if err := r.cfg.Control.Start(nodeB, false, []int{nodeA}); err != nil {
				return err
			}
			return errors.Join(r.waitCluster(ctx, nodeA, 2), r.waitCluster(ctx, nodeB, 2))
		})),
		bootTimeline("000d", func(_ context.Context, r *Runner) error { return r.cfg.Control.Kill(nodeB) }),
	}}
}

// apart is how far two recorded rows must be apart for their order to count: the order of nearer ones is that of
// polling.
const apart = 0.15

type bootRow struct {
	T      float64 `json:"t"`
	What   string  `json:"what"`
	Answer any     `json:"answer"`
}

// bootTimeline polls the recorded addresses while something happens to the nodes. Each address must give the recorded
// answers in their order, and answers of different addresses must come in the recorded order where that was clear.
// How long a start takes is the node's own business.
func bootTimeline(n string, happen func(context.Context, *Runner) error) step {
	s := step{what: "watch " + n, covers: []string{n}, control: true}
	s.do = func(ctx context.Context, r *Runner) error {
		rec, err := r.file(n)
		if err != nil {
			return err
		}
		want := make([]bootRow, len(rec.Rows))
		for i, raw := range rec.Rows {
			if err := json.Unmarshal(raw, &want[i]); err != nil {
				return fmt.Errorf("read recording %s: %w", rec.name, err)
			}
			want[i].Answer = r.translate.value(want[i].Answer)
		}
		w := &bootWatch{r: r, begun: time.Now()}
		watchCtx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for what, url := range rec.URLs {
			wg.Add(1)
			go func() {
				defer wg.Done()
				w.poll(watchCtx, what, r.translate.text(url))
			}()
		}
		first := r.wait(ctx, "first answers", 10*time.Second, func(context.Context) bool { return w.seen() == len(rec.URLs) })
		err = errors.Join(first, happen(ctx, r))
		if err == nil {
			_ = r.wait(ctx, "all answers", 40*time.Second, func(context.Context) bool { return len(w.list()) >= len(want) })
			timer := time.NewTimer(settle)
			<-timer.C
		}
		cancel()
		wg.Wait()
		if err != nil {
			return err
		}
		r.report.compared(rec.name, compareBoot(want, w.list()))
		return nil
	}
	return s
}

// bootWatch collects the answers of several addresses.
type bootWatch struct {
	r     *Runner
	begun time.Time

	mu   sync.Mutex
	rows []bootRow
}

func (w *bootWatch) list() []bootRow {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]bootRow(nil), w.rows...)
}

func (w *bootWatch) seen() int {
	names := map[string]bool{}
	for _, row := range w.list() {
		names[row.What] = true
	}
	return len(names)
}

func (w *bootWatch) poll(ctx context.Context, what, url string) {
	last := any(struct{}{})
	host, path, _ := strings.Cut(url, "/")
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		got, err := w.r.send(ctx, request{method: http.MethodGet, host: host + ":18083", path: "/" + path, auth: "Basic opkey:opsecret"})
		if ctx.Err() != nil {
			return
		}
		if answer, ok := summary(path, got, err); ok && !reflect.DeepEqual(answer, last) {
			last = answer
			w.mu.Lock()
			w.rows = append(w.rows, bootRow{T: time.Since(w.begun).Seconds(), What: what, Answer: answer})
			w.mu.Unlock()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// summary puts an answer into the recorder's form. Connections that end in the middle of an answer do not count:
// whether one is seen is chance.
func summary(path string, got reply, err error) (any, bool) {
	if err != nil {
		return "ConnectionRefusedError", errors.Is(err, syscall.ECONNREFUSED)
	}
	if got.status == http.StatusNotFound {
		return []any{float64(404), got.header.Get("content-type"), string(got.raw)}, true
	}
	v := got.body
	switch {
	case strings.HasSuffix(path, "/nodes"):
		states := map[string]any{}
		list, _ := got.body.([]any)
		for _, item := range list {
			node, _ := item.(map[string]any)
			name, _ := node["node"].(string)
			states[name] = node["node_status"]
		}
		v = states
	case strings.HasSuffix(path, "/cluster"):
		object, _ := got.body.(map[string]any)
		v = object["nodes"]
	case strings.HasSuffix(path, "/global_status"):
		v = map[string]any{}
	}
	return []any{float64(got.status), v}, true
}

func compareBoot(want, got []bootRow) string {
	times := map[string][]float64{}
	for _, what := range addresses(want) {
		recorded, seen := answersOf(want, what), answersOf(got, what)
		for i, w := range recorded {
			if i >= len(seen) {
				return fmt.Sprintf("%s: nothing after %s where %s was recorded", what, short(lastAnswer(seen)), short(w.Answer))
			}
			if !reflect.DeepEqual(w.Answer, seen[i].Answer) {
				return fmt.Sprintf("%s: answer %d: recorded %s, got %s", what, i, short(w.Answer), short(seen[i].Answer))
			}
			times[what] = append(times[what], seen[i].T)
		}
		if len(seen) > len(recorded) {
			return fmt.Sprintf("%s: %s where nothing was recorded", what, short(seen[len(recorded)].Answer))
		}
	}
	place := map[string]int{}
	seenAt := make([]float64, len(want))
	for i, w := range want {
		seenAt[i] = times[w.What][place[w.What]]
		place[w.What]++
	}
	for i := range want {
		for j := range want {
			if want[j].T-want[i].T > apart && seenAt[j] < seenAt[i] {
				return fmt.Sprintf("%s %s came before %s %s", want[j].What, short(want[j].Answer), want[i].What, short(want[i].Answer))
			}
		}
	}
	return ""
}

func addresses(rows []bootRow) []string {
	set := map[string]bool{}
	var list []string
	for _, row := range rows {
		if !set[row.What] {
			set[row.What] = true
			list = append(list, row.What)
		}
	}
	sort.Strings(list)
	return list
}

func answersOf(rows []bootRow, what string) []bootRow {
	var list []bootRow
	for _, row := range rows {
		if row.What == what {
			list = append(list, row)
		}
	}
	return list
}

func lastAnswer(rows []bootRow) any {
	if len(rows) == 0 {
		return nil
	}
	return rows[len(rows)-1].Answer
}
