// Package scenarios has the tests that need real nodes: what kubelet, kube-proxy, CoreDNS and volumes really do under the operator
// and under EMQX. They share one cluster, in a box that the test's own process enters. Where there is no root, or a package is
// missing, they are skipped.
package scenarios
