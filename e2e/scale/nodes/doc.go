// Package nodes fakes the EMQX nodes of many clusters in one process: each node listens on an address of its own and answers
// what the operator asks as the stand-in does, which a test checks. Evacuations run by the stand-in's own state machine.
//
// Clients are numbers. They come and go all the time; those that an evacuation evicts, or that lose their node, come back a
// moment later at one of the nodes that the listeners Service leads to, with their sessions.
//
// What a real node does and these do not: a node joins its cluster at once when it starts, without a restart of its
// applications, never freezes, and has the listeners of EMQX's default configuration whatever its own says.
package nodes
