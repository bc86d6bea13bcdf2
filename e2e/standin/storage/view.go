package storage

import "slices"

// SiteView is what the API tells of a site.
type SiteView struct {
	Node   string          `json:"node"`
	Up     bool            `json:"up"`
	Shards []SiteShardView `json:"shards"`
}

// SiteShardView is a shard of which the site has a replica, or will.
type SiteShardView struct {
	Storage    string `json:"storage"`
	ID         string `json:"id"`
	Status     Status `json:"status"`
	Transition string `json:"transition,omitempty"`
}

// DatabaseView is what the API tells of a database.
type DatabaseView struct {
	Name   string      `json:"name"`
	Shards []ShardView `json:"shards"`
}

// ShardView is one shard with its replicas and what is pending.
type ShardView struct {
	ID          string           `json:"id"`
	Replicas    []ReplicaView    `json:"replicas"`
	Transitions []TransitionView `json:"transitions,omitempty"`
}

// ReplicaView is a replica.
type ReplicaView struct {
	Site   string `json:"site"`
	Status Status `json:"status"`
}

// TransitionView is a site that joins or leaves.
type TransitionView struct {
	Site       string `json:"site"`
	Transition string `json:"transition"`
}

// site shows a site. Transitions are told by 6.0 and later only.
func (t Table) site(id string, of Statuses, transitions bool) SiteView {
	node := t.Sites[id].Node
	status := of(node)
	v := SiteView{Node: node, Up: status == Up, Shards: []SiteShardView{}}
	for _, name := range t.Names() {
		d := t.Databases[name]
		for _, shardID := range d.IDs() {
			shard := d.Shards[shardID]
			word := ""
			if transitions {
				for _, step := range t.plan(shard, of) {
					if step.Site == id {
						word = step.Word()
					}
				}
			}
			if word != "" || slices.Contains(shard.Replicas.Sites, id) {
				v.Shards = append(v.Shards, SiteShardView{Storage: name, ID: shardID, Status: status, Transition: word})
			}
		}
	}
	return v
}

// database shows a database. As recorded, the replicas of a shard are in falling order.
func (t Table) database(name string, of Statuses, transitions bool) DatabaseView {
	d := t.Databases[name]
	v := DatabaseView{Name: name, Shards: []ShardView{}}
	for _, id := range d.IDs() {
		shard := ShardView{ID: id, Replicas: []ReplicaView{}}
		for _, site := range slices.Backward(d.Shards[id].Replicas.Sites) {
			shard.Replicas = append(shard.Replicas, ReplicaView{Site: site, Status: t.status(site, of)})
		}
		if transitions {
			for _, step := range t.plan(d.Shards[id], of) {
				shard.Transitions = append(shard.Transitions, TransitionView{Site: step.Site, Transition: step.Word()})
			}
		}
		v.Shards = append(v.Shards, shard)
	}
	return v
}
