package network_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sort"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

// texts renders answers for comparison.
func texts(resources []dnsmessage.Resource) []string {
	list := []string{}
	for _, r := range resources {
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			list = append(list, fmt.Sprintf("%s A %d.%d.%d.%d", r.Header.Name, body.A[0], body.A[1], body.A[2], body.A[3]))
		case *dnsmessage.SRVResource:
			list = append(list, fmt.Sprintf("SRV %d %s", body.Port, body.Target))
		}
	}
	sort.Strings(list)
	return list
}

func TestResolve(t *testing.T) {
	const headless = "emqx-headless.default.svc.cluster.local."
	for _, c := range []struct {
		reason, name string
		kind         dnsmessage.Type
		rcode        dnsmessage.RCode
		want         []string
	}{
		{reason: "a Service has its cluster address", name: "emqx.default.svc.cluster.local.", kind: dnsmessage.TypeA,
			want: []string{"emqx.default.svc.cluster.local. A 10.2.0.1"}},
		{reason: "names are not case-sensitive", name: "EMQX.default.svc.Cluster.Local.", kind: dnsmessage.TypeA,
			want: []string{"EMQX.default.svc.Cluster.Local. A 10.2.0.1"}},
		{reason: "a headless Service has its ready pods", name: headless, kind: dnsmessage.TypeA,
			want: []string{headless + " A 10.1.0.4", headless + " A 10.1.0.5"}},
		{reason: "a pod by host name", name: "emqx-0." + headless, kind: dnsmessage.TypeA, want: []string{"emqx-0." + headless + " A 10.1.0.4"}},
		{reason: "a pod without host name by its address", name: "10-1-0-5." + headless, kind: dnsmessage.TypeA,
			want: []string{"10-1-0-5." + headless + " A 10.1.0.5"}},
		{reason: "a pod that is not ready does not exist", name: "emqx-2." + headless, kind: dnsmessage.TypeA, rcode: dnsmessage.RCodeNameError},
		{reason: "one port", name: "_mqtt._tcp." + headless, kind: dnsmessage.TypeSRV,
			want: []string{"SRV 1883 10-1-0-5." + headless, "SRV 1883 emqx-0." + headless}},
		{reason: "the protocol must fit", name: "_mqtt._udp." + headless, kind: dnsmessage.TypeSRV},
		{reason: "all ports of a bare name", name: headless, kind: dnsmessage.TypeSRV, want: []string{
			"SRV 14567 10-1-0-5." + headless, "SRV 14567 emqx-0." + headless, "SRV 1883 10-1-0-5." + headless,
			"SRV 1883 emqx-0." + headless, "SRV 8080 10-1-0-5." + headless, "SRV 8080 emqx-0." + headless,
		}},
		{reason: "a Service with an address is its own target", name: "_http._tcp.emqx.default.svc.cluster.local.", kind: dnsmessage.TypeSRV,
			want: []string{"SRV 80 emqx.default.svc.cluster.local."}},
		{reason: "a Service without pods exists and has no records", name: "empty.default.svc.cluster.local.", kind: dnsmessage.TypeA},
		{reason: "no IPv6 addresses", name: "emqx.default.svc.cluster.local.", kind: dnsmessage.TypeAAAA},
		{reason: "no such Service", name: "none.default.svc.cluster.local.", kind: dnsmessage.TypeA, rcode: dnsmessage.RCodeNameError},
		{reason: "no name of a Service", name: "a.b.c.d.e.svc.cluster.local.", kind: dnsmessage.TypeA, rcode: dnsmessage.RCodeNameError},
		{reason: "another domain is not ours to answer", name: "example.com.", kind: dnsmessage.TypeA, rcode: dnsmessage.RCodeRefused},
	} {
		t.Run(c.reason, func(t *testing.T) {
			answer := network.NewResolver(testSource()).Resolve(dnsmessage.Question{
				Name: dnsmessage.MustNewName(c.name), Type: c.kind, Class: dnsmessage.ClassINET,
			})
			require.Equal(t, c.rcode, answer.RCode)
			if c.want == nil {
				c.want = []string{}
			}
			require.Equal(t, c.want, texts(answer.Answers))
		})
	}
}

const dnsAddress = "127.98.75.1:15353"

// startDNS serves the source and returns a resolver that asks it, and a count of its TCP connections.
func startDNS(t *testing.T, from network.ServiceSource) (resolver *net.Resolver, overTCP *atomic.Int32) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	server, err := network.ListenDNS(ctx, dnsAddress, network.NewResolver(from), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { defer close(done); server.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	overTCP = &atomic.Int32{}
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, protocol, _ string) (net.Conn, error) {
		if protocol == "tcp" {
			overTCP.Add(1)
		}
		return (&net.Dialer{Timeout: patience}).DialContext(ctx, protocol, dnsAddress)
	}}, overTCP
}

func TestDNSServesTheStandardResolver(t *testing.T) {
	resolver, overTCP := startDNS(t, testSource())
	addresses, err := resolver.LookupHost(t.Context(), "emqx.default.svc.cluster.local.")
	require.NoError(t, err)
	require.Equal(t, []string{"10.2.0.1"}, addresses)

	_, records, err := resolver.LookupSRV(t.Context(), "mqtt", "tcp", "emqx-headless.default.svc.cluster.local.")
	require.NoError(t, err)
	require.Len(t, records, 2)

	_, err = resolver.LookupHost(t.Context(), "none.default.svc.cluster.local.")
	var dnsError *net.DNSError
	require.ErrorAs(t, err, &dnsError)
	require.True(t, dnsError.IsNotFound)
	require.Zero(t, overTCP.Load(), "short answers go over UDP")
}

func TestDNSAnswersTooLongForUDPComeOverTCP(t *testing.T) {
	var endpoints []discoveryv1.Endpoint
	for i := range 200 {
		endpoints = append(endpoints, endpoint(fmt.Sprintf("10.1.1.%d", i), fmt.Sprintf("emqx-core-0123456789-%d", i), nil))
	}
	resolver, overTCP := startDNS(t, source{"default/big": {
		service: service("big", corev1.ClusterIPNone), slices: []*discoveryv1.EndpointSlice{slice(endpoints...)},
	}})
	_, records, err := resolver.LookupSRV(t.Context(), "mqtt", "tcp", "big.default.svc.cluster.local.")
	require.NoError(t, err)
	require.Len(t, records, 200)
	require.Positive(t, overTCP.Load())
}
