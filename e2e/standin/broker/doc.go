// Package broker is the MQTT side of an EMQX stand-in node.
//
// github.com/mochi-mqtt/server speaks the protocol: it reads and writes packets, checks them, answers pings and
// keeps connections alive. Sessions and deliveries are this package's own, attached through the library's hooks,
// because they have to move between nodes: a channel is a client's place on this node, holding its session
// (package session) and, while the client is connected, its connection.
//
// # One session a client
//
// Whoever connects, moves or discards a client's session holds the client's lock, which lives on one node chosen
// from the client id (its home). The home also knows where the session is, so that a client that jumps between nodes
// faster than news travels is still found. When nodes disagree for a moment about who is home, two sessions may
// exist until their registrations meet; then the older one is discarded.
//
// As in EMQX, whoever takes the lock or gives it back waits for an answer of each of its keepers, which are more than
// half of the running members and three at most. One that is frozen costs 30 seconds each time, until it is given up:
// a client waits a minute for its CONNACK then, and a session that is moved takes a minute.
//
// # Takeover without a gap
//
// The new node asks the old one for the session; from then on the old node sets aside what arrives for it. The new
// node subscribes and waits until every node has confirmed that it knows (a sync). Then it tells the old node to end;
// the old node waits until everything that any node had sent to it before has arrived (a sync again), unsubscribes,
// and hands over what it had set aside. The new node puts that before what it received itself, without what both
// received. Nobody waits for a node that gives no signs of life: until it has confirmed, or is down, the old node keeps a
// ghost of the session, which forwards what that node, not knowing of the move, still sends here.
//
// # Publishing
//
// A message goes to the nodes that have a matching subscription, through a queue a node, so that a frozen node holds
// nobody up. PUBACK means: delivered to the sessions here and queued for the other nodes; Close sends the queues out.
// A queue that a frozen node has let grow to its bound (package link) drops messages for that node.
package broker
