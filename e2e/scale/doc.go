// Package scale measures the operator with many EMQX clusters: a real kube-apiserver, the operator's own program, and fakes of
// everything else. docs/scale.md says what each figure means.
//
// Package nodes fakes the EMQX nodes, package controllers what acts on Kubernetes objects, package gauge measures.
package scale
