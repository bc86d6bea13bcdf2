// Package state is what a local cluster remembers in its directory: which networks, ports and processes are its own,
// and where its files are. It also keeps the directories of several clusters apart, by a lock per directory and a
// register of the networks in use.
//
// The directory of a cluster:
//
//	cluster.json        this state; its presence means that the cluster is up, or was when the machine stopped
//	admin.kubeconfig    full rights
//	pki/ etcd/ run/     keys and certificates, the data of etcd, configuration of components
//	pods/UID/           volumes and root directories of pods
//	logs/               a file a component, logs/pods/NAMESPACE_NAME_UID/CONTAINER/N.log for containers
//	audit.log           the requests of service accounts to kube-apiserver
package state
