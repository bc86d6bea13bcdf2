package scale

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Table is the results as Markdown, a column for each number of clusters.
func Table(results []Result) string {
	var table strings.Builder
	row := func(name string, cell func(Result) string) {
		table.WriteString("| " + name + " |")
		for _, result := range results {
			table.WriteString(" " + cell(result) + " |")
		}
		table.WriteByte('\n')
	}
	row("clusters × nodes", func(r Result) string { return fmt.Sprintf("%d × %d", r.Clusters, r.Nodes/r.Clusters) })
	table.WriteString("|---|" + strings.Repeat("---:|", len(results)) + "\n")
	row("memory at rest, MiB", func(r Result) string { return mebibytes(r.Rest.Bytes) })
	row("of it heap / stacks, MiB", func(r Result) string { return mebibytes(r.Rest.HeapBytes) + " / " + mebibytes(r.Rest.StackBytes) })
	row("processor at rest, % of a core", func(r Result) string { return fmt.Sprintf("%.2f", 100*r.Rest.CPU) })
	row("goroutines at rest", func(r Result) string { return strconv.Itoa(r.Rest.Goroutines) })
	row("open connections at rest: to nodes / all", func(r Result) string {
		return fmt.Sprintf("%d / %d", r.Rest.NodeConnections, r.Rest.Connections)
	})
	row("requests a second to nodes at rest", func(r Result) string { return fmt.Sprintf("%.1f", r.Rest.RequestsPerSecond) })
	row("writes to the API server at rest, an hour", func(r Result) string {
		return fmt.Sprintf("%.0f", float64(r.Rest.Writes.Total())*time.Hour.Seconds()/r.Rest.Window.Seconds())
	})
	row("scrape at rest, ms", func(r Result) string { return milliseconds(r.Rest.Scrape) })
	row("start: caches filled after, s", func(r Result) string { return seconds(r.Start.Ready) })
	row("start: every node was asked after, s", func(r Result) string {
		return strings.TrimSuffix(synced(r), " s")
	})
	row("start: at rest after, s", func(r Result) string { return seconds(r.Start.Rest) })
	row("start: processor until then, % of a core", func(r Result) string { return fmt.Sprintf("%.0f", 100*r.Start.CPU) })
	row("start: requests to nodes until then", func(r Result) string { return strconv.FormatInt(r.Start.Requests, 10) })
	row("start: writes to the API server until then", func(r Result) string { return strconv.Itoa(r.Start.Writes.Total()) })
	row("start: most memory, MiB", func(r Result) string { return mebibytes(r.Start.PeakBytes) })
	row("start: longest scrape, ms", func(r Result) string { return milliseconds(r.Start.Scrape) })
	row("change of a resource → first write, median, ms", func(r Result) string { return fmt.Sprintf("%.1f", r.Latency.Seconds()*1000) })
	upgrades(results, row)
	return table.String()
}

// upgrades are the rows about upgrades.
func upgrades(results []Result, row func(string, func(Result) string)) {
	counts := map[int]bool{}
	for _, result := range results {
		for _, upgrade := range result.Upgrades {
			counts[upgrade.Count] = true
		}
	}
	cell := func(count int, text func(Upgrade, Result) string) func(Result) string {
		return func(result Result) string {
			if upgrade := result.upgrades(count); upgrade != nil {
				return text(*upgrade, result)
			}
			return ""
		}
	}
	for _, count := range sortedKeys(counts) {
		row(fmt.Sprintf("%d at once: median / last upgrade, s", count), cell(count, func(u Upgrade, _ Result) string {
			return seconds(u.Median) + " / " + seconds(u.Last)
		}))
		if count > 1 {
			row(fmt.Sprintf("%d at once: last, as a multiple of one", count), cell(count, func(u Upgrade, r Result) string {
				one := r.upgrades(1)
				if one == nil {
					return ""
				}
				return fmt.Sprintf("%.2f", u.Last.Seconds()/one.Last.Seconds())
			}))
		}
		row(fmt.Sprintf("%d at once: writes / events / reads an upgrade", count), cell(count, func(u Upgrade, _ Result) string {
			return fmt.Sprintf("%.1f / %.1f / %.1f", each(u.Writes, count), each(u.Events, count), each(u.Reads, count))
		}))
		row(fmt.Sprintf("%d at once: processor time an upgrade, ms", count), cell(count, func(u Upgrade, _ Result) string {
			return milliseconds(u.CPU / time.Duration(count))
		}))
		row(fmt.Sprintf("%d at once: most memory, MiB", count), cell(count, func(u Upgrade, _ Result) string { return mebibytes(u.PeakBytes) }))
	}
}

func mebibytes(bytes uint64) string       { return fmt.Sprintf("%.0f", float64(bytes)/(1<<20)) }
func seconds(d time.Duration) string      { return fmt.Sprintf("%.1f", d.Seconds()) }
func milliseconds(d time.Duration) string { return fmt.Sprintf("%.0f", d.Seconds()*1000) }

func sortedKeys(counts map[int]bool) []int { return slices.Sorted(maps.Keys(counts)) }
