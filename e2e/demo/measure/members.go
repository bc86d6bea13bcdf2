package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

const maxMembersBytes = 1 << 20

// member is a node of EMQX as another lists it.
type member struct {
	Node   string `json:"node"`
	Status string `json:"node_status"`
}

// members asks the node of a pod for all members of its cluster, stopped ones among them.
func (s *Sampler) members(ctx context.Context, pod podFacts) ([]member, error) {
	address, err := s.apiAddress(pod)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/api/v5/nodes", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its members: %w", pod.name, err)
	}
	request.SetBasicAuth(s.credentials().Key, s.credentials().Secret)
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
func (s *Sampler) left(ctx context.Context) (leftovers []string, err error) {
	resource := s.observer.Latest()
	revision := resource.Status.CoreNodesStatus.UpdateRevision
	pods := s.observer.present()
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
			expected["emqx@"+pod.name+"."+resource.NodeDomain()] = true
		} else {
			leftovers = append(leftovers, "pod "+pod.name)
		}
	}
	for _, m := range members {
		if !expected[m.Node] || m.Status != "running" {
			leftovers = append(leftovers, fmt.Sprintf("member %s (%s)", m.Node, m.Status))
		}
	}
	sites, err := s.sites(ctx, pods[at])
	if err != nil {
		return nil, err
	}
	for _, site := range sites {
		if !expected[site.Node] {
			leftovers = append(leftovers, fmt.Sprintf("site %s of %s", site.ID, site.Node))
		}
	}
	return append(leftovers, s.observer.otherSets(resource.CoreSetName(revision))...), nil
}

// sites asks the node of a pod for the sites of durable storage; none where there is no such thing.
func (s *Sampler) sites(ctx context.Context, pod podFacts) ([]emqx.Site, error) {
	address, err := s.apiAddress(pod)
	if err != nil {
		return nil, err
	}
	storage, err := s.client.Storage(ctx, emqx.Node{Name: pod.name, URL: address}, s.credentials())
	if errors.Is(err, emqx.ErrStorageDisabled) {
		return nil, nil
	}
	return storage.Sites, err
}

// otherSets names the sets of the resource but one.
func (o *Observer) otherSets(but string) []string {
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
