// Package load is a load of MQTT 5 clients that shows whether an upgrade is felt: each has a persistent session, comes
// back by itself with jitter, and gets numbered QoS 1 messages. Every message that a broker acknowledged must arrive;
// what arrives twice is counted, what never arrives is lost.
package load
