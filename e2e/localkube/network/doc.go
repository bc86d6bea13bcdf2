// Package network stands in for a cluster network, kube-proxy and cluster DNS on a machine where no packet leaves the
// loopback interface.
//
// A pod or Service has an address 10.x.y.z in the Kubernetes API, because kube-apiserver takes no loopback address
// there. That network does not exist: what has the address listens at 127.x.y.z. Three things lead from one to the
// other: a TCP listener for every Service port, an HTTP proxy, and everyone who maps the addresses themselves.
//
// What differs from kube-proxy: a Service port without ready endpoints refuses connections (kube-proxy falls back to
// endpoints that are terminating), session affinity is not kept, node ports, external addresses and UDP are not
// served, and a server sees 127.0.0.1 as its client's address. Established connections are left alone when their
// endpoint is no longer ready, as with kube-proxy.
package network

// Domain is the cluster's DNS domain.
const Domain = "cluster.local"
