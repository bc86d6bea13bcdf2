// Package proc names processes so that they can be signalled later, by another program, without ever hitting an
// innocent one: a process is its pid together with the time it was started, and a family of processes is everything
// that carries a given variable in its environment. It reads /proc.
package proc
