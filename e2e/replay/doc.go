// Package replay sends recorded exchanges of a real EMQX cluster again, to other nodes, and compares the answers.
//
// A recording is a directory of JSON files: HTTP requests with their answers, packets that MQTT clients saw, timelines
// of states, and logs of faults. Many answers depend on a situation (which clients are connected, which node is
// stopped, which evacuation is going on); the scenario in this package makes it, step by step, in the order in which
// it was recorded. What is compared and what is not is in rules.go, and nowhere else.
//
// One recording can be replayed by itself, or a directory with a few: what the scenario did before is done again by the
// recordings that the project keeps, as far as it makes the situation, and only what was asked for is compared.
//
// Situations that need nodes to be started, stopped, killed or frozen need Control over them; without it the files
// that depend on them are skipped, with the reason. What cannot be replayed at all is in skips.go.
package replay
