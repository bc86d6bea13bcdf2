// Package demo upgrades an EMQX cluster, shows it live and measures whether the upgrade kept its promises: it starts
// a local cluster, installs the operator from its manifests, connects MQTT clients through the listeners Service,
// changes the specification, watches, and compares what it saw with the limits. Tests call Run and look at its Figures.
// Package measure measures, package show shows; this package ties them to a cluster and a load.
package demo
