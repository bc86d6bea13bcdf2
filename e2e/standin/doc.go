// Package standin is a stand-in for EMQX: one node of a real MQTT broker, clustered with others over TCP, with as much of
// EMQX's management API as an operator uses. It is what runs in the pods of the local cluster.
//
// # Faithful
//
//   - MQTT 3.1.1 and 5: sessions with expiry, QoS 0 to 2, retained messages, wills, shared subscriptions, EMQX's
//     limits (32 in flight, 1000 queued, 1 MiB a packet) and what it tells in CONNACK.
//   - The cluster: membership that survives restarts, a first join that restarts the applications after /status was
//     already 200, takeover of sessions between nodes without losing a message, a client's one session.
//   - What is in the data directory: members, API keys, the configuration that was changed by API, an evacuation, and retained
//     messages when retainer.backend.storage_type is disc. It is ram by default, with which they are gone when all nodes are.
//     All but the configuration and the evacuation belong to the node's name. A node that was made to leave while it was down
//     does not start with its old data, and one that was not the last to stop waits for those that stopped after it.
//   - Evacuation and rebalance: states, ticks, waits, figures and when each of them changes, texts, persistence, and
//     what clients see.
//   - The HTTP framework's rules, authentication and roles, and how long each request takes while a node is frozen.
//   - What a frozen node does to clients of the others: connects and moves of sessions wait for it, a minute each.
//   - Changes of the configuration: what is refused, what a change resets, what it does to listeners and to clients, and
//     that it waits for a frozen node.
//   - Durable storage as far as its replicas go: sites, shards, who has replicas of them, how that is changed and what the
//     death of a node or of its disk does to it. A 6.0 has the databases of message queues unless mq.enable is false.
//   - The licences by release: before 5.9 the default is a trial of 25 sessions; since then it is a community licence, with
//     which a node that has joined others ends, and is listed as a stopped member from then on.
//
// A node takes about 45 MB, and 40 KB more for each connected client with one subscription.
//
// # Not faithful
//
//   - Replicants do not exist; a node with the role replicant refuses to start.
//   - Durable storage holds no data, and there are no durable sessions: with durable_sessions.enable sessions live in their
//     node's memory and are moved by an evacuation as ever, which an absent client elsewhere does not hold up. There are no
//     message queues; a database of them is there from the start, or with auto (6.2) never.
//   - A node has its site as soon as it has joined; EMQX takes 4 seconds and more.
//   - A replica takes the recorded time to move, whatever else goes on; a 5.8.9 tells nothing of it before it is done, a 6.0
//     tells what is pending. What a 6.0 does is read, not recorded: a node that comes back without its disk goes on without
//     a site, where a 5.8.9 ends, and the site of a node that was made to leave stays until it is forgotten by API.
//   - There is no authentication of MQTT clients, no rules, bridges, plugins or gateways. The configuration of such
//     things is kept as data.
//   - A session gets a message once, also where several of its subscriptions match.
//   - ssl and wss listeners present a certificate made at start, whatever is configured; quic is never running.
//   - A frozen node counts as stopped after 144 seconds, as recorded, and comes back as running 15 seconds after it
//     thaws: it connects again and announces its sessions; newer ones elsewhere win (EMQX with autoheal restarts its
//     applications).
//   - A restored evacuation refuses clients from the start; EMQX lets some in for a moment.
//   - Licence keys are not checked: at the start every text that is neither a key nor the name of one of EMQX's own counts as
//     official, and a new one by API must have the form of a key or begin with "official". Licences do not run out.
//   - Of the configuration's schema only some is known: the roots, the fields of mqtt, alarm, sysmon, sys_topics and license,
//     sizes, watermarks, log levels, listeners' addresses and authenticators. Everything else is taken as it is given.
//   - Of a listener that could not move to another address EMQX sometimes keeps a part that stands in the way of every later
//     change; here a later change to a free address always works.
package standin
