// Package session is the state of one MQTT session: its subscriptions, what waits to be sent, what is in flight and
// what was received but not released. It does no I/O, takes no lock and reads no clock; the broker does.
//
// The limits are EMQX's: 32 messages in flight (fewer if the client asks for it), 1000 in the queue, where the
// oldest makes room for the newest, and 100 received QoS 2 messages that wait for their release.
package session
