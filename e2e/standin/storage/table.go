package storage

import (
	"maps"
	"slices"
)

// Status is how a site is, by EMQX's name.
type Status string

// A site's node runs, is stopped, or is no member of the cluster.
const (
	Up   Status = "up"
	Down Status = "down"
	Lost Status = "lost"
)

// Statuses tells the status of a node.
type Statuses func(node string) Status

// Site is where replicas are. A forgotten one stays in the table, so that nodes that were away learn of it.
type Site struct {
	Node      string `json:"node"`
	Forgotten bool   `json:"forgotten,omitempty"`
	Version   int64  `json:"version"`
}

// Set is a set of sites, sorted.
type Set struct {
	Sites   []string `json:"sites"`
	Version int64    `json:"version"`
}

// Shard is a part of a database. Replicas and target have versions of their own, because different nodes change them.
type Shard struct {
	Replicas Set `json:"replicas"`
	Target   Set `json:"target"` // without sites: nobody has asked for a change
}

// Options is how a database is made. They are those of the node that made it.
type Options struct {
	Shards      int `json:"nShards"`
	Sites       int `json:"nSites"` // how many must be known before replicas are allocated
	Replication int `json:"replicationFactor"`
}

// Database is one database. It has no shards before replicas are allocated.
type Database struct {
	Options Options          `json:"options"`
	Shards  map[string]Shard `json:"shards"`
	Version int64            `json:"version"` // of the options
}

// Table is everything that the nodes of a cluster know of durable storage.
type Table struct {
	Sites     map[string]Site     `json:"sites"`
	Databases map[string]Database `json:"databases"`
}

// NewTable is a table without anything.
func NewTable() Table { return Table{Sites: map[string]Site{}, Databases: map[string]Database{}} }

// Merge takes over what is newer in another table, and reports whether anything was.
func (t Table) Merge(other Table) bool {
	changed := false
	for id, theirs := range other.Sites {
		if mine, known := t.Sites[id]; !known || theirs.Version > mine.Version {
			t.Sites[id], changed = theirs, true
		}
	}
	for name, theirs := range other.Databases {
		mine := t.Databases[name]
		if mine.Shards == nil {
			mine.Shards, changed = map[string]Shard{}, true
		}
		if theirs.Version > mine.Version {
			mine.Options, mine.Version, changed = theirs.Options, theirs.Version, true
		}
		for id, shard := range theirs.Shards {
			merged, newer := mine.Shards[id].merge(shard)
			mine.Shards[id], changed = merged, changed || newer
		}
		t.Databases[name] = mine
	}
	return changed
}

func (s Shard) merge(other Shard) (Shard, bool) {
	changed := false
	if other.Replicas.Version > s.Replicas.Version {
		s.Replicas, changed = other.Replicas, true
	}
	if other.Target.Version > s.Target.Version {
		s.Target, changed = other.Target, true
	}
	return s, changed
}

// part is a table of one shard, to be told to others.
func part(database, shard string, s Shard) Table {
	t := NewTable()
	t.Databases[database] = Database{Shards: map[string]Shard{shard: s}}
	return t
}

// Known lists the sites that are not forgotten, sorted.
func (t Table) Known() []string {
	var ids []string
	for id, site := range t.Sites {
		if !site.Forgotten {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Of lists the known sites of a node.
func (t Table) Of(node string) []string {
	return slices.DeleteFunc(t.Known(), func(id string) bool { return t.Sites[id].Node != node })
}

// status is that of a site. One that is not known is lost.
func (t Table) status(id string, of Statuses) Status {
	site, known := t.Sites[id]
	if !known || site.Forgotten {
		return Lost
	}
	return of(site.Node)
}

// Names lists the databases, sorted.
func (t Table) Names() []string { return slices.Sorted(maps.Keys(t.Databases)) }

// IDs lists a database's shards in EMQX's order: that of texts, so that 10 comes before 2.
func (d Database) IDs() []string { return slices.Sorted(maps.Keys(d.Shards)) }

// Replicas lists the sites that have replicas of a database, sorted.
func (d Database) Replicas() []string {
	return d.union(func(s Shard) []string { return s.Replicas.Sites })
}

// Targets lists the sites that will have replicas of a database, sorted.
func (d Database) Targets() []string { return d.union(Shard.targets) }

func (d Database) union(of func(Shard) []string) []string {
	sites := []string{}
	for _, shard := range d.Shards {
		sites = append(sites, of(shard)...)
	}
	slices.Sort(sites)
	return slices.Compact(sites)
}

func (s Shard) targets() []string {
	if len(s.Target.Sites) == 0 {
		return s.Replicas.Sites
	}
	return s.Target.Sites
}
