package show

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

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

func someView() view {
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return view{begun: begin, Moment: measure.Moment{
		Now: begin.Add(30 * time.Second), Patched: begin, Name: "emqx-ee", State: "Evacuating", Phase: v2beta1.PhaseEvacuating,
		Seconds: map[v2beta1.Phase]float64{v2beta1.PhasePending: 0.1, v2beta1.PhaseProvisioning: 12, v2beta1.PhaseEvacuating: 3},
		From:    "86545d8bb4", To: "4479b67bd4", Clients: map[string]int{"86545d8bb4": 1000, "4479b67bd4": 1500}, Expected: 3000,
		Stats: load.Stats{Connected: 2500, Away: 500, MaxAway: 900}, Rate: 600, Limit: 1000, Estimated: begin.Add(40 * time.Second),
		WaitingFor: strings.Repeat("a long sentence ", 20),
	}}
}

func TestPictureFits(t *testing.T) {
	escapes := regexp.MustCompile(`\x1b\[[0-9;]*m`)
	v := someView()
	for _, width := range []int{70, 79, 80} {
		lines := v.picture(width, true)
		require.LessOrEqual(t, len(lines), 16)
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
	v.State = "ScalingDown"
	p.draw(v)
	require.Equal(t, 2, strings.Count(out.String(), "\n"))
	v.Now = v.Now.Add(lineInterval)
	p.draw(v)
	require.Equal(t, 3, strings.Count(out.String(), "\n"))
}

// someFigures are those of an upgrade of 50 s, with a phase every ten.
func someFigures() measure.Figures {
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f := measure.Figures{From: "aaa", To: "bbb", Clients: 3000, MaxDisconnects: 1, ConnEvictRate: 200, Patched: begin, Ready: begin.Add(50 * time.Second)}
	for i, state := range []string{"Ready", "Pending", "Provisioning", "Switching", "Evacuating", "ScalingDown", "Ready"} {
		f.States = append(f.States, measure.StateChange{At: begin.Add(time.Duration(i-1) * 10 * time.Second), State: state, Phase: v2beta1.Phase(state)})
	}
	return f
}

func TestSummaryNamesWhatFailed(t *testing.T) {
	f := someFigures()
	f.Checks = []measure.Check{
		{Name: "messages lost", Value: "1 of 20,000", Limit: "0"},
		{Name: "messages repeated", Value: "3", OK: true},
	}
	f.KubeRequests = []measure.RequestCount{{Verb: "patch", Resource: "pods/status", Count: 6}, {Verb: "list", Resource: "pods", Count: 1}}
	var out bytes.Buffer
	require.NoError(t, Summary(&out, &f))
	require.Regexp(t, `messages lost +1 of 20,000 +0 +FAILED`, out.String())
	require.Regexp(t, `patch pods/status +6`, out.String())
	require.Regexp(t, `together +7`, out.String())
	require.Contains(t, out.String(), "FAILED: messages lost")
}

func TestGraphIsWellFormed(t *testing.T) {
	f := someFigures()
	f.From = `<"&>` // A revision never looks like this; a file may.
	record := &measure.Record{Figures: f}
	for i := range 500 {
		at := f.Patched.Add(time.Duration(i-30) * 100 * time.Millisecond)
		record.Connected = append(record.Connected, load.Sample{At: at, Connected: 3000 - i%7})
		record.Revisions = append(record.Revisions, measure.RevisionSample{At: at, Clients: map[string]int{f.From: max(0, 3000-10*i), f.To: min(3000, 10*i)}})
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
