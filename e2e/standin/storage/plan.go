package storage

import (
	"slices"
	"strconv"
)

// Step is one site that joins or leaves a shard.
type Step struct {
	Site    string
	Joining bool
}

// Word is EMQX's name for what the site does.
func (s Step) Word() string {
	if s.Joining {
		return "joining"
	}
	return "leaving"
}

// Plan is the steps that lead a shard to its target, in their order: lost sites leave first, then sites join and leave in
// turn.
func (s Shard) Plan(lost func(site string) bool) []Step {
	var first, joins, leaves []Step
	for _, site := range s.targets() {
		if !slices.Contains(s.Replicas.Sites, site) {
			joins = append(joins, Step{Site: site, Joining: true})
		}
	}
	for _, site := range s.Replicas.Sites {
		switch {
		case slices.Contains(s.targets(), site):
		case lost(site):
			first = append(first, Step{Site: site})
		default:
			leaves = append(leaves, Step{Site: site})
		}
	}
	plan := first
	for i := range max(len(joins), len(leaves)) {
		if i < len(joins) {
			plan = append(plan, joins[i])
		}
		if i < len(leaves) {
			plan = append(plan, leaves[i])
		}
	}
	return plan
}

// apply is the replicas after a step.
func (s Step) apply(sites []string) []string {
	after := slices.DeleteFunc(slices.Clone(sites), func(site string) bool { return site == s.Site })
	if s.Joining {
		after = append(after, s.Site)
		slices.Sort(after)
	}
	return after
}

// allocate spreads replicas over sites: each shard has the next sites in their order, beginning one further than the shard
// before it.
func allocate(shards, sites []string, replication int) map[string][]string {
	shards, sites = slices.Sorted(slices.Values(shards)), slices.Sorted(slices.Values(sites))
	allocation := map[string][]string{}
	for i, shard := range shards {
		var replicas []string
		for j := range min(replication, len(sites)) {
			replicas = append(replicas, sites[(i+j)%len(sites)])
		}
		slices.Sort(replicas)
		allocation[shard] = replicas
	}
	return allocation
}

func shardIDs(n int) []string {
	ids := make([]string, 0, n)
	for i := range n {
		ids = append(ids, strconv.Itoa(i))
	}
	return ids
}

// plan is what is pending of one shard.
func (t Table) plan(s Shard, of Statuses) []Step {
	return s.Plan(func(site string) bool { return t.status(site, of) == Lost })
}

// reach counts a shard's replicas, those that are not lost, and those that are up.
func (t Table) reach(s Shard, of Statuses) (all, known, up int) {
	for _, site := range s.Replicas.Sites {
		switch t.status(site, of) {
		case Up:
			known, up = known+1, up+1
		case Down:
			known++
		case Lost:
		}
	}
	return len(s.Replicas.Sites), known, up
}

// agrees reports whether a site can join or leave: more than half of the replicas are up, or nobody is left to ask. Then the
// shard begins anew, without its data.
func (t Table) agrees(s Shard, of Statuses) bool {
	all, known, up := t.reach(s, of)
	return known == 0 || 2*up > all
}

// removes reports whether the others can take a site out. Without a majority they can do so with a lost one alone, once the
// majority cannot come back and all that are left are up.
func (t Table) removes(s Shard, site string, of Statuses) bool {
	all, known, up := t.reach(s, of)
	return t.agrees(s, of) || (t.status(site, of) == Lost && 2*known <= all && up == known)
}
