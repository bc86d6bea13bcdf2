// Package probing runs the probes of a container with the kubelet's own probers, against the loopback address of its
// pod, and decides from their results when a container has started, is ready or must be restarted.
//
// What differs from a kubelet: gRPC probes are refused, and the first probe comes exactly initialDelaySeconds after the
// container's start instead of at the next multiple of the period.
package probing
