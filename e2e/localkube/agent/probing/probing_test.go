package probing_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/probing"
)

func TestThreshold(t *testing.T) {
	for _, c := range []struct {
		reason              string
		kind                probing.Kind
		successes, failures int32
		results             string // + and -
		want                string // per result: P, F or U, in capitals when reached
	}{
		{reason: "readiness begins failing and passes at once", kind: probing.Readiness, successes: 1, failures: 3, results: "+", want: "P"},
		{reason: "readiness stays until enough failures in a row", kind: probing.Readiness, successes: 1, failures: 3, results: "+--+---", want: "PppPppF"},
		{reason: "readiness may need several successes", kind: probing.Readiness, successes: 2, failures: 1, results: "+-++-", want: "fFfPF"},
		{reason: "liveness begins passing", kind: probing.Liveness, successes: 1, failures: 2, results: "-+--", want: "pPpF"},
		{reason: "startup is undecided until a success", kind: probing.Startup, successes: 1, failures: 3, results: "--+", want: "uuP"},
		{reason: "or until it has failed for good", kind: probing.Startup, successes: 1, failures: 3, results: "---", want: "uuF"},
		{reason: "thresholds that are not set count as one", kind: probing.Liveness, results: "-", want: "F"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			threshold := probing.NewThreshold(c.kind, &corev1.Probe{SuccessThreshold: c.successes, FailureThreshold: c.failures})
			var got strings.Builder
			for _, result := range c.results {
				verdict, reached := threshold.Observe(result == '+')
				letter := string(verdict)[:1]
				if !reached {
					letter = strings.ToLower(letter)
				}
				got.WriteString(letter)
			}
			require.Equal(t, c.want, got.String())
		})
	}
}

// handlers of the probes under test.
func httpGet(port intstr.IntOrString, path string) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: port, Path: path}}
}

func TestOnce(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			return
		}
		status, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		w.WriteHeader(status)
	}))
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	target := probing.Target{
		Address:   "127.0.0.1",
		Container: &corev1.Container{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: int32(port)}}},
		Exec: func(ctx context.Context, command []string) (string, int, error) {
			if command[0] == "hang" {
				<-ctx.Done()
				return "", 0, ctx.Err()
			}
			code, _ := strconv.Atoi(command[0])
			return "said something\n", code, nil
		},
	}
	for _, c := range []struct {
		reason  string
		handler corev1.ProbeHandler
		success bool
		message string
	}{
		{reason: "200 by named port", handler: httpGet(intstr.FromString("http"), "/200"), success: true},
		{reason: "399 is success still", handler: httpGet(intstr.FromInt(port), "/399"), success: true},
		{reason: "503", handler: httpGet(intstr.FromString("http"), "/503"), message: "HTTP probe failed with statuscode: 503"},
		{reason: "no such port", handler: httpGet(intstr.FromString("mqtt"), "/200"), message: "mqtt"},
		{reason: "too slow", handler: httpGet(intstr.FromString("http"), "/slow"), message: "deadline exceeded"},
		{reason: "host of the pod network", success: true, handler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Host: "10.0.0.1", Port: intstr.FromString("http"), Path: "/200",
		}}},
		{reason: "TCP", handler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("http")}}, success: true},
		{reason: "TCP refused", handler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}}, message: "connection refused"},
		{reason: "exec", handler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"0"}}}, success: true},
		{reason: "exec fails", handler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"3"}}}, message: "said something"},
		{reason: "exec hangs", handler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"hang"}}}, message: "timed out after 1s"},
		{reason: "gRPC is not there", handler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1}}, message: "httpGet, tcpSocket and exec probes only"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			if c.reason == "host of the pod network" {
				// 127.0.0.1 is the twin of 10.0.0.1.
				target.Address = "127.0.0.2"
				defer func() { target.Address = "127.0.0.1" }()
			}
			success, message := probing.New().Once(t.Context(), &corev1.Probe{ProbeHandler: c.handler, TimeoutSeconds: 1}, target)
			require.Equal(t, c.success, success, message)
			if !c.success {
				require.Contains(t, message, c.message)
			}
		})
	}
}

// run runs an exec probe with the results in virtual time and returns when, in seconds after the start, each was
// reported.
func run(t *testing.T, kind probing.Kind, spec corev1.Probe, results string, limit time.Duration) (seconds []int, verdicts []probing.Verdict) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		next := 0
		spec.Exec = &corev1.ExecAction{Command: []string{"x"}}
		target := probing.Target{Exec: func(context.Context, []string) (string, int, error) {
			code := 0
			if next < len(results) && results[next] == '-' {
				code = 1
			}
			next++
			return "", code, nil
		}}
		start := time.Now()
		probing.New().Run(ctx, kind, &spec, target, start, func(result probing.Result) {
			seconds = append(seconds, int(time.Since(start)/time.Second))
			verdicts = append(verdicts, result.Verdict)
		})
	})
	return seconds, verdicts
}

func TestRunKeepsTimeAndEndsWhenDecided(t *testing.T) {
	seconds, verdicts := run(t, probing.Startup, corev1.Probe{InitialDelaySeconds: 3, PeriodSeconds: 2, FailureThreshold: 5}, "--+", time.Hour)
	require.Equal(t, []int{3, 5, 7}, seconds, "a startup probe ends with its first success")
	require.Equal(t, []probing.Verdict{probing.Undecided, probing.Undecided, probing.Passing}, verdicts)

	seconds, verdicts = run(t, probing.Liveness, corev1.Probe{PeriodSeconds: 10, FailureThreshold: 2}, "+--+", time.Hour)
	require.Equal(t, []int{0, 10, 20}, seconds, "a liveness probe ends when the container is to be restarted")
	require.Equal(t, probing.Failing, verdicts[2])

	seconds, _ = run(t, probing.Readiness, corev1.Probe{PeriodSeconds: 10, FailureThreshold: 1}, "-+-", 45*time.Second)
	require.Equal(t, []int{0, 10, 20, 30, 40}, seconds, "a readiness probe goes on")
}
