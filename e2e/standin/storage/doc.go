// Package storage is the replication of EMQX's durable storage as a stand-in has it: which node keeps a replica of which
// part of which database, and how that changes. There are no data: a replica is an entry in a table.
//
// # The table
//
// A site is where replicas are: an id in the node's data directory, with the name of the node that claimed it. A database
// has shards, each of them has replicas on some sites and perhaps a target: the sites that somebody has asked for. The
// status of a site follows from its node's name alone: up, down, or lost when there is no such member. Nodes tell each
// other every change, and the whole table when they connect; the later of two entries counts. Table is all that, without
// a clock and without a network.
//
// # Changes
//
// A change of a database stores targets and returns. Then each shard goes there one step after the other: lost sites leave
// first, then sites join and leave in turn. Who joins and who leaves does it by itself, and not without more than half of the
// shard's replicas; for a site that does not leave by itself one of the other nodes removes it, much later, also without
// them. Service does these steps on a node.
package storage
