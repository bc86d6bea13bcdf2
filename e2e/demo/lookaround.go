package demo

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
)

const leaseName = "emqx-bg-operator"

// lookAround prints what can be done with a cluster that was left running.
func (r *run) lookAround(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	metrics := "http://ADDRESS:8080/metrics"
	if address, err := r.leaderAddress(ctx); err == nil {
		metrics = fmt.Sprintf("http://%s:%d/metrics", address, measure.MetricsPort)
	}
	program := shown(r.config.ClusterBinary)
	kubectl := fmt.Sprintf("%s kubectl --dir %s --", program, shown(string(r.target.Dir)))
	_, _ = fmt.Fprintf(r.config.Out, `
The cluster is left running. Look around with

  %[1]s get emqx -w
  %[1]s describe emqx %[2]s
  %[1]s patch emqx %[2]s --type=merge -p '%[3]s'
  %[1]s get pods -A
  curl %[4]s
  %[5]s load --to $(%[5]s endpoint --dir %[6]s %[7]s/%[2]s-listeners %[8]s) --clients 3000

and stop it with

  %[5]s down --dir %[6]s
`, kubectl, r.target.Name, documentedPatch(r.observer.Latest()), metrics, program, shown(string(r.target.Dir)), r.target.Namespace, listenerPort)
}

// leaderAddress is where the operator's leader listens.
func (r *run) leaderAddress(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, kubectlTimeout)
	defer cancel()
	lease, err := r.target.Kube.CoordinationV1().Leases(measure.OperatorNamespace).Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("find the leader: %w", err)
	}
	if lease.Spec.HolderIdentity == nil {
		return "", fmt.Errorf("the lease %s has no holder", leaseName)
	}
	pod, err := r.target.Kube.CoreV1().Pods(measure.OperatorNamespace).Get(ctx, *lease.Spec.HolderIdentity, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("find the leader's pod: %w", err)
	}
	address, err := r.target.State.Reach(pod.Status.PodIP)
	return address.String(), err
}
