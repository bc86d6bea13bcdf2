// Package link carries messages between the nodes of an EMQX stand-in cluster.
//
// Two nodes share one TCP connection, so everything one of them sends arrives at the other in the order it was
// sent: casts, calls and the replies to calls alike. Session takeover depends on that order (a reply that follows a
// message proves the message has arrived). Before anything else is read, both sides prove with a challenge that they
// know the cookie.
//
// A process that is killed resets its connections and is noticed at once. A process that is frozen keeps them: its
// peers notice only by its silence, hold what they send to it in a bounded queue, and give up after
// Config.PeerTimeout, as Erlang's distribution does.
package link
