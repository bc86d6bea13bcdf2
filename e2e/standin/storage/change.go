package storage

import (
	"slices"
	"strings"
)

// RefusalError is why a change is refused, in EMQX's words.
type RefusalError struct{ Text string }

// Error is EMQX's text.
func (e *RefusalError) Error() string { return e.Text }

// Refusals that depend on nothing else.
var (
	ErrNotMember   = &RefusalError{"Site is not part of replica set"}
	ErrTooSmall    = &RefusalError{"Replica sets would become too small"}
	ErrUnknownSite = &RefusalError{"Unknown site"}
	ErrSiteUp      = &RefusalError{"Site is up and running"}
	ErrSiteDown    = &RefusalError{"Site is considered temporarily down"}
)

func refused(text string, names []string) error {
	return &RefusalError{text + strings.Join(names, ", ")}
}

// assign stores the targets that lead a database to the given sites and returns what is new.
func (t Table) assign(name string, sites []string, of Statuses, version int64) (Table, error) {
	if len(sites) == 0 {
		return Table{}, ErrTooSmall
	}
	known := t.Known()
	var unknown, lost []string
	for _, site := range sites {
		switch {
		case !slices.Contains(known, site):
			unknown = append(unknown, site)
		case t.status(site, of) == Lost:
			lost = append(lost, site)
		}
	}
	if len(unknown) > 0 {
		return Table{}, refused("Unknown sites: ", unknown)
	}
	if len(lost) > 0 {
		return Table{}, refused("Replication still targets lost sites: ", lost)
	}
	sites = slices.Compact(slices.Sorted(slices.Values(sites)))
	change := NewTable()
	d := t.Databases[name]
	shards := map[string]Shard{}
	for id, targets := range allocate(d.IDs(), sites, d.Options.Replication) {
		shards[id] = Shard{Target: Set{Sites: targets, Version: max(version, d.Shards[id].Target.Version+1)}}
	}
	change.Databases[name] = Database{Shards: shards}
	t.Merge(change)
	return change, nil
}

// modify lets one site join or leave a database.
func (t Table) modify(name string, step Step, of Statuses, version int64) (Table, error) {
	before := t.Databases[name].Targets()
	after := step.apply(before)
	if !slices.Equal(before, after) {
		return t.assign(name, after, of, version)
	}
	if !step.Joining {
		return Table{}, ErrNotMember
	}
	return NewTable(), nil
}

// forget takes a site out of the table, if it is lost and nothing is left of it.
func (t Table) forget(id string, of Statuses, version int64) (Table, error) {
	site, known := t.Sites[id]
	if !known || site.Forgotten {
		return Table{}, ErrUnknownSite
	}
	switch of(site.Node) {
	case Up:
		return Table{}, ErrSiteUp
	case Down:
		return Table{}, ErrSiteDown
	case Lost:
	}
	var holds, targets []string
	for _, name := range t.Names() {
		d := t.Databases[name]
		if slices.Contains(d.Replicas(), id) {
			holds = append(holds, name)
		} else if slices.Contains(d.Targets(), id) {
			targets = append(targets, name)
		}
	}
	if len(holds) > 0 {
		return Table{}, refused("Site is still a member of replica sets of: ", holds)
	}
	if len(targets) > 0 {
		return Table{}, refused("Site is still a target of replica set transitions in: ", targets)
	}
	change := NewTable()
	change.Sites[id] = Site{Node: site.Node, Forgotten: true, Version: max(version, site.Version+1)}
	t.Merge(change)
	return change, nil
}

// claim writes a node's name beside its site. Another site that has the name already is in the way.
func (t Table) claim(id, node string, version int64) (Table, error) {
	change := NewTable()
	owners := t.Of(node)
	if slices.Equal(owners, []string{id}) {
		return change, nil
	}
	if len(owners) > 0 {
		return change, refused("conflicting_node_site: ", owners)
	}
	change.Sites[id] = Site{Node: node, Version: max(version, t.Sites[id].Version+1)}
	t.Merge(change)
	return change, nil
}

// open makes a database unless it is there, and allocates its replicas when enough sites are members.
func (t Table) open(name string, o Options, of Statuses, version int64) Table {
	change := NewTable()
	d, there := t.Databases[name]
	if !there {
		d = Database{Options: o, Version: version}
	}
	if len(d.Shards) > 0 {
		return change
	}
	sites := slices.DeleteFunc(t.Known(), func(id string) bool { return t.status(id, of) == Lost })
	shards := map[string]Shard{}
	if len(sites) >= max(d.Options.Sites, 1) {
		for id, replicas := range allocate(shardIDs(d.Options.Shards), sites, d.Options.Replication) {
			shards[id] = Shard{Replicas: Set{Sites: replicas, Version: version}}
		}
	}
	if there && len(shards) == 0 {
		return change
	}
	change.Databases[name] = Database{Options: d.Options, Version: d.Version, Shards: shards}
	t.Merge(change)
	return change
}
