// Package localkube runs a Kubernetes cluster on this machine without containers: a real control plane and one node
// whose agent runs each container as a process. See the packages controlplane, agent and network for how, and state
// for what lies in a cluster's directory.
//
// It needs Linux, no root and no container engine, and no packet leaves the loopback interface. Clusters in different
// directories are independent of one another.
package localkube
