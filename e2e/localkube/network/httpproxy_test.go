package network_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

// proxyClient serves an HTTP proxy for slot 60 and a pod at 10.220.0.7 port 18083, and returns a client that uses them.
func proxyClient(t *testing.T) *http.Client {
	t.Helper()
	plan := network.Plan{Slot: 60}
	listener, err := net.Listen("tcp4", "127.220.0.7:18083")
	require.NoError(t, err)
	pod := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Forwarded", r.Header.Get("X-Forwarded-For"))
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte(r.Method + " " + r.Host + " " + r.URL.String() + " " + string(body)))
	})}}
	pod.Start()
	t.Cleanup(pod.Close)

	proxy := network.NewHTTPProxy(plan, network.NewResolver(testSource()), slog.New(slog.DiscardHandler))
	server := httptest.NewServer(proxy)
	t.Cleanup(func() { server.Close(); proxy.Close() })
	address, err := url.Parse(server.URL)
	require.NoError(t, err)
	transport := &http.Transport{Proxy: http.ProxyURL(address)}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func TestHTTPProxyLeadsToLoopback(t *testing.T) {
	client := proxyClient(t)
	response, err := client.Post("http://10.220.0.7:18083/api/v5/x?y=z", "text/plain", bytes.NewBufferString("body"))
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusTeapot, response.StatusCode)
	require.Equal(t, "POST 10.220.0.7:18083 /api/v5/x?y=z body", string(body), "the pod sees the request as it was sent")
	require.Empty(t, response.Header.Get("X-Forwarded"), "and nothing of the proxy")
}

func TestHTTPProxyRefusesWhatIsNotItsCluster(t *testing.T) {
	client := proxyClient(t)
	for _, c := range []struct {
		reason, url, message string
		status               int
	}{
		{reason: "another cluster's pod", url: "http://10.100.0.7:18083/", status: http.StatusForbidden, message: "not an address of this cluster"},
		{reason: "another machine", url: "http://192.0.2.1/", status: http.StatusForbidden, message: "not an address of this cluster"},
		{reason: "something else on this machine", url: "http://127.0.0.1:22/", status: http.StatusForbidden, message: "not an address of this cluster"},
		{reason: "an unknown name", url: "http://example.com/", status: http.StatusForbidden, message: "not an address of this cluster"},
		{reason: "a pod at which nothing listens", url: "http://10.220.0.8:18083/", status: http.StatusBadGateway, message: "connection refused"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			response, err := client.Get(c.url)
			require.NoError(t, err)
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.Equal(t, c.status, response.StatusCode)
			require.Contains(t, string(body), c.message)
		})
	}
}

func TestHTTPProxyTunnels(t *testing.T) {
	client := proxyClient(t)
	listener, err := net.Listen("tcp4", "127.220.0.9:18084")
	require.NoError(t, err)
	pod := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("secure"))
	})}}
	pod.StartTLS()
	t.Cleanup(pod.Close)
	transport := client.Transport.(*http.Transport)
	transport.TLSClientConfig = pod.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	transport.TLSClientConfig.ServerName = "example.com" // the name in the test's certificate
	response, err := client.Get("https://10.220.0.9:18084/")
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, "secure", string(body))
}
