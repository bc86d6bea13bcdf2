package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// options are the flags of the operator.
type options struct {
	kubeconfig         string
	namespaces         []string
	bindAddress        string
	metricsPort        int
	healthPort         int
	pprofAddress       string
	workers            int
	maxUpgrades        int
	logLevel           int
	logFormat          string
	kubeAPIQPS         float64
	kubeAPIBurst       int
	leaderElect        bool
	leaseNamespace     string
	leaseName          string
	leaseDuration      time.Duration
	leaseRenewDeadline time.Duration
	leaseRetryPeriod   time.Duration
	identity           string
}

const usage = `emqx-bg-operator upgrades EMQX clusters on Kubernetes by blue-green.

It watches EMQX resources (apps.emqx.io/v2beta1). When one changes at the level of its pods, it builds a second set of
nodes, points the Services at it, moves connections and sessions over at the rate that the resource allows, and removes
the first set. In a cluster it needs no flags: install it with "kubectl apply -k manifests/", and follow an upgrade with
"kubectl get emqx -w" and "kubectl describe emqx NAME".

  emqx-bg-operator [flags]     run the operator
  emqx-bg-operator version     say which build this is

To run it outside of a cluster, for one namespace, with readable logs:

  emqx-bg-operator --kubeconfig ~/.kube/config --namespaces default --log-format console --log-level 2

Flags:
`

// parseOptions reads the flags; the environment gives some of their defaults.
func parseOptions(args []string, env func(string) (string, bool), out io.Writer) (options, error) {
	fromEnv := func(name string) string {
		value, _ := env(name)
		return value
	}
	var o options
	var namespaces string
	flags := flag.NewFlagSet("emqx-bg-operator", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		_, _ = fmt.Fprint(out, usage) // There is nowhere else to say it.
		flags.PrintDefaults()
	}
	flags.StringVar(&o.kubeconfig, "kubeconfig", fromEnv("KUBECONFIG"), "`file` that says how to reach the API server; unset, the pod's own account is used (KUBECONFIG)")
	flags.StringVar(&namespaces, "namespaces", fromEnv("WATCH_NAMESPACE"), "namespaces to watch, separated by commas; unset, all (WATCH_NAMESPACE)")
	flags.StringVar(&o.bindAddress, "bind-address", "", "`address` that metrics and health are served on; unset, all")
	flags.IntVar(&o.metricsPort, "metrics-port", 8080, "`port` of /metrics")
	flags.IntVar(&o.healthPort, "health-port", 8081, "`port` of /livez and /readyz")
	flags.StringVar(&o.pprofAddress, "pprof-address", "", "loopback `address` and port, such as 127.0.0.1:6060, that Go's profiles are served on; unset, they are not")
	flags.IntVar(&o.workers, "workers", 8, "`number` of EMQX resources that are worked on at once; none of them waits for EMQX")
	flags.IntVar(&o.maxUpgrades, "max-concurrent-upgrades", 0, "`number` of clusters that are upgraded at the same time at most, the others wait; 0 means any")
	flags.IntVar(&o.logLevel, "log-level", 0, "how much to log: 0 transitions and errors, 2 actions, 4 syncs, 5 more")
	flags.StringVar(&o.logFormat, "log-format", "json", "`format` of the log: json or console")
	flags.Float64Var(&o.kubeAPIQPS, "kube-api-qps", 200, "requests a second to the API server, in the long run")
	flags.IntVar(&o.kubeAPIBurst, "kube-api-burst", 400, "requests to the API server at once")
	flags.BoolVar(&o.leaderElect, "leader-elect", true, "work only while holding the lease, so that several replicas can run")
	flags.StringVar(&o.leaseNamespace, "leader-election-namespace", fromEnv("POD_NAMESPACE"), "`namespace` of the lease (POD_NAMESPACE)")
	flags.StringVar(&o.leaseName, "leader-election-name", "emqx-bg-operator", "`name` of the lease")
	flags.StringVar(&o.identity, "leader-election-identity", fromEnv("POD_NAME"), "`name` of this replica in the lease; unset, made up (POD_NAME)")
	flags.DurationVar(&o.leaseDuration, "leader-election-lease-duration", 12*time.Second, "how long others wait for a leader that is silent")
	flags.DurationVar(&o.leaseRenewDeadline, "leader-election-renew-deadline", 8*time.Second, "how long the leader tries to renew before it gives up")
	flags.DurationVar(&o.leaseRetryPeriod, "leader-election-retry-period", time.Second, "time between two tries; those who do not lead wait up to 2.2 times as long")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	for name := range strings.SplitSeq(namespaces, ",") {
		if name = strings.TrimSpace(name); name != "" {
			o.namespaces = append(o.namespaces, name)
		}
	}
	return o, o.validate(flags.Args())
}

func (o options) validate(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unknown argument %q: try --help", rest[0])
	case o.maxUpgrades < 0:
		return fmt.Errorf("--max-concurrent-upgrades must not be negative: %d", o.maxUpgrades)
	case o.logFormat != "json" && o.logFormat != "console":
		return fmt.Errorf("--log-format must be json or console, not %q", o.logFormat)
	case o.pprofAddress != "" && !onLoopback(o.pprofAddress):
		return fmt.Errorf("--pprof-address must be a loopback address with a port, such as 127.0.0.1:6060, not %q: profiles tell what is in memory", o.pprofAddress)
	case o.workers < 1:
		return fmt.Errorf("--workers must be 1 or more, not %d", o.workers)
	case o.logLevel < 0:
		return fmt.Errorf("--log-level must be 0 or more, not %d", o.logLevel)
	case o.leaderElect && o.leaseNamespace == "":
		return errors.New("--leader-election-namespace is needed outside of a cluster; or switch --leader-elect off")
	case o.leaderElect && (o.leaseDuration <= o.leaseRenewDeadline || o.leaseRenewDeadline <= 2*o.leaseRetryPeriod || o.leaseRetryPeriod <= 0):
		return errors.New("--leader-election-lease-duration must be longer than --leader-election-renew-deadline, " +
			"and that longer than two of --leader-election-retry-period")
	}
	return nil
}

// onLoopback reports whether an address with a port can be reached from this machine only. Names are not resolved: what they
// lead to may change.
func onLoopback(address string) bool {
	parsed, err := netip.ParseAddrPort(address)
	return err == nil && parsed.Addr().IsLoopback()
}

// restConfig says how to reach the API server.
func (o options) restConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	config.QPS, config.Burst = float32(o.kubeAPIQPS), o.kubeAPIBurst
	config.UserAgent = "emqx-bg-operator"
	return config, nil
}
