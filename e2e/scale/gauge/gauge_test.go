package gauge_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/gauge"
)

func TestProcess(t *testing.T) {
	own, err := gauge.NewProcess(os.Getpid())
	require.NoError(t, err)
	now, peak, err := own.Memory()
	require.NoError(t, err)
	require.Positive(t, now)
	require.GreaterOrEqual(t, peak, now)

	before, err := own.CPU()
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		for i := range 1_000_000 {
			_ = strconv.Itoa(i)
		}
		after, err := own.CPU()
		return err == nil && after > before
	}, time.Minute, time.Millisecond, "work takes processor time")
}

func TestConnections(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	port := uint64(listener.Addr().(*net.TCPAddr).Port)
	own, err := gauge.NewProcess(os.Getpid())
	require.NoError(t, err)
	network := netip.MustParsePrefix("127.0.0.0/16")
	there, before, err := own.Connections(network, port)
	require.NoError(t, err)
	require.Zero(t, there, "a port that listens is no connection")

	connection, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	accepted, err := listener.Accept()
	require.NoError(t, err)
	there, all, err := own.Connections(network, port)
	require.NoError(t, err)
	require.Equal(t, 1, there, "of the two ends one leads there")
	require.GreaterOrEqual(t, all, before+2)
	there, _, err = own.Connections(netip.MustParsePrefix("127.1.0.0/16"), port)
	require.NoError(t, err)
	require.Zero(t, there, "it leads to another network")
	require.NoError(t, connection.Close())
	require.NoError(t, accepted.Close())
}

func TestMetrics(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "# TYPE a gauge\na{node=\"x\",up=\"yes\"} 1\na{node=\"y z\",up=\"no\"} 2.5\nab 7\ngo_goroutines 12\n")
	}))
	defer server.Close()
	scrape, err := gauge.Metrics(t.Context(), server.Client(), server.URL)
	require.NoError(t, err)
	require.Positive(t, scrape.Took)
	for _, test := range []struct {
		metric, labels string
		sum            float64
		samples        int
	}{{"a", "", 3.5, 2}, {"a", `up="yes"`, 1, 1}, {"go_goroutines", "", 12, 1}, {"absent", "", 0, 0}} {
		sum, samples := scrape.Sum(test.metric, test.labels)
		require.InDelta(t, test.sum, sum, 0, test.metric)
		require.Equal(t, test.samples, samples, test.metric)
	}
}

func TestAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	write := func(text string) {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		_, err = file.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, file.Close())
	}
	event := func(stage, verb, subresource string) string {
		return fmt.Sprintf(`{"stage":%q,"verb":%q,"user":{"username":"u"},"objectRef":{"resource":"pods","subresource":%q,"namespace":"n","name":"p"},`+
			`"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-01-01T00:00:00.000001Z","stageTimestamp":"2026-01-01T00:00:01.000002Z"}`, stage, verb, subresource)
	}
	write(event("ResponseComplete", "get", "") + "\n")
	audit, err := gauge.NewAudit(path)
	require.NoError(t, err)
	write(event("ResponseStarted", "watch", "") + "\n" + event("ResponseComplete", "patch", "status")[:40])
	requests, err := audit.Next()
	require.NoError(t, err)
	require.Empty(t, requests, "what was there before, what is not answered, and what is not written to its end do not count")
	write(event("ResponseComplete", "patch", "status")[40:] + "\n")
	requests, err = audit.Next()
	require.NoError(t, err)
	require.Equal(t, []gauge.Request{{
		User: "u", Verb: "patch", Resource: "pods/status", Namespace: "n", Name: "p", Code: 200,
		Received: time.Date(2026, 1, 1, 0, 0, 0, 1000, time.UTC), Ended: time.Date(2026, 1, 1, 0, 0, 1, 2000, time.UTC),
	}}, requests)
	require.True(t, requests[0].Write())
	require.False(t, gauge.Request{Verb: "list"}.Write())

	require.NoError(t, os.Truncate(path, 3))
	_, err = audit.Next()
	require.ErrorContains(t, err, "begun anew")
}
