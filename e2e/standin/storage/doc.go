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
// first, then sites join and leave in turn. Who joins or leaves does it by itself; a site that does not leave by itself is
// removed by another node, much later. It takes more than half of the shard's replicas, but for lost sites: see
// Table.removes. Service does these steps on a node.
package storage
