package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

const maxMembersBytes = 1 << 20

// member is a node of EMQX as another lists it.
type member struct {
	Node   string `json:"node"`
	Status string `json:"node_status"`
}

// members asks the node of a pod for all members of its cluster, stopped ones among them.
func (s *sampler) members(ctx context.Context, pod podFacts) ([]member, error) {
	address, err := apiAddress(pod)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/api/v5/nodes", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its members: %w", pod.name, err)
	}
	request.SetBasicAuth(s.credentials.Key, s.credentials.Secret)
	response, err := plainHTTP().Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its members: %w", pod.name, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s for its members: it answers %s", pod.name, response.Status)
	}
	var members []member
	if err := json.NewDecoder(io.LimitReader(response.Body, maxMembersBytes)).Decode(&members); err != nil {
		return nil, fmt.Errorf("read the members that %s lists: %w", pod.name, err)
	}
	return members, nil
}

// left finds what should be gone: members that no pod of the update revision runs or that are not running, other pods
// and other sets.
func (r *run) left(ctx context.Context, s *sampler) (leftovers []string, err error) {
	emqx := r.observer.latest()
	revision := emqx.Status.CoreNodesStatus.UpdateRevision
	pods := r.observer.present()
	at := slices.IndexFunc(pods, func(pod podFacts) bool { return pod.revision == revision })
	if at < 0 {
		return nil, fmt.Errorf("no pod of revision %s is there", revision)
	}
	members, err := s.members(ctx, pods[at])
	if err != nil {
		return nil, err
	}
	expected := map[string]bool{}
	for _, pod := range pods {
		if pod.revision == revision {
			expected[emqx.CoreNodeName(pod.name)] = true
		} else {
			leftovers = append(leftovers, "pod "+pod.name)
		}
	}
	for _, m := range members {
		if !expected[m.Node] || m.Status != "running" {
			leftovers = append(leftovers, fmt.Sprintf("member %s (%s)", m.Node, m.Status))
		}
	}
	return append(leftovers, r.observer.otherSets(emqx.CoreSetName(revision))...), nil
}

// otherSets names the sets of the resource but one.
func (o *observer) otherSets(but string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var others []string
	for set := range o.sets {
		if set != but {
			others = append(others, "set "+set)
		}
	}
	slices.Sort(others)
	return others
}

// evacuationKeys are the keys that EMQX's documentation shows of an evacuation.
func evacuationKeys() []string {
	return []string{
		"node", "state", "stats", "session_recipients", "session_goal", "session_eviction_rate", "connection_goal",
		"connection_eviction_rate", "stats.initial_sessions", "stats.initial_connected", "stats.current_sessions", "stats.current_connected",
	}
}

// watchKeys reads the status as it stands in JSON, each time it changes while clients move, until ctx ends, and
// returns which documented keys were missing. Only that shows whether a key is there: to Go a missing number is zero.
func (r *run) watchKeys(ctx context.Context) (seen int, missing []string, err error) {
	absent := map[string]bool{}
	var last string
	for {
		err := r.observer.wait(ctx, func() bool {
			emqx := r.observer.emqx
			return emqx.Status.Phase == v2beta1.PhaseEvacuating && len(emqx.Status.NodeEvacuationsStatus) > 0 && emqx.ResourceVersion != last
		})
		if err != nil {
			break // The upgrade is over.
		}
		raw, err := r.emqx.AppsV2beta1().RESTClient().Get().Namespace(r.namespace).Resource("emqxes").Name(r.name).DoRaw(ctx)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return seen, nil, fmt.Errorf("read the status: %w", err)
		}
		last = r.observer.latest().ResourceVersion
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
