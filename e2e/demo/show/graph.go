package show

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"math"
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
)

// The picture's measures, in the units of its view box.
const (
	graphWidth, graphHeight              = 960.0, 440.0
	plotLeft, plotRight                  = 60.0, 944.0
	plotTop, plotBottom                  = 84.0, 372.0
	letterWidth                          = 6.8 // Of the labels' letters, about.
	headroom                             = 1.04
	beforeSeconds, afterSeconds          = 3.0, 3.0
	smallestLabelledBand                 = 1.0 // Bands narrower than this get no name.
	firstLabelRow, secondLabelRow, rowOf = 62.0, 76.0, 2
)

// graphStyle keeps the picture readable on light and on dark pages.
const graphStyle = `
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: 600 }
  .dim { fill: #57606a }
  .axis { stroke: #57606a; stroke-width: 1; fill: none }
  .grid { stroke: #57606a; stroke-opacity: .22; stroke-width: 1 }
  .band { fill: #57606a; fill-opacity: .05 }
  .odd { fill-opacity: .13 }
  .blue { fill: #2f81f7; fill-opacity: .62 }
  .green { fill: #2da44e; fill-opacity: .62 }
  .total { stroke: #24292f; stroke-width: 1.6; fill: none; stroke-linejoin: round }
  .mark { stroke: #bc4c00; stroke-width: 1.2; stroke-dasharray: 4 3 }
  .marked { fill: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .dim { fill: #9ea7b3 }
    .axis { stroke: #9ea7b3 }
    .grid { stroke: #9ea7b3 }
    .band { fill: #9ea7b3 }
    .total { stroke: #e6edf3 }
    .mark { stroke: #f0883e }
    .marked { fill: #f0883e }
  }
`

// Graph draws the clients during an upgrade as an SVG picture: stacked by revision as the nodes count them, with a line
// of those connected as they count themselves, over the phases.
func Graph(out io.Writer, record *measure.Record) error {
	g := &graph{record: record, begin: record.Figures.Patched}
	g.from, g.to = -beforeSeconds, record.Figures.Seconds()+afterSeconds
	g.most = float64(max(1, record.Figures.Clients)) * headroom
	g.open()
	g.bands()
	g.axes()
	g.areas()
	g.connected()
	g.marks()
	g.legend()
	g.buffer.WriteString("</svg>\n")
	if _, err := out.Write(g.buffer.Bytes()); err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	return nil
}

// graph is a picture being drawn.
type graph struct {
	record   *measure.Record
	begin    time.Time // Where the seconds are counted from.
	from, to float64   // The seconds shown.
	most     float64   // The number of clients at the top.
	buffer   bytes.Buffer
}

func (g *graph) put(format string, arguments ...any) {
	fmt.Fprintf(&g.buffer, format+"\n", arguments...)
}

func (g *graph) seconds(at time.Time) float64 { return at.Sub(g.begin).Seconds() }

func (g *graph) x(seconds float64) float64 {
	share := (seconds - g.from) / (g.to - g.from)
	return plotLeft + min(1, max(0, share))*(plotRight-plotLeft)
}

func (g *graph) y(clients float64) float64 {
	return plotBottom - min(1, max(0, clients/g.most))*(plotBottom-plotTop)
}

func (g *graph) open() {
	f := &g.record.Figures
	g.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img" aria-labelledby="t d">`, graphWidth, graphHeight)
	g.put(`<title id="t">%s MQTT clients during a blue-green upgrade</title>`, measure.Count(f.Clients))
	g.put(`<desc id="d">Clients by revision over time, from %s to %s, with the phases of the upgrade. %s</desc>`,
		html.EscapeString(f.From), html.EscapeString(f.To), html.EscapeString(caption(f)))
	g.put("<style>%s</style>", graphStyle)
	g.put(`<text class="title" x="%.0f" y="22">%s MQTT clients during a blue-green upgrade</text>`, plotLeft, measure.Count(f.Clients))
	g.put(`<text class="dim" x="%.0f" y="41">%s</text>`, plotLeft, html.EscapeString(caption(f)))
}

func caption(f *measure.Figures) string {
	return fmt.Sprintf("%s of %s messages lost, each client disconnected at most %s, Ready %.0f s after the patch; connEvictRate %s",
		measure.Count(f.MessagesLost), measure.Count(f.MessagesAcknowledged), times(f.MaxDisconnects), f.Seconds(), measure.Count(f.ConnEvictRate))
}

func times(n int64) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	default:
		return measure.Count(n) + " times"
	}
}

// bands shades the phases and names them above, in a second row where the first has no room.
func (g *graph) bands() {
	changes := g.record.Figures.States
	ends := [rowOf]float64{}
	rows := [rowOf]float64{firstLabelRow, secondLabelRow}
	shown := 0
	for i, change := range changes {
		begin, end := max(g.from, g.seconds(change.At)), g.to
		if i+1 < len(changes) {
			end = g.seconds(changes[i+1].At)
		}
		if end <= begin {
			continue
		}
		left, right := g.x(begin), g.x(end)
		class := "band"
		if shown%2 == 1 {
			class = "band odd"
		}
		g.put(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, class, left, plotTop, right-left, plotBottom-plotTop)
		shown++
		if end-begin < smallestLabelledBand {
			continue
		}
		half := letterWidth * float64(len(change.State)) / 2
		middle := min(plotRight-half, max(plotLeft+half, (left+right)/2))
		row := 0
		if middle-half < ends[0] {
			row = 1
		}
		ends[row] = middle + half + letterWidth
		g.put(`<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, middle, rows[row], html.EscapeString(change.State))
	}
}

func (g *graph) axes() {
	step := niceStep(g.most / 4)
	for clients := 0.0; clients <= g.most; clients += step {
		g.put(`<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, plotLeft, g.y(clients), plotRight, g.y(clients))
		g.put(`<text class="dim" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, plotLeft-8, g.y(clients)+4, measure.Count(int(clients)))
	}
	step = niceStep((g.to - g.from) / 10)
	for seconds := math.Ceil(g.from/step) * step; seconds <= g.to; seconds += step {
		g.put(`<line class="axis" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, g.x(seconds), plotBottom, g.x(seconds), plotBottom+4)
		g.put(`<text class="dim" x="%.1f" y="%.1f" text-anchor="middle">%d s</text>`, g.x(seconds), plotBottom+18, int(seconds))
	}
	g.put(`<path class="axis" d="M%.1f %.1fV%.1fH%.1f"/>`, plotLeft, plotTop, plotBottom, plotRight)
}

// niceStep is the next of 1, 2 and 5 times a power of ten.
func niceStep(least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(max(1, least))))
	for _, factor := range []float64{1, 2, 5} {
		if factor*power >= least {
			return factor * power
		}
	}
	return 10 * power
}

// areas draws the clients of the old revision, and on top of them those of the new one.
func (g *graph) areas() {
	f := &g.record.Figures
	var bottom, middle, top []point
	for _, sample := range g.record.Revisions {
		at := g.seconds(sample.At)
		if at < g.from || at > g.to {
			continue
		}
		blue, green := float64(sample.Clients[f.From]), float64(sample.Clients[f.To])
		bottom = append(bottom, point{g.x(at), g.y(0)})
		middle = append(middle, point{g.x(at), g.y(blue)})
		top = append(top, point{g.x(at), g.y(blue + green)})
	}
	g.area("blue", bottom, middle)
	g.area("green", middle, top)
}

type point struct{ x, y float64 }

func (g *graph) area(class string, below, above []point) {
	if len(below) < 2 {
		return
	}
	back := thin(below)
	var path strings.Builder
	path.WriteString(line(thin(above)))
	for i := len(back) - 1; i >= 0; i-- {
		_, _ = fmt.Fprintf(&path, "L%.1f %.1f", back[i].x, back[i].y)
	}
	g.put(`<path class="%s" d="%sZ"/>`, class, path.String())
}

func (g *graph) connected() {
	var points []point
	for _, sample := range g.record.Connected {
		if at := g.seconds(sample.At); at >= g.from && at <= g.to {
			points = append(points, point{g.x(at), g.y(float64(sample.Connected))})
		}
	}
	if len(points) > 1 {
		g.put(`<path class="total" d="%s"/>`, line(thin(points)))
	}
}

// thin leaves out what lies within a level stretch.
func thin(points []point) []point {
	var kept []point
	for i, p := range points {
		if i > 0 && i+1 < len(points) && points[i-1].y == p.y && points[i+1].y == p.y {
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

func line(points []point) string {
	var b strings.Builder
	for i, p := range points {
		letter := "L"
		if i == 0 {
			letter = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", letter, p.x, p.y)
	}
	return b.String()
}

func (g *graph) marks() {
	for _, mark := range []struct {
		at   float64
		name string
	}{{0, "patch"}, {g.record.Figures.Seconds(), "Ready"}} {
		g.put(`<line class="mark" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, g.x(mark.at), plotTop, g.x(mark.at), plotBottom)
		g.put(`<text class="marked" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, g.x(mark.at), plotBottom+32, mark.name)
	}
}

func (g *graph) legend() {
	f := &g.record.Figures
	const y = graphHeight - 14
	x := plotLeft
	for _, entry := range []struct{ class, text string }{
		{"blue", "blue: revision " + f.From},
		{"green", "green: revision " + f.To},
		{"total", "connected clients, as they count themselves"},
	} {
		if entry.class == "total" {
			g.put(`<path class="total" d="M%.1f %.1fh14"/>`, x, y-4)
		} else {
			g.put(`<rect class="%s" x="%.1f" y="%.1f" width="14" height="10"/>`, entry.class, x, y-9)
		}
		g.put(`<text x="%.1f" y="%.1f">%s</text>`, x+20, y, html.EscapeString(entry.text))
		x += 44 + letterWidth*float64(len(entry.text))
	}
}
