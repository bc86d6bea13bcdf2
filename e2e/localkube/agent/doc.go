// Package agent is the node agent of a local cluster: it registers a Node and runs the containers of the pods that are
// bound to it as processes.
//
// Each pod has a worker, a goroutine that alone owns what is known of the pod. Everything that takes time (starting a
// process, stopping one, probes, volumes) happens elsewhere and reports back to the worker's mailbox; after each
// message the worker compares what is with what should be, starts what is missing and hands the status to a publisher.
//
// The image of a container selects a command from the image table. The process is given a loopback address of its pod's
// own (LOCAL_POD_ADDRESS), a directory in which the volumes appear at their mount paths (LOCAL_POD_ROOT, also its
// working directory), the cluster's DNS server (LOCAL_DNS_ADDRESS), an HTTP proxy into the pod network, and, when it
// mounts a token for the API server, a kubeconfig that uses it (KUBECONFIG).
//
// What differs from a kubelet:
//   - There is no isolation: processes share the file system, the user, memory and processor of this machine, and
//     security contexts and resource limits have no effect. The Node offers more than the machine may have.
//   - Status is written by server-side apply, so that conditions of others (readiness gates) are left alone. The pod
//     controller of virtual-kubelet overwrites them, and deletes pods whose processes still run, which is why only its
//     node controller is used here.
//   - When the agent is killed, the kernel kills the main process of every container with it. An agent that starts
//     kills whatever is left of containers, and starts them again as restarts of the same pods.
//   - Sidecars (init containers that restart), ephemeral containers, exec, attach and port-forward, active deadlines,
//     node-pressure eviction and volumes other than claims that need storage are not there; pods that need the first or
//     last of these say so and wait.
//   - Claims get directories in the cluster's own directory, which package volumes makes as part of the agent.
package agent
