package scale

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// goal is what the operator shall keep to with any number of clusters up to a thousand.
type goal struct {
	name, limit string
	// of is what was measured, and whether it keeps to the limit; an empty text when it was not measured.
	of func(Result) (text string, kept bool)
}

const (
	memoryGoal, startMemoryGoal       = 150 << 20, 200 << 20
	processorGoal                     = 0.01
	askingGoal                        = 30                 // Seven nodes are asked a second, over connections that are kept for two.
	goroutinesGoal                    = 110 + 2*askingGoal // Without any for a node it has about a hundred; a connection has two.
	syncGoal, scrapeGoal, latencyGoal = time.Minute, 200 * time.Millisecond, 10 * time.Millisecond
	upgradesGoal, upgradesMeant       = 1.2, 100
	upgradeWritesGoal                 = 25
)

func goals() []goal {
	return []goal{
		{"memory at rest", "150 MiB", func(r Result) (string, bool) { return mebibytes(r.Rest.Bytes) + " MiB", r.Rest.Bytes <= memoryGoal }},
		{"processor at rest", "1 % of a core", func(r Result) (string, bool) {
			return fmt.Sprintf("%.2f %%", 100*r.Rest.CPU), r.Rest.CPU <= processorGoal
		}},
		{"writes to the API server at rest", "none", func(r Result) (string, bool) { return strconv.Itoa(r.Rest.Writes.Total()), r.Rest.Writes.Total() == 0 }},
		{"open connections to nodes at rest", "none a node", func(r Result) (string, bool) {
			return strconv.Itoa(r.Rest.NodeConnections), r.Rest.NodeConnections <= askingGoal
		}},
		{"goroutines at rest", "none a node", func(r Result) (string, bool) {
			return strconv.Itoa(r.Rest.Goroutines), r.Rest.Goroutines <= goroutinesGoal
		}},
		{"every node is asked after a start", "60 s", func(r Result) (string, bool) {
			return synced(r), r.Start.Missing == 0 && r.Start.Synced <= syncGoal
		}},
		{"most memory until then", "200 MiB", func(r Result) (string, bool) {
			return mebibytes(r.Start.PeakBytes) + " MiB", r.Start.PeakBytes <= startMemoryGoal
		}},
		{"longest scrape", "200 ms", func(r Result) (string, bool) {
			longest := max(r.Start.Scrape, r.Rest.Scrape)
			return milliseconds(longest) + " ms", longest <= scrapeGoal
		}},
		{"change of a resource → first write, median", "10 ms", func(r Result) (string, bool) {
			if r.Latencies == 0 {
				return "", true
			}
			return fmt.Sprintf("%.1f ms", r.Latency.Seconds()*1000), r.Latency <= latencyGoal
		}},
		{"100 upgrades at once, as a multiple of one", "1.2", func(r Result) (string, bool) {
			one, many := r.upgrades(1), r.upgrades(upgradesMeant)
			if one == nil || many == nil {
				return "", true
			}
			multiple := many.Last.Seconds() / one.Last.Seconds()
			return fmt.Sprintf("%.2f", multiple), multiple <= upgradesGoal
		}},
		{"writes of one upgrade", "25", func(r Result) (string, bool) {
			one := r.upgrades(1)
			if one == nil {
				return "", true
			}
			return strconv.Itoa(one.Writes.Total()), one.Writes.Total() <= upgradeWritesGoal
		}},
	}
}

// upgrades is what was measured of so many upgrades at once; nil when they were not.
func (r Result) upgrades(count int) *Upgrade {
	for i := range r.Upgrades {
		if r.Upgrades[i].Count == count {
			return &r.Upgrades[i]
		}
	}
	return nil
}

func synced(r Result) string {
	if r.Start.Missing > 0 {
		return fmt.Sprintf("%d were not", r.Start.Missing)
	}
	return seconds(r.Start.Synced) + " s"
}

// Goals holds the results against the goals, as Markdown. What misses one is in bold.
func Goals(results []Result) string {
	var table strings.Builder
	table.WriteString("| goal | at most |")
	for _, result := range results {
		fmt.Fprintf(&table, " %d × %d |", result.Clusters, result.Nodes/result.Clusters)
	}
	table.WriteString("\n|---|---|" + strings.Repeat("---:|", len(results)) + "\n")
	for _, goal := range goals() {
		fmt.Fprintf(&table, "| %s | %s |", goal.name, goal.limit)
		for _, result := range results {
			text, kept := goal.of(result)
			if !kept {
				text = "**" + text + "**"
			}
			table.WriteString(" " + text + " |")
		}
		table.WriteByte('\n')
	}
	return table.String()
}

// Missed names the goals that a result misses.
func Missed(result Result) []string {
	var missed []string
	for _, goal := range goals() {
		if text, kept := goal.of(result); !kept {
			missed = append(missed, fmt.Sprintf("%s: %s, not %s", goal.name, text, goal.limit))
		}
	}
	return missed
}
