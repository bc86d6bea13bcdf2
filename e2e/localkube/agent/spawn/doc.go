// Package spawn starts the processes of containers and ends them.
//
// A container is a process group. Its main process is killed by the kernel when the node agent dies, and when the main
// process ends the rest of the group is killed, as the end of a container's first process ends the container. What has
// left the group is found by a variable of its environment.
package spawn
