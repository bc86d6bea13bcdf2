// Package evacuate has a driver for every cluster, which brings EMQX to what the state machine decided and observes what it is
// like; and what is decided from that alone: the plan of the rates, and the pace of evictions.
//
// The machine says what shall be (a Goal: which nodes are to be evacuated, at which rates, to which recipients, which
// are to serve, which members are to be gone). The driver converges towards it, within deadlines of its own, and
// publishes what it sees (an Observation). Nobody waits for it: no worker of the operator ever waits on an EMQX API.
//
// Each node is asked about itself, on its own address, when its timer says so or its goal changes. At rest nobody waits for it,
// and nodes take turns over all clusters. EMQX answers questions about other nodes by calls among them: with one node frozen, a
// question about all takes half a minute on every node and leaves the frozen one out. What does not answer for itself is
// unknown, and unknown is not zero.
package evacuate
