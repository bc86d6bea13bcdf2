// Package realnode runs a Kubernetes cluster with real nodes on one machine, without a container engine: kubelet, containerd, runc,
// CNI and kube-proxy in a box for each node, beside the control plane of the package localkube, with CoreDNS and a provisioner
// of volumes. It needs root and some Debian packages; see Lacking.
//
// All of it is in one box, in which Enter runs a program. The program, or a test, calls Start there. When Enter's process ends,
// however it does, everything ends: the kernel takes the box away, and a keeper, which Enter starts before, removes what the
// kernel leaves. No packet leaves the box.
//
// The directory of a cluster, which is /mnt in the box:
//
//	cluster.json pki/ etcd/ run/ logs/ audit.log   as in the package state
//	bin/       the programs
//	images/    archives of images, imported by every node
//	volumes/   what the provisioner makes
//	NODE/      the node's own: /var, /tmp and configuration
package realnode
