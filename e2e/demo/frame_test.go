package demo

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

func someView() view {
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return view{
		now: begin.Add(30 * time.Second), begun: begin, patched: begin, name: "emqx-ee", state: "Evacuating", phase: v2beta1.PhaseEvacuating,
		seconds: map[v2beta1.Phase]float64{v2beta1.PhasePending: 0.1, v2beta1.PhaseProvisioning: 12, v2beta1.PhaseEvacuating: 3},
		from:    "86545d8bb4", to: "4479b67bd4", clients: map[string]int{"86545d8bb4": 1000, "4479b67bd4": 1500}, expected: 3000,
		stats: load.Stats{Connected: 2500, Away: 500, MaxAway: 900}, rate: 600, limit: 1000, estimated: begin.Add(40 * time.Second),
		waitingFor: strings.Repeat("a long sentence ", 20),
	}
}

func TestPictureFits(t *testing.T) {
	escapes := regexp.MustCompile(`\x1b\[[0-9;]*m`)
	v := someView()
	for _, width := range []int{70, 79, 80} {
		lines := v.picture(width, true)
		require.LessOrEqual(t, len(lines), 15)
		for _, line := range lines {
			require.LessOrEqual(t, width0(escapes.ReplaceAllString(line, "")), width, line)
		}
	}
	for _, line := range v.picture(80, false) {
		require.NotContains(t, line, "\x1b", "without colours there is nothing to escape")
	}
}

func TestPictureSaysWhatMatters(t *testing.T) {
	v := someView()
	text := strings.Join(v.picture(80, false), "\n")
	for _, part := range []string{"emqx-ee  Evacuating", "30.0 s since the patch", "12.0 s", "1,000", "1,500", "2,500 of 3,000", "600 clients/s", "in 10 s", "waits for"} {
		require.Contains(t, text, part)
	}
}

func TestCells(t *testing.T) {
	require.Equal(t, "█████     ", cells(5, 10, 10))
	require.Equal(t, "▌         ", cells(1, 20, 10))
	require.Equal(t, "██████████", cells(99, 10, 10), "more than all is all")
	require.Equal(t, "          ", cells(-1, 10, 10))
}

func TestWrap(t *testing.T) {
	first, rest := wrap("Ready → Pending → Provisioning → Switching → Evacuating")
	require.Equal(t, "Ready → Pending → Provisioning →", first)
	require.Equal(t, []string{"Switching → Evacuating"}, rest)
}

// TestPlainLinesAreFew shows a line a change and one every few seconds.
func TestPlainLinesAreFew(t *testing.T) {
	var out bytes.Buffer
	p := &plain{out: &out}
	v := someView()
	p.draw(v)
	p.draw(v)
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
	v.state = "ScalingDown"
	p.draw(v)
	require.Equal(t, 2, strings.Count(out.String(), "\n"))
	v.now = v.now.Add(lineInterval)
	p.draw(v)
	require.Equal(t, 3, strings.Count(out.String(), "\n"))
}

func TestGraphIsWellFormed(t *testing.T) {
	f := good()
	f.From = `<"&>` // A revision never looks like this; a file may.
	record := &Record{Figures: f}
	for i := range 500 {
		at := f.Patched.Add(time.Duration(i-30) * 100 * time.Millisecond)
		record.Connected = append(record.Connected, load.Sample{At: at, Connected: 3000 - i%7})
		record.Revisions = append(record.Revisions, RevisionSample{At: at, Clients: map[string]int{f.From: max(0, 3000-10*i), f.To: min(3000, 10*i)}})
	}
	var out bytes.Buffer
	require.NoError(t, Graph(&out, record))
	decoder := xml.NewDecoder(&out)
	elements := map[string]int{}
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if start, ok := token.(xml.StartElement); ok {
			elements[start.Name.Local]++
		}
	}
	require.GreaterOrEqual(t, elements["path"], 4, "an axis, two areas and a line")
	require.GreaterOrEqual(t, elements["rect"], 6, "a band a phase")
}
