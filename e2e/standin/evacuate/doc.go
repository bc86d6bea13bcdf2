// Package evacuate is node evacuation and rebalancing as EMQX does it: the eviction agent that refuses clients, the
// state machine of an evacuation with its ticks and waits, its file that survives a restart, and the rebalancing of a
// whole cluster.
//
// Machine is the state machine alone: the time comes in as an argument and it acts on a World, so that it can be tested
// without a clock and without a node. Service runs it on a node, one step after the other. While a tick moves sessions,
// nothing is answered, neither stop nor status: this is why EMQX's global status can leave out a node that is busy.
package evacuate
