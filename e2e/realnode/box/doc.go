// Package box runs a program in namespaces and cgroups of its own: mounts, processes, network, host name, IPC. A box ends with
// its first process, which ends with the process that started the box, however that one ends: no process, mount or interface
// of a box outlives it, because the kernel takes them away together. Cgroups do outlive it; RemoveCgroup removes them.
//
// A box has two processes of its own, both commands of the program that starts it. The joiner enters the cgroup, so that the
// namespaces have it as their root, and starts the first process, which makes the mounts, starts the box's program and
// collects processes that have lost their parent.
package box
