// Package measure watches an upgrade and measures whether it kept its promises. An Observer keeps what watches show, a
// Sampler asks the nodes for their clients, an Upgrade puts both together with the load, and Figures compare the result
// with the limits. It prints nothing and changes nothing in the cluster.
package measure
