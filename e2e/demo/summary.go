package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

const leaseName = "emqx-bg-operator"

// printSummary prints the figures with their limits and the tables of requests.
func printSummary(out io.Writer, f *Figures) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "\nFIGURE\tMEASURED\tLIMIT\t")
	for _, check := range f.Checks {
		verdict := "ok"
		switch {
		case check.Limit == "":
			verdict = ""
		case !check.OK:
			verdict = "FAILED"
		}
		value, rest := wrap(check.Value)
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", check.Name, value, check.Limit, verdict)
		for _, line := range rest {
			_, _ = fmt.Fprintf(table, "\t%s\t\t\n", line)
		}
	}
	floor := f.Floor
	_, _ = fmt.Fprintf(table, "\nPHASE\tSECONDS\n")
	seconds := phaseSeconds(f.States, f.Patched, f.Ready)
	for _, change := range f.States[1:] {
		if change.State != "Ready" {
			_, _ = fmt.Fprintf(table, "%s\t%6.1f\n", change.State, seconds[change.Phase])
		}
	}
	_, _ = fmt.Fprintf(table, "\nFLOOR\tSECONDS\n")
	for _, part := range []struct {
		name    string
		seconds float64
	}{
		{"slowest new pod's start", floor.SlowestStartSeconds},
		{"initialDelaySeconds", floor.InitialDelaySeconds},
		{fmt.Sprintf("%s clients ÷ %s", count(f.Clients), count(f.ConnEvictRate)), floor.EvictionSeconds},
		{"waitTakeover", floor.WaitTakeoverSeconds},
		{"sessions left ÷ sessEvictRate", floor.SessionsSeconds},
		{"together", floor.Total()},
	} {
		_, _ = fmt.Fprintf(table, "%s\t%6.1f\n", part.name, part.seconds)
	}
	printRequests(table, "THE OPERATOR ASKED KUBE-APISERVER", f.KubeRequests)
	printRequests(table, "THE OPERATOR ASKED EMQX", f.EMQXRequests)
	_, _ = fmt.Fprintf(table, "\n%s\n", verdict(f))
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the summary: %w", err)
	}
	return nil
}

// valueWidth is how wide a measured value may be before it is broken.
const valueWidth = 36

// wrap breaks a long value between words.
func wrap(value string) (first string, rest []string) {
	var lines []string
	line := ""
	for _, word := range strings.Fields(value) {
		if line != "" && width0(line)+1+width0(word) > valueWidth {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	lines = append(lines, line)
	return lines[0], lines[1:]
}

func printRequests(out io.Writer, title string, requests []RequestCount) {
	_, _ = fmt.Fprintf(out, "\n%s\tTIMES\n", title)
	for _, request := range requests {
		_, _ = fmt.Fprintf(out, "%s\t%6d\n", strings.TrimSpace(request.Verb+" "+request.Resource), request.Count)
	}
	_, _ = fmt.Fprintf(out, "together\t%6d\n", total(requests))
}

func verdict(f *Figures) string {
	if f.OK() {
		return fmt.Sprintf("All figures hold: %s clients moved from %s to %s in %.1f s.", count(f.Clients), f.From, f.To, f.Seconds())
	}
	return "FAILED: " + strings.Join(f.Failed(), "; ")
}

// lookAround prints what can be done with a cluster that was left running.
func (r *run) lookAround(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	metrics := "http://ADDRESS:8080/metrics"
	if address, err := r.leaderAddress(ctx); err == nil {
		metrics = fmt.Sprintf("http://%s:%d/metrics", address, metricsPort)
	}
	program := shown(r.config.ClusterBinary)
	kubectl := fmt.Sprintf("%s kubectl --dir %s --", program, shown(string(r.dir)))
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
`, kubectl, r.name, documentedPatch(r.observer.latest()), metrics, program, shown(string(r.dir)), r.namespace, listenerPort)
}

// leaderAddress is where the operator's leader listens.
func (r *run) leaderAddress(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, kubectlTimeout)
	defer cancel()
	lease, err := r.kube.CoordinationV1().Leases(operatorNamespace).Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("find the leader: %w", err)
	}
	if lease.Spec.HolderIdentity == nil {
		return "", fmt.Errorf("the lease %s has no holder", leaseName)
	}
	pod, err := r.kube.CoreV1().Pods(operatorNamespace).Get(ctx, *lease.Spec.HolderIdentity, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("find the leader's pod: %w", err)
	}
	address, err := network.LoopbackOf(pod.Status.PodIP)
	return address.String(), err
}
