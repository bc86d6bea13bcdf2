package main

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/leaderelection"
)

type caches bool

func (c caches) Synced() bool { return bool(c) }

type controller struct{ stuck error }

func (c controller) Stuck(time.Time) error { return c.stuck }

func TestProbes(t *testing.T) {
	for _, test := range []struct {
		reason             string
		caches             caches
		controller         controller
		stopping           bool
		live, ready        int
		liveBody, ready2nd string
	}{
		{reason: "all is well", caches: true, live: 200, ready: 200, liveBody: "ok\n", ready2nd: "ok\n"},
		{reason: "the caches are not filled", live: 200, ready: 500, liveBody: "ok\n", ready2nd: "the caches are not filled yet\n"},
		{reason: "it ends", caches: true, stopping: true, live: 200, ready: 500, liveBody: "ok\n", ready2nd: "the operator ends\n"},
		{
			reason: "a sync does not end", caches: true, controller: controller{errors.New("the sync of EMQX a/b has not ended")},
			live: 500, ready: 200, liveBody: "the sync of EMQX a/b has not ended\n", ready2nd: "ok\n",
		},
	} {
		t.Run(test.reason, func(t *testing.T) {
			h := &health{caches: test.caches, controller: test.controller, lease: leaderelection.NewLeaderHealthzAdaptor(leaseGrace)}
			h.stopping.Store(test.stopping)
			for _, probe := range []struct {
				path, body string
				code       int
			}{{"/livez", test.liveBody, test.live}, {"/readyz", test.ready2nd, test.ready}} {
				answer := httptest.NewRecorder()
				h.probes().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, probe.path, http.NoBody))
				require.Equal(t, probe.code, answer.Code, probe.path)
				require.Equal(t, probe.body, answer.Body.String(), probe.path)
			}
		})
	}
}

func TestProbesAreOnlyRead(t *testing.T) {
	h := &health{caches: caches(true), lease: leaderelection.NewLeaderHealthzAdaptor(leaseGrace)}
	for path, code := range map[string]int{"/livez": http.StatusMethodNotAllowed, "/": http.StatusNotFound} {
		answer := httptest.NewRecorder()
		h.probes().ServeHTTP(answer, httptest.NewRequest(http.MethodPost, path, http.NoBody))
		require.Equal(t, code, answer.Code, path)
	}
}

func TestPortThatIsTakenIsAnErrorAtOnce(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port
	h := &health{caches: caches(true), lease: leaderelection.NewLeaderHealthzAdaptor(leaseGrace)}
	_, err = serve(t.Context(), options{bindAddress: "127.0.0.1", healthPort: port}, prometheus.NewRegistry(), prometheus.NewRegistry(), h)
	require.ErrorContains(t, err, "serve on "+taken.Addr().String())
}

func TestServe(t *testing.T) {
	h := &health{caches: caches(true), controller: controller{}, lease: leaderelection.NewLeaderHealthzAdaptor(leaseGrace)}
	s, err := serve(t.Context(), options{bindAddress: "127.0.0.1"}, newRegistry(), prometheus.NewRegistry(), h)
	require.NoError(t, err)
	s.close()
	require.Len(t, s.all, 2, "metrics and probes")
}

func TestProfilesAreServedOnlyWhenAskedFor(t *testing.T) {
	h := &health{caches: caches(true), controller: controller{}, lease: leaderelection.NewLeaderHealthzAdaptor(leaseGrace)}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	s, err := serve(t.Context(), options{bindAddress: "127.0.0.1", pprofAddress: address}, prometheus.NewRegistry(), prometheus.NewRegistry(), h)
	require.NoError(t, err)
	defer s.close()
	require.Len(t, s.all, 3, "metrics, probes and profiles")
	for path, code := range map[string]int{
		"/debug/pprof/": http.StatusOK, "/debug/pprof/heap": http.StatusOK, "/debug/pprof/goroutine?debug=1": http.StatusOK,
		"/debug/pprof/cmdline": http.StatusNotFound, "/metrics": http.StatusNotFound,
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, http.NoBody)
		require.NoError(t, err)
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, code, answer.StatusCode, path)
	}
}
