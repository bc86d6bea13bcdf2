// Package controllers plays Kubernetes for EMQX clusters whose nodes are faked: the StatefulSet controller, the EndpointSlice
// controller, the scheduler, the kubelet and the garbage collector, as far as an EMQX cluster's objects need them. It acts on a
// real kube-apiserver, by watches and writes like theirs, so that what the operator sees and waits for is what it would be.
//
// A pod is made, is scheduled, and after a time its node starts and the containers are ready; it is Ready when the operator's
// readiness gate is True, too. A pod that is deleted ends its node and goes after another time.
package controllers
