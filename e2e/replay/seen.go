package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
)

// compareSeen compares 120: the packets of each client over the whole evacuation.
func compareSeen(_ context.Context, r *Runner) error {
	rec, err := r.file("120")
	if err != nil {
		return err
	}
	var want map[string][]map[string]any
	if err := json.Unmarshal(rec.Seen, &want); err != nil {
		return fmt.Errorf("read recording %s: %w", rec.name, err)
	}
	names := make([]string, 0, len(want))
	for name := range want {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		events, watched := r.watched[name]
		if c := r.clients[name]; !watched && c != nil {
			events = c.Events()
		}
		if d := comparePackets(rec.name, name, want[name], events); d != "" {
			r.report.compared(rec.name, d)
			return nil
		}
	}
	r.report.compared(rec.name, "")
	return nil
}
