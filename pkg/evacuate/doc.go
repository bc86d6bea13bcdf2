// Package evacuate talks with EMQX: a client of its HTTP API, and a driver for every cluster that brings EMQX to what
// the state machine decided and observes what it is like.
//
// The machine says what shall be (a Goal: which nodes are to be evacuated, at which rates, to which recipients, which
// are to serve, which members are to be gone). The driver converges towards it, within deadlines of its own, and
// publishes what it sees (an Observation). Nobody waits for it: no worker of the operator ever waits on an EMQX API.
//
// Each node is asked about itself, on its own address, by a goroutine of its own. EMQX answers questions about other
// nodes by calls among them: with one node frozen, a question about all takes half a minute on every node and leaves
// the frozen one out. What does not answer for itself is unknown, and unknown is not zero.
package evacuate
