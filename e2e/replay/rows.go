package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// rootOf is where a value of a row is in the configuration: its root, and the block within it.
func rootOf(key string) (root, block string) {
	switch key {
	case "size_limit":
		return "alarm", ""
	case "level":
		return "log", "console {"
	default:
		return "mqtt", ""
	}
}

// look compares one row of a recording that has been made between other recordings, found by how its act begins.
func look(n, act string) step {
	return action("look at "+n, func(ctx context.Context, r *Runner) error {
		row, err := r.rowOf(n, act)
		if err != nil {
			return err
		}
		r.noteRow(n, r.compareRow(ctx, row))
		return nil
	})
}

// eventually waits until a row is so, or says in the end what differs. With keys, the row is the last that has them.
func eventually(n, act string, keys ...string) step {
	return action("wait for "+n, func(ctx context.Context, r *Runner) error {
		row, err := r.rowOf(n, act, keys...)
		if err != nil {
			return err
		}
		r.noteRow(n, r.waitNoDifference(ctx, 30*time.Second, func(ctx context.Context) string { return r.compareRow(ctx, row) }))
		return nil
	})
}

// rowsOf is the result of a recording that was compared row by row.
func rowsOf(n string) step {
	return step{what: "rows of " + n, covers: []string{n}, do: func(_ context.Context, r *Runner) error {
		rec, err := r.file(n)
		if err == nil {
			r.report.compared(rec.name, r.rows[n])
		}
		return err
	}}
}

func (r *Runner) noteRow(n, difference string) {
	if r.rows[n] == "" {
		r.rows[n] = difference
	}
}

func (r *Runner) rowOf(n, act string, keys ...string) (map[string]any, error) {
	rec, err := r.file(n)
	if err != nil {
		return nil, err
	}
	var found map[string]any
	for _, raw := range rec.Rows {
		var row map[string]any
		if err := json.Unmarshal(raw, &row); err != nil {
			return nil, fmt.Errorf("read recording %s: %w", rec.name, err)
		}
		has := !slices.ContainsFunc(keys, func(key string) bool { return row[key] == nil })
		if text, _ := row["act"].(string); has && strings.HasPrefix(text, act) {
			found = row
			if len(keys) == 0 {
				break
			}
		}
	}
	if found == nil {
		return nil, fmt.Errorf("recording %s has no row %q", rec.name, act)
	}
	return found, nil
}

// compareRow compares what a row tells of nodes: values of the configuration, members, ports and listeners.
func (r *Runner) compareRow(ctx context.Context, row map[string]any) string {
	for _, key := range keysOf(row) {
		difference := ""
		node, isNode := nodeNamed(key)
		switch value := row[key].(type) {
		case map[string]any:
			switch {
			case isNode:
				difference = r.valuesDiffer(ctx, node, value)
			case strings.HasSuffix(key, "_value"):
				other, _ := nodeNamed(key[:1])
				difference = r.valuesDiffer(ctx, other, value)
			case key == "ports":
				difference = r.portsDiffer(ctx, value)
			case key == "connack":
				difference = r.connackDiffers(ctx, value)
			}
		case []any:
			if isNode {
				difference = r.comparer("").differ(key, "", r.translate.value(value), any(r.clusterOf(ctx, node)))
			}
			if key == "C_listeners" {
				difference = r.shortListenersDiffer(ctx, nodeC, value)
			}
		case string:
			switch {
			case isNode: // max_topic_levels, in a row of nothing else
				difference = r.valuesDiffer(ctx, node, map[string]any{"max_topic_levels": value})
			case len(key) == len("A18083") && strings.HasPrefix(key[1:], "18"):
				difference = r.portsDiffer(ctx, map[string]any{key[:1] + ":" + key[1:]: value})
			}
		}
		if difference != "" {
			return fmt.Sprintf("%v: %s", row["act"], difference)
		}
	}
	return ""
}

func (r *Runner) valuesDiffer(ctx context.Context, node int, values map[string]any) string {
	for _, key := range keysOf(values) {
		root, block := rootOf(key)
		text, err := r.configText(ctx, node, root)
		if err != nil {
			return err.Error()
		}
		_, rest, _ := strings.Cut(text, block)
		got := "nothing"
		if _, after, found := strings.Cut(rest, " "+key+" = "); found {
			got, _, _ = strings.Cut(after, "\n")
		}
		if got != values[key] {
			return fmt.Sprintf("%s of node %d: recorded %v, got %s", key, node, values[key], got)
		}
	}
	return ""
}

func (r *Runner) portsDiffer(ctx context.Context, ports map[string]any) string {
	for _, key := range keysOf(ports) {
		name, port, _ := strings.Cut(key, ":")
		if node, known := nodeNamed(name); known {
			if got := r.port(ctx, node, port); got != ports[key] {
				return fmt.Sprintf("port %s: recorded %v, got %s", key, ports[key], got)
			}
		}
	}
	return ""
}

// connackDiffers compares what a new client of the first node is told.
func (r *Runner) connackDiffers(ctx context.Context, want map[string]any) string {
	if want["maximumPacketSize"] == nil || want["cmd"] != nil {
		return "" // a client of its own, see packetSizes
	}
	c, err := r.connectTo(ctx, "connack", nodeA, clean(5))
	if err != nil {
		return err.Error()
	}
	defer r.drop("connack")
	p := c.Events()[0].Packet.Properties
	got := map[string]any{"maximumPacketSize": float64(p.MaximumPacketSize), "receiveMaximum": float64(p.ReceiveMaximum)}
	return r.comparer("").differ("connack", "", want, got)
}

// shortListenersDiffer compares id, address and whether it is enabled.
func (r *Runner) shortListenersDiffer(ctx context.Context, node int, want []any) string {
	got, err := r.api(ctx, http.MethodGet, node, "/api/v5/listeners", nil)
	if err != nil {
		return err.Error()
	}
	list, _ := got.body.([]any)
	have := map[string]any{}
	for _, item := range list {
		l, _ := item.(map[string]any)
		have[fmt.Sprint(l["id"])] = []any{l["id"], l["bind"], l["enable"]}
	}
	for _, item := range want {
		id := fmt.Sprint(item.([]any)[0])
		if d := r.comparer("").differ("listener "+id, "", item, have[id]); d != "" {
			return d
		}
	}
	return ""
}
