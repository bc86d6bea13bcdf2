package show

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// view is a moment of the upgrade, as it is shown. Begun is when the run began.
type view struct {
	measure.Moment
	begun time.Time
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
	head := fmt.Sprintf("%s  %s", v.Name, v.State)
	elapsed := fmt.Sprintf("%.1f s since the patch", v.Now.Sub(v.Patched).Seconds())
	names, times := v.timeline(ink)
	lines := []string{
		"",
		ink(boldInk, head) + strings.Repeat(" ", max(2, width-width0(head)-width0(elapsed))) + elapsed,
		"", names, times, "",
	}
	const label, number = 19, 8
	bar := max(0, width-label-number)
	row := func(code, name, revision string, clients int) string {
		return fmt.Sprintf("%-6s %-11s ", name, revision) + ink(code, cells(clients, v.Expected, bar)) + fmt.Sprintf("%*s", number, measure.Count(clients))
	}
	lines = append(lines, row(blueInk, "blue", v.From, v.Clients[v.From]), row(greenInk, "green", v.green(), v.Clients[v.green()]))
	lines = append(lines, row(plainInk, "total", "", v.Stats.Connected), "")
	for _, text := range []string{
		fmt.Sprintf("clients    %s of %s connected, %s away (at most %s), %s disconnects",
			measure.Count(v.Stats.Connected), measure.Count(v.Expected), measure.Count(v.Stats.Away), measure.Count(v.Stats.MaxAway), measure.Count(v.Stats.Disconnects)),
		fmt.Sprintf("messages   %s acknowledged, %s under way, %s repeated", measure.Count(v.Stats.Acked), measure.Count(v.Stats.Lost), measure.Count(v.Stats.Repeated)),
		"eviction   " + v.eviction(),
		"replicas   " + v.replicas(),
		"waits for  " + orDash(v.WaitingFor),
	} {
		lines = append(lines, fit(text, width))
	}
	return lines
}

// green is the update revision, once it is another one.
func (v *view) green() string {
	if v.To == v.From {
		return ""
	}
	return v.To
}

// timeline names the phases and, below, how long each lasted.
func (v *view) timeline(ink func(code, text string) string) (names, times string) {
	var first, second strings.Builder
	for _, phase := range v2beta1.Phases() {
		column := len(phase) + 3
		seconds, seen := v.Seconds[phase]
		code := dimInk
		if seen {
			code = plainInk
		}
		if phase == v.Phase {
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
	text := fmt.Sprintf("%s clients/s now, at most %s", measure.Count(v.Rate), measure.Count(v.Limit))
	if v.Estimated.IsZero() {
		return text
	}
	if left := v.Estimated.Sub(v.Now); left > 0 {
		return fmt.Sprintf("%s; empty at about %s, in %.0f s", text, v.Estimated.Local().Format(time.TimeOnly), left.Seconds())
	}
	return text + "; empty any moment"
}

func (v *view) replicas() string {
	if v.Replicas == 0 {
		return orDash("")
	}
	return fmt.Sprintf("%s of durable storage, %s on the move", measure.Count(v.Replicas), measure.Count(v.Moving))
}

// line is the view in one line.
func (v *view) line() string {
	text := fmt.Sprintf("[%6.1fs] %-12s blue %5s  green %5s  connected %5s  %4s/s", v.Now.Sub(v.begun).Seconds(), v.State,
		measure.Count(v.Clients[v.From]), measure.Count(v.Clients[v.green()]), measure.Count(v.Stats.Connected), measure.Count(v.Rate))
	if v.WaitingFor != "" {
		text += "  waits for " + v.WaitingFor
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
