package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func noEnv(string) (string, bool) { return "", false }

func env(variables map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok
	}
}

// inPod is what the manifests set.
func inPod() map[string]string {
	return map[string]string{"POD_NAME": "operator-0", "POD_NAMESPACE": "system"}
}

func TestDefaults(t *testing.T) {
	o, err := parseOptions(nil, env(inPod()), t.Output())
	require.NoError(t, err)
	require.Equal(t, options{
		metricsPort: 8080, healthPort: 8081, workers: 8, logFormat: "json", kubeAPIQPS: 200, kubeAPIBurst: 400,
		leaderElect: true, leaseNamespace: "system", leaseName: "emqx-bg-operator", identity: "operator-0",
		leaseDuration: 12 * time.Second, leaseRenewDeadline: 8 * time.Second, leaseRetryPeriod: time.Second,
	}, o)
}

func TestFlagsWinOverTheEnvironment(t *testing.T) {
	variables := inPod()
	variables["WATCH_NAMESPACE"], variables["KUBECONFIG"] = "one,two", "/from/env"
	o, err := parseOptions(nil, env(variables), t.Output())
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, o.namespaces)
	require.Equal(t, "/from/env", o.kubeconfig)

	o, err = parseOptions([]string{"--namespaces", " three, ,four,", "--kubeconfig=/from/flag", "--leader-election-identity=me"}, env(variables), t.Output())
	require.NoError(t, err)
	require.Equal(t, []string{"three", "four"}, o.namespaces, "blanks and empty names do not count")
	require.Equal(t, "/from/flag", o.kubeconfig)
	name, err := o.replica()
	require.NoError(t, err)
	require.Equal(t, "me", name)
}

func TestReplicaWithoutANameMakesOneUp(t *testing.T) {
	var o options
	one, err := o.replica()
	require.NoError(t, err)
	other, err := o.replica()
	require.NoError(t, err)
	require.NotEqual(t, one, other)
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, test := range []struct {
		reason, args, message string
	}{
		{"an argument that is no flag", "run", `unknown argument "run"`},
		{"a flag that does not exist", "--replicas=2", "flag provided but not defined"},
		{"a number that is none", "--workers=many", "invalid value"},
		{"less than any upgrade", "--max-concurrent-upgrades=-1", "must not be negative"},
		{"no worker", "--workers=0", "--workers must be 1 or more"},
		{"a format that does not exist", "--log-format=xml", "--log-format must be json or console"},
		{"a level below the least", "--log-level=-1", "--log-level must be 0 or more"},
		{"profiles for everybody", "--pprof-address=0.0.0.0:6060", "--pprof-address must be a loopback address"},
		{"profiles for everybody, in short", "--pprof-address=:6060", "--pprof-address must be a loopback address"},
		{"profiles at a name, which may lead anywhere", "--pprof-address=localhost:6060", "--pprof-address must be a loopback address"},
		{"profiles without a port", "--pprof-address=127.0.0.1", "--pprof-address must be a loopback address"},
		{"a leader that gives up after its lease has run out", "--leader-election-renew-deadline=12s", "must be longer than"},
		{"a leader that gives up after one try", "--leader-election-retry-period=5s", "must be longer than"},
		{"no pause between two tries", "--leader-election-retry-period=0s", "must be longer than"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			_, err := parseOptions([]string{test.args}, env(inPod()), &strings.Builder{})
			require.ErrorContains(t, err, test.message)
		})
	}
}

func TestOutsideOfAClusterTheLeaseNeedsANamespace(t *testing.T) {
	_, err := parseOptions(nil, noEnv, t.Output())
	require.ErrorContains(t, err, "--leader-election-namespace is needed")
	_, err = parseOptions([]string{"--leader-elect=false", "--leader-election-retry-period=0s"}, noEnv, t.Output())
	require.NoError(t, err, "without an election its flags do not matter")
}

func TestProfilesOnLoopback(t *testing.T) {
	for _, address := range []string{"127.0.0.1:6060", "127.9.8.7:1", "[::1]:6060"} {
		o, err := parseOptions([]string{"--pprof-address", address}, env(inPod()), t.Output())
		require.NoError(t, err)
		require.Equal(t, address, o.pprofAddress)
	}
}

func TestHelp(t *testing.T) {
	var out strings.Builder
	_, err := parseOptions([]string{"--help"}, noEnv, &out)
	require.ErrorIs(t, err, flag.ErrHelp)
	for _, part := range []string{"by blue-green", "kubectl get emqx -w", "-workers number", "POD_NAMESPACE"} {
		require.Contains(t, out.String(), part)
	}
}

func TestRestConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(path, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"a",
		"contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}],
		"clusters":[{"name":"a","cluster":{"server":"https://127.0.0.1:6443"}}],"users":[{"name":"a","user":{}}]}`), 0o600))
	config, err := (options{kubeconfig: path, kubeAPIQPS: 7, kubeAPIBurst: 9}).restConfig()
	require.NoError(t, err)
	require.Equal(t, "https://127.0.0.1:6443", config.Host)
	require.InDelta(t, 7, config.QPS, 0)
	require.Equal(t, 9, config.Burst)

	_, err = (options{kubeconfig: path + ".absent"}).restConfig()
	require.ErrorContains(t, err, "find the API server: ")
}
