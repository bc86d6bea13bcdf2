package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay/mqttclient"
)

// Control starts and disturbs the nodes that are replayed to, by their place among the targets.
type Control interface {
	// Start runs a node and returns at once. fresh takes everything it has stored away first; seeds are the other
	// nodes it looks for.
	Start(node int, fresh bool, seeds []int) error
	// Stop ends it in good order and waits for its end.
	Stop(node int) error
	// Kill ends it at once.
	Kill(node int) error
	// Freeze and Thaw stop it from running and let it go on.
	Freeze(node int) error
	Thaw(node int) error
	// Configure sets what a node has besides its usual configuration when it is started the next time.
	Configure(node int, settings Settings)
	// Running reports whether the node's process is there.
	Running(node int) bool
	// Write puts a file into a node's own directory, such as its key file.
	Write(node int, name, text string) error
	// File reads a file of a node's data directory.
	File(node int, name string) ([]byte, error)
}

// Settings are a node's besides its usual configuration.
type Settings struct {
	Config  string   // instead of the usual emqx.conf
	Environ []string // added to the environment
	Keys    string   // instead of the usual API key file
	Site    string   // the id of its site of durable storage, when it starts without data
}

// Config is what a Runner needs.
type Config struct {
	Dir string // of the recordings
	// Recorded is the addresses of the recorded nodes, Targets those of the nodes that are replayed to, in the same
	// order.
	Recorded, Targets []string
	// Control is nil for nodes that belong to somebody else: what depends on it is skipped.
	Control Control
	// Scale is what recorded waiting times of faults are multiplied by, for nodes with shorter timeouts. 0 is 1.
	Scale float64
	// Only restricts the replay to one group of the scenario, see Groups, or to one recording, by its name or number: of
	// what comes before it, only what makes the situation is done.
	Only string
	Out  io.Writer
}

// Runner replays one recording.
type Runner struct {
	cfg       Config
	targets   []string
	translate translate
	http      *http.Client
	all       map[string]*recording
	names     []string
	report    *report
	clients   map[string]*mqttclient.Client
	watched   map[string][]mqttclient.Event // of clients whose packets were recorded
	rows      map[string]string             // by number: the first difference of a recording that is compared row by row
	release   string                        // of the nodes; empty until one has told
}

// recordedRelease is the release of the recorded nodes.
const recordedRelease = "e5.8.9"

func (r *Runner) comparer(file string) comparer {
	return comparer{file: file, otherRelease: r.release != "" && r.release != recordedRelease}
}

// askRelease finds out once which release the nodes are.
func (r *Runner) askRelease(ctx context.Context) {
	if r.release != "" {
		return
	}
	got, err := r.api(ctx, http.MethodGet, 0, "/api/v5/status?format=json", nil)
	if object, ok := got.body.(map[string]any); ok && err == nil {
		r.release, _ = object["rel_vsn"].(string)
	}
}

// Groups lists the parts of the scenario, which can be replayed by themselves.
func Groups() []string {
	var names []string
	for _, g := range scenario() {
		names = append(names, g.name)
	}
	return names
}

// RecordedAddresses is where EMQX's own recording was made.
func RecordedAddresses() []string { return []string{"127.0.0.11", "127.0.0.12", "127.0.0.13"} }

// New loads the recordings.
func New(cfg Config) (*Runner, error) {
	if len(cfg.Targets) != len(cfg.Recorded) {
		return nil, fmt.Errorf("%d nodes were recorded and %d are given", len(cfg.Recorded), len(cfg.Targets))
	}
	if cfg.Scale == 0 {
		cfg.Scale = 1
	}
	all, names, asked, err := loadWith(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &Runner{
		cfg: cfg, targets: cfg.Targets, translate: newTranslate(cfg.Recorded, cfg.Targets), all: all, names: names,
		http: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true},
		},
		report:  &report{out: cfg.Out, done: map[string]bool{}, asked: asked},
		clients: map[string]*mqttclient.Client{}, watched: map[string][]mqttclient.Event{},
		rows: map[string]string{},
	}, nil
}

// ErrDiffers is returned when an answer differs from the recorded one.
var ErrDiffers = errors.New("answers differ from the recorded ones")

// Run replays everything in the order of the scenario and prints a line a file and a count.
func (r *Runner) Run(ctx context.Context) ([]Result, error) {
	one := r.recordingNamed(r.cfg.Only)
	if one != "" {
		r.report.asked = map[string]bool{one: true}
	}
	for _, g := range scenario() {
		if r.cfg.Only == "" || g.name == r.cfg.Only || one != "" {
			r.runGroup(ctx, g)
		}
	}
	for _, name := range r.names {
		if (r.cfg.Only == "" || name == one) && r.report.missing(name) {
			r.report.add(name, Skipped, cmp.Or(SkipReason(name), "no step of the scenario covers it"))
		}
	}
	if len(r.report.results) == 0 {
		return nil, fmt.Errorf("%q: %w", r.cfg.Only, errNothing)
	}
	count := map[string]int{}
	for _, result := range r.report.results {
		count[result.Status]++
	}
	_, _ = fmt.Fprintf(r.cfg.Out, "%d ok, %d differ, %d skipped\n", count[OK], count[Differs], count[Skipped])
	if count[Differs] > 0 {
		return r.report.results, ErrDiffers
	}
	return r.report.results, ctx.Err() //nolint:wrapcheck // the caller's own
}

var errNothing = errors.New("no part of the scenario and no recording has this name")

// recordingNamed finds a recording by its name or number.
func (r *Runner) recordingNamed(name string) string {
	for _, one := range r.names {
		if name == one || name == number(one) {
			return one
		}
	}
	return ""
}

// needed leaves the steps up to the last one that covers a recording that still counts.
func (r *Runner) needed(steps []step) []step {
	for len(steps) > 0 && !slices.ContainsFunc(r.filesOf(steps[len(steps)-1]), r.report.missing) {
		steps = steps[:len(steps)-1]
	}
	return steps
}

// runGroup goes through a group's steps. After a step that fails the situation is not the recorded one, so the rest
// of the group's files count as differing.
func (r *Runner) runGroup(ctx context.Context, g group) {
	defer r.closeClients()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.steps = r.needed(g.steps)
	r.report.found = func() {
		if len(r.needed(g.steps)) == 0 {
			cancel()
		}
	}
	defer func() { r.report.found = nil }()
	for i, s := range g.steps {
		if s.control && r.cfg.Control == nil {
			if s.otherwise == nil {
				r.skip(g.steps[i:], "needs nodes that can be started, stopped or frozen: "+s.what)
				return
			}
			s = *s.otherwise
		}
		if s.do == nil {
			r.skip([]step{s}, s.what)
			continue
		}
		if err := s.do(ctx, r); err != nil {
			if len(r.needed(g.steps)) == 0 { // what is left does not count
				return
			}
			for _, later := range g.steps[i:] {
				for _, file := range r.filesOf(later) {
					r.report.add(file, Differs, fmt.Sprintf("%s: %v", s.what, err))
				}
			}
			return
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func (r *Runner) skip(steps []step, reason string) {
	for _, s := range steps {
		for _, file := range r.filesOf(s) {
			r.report.add(file, Skipped, reason)
		}
	}
}

// filesOf lists the recordings a step covers: numbers, or ranges of numbers with a dash.
func (r *Runner) filesOf(s step) []string {
	var files []string
	for _, cover := range s.covers {
		from, to, isRange := strings.Cut(cover, "-")
		if !isRange {
			to = from
		}
		for _, name := range r.names {
			if n := number(name); n >= from && n <= to {
				files = append(files, name)
			}
		}
	}
	return files
}

// file finds a recording by its number.
func (r *Runner) file(n string) (*recording, error) {
	for _, name := range r.names {
		if number(name) == n {
			return r.all[name], nil
		}
	}
	return nil, fmt.Errorf("recording %s is missing", n)
}

func (r *Runner) closeClients() {
	for name, c := range r.clients {
		c.Close()
		delete(r.clients, name)
	}
}

// scaled is a recorded time as it is expected of these nodes.
func (r *Runner) scaled(seconds float64) time.Duration {
	return time.Duration(seconds * r.cfg.Scale * float64(time.Second))
}

// pollPause is the time between two looks at something that will change.
const pollPause = 20 * time.Millisecond

// wait polls until a condition holds.
func (r *Runner) wait(ctx context.Context, what string, limit time.Duration, condition func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(pollPause)
	defer ticker.Stop()
	for {
		if condition(ctx) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s", what, limit)
		}
	}
}
