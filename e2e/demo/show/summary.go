package show

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
)

// Summary prints the figures with their limits and the tables of requests.
func Summary(out io.Writer, f *measure.Figures) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "\nFIGURE\tMEASURED\tLIMIT\t")
	for _, check := range f.Checks {
		verdict := "ok"
		switch {
		case check.Limit == "":
			verdict = ""
		case !check.OK:
			verdict = "FAILED"
		}
		value, rest := wrap(check.Value)
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", check.Name, value, check.Limit, verdict)
		for _, line := range rest {
			_, _ = fmt.Fprintf(table, "\t%s\t\t\n", line)
		}
	}
	_, _ = fmt.Fprintf(table, "\nPHASE\tSECONDS\n")
	seconds := measure.PhaseSeconds(f.States, f.Patched, f.Ready)
	for _, change := range f.States[1:] {
		if change.State != "Ready" {
			_, _ = fmt.Fprintf(table, "%s\t%6.1f\n", change.State, seconds[change.Phase])
		}
	}
	if !f.InPlace {
		printFloor(table, f)
	}
	printRequests(table, "THE OPERATOR ASKED KUBE-APISERVER", f.KubeRequests)
	printRequests(table, "THE OPERATOR ASKED EMQX", f.EMQXRequests)
	_, _ = fmt.Fprintf(table, "\n%s\n", verdict(f))
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the summary: %w", err)
	}
	return nil
}

// printFloor prints the shortest time in which it could be done, by its parts.
func printFloor(table io.Writer, f *measure.Figures) {
	floor := f.Floor
	_, _ = fmt.Fprintf(table, "\nFLOOR\tSECONDS\n")
	for _, part := range []struct {
		name    string
		seconds float64
	}{
		{"slowest new pod's start", floor.SlowestStartSeconds},
		{"initialDelaySeconds", floor.InitialDelaySeconds},
		{fmt.Sprintf("%s clients ÷ %.0f", measure.Count(f.Clients), floor.EvictionRate), floor.EvictionSeconds},
		{"waitTakeover", floor.WaitTakeoverSeconds},
		{"sessions left ÷ sessEvictRate", floor.SessionsSeconds},
		{"replicas to move", floor.ReplicasSeconds},
		{"together", floor.Total()},
	} {
		_, _ = fmt.Fprintf(table, "%s\t%6.1f\n", part.name, part.seconds)
	}
}

// valueWidth is how wide a measured value may be before it is broken.
const valueWidth = 36

// wrap breaks a long value between words.
func wrap(value string) (first string, rest []string) {
	var lines []string
	line := ""
	for _, word := range strings.Fields(value) {
		if line != "" && width0(line)+1+width0(word) > valueWidth {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	lines = append(lines, line)
	return lines[0], lines[1:]
}

func printRequests(out io.Writer, title string, requests []measure.RequestCount) {
	_, _ = fmt.Fprintf(out, "\n%s\tTIMES\n", title)
	for _, request := range requests {
		_, _ = fmt.Fprintf(out, "%s\t%6d\n", strings.TrimSpace(request.Verb+" "+request.Resource), request.Count)
	}
	_, _ = fmt.Fprintf(out, "together\t%6d\n", total(requests))
}

func verdict(f *measure.Figures) string {
	switch {
	case f.OK() && f.InPlace:
		return fmt.Sprintf("All figures hold: the node was replaced in place, and nobody was connected for %.1f s of %.1f s.", f.OutageSeconds, f.Seconds())
	case f.OK():
		return fmt.Sprintf("All figures hold: %s clients moved from %s to %s in %.1f s.", measure.Count(f.Clients), f.From, f.To, f.Seconds())
	}
	return "FAILED: " + strings.Join(f.Failed(), "; ")
}

func total(counts []measure.RequestCount) int {
	sum := 0
	for _, request := range counts {
		sum += request.Count
	}
	return sum
}
