// Package controlplane makes the files of a Kubernetes control plane and starts its programs as ordinary processes:
// etcd, kube-apiserver, kube-controller-manager and kube-scheduler, all from one multi-call binary.
//
// It is a real control plane set up for one machine and for speed: etcd does not sync its files to disk, nothing
// elects leaders, and the controllers that need a cloud or metrics, or attach and resize volumes, are off. What decides what a workload may
// do is as in a real cluster: RBAC, projected service-account tokens, the default admission plugins with Pod Security.
package controlplane
