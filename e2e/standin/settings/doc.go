// Package settings is the configuration of an EMQX stand-in: what EMQX reads from its files, from the environment and
// from changes by API, kept as a tree, and what the stand-in takes from it.
//
// The order is EMQX's: base.hocon, then changes made by API, then emqx.conf, then EMQX_* variables. The tree is kept
// as data; the stand-in acts on the node's name, cookie, data directory and role, the cluster's discovery, the
// listeners, the dashboard's port, the API key file and the licence. Everything else is told back as it was given.
package settings
