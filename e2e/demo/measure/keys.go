package measure

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// evacuationKeys are the keys that EMQX's documentation shows of an evacuation.
func evacuationKeys() []string {
	return []string{
		"node", "state", "stats", "session_recipients", "session_goal", "session_eviction_rate", "connection_goal",
		"connection_eviction_rate", "stats.initial_sessions", "stats.initial_connected", "stats.current_sessions", "stats.current_connected",
	}
}

// watchKeys reads the status as it stands in JSON, each time it changes while clients move, until ctx ends, and
// returns which documented keys were missing. It reads JSON because in Go's types a missing number is zero.
func watchKeys(ctx context.Context, target Target, o *Observer) (seen int, missing []string, err error) {
	absent := map[string]bool{}
	var last string
	for {
		err := o.wait(ctx, func() bool {
			emqx := o.emqx
			return emqx.Status.Phase == v2beta1.PhaseEvacuating && len(emqx.Status.NodeEvacuationsStatus) > 0 && emqx.ResourceVersion != last
		})
		if err != nil {
			break // The upgrade is over.
		}
		raw, err := target.EMQX.AppsV2beta1().RESTClient().Get().Namespace(target.Namespace).Resource("emqxes").Name(target.Name).DoRaw(ctx)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return seen, nil, fmt.Errorf("read the status: %w", err)
		}
		last = o.Latest().ResourceVersion
		evacuations, err := rawEvacuations(raw)
		if err != nil {
			return seen, nil, err
		}
		for _, evacuation := range evacuations {
			seen++
			for _, key := range evacuationKeys() {
				if !evacuation[key] {
					absent[key] = true
				}
			}
		}
	}
	for key := range absent {
		missing = append(missing, key)
	}
	slices.Sort(missing)
	return seen, missing, nil
}

// rawEvacuations lists which keys each evacuation in the status has.
func rawEvacuations(raw []byte) ([]map[string]bool, error) {
	var object struct {
		Status struct {
			Evacuations []map[string]json.RawMessage `json:"nodeEvacuationsStatus"`
		} `json:"status"`
	}
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, fmt.Errorf("read the status: %w", err)
	}
	var all []map[string]bool
	for _, evacuation := range object.Status.Evacuations {
		keys := map[string]bool{}
		for key := range evacuation {
			keys[key] = true
		}
		var stats map[string]json.RawMessage
		if err := json.Unmarshal(evacuation["stats"], &stats); evacuation["stats"] != nil && err != nil {
			return nil, fmt.Errorf("read the stats of an evacuation: %w", err)
		}
		for key := range stats {
			keys["stats."+key] = true
		}
		all = append(all, keys)
	}
	return all, nil
}
