package demo

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// view is the upgrade at a moment, as it is shown.
type view struct {
	now, begun, patched time.Time
	name, state         string
	phase               v2beta1.Phase
	seconds             map[v2beta1.Phase]float64 // How long each phase lasted or lasts.
	from, to            string
	clients             map[string]int // By revision.
	expected            int
	stats               load.Stats
	rate                int64
	limit               int32
	estimated           time.Time // Zero when it is not known.
	waitingFor          string
}

func (u *upgrade) view(now time.Time) view {
	r := u.run
	emqx := r.observer.latest()
	v := view{
		now: now, begun: r.begun, patched: u.patched, name: r.name, state: emqx.Status.State, phase: emqx.Status.Phase,
		seconds: phaseSeconds(r.observer.since(u.patched), u.patched, now), from: u.before.Status.CoreNodesStatus.CurrentRevision,
		to: emqx.Status.CoreNodesStatus.UpdateRevision, clients: u.nodes.now(), expected: r.config.Clients,
		stats: r.load.Stats(), limit: emqx.Spec.UpdateStrategy.EvacuationStrategy.ConnEvictRate,
	}
	if upgrade := emqx.Status.Upgrade; upgrade != nil {
		v.rate, v.waitingFor = upgrade.ClientsPerSecond, shortNames(upgrade.WaitingFor, emqx)
		if upgrade.EstimatedEndTime != nil {
			v.estimated = upgrade.EstimatedEndTime.Time
		}
	}
	return v
}

// phaseSeconds is how long each phase lasted since the change; the last one lasts until now.
func phaseSeconds(changes []StateChange, patched, now time.Time) map[v2beta1.Phase]float64 {
	seconds := map[v2beta1.Phase]float64{}
	for i, change := range changes {
		end := now
		if i+1 < len(changes) {
			end = changes[i+1].At
		}
		if change.At.After(patched) {
			seconds[change.Phase] += end.Sub(change.At).Seconds()
		}
	}
	return seconds
}

// shortNames leaves of a node's long name the pod's.
func shortNames(text string, emqx *v2beta1.EMQX) string {
	_, domain, _ := strings.Cut(emqx.CoreNodeName(""), "@")
	return strings.ReplaceAll(strings.ReplaceAll(text, domain, ""), "emqx@", "")
}

// Colours of a picture.
const (
	plainInk = ""
	boldInk  = "1"
	dimInk   = "2"
	blueInk  = "34"
	greenInk = "32"
	phaseInk = "1;7"
)

// picture draws the view in lines of at most the given width.
func (v *view) picture(width int, paint bool) []string {
	ink := func(code, text string) string {
		if !paint || code == plainInk || text == "" {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	head := fmt.Sprintf("%s  %s", v.name, v.state)
	elapsed := fmt.Sprintf("%.1f s since the patch", v.now.Sub(v.patched).Seconds())
	names, times := v.timeline(ink)
	lines := []string{
		"",
		ink(boldInk, head) + strings.Repeat(" ", max(2, width-width0(head)-width0(elapsed))) + elapsed,
		"", names, times, "",
	}
	const label, number = 19, 8
	bar := max(0, width-label-number)
	row := func(code, name, revision string, clients int) string {
		return fmt.Sprintf("%-6s %-11s ", name, revision) + ink(code, cells(clients, v.expected, bar)) + fmt.Sprintf("%*s", number, count(clients))
	}
	lines = append(lines, row(blueInk, "blue", v.from, v.clients[v.from]), row(greenInk, "green", v.green(), v.clients[v.green()]))
	lines = append(lines, row(plainInk, "total", "", v.stats.Connected), "")
	for _, text := range []string{
		fmt.Sprintf("clients    %s of %s connected, %s away (at most %s), %s disconnects",
			count(v.stats.Connected), count(v.expected), count(v.stats.Away), count(v.stats.MaxAway), count(v.stats.Disconnects)),
		fmt.Sprintf("messages   %s acknowledged, %s under way, %s repeated", count(v.stats.Acked), count(v.stats.Lost), count(v.stats.Repeated)),
		"eviction   " + v.eviction(),
		"waits for  " + orDash(v.waitingFor),
	} {
		lines = append(lines, fit(text, width))
	}
	return lines
}

// green is the update revision, once it is another one.
func (v *view) green() string {
	if v.to == v.from {
		return ""
	}
	return v.to
}

// timeline names the phases and, below, how long each lasted.
func (v *view) timeline(ink func(code, text string) string) (names, times string) {
	var first, second strings.Builder
	for _, phase := range v2beta1.Phases() {
		column := len(phase) + 3
		seconds, seen := v.seconds[phase]
		code := dimInk
		if seen {
			code = plainInk
		}
		if phase == v.phase {
			code = phaseInk
		}
		pad := strings.Repeat(" ", column-len(phase))
		first.WriteString(ink(code, string(phase)) + pad)
		text := ""
		if seen && phase != v2beta1.PhaseDone {
			text = fmt.Sprintf("%.1f s", seconds)
		}
		_, _ = fmt.Fprintf(&second, "%-*s", column, text)
	}
	return strings.TrimRight(first.String(), " "), strings.TrimRight(second.String(), " ")
}

func (v *view) eviction() string {
	text := fmt.Sprintf("%s clients/s now, at most %s", count(v.rate), count(v.limit))
	if v.estimated.IsZero() {
		return text
	}
	if left := v.estimated.Sub(v.now); left > 0 {
		return fmt.Sprintf("%s; empty at about %s, in %.0f s", text, v.estimated.Local().Format(time.TimeOnly), left.Seconds())
	}
	return text + "; empty any moment"
}

// line is the view in one line.
func (v *view) line() string {
	text := fmt.Sprintf("[%6.1fs] %-12s blue %5s  green %5s  connected %5s  %4s/s", v.now.Sub(v.begun).Seconds(), v.state,
		count(v.clients[v.from]), count(v.clients[v.green()]), count(v.stats.Connected), count(v.rate))
	if v.waitingFor != "" {
		text += "  waits for " + v.waitingFor
	}
	return text
}

// cells draws a bar with eighths of a column.
func cells(value, full, width int) string {
	if full <= 0 {
		return strings.Repeat(" ", width)
	}
	eighths := min(max(0, value), full) * width * 8 / full
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return text + strings.Repeat(" ", max(0, width-width0(text)))
}

// fit cuts a line to a width.
func fit(text string, width int) string {
	if width0(text) <= width || width < 1 {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

func width0(text string) int { return utf8.RuneCountInString(text) }

func orDash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}
