package probing

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/probe"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

// Exec runs a command in a container and returns what it printed and its exit code.
type Exec func(ctx context.Context, command []string) (output string, code int, err error)

// Target is the container to be probed.
type Target struct {
	Container *corev1.Container
	// Address is where the pod listens.
	Address string
	// Exec runs commands for exec probes.
	Exec Exec
}

// Prober performs single probes. Make it with New.
type Prober struct {
	http httpprobe.Prober
	tcp  tcpprobe.Prober
}

// New returns a Prober.
func New() *Prober { return &Prober{http: httpprobe.New(false), tcp: tcpprobe.New()} }

// Once performs the probe; message says why it failed.
func (p *Prober) Once(ctx context.Context, spec *corev1.Probe, target Target) (success bool, message string) {
	timeout := time.Duration(max(spec.TimeoutSeconds, 1)) * time.Second
	var result probe.Result
	var err error
	switch {
	case spec.HTTPGet != nil:
		result, message, err = p.httpGet(ctx, spec.HTTPGet, target, timeout)
	case spec.TCPSocket != nil:
		result, message, err = p.tcpSocket(spec.TCPSocket, target, timeout)
	case spec.Exec != nil:
		result, message, err = execute(ctx, spec.Exec, target, timeout)
	default:
		return false, "the local node agent performs httpGet, tcpSocket and exec probes only"
	}
	if err != nil {
		return false, err.Error()
	}
	return result == probe.Success || result == probe.Warning, message
}

// HTTPGet performs the request of a lifecycle hook; an answer of 400 or more is an error.
func (p *Prober) HTTPGet(ctx context.Context, action *corev1.HTTPGetAction, target Target, timeout time.Duration) error {
	result, message, err := p.httpGet(ctx, action, target, timeout)
	if err == nil && result != probe.Success && result != probe.Warning {
		err = errors.New(message)
	}
	return err
}

func (p *Prober) httpGet(
	ctx context.Context, action *corev1.HTTPGetAction, target Target, timeout time.Duration,
) (probe.Result, string, error) {
	local := *action
	local.Host = loopback(action.Host)
	request, err := httpprobe.NewRequestForHTTPGetAction(&local, target.Container, target.Address, "probe")
	if err != nil {
		return probe.Unknown, "", err
	}
	return p.http.Probe(request.WithContext(ctx), timeout)
}

func (p *Prober) tcpSocket(action *corev1.TCPSocketAction, target Target, timeout time.Duration) (probe.Result, string, error) {
	port, err := probe.ResolveContainerPort(action.Port, target.Container)
	if err != nil {
		return probe.Unknown, "", err
	}
	host := loopback(action.Host)
	if host == "" {
		host = target.Address
	}
	return p.tcp.Probe(host, port, timeout)
}

// loopback maps a host that is an address of the pod network to where it listens.
func loopback(host string) string {
	if address, err := netip.ParseAddr(host); err == nil {
		if mapped, err := network.ToLoopback(address); err == nil {
			return mapped.String()
		}
	}
	return host
}

func execute(ctx context.Context, action *corev1.ExecAction, target Target, timeout time.Duration) (probe.Result, string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	output, code, err := target.Exec(ctx, action.Command)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return probe.Failure, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(action.Command, " "), timeout), nil
	case err != nil:
		return probe.Failure, err.Error(), nil
	case code != 0:
		return probe.Failure, strings.TrimSpace(output), nil
	}
	return probe.Success, output, nil
}

// Result is one result of a running probe.
type Result struct {
	Kind    Kind
	Success bool
	// Message says why it failed.
	Message string
	// Verdict is what the results so far amount to.
	Verdict Verdict
	// Reached is as returned by Threshold.Observe.
	Reached bool
}

// Run probes again and again, from start on, and reports every result, until the context ends, a startup probe has
// decided, or a liveness probe has failed for good.
func (p *Prober) Run(ctx context.Context, kind Kind, spec *corev1.Probe, target Target, start time.Time, report func(Result)) {
	threshold := NewThreshold(kind, spec)
	delay := time.NewTimer(time.Until(start.Add(time.Duration(spec.InitialDelaySeconds) * time.Second)))
	defer delay.Stop()
	select {
	case <-ctx.Done():
		return
	case <-delay.C:
	}
	ticker := time.NewTicker(time.Duration(max(spec.PeriodSeconds, 1)) * time.Second)
	defer ticker.Stop()
	for {
		success, message := p.Once(ctx, spec, target)
		if ctx.Err() != nil {
			return
		}
		verdict, reached := threshold.Observe(success)
		report(Result{Kind: kind, Success: success, Message: message, Verdict: verdict, Reached: reached})
		if reached && (kind == Startup || (kind == Liveness && verdict == Failing)) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
