// Package volumes makes the volumes of a local cluster: a directory each, on a path that every node has.
//
// A claim of the StorageClass gets a volume when its first pod is scheduled (WaitForFirstConsumer). So do the provisioners
// of local volumes that kind and k3s bring: a directory lies on a node, and only the scheduler can say which one. Here any
// node would do, but pods and claims then become ready in the same order as elsewhere.
//
// The claim's controllers are those of Kubernetes. They say when a claim is to be provisioned, bind it to the volume that
// is made here, and call the volume released when the claim is gone. What is left is to make and to remove directories.
//
// Volumes cannot be resized: the StorageClass does not allow it, so that the API refuses a claim that grows. A directory
// has no size anyway; the capacity is only a number that the claim asked for.
package volumes
