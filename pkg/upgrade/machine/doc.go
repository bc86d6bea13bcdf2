// Package machine is the pure part of the operator: the state machine that brings an EMQX cluster from one revision to
// the next, as functions of values.
//
//	        nothing to change
//	   ┌───────────────────────────────────────────────────────────┐
//	   │                                                           ▼
//	Pending ──► Provisioning ──► Switching ──► Evacuating ──► ScalingDown ──► Done
//	   ▲             ▲               │                                         │
//	   │             └───────────────┘ new nodes no longer ready               │
//	   └───────────────────────────────────────────────────────────────────────┘
//	     the specification or the world changes (from every phase)
//
// Its face is small:
//
//	TargetOf    the revision that a resource asks for, and how many nodes of it
//	Decide      Snapshot → Decision: guards → handler of the phase → upkeep → drain → deadline → rebalance
//	StatusOf    the status that Snapshot and Decision amount to
//	EventsOf    what people are told when that status has been written
//
// A file a phase says what the phase waits for, does and leads to. Rules that several phases share stand in files named
// after the rule: readiness, services, clients, leaving, storage, claims, delayed, licence, inplace, drain, letgo, rebalance; byhand,
// cookies, gone, keys and lostdisk for what happens to a cluster at any time. Nothing here asks a clock, a cache or a client; a test
// checks what is imported.
package machine
