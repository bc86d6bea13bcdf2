// Package demo upgrades an EMQX cluster before one's eyes and measures whether the upgrade kept its promises: it starts
// a local cluster, installs the operator from its manifests, connects MQTT clients through the listeners Service,
// changes the specification, watches, and compares what it saw with the limits. Tests call Run and look at its Figures.
// Package measure has what measures, package show what is seen of it; this one ties them to a cluster and a load.
package demo
