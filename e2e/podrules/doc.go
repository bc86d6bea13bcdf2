// Package podrules has what kubelet does to pods, as far as the tests of the operator depend on it: the same pods are run by a
// real kubelet and by the node agent of the local cluster, and the API has to tell the same of both.
package podrules
