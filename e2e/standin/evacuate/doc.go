// Package evacuate is node evacuation and rebalancing as EMQX does it: the eviction agent that refuses clients, the
// state machine of an evacuation with its ticks and waits, its file that survives a restart, and the rebalancing of a
// whole cluster.
//
// Machine is the state machine alone: it is told the time and acts on a World, so that it can be tested without
// either. Service runs it on a node, one step after the other: while a tick moves sessions nothing else is
// answered, neither stop nor status, which is why EMQX's global status can leave out a node that is busy.
package evacuate
