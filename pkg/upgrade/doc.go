// Package upgrade is the state machine that brings an EMQX cluster from one revision to the next.
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
// One sync of one key reads like the list of its files:
//
//	gather.go    caches and the last observation of EMQX  → Snapshot   values only
//	guards.go    Deleted, Invalid, Superseded, Paused, DeadlineExceeded
//	phase_*.go   what the phase waits for, does and leads to → Decision  pure
//	execute.go   the Decision's actions on Kubernetes; the goal goes to the driver of EMQX
//	status.go    the status that Snapshot and Decision amount to, written once and only when it differs
//	events.go, metrics.go   what people and Prometheus are told, after the status was written
//
// Three laws make it safe to be killed at any moment. A handler advances only when the Snapshot already shows what the
// phase was to bring about, so that it never acts and advances in one sync. Writes carry absolute values. Everything
// that must be remembered is on the objects, as absolute times.
package upgrade
