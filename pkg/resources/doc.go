// Package resources renders the Kubernetes objects of an EMQX cluster. Every function is pure: the same resource gives
// the same object. The objects keep the names and labels that users' scripts, dashboards and network policies know.
package resources
