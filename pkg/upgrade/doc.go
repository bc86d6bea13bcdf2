// Package upgrade is the controller: it brings what is known of Kubernetes and EMQX before the state machine, and carries
// out what that decides.
//
// One sync of one key, in this order:
//
//	gather.go    caches and the last observation of EMQX  → Snapshot   values only
//	machine/     Snapshot → Decision   pure
//	execute.go   the Decision's groups of actions on Kubernetes; the goal goes to the driver of EMQX
//	controller.go  the status that they amount to, written once and only when it differs; then events
//	metrics.go     what Prometheus is told
//
// Three laws make it safe to be killed at any moment. A handler advances only when the Snapshot already shows what the
// phase was to bring about, so that it never acts and advances in one sync. Writes carry absolute values. Everything
// that must be remembered is on the objects, as absolute times.
package upgrade
