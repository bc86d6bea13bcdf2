package show

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
)

const (
	// frameInterval is the time between two pictures, lineInterval that between two lines when nothing has changed.
	frameInterval = 200 * time.Millisecond
	lineInterval  = 3 * time.Second
	// fullWidth is the most columns of a picture.
	fullWidth = 80
)

// Live shows an upgrade until ctx ends, and once more then: in place on a terminal, else in lines. Begun is when the run
// began, from which lines count.
func Live(ctx context.Context, out io.Writer, begun time.Time, at func(time.Time) measure.Moment) {
	screen := newScreen(out)
	defer screen.close()
	ticker := time.NewTicker(frameInterval)
	defer ticker.Stop()
	for {
		screen.draw(view{Moment: at(time.Now()), begun: begun})
		select {
		case <-ctx.Done():
			screen.last(view{Moment: at(time.Now()), begun: begun})
			return
		case <-ticker.C:
		}
	}
}

// screen shows views one after the other.
type screen interface {
	draw(view)
	// last shows the end.
	last(view)
	close()
}

func newScreen(out io.Writer) screen {
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		return &terminal{out: file, paint: os.Getenv("NO_COLOR") == ""}
	}
	return &plain{out: out}
}

// Escape sequences of terminals.
const (
	escUp        = "\x1b[%dA\r"
	escEndOfLine = "\x1b[K"
	escBelow     = "\x1b[J"
	escHide      = "\x1b[?25l"
	escShow      = "\x1b[?25h"
	// Terminals that know it show what lies between at once; others ignore it.
	escBegin = "\x1b[?2026h"
	escEnd   = "\x1b[?2026l"
)

// terminal shows views in place.
type terminal struct {
	out   *os.File
	paint bool
	lines int // How many lines the last picture had.
	width int // How wide it was.
}

func (t *terminal) draw(v view) {
	columns, _, err := term.GetSize(int(t.out.Fd()))
	if err != nil || columns <= 0 {
		columns = fullWidth
	}
	var b bytes.Buffer
	b.WriteString(escBegin + escHide)
	if t.lines > 0 && columns == t.width {
		fmt.Fprintf(&b, escUp, t.lines)
	} else if t.lines > 0 {
		// The terminal was resized, so nobody knows how many lines the last picture takes now.
		b.WriteString("\n")
	}
	lines := v.picture(min(columns-1, fullWidth), t.paint)
	for _, line := range lines {
		b.WriteString(line + escEndOfLine + "\n")
	}
	b.WriteString(escBelow + escEnd)
	t.lines, t.width = len(lines), columns
	_, _ = t.out.Write(b.Bytes())
}

func (t *terminal) last(v view) { t.draw(v) }

func (t *terminal) close() { _, _ = t.out.WriteString(escShow + "\n") }

// plain shows a line when the phase changes and every few seconds.
type plain struct {
	out   io.Writer
	shown time.Time
	state string
}

func (p *plain) draw(v view) {
	if v.State == p.state && v.Now.Sub(p.shown) < lineInterval {
		return
	}
	p.shown, p.state = v.Now, v.State
	_, _ = fmt.Fprintln(p.out, v.line())
}

func (p *plain) last(v view) {
	p.shown = time.Time{}
	p.draw(v)
}

func (p *plain) close() {}
