package standin

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// serveDNS answers as a cluster's DNS does for a headless service of two pods.
func serveDNS(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	hosts := map[string][4]byte{"core-0.headless.ns.svc.local.": {10, 1, 2, 3}, "core-1.headless.ns.svc.local.": {10, 1, 2, 4}}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			head := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 1}
			m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}
			m.Additionals = nil
			ip, isHost := hosts[q.Name.String()]
			switch {
			case q.Name.String() == "headless.ns.svc.local." && q.Type == dnsmessage.TypeSRV:
				for host := range hosts {
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.SRVResource{Port: 4370, Target: dnsmessage.MustNewName(host)}})
				}
			case q.Name.String() == "headless.ns.svc.local." && q.Type == dnsmessage.TypeA:
				for _, ip := range hosts {
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: ip}})
				}
			case isHost && q.Type == dnsmessage.TypeA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: ip}})
			case !isHost:
				m.RCode = dnsmessage.RCodeNameError
			}
			if out, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// Pods are found by the headless service's records; their addresses stand for loopback addresses.
func TestDiscoveryByDNS(t *testing.T) {
	r := Resolver{Server: serveDNS(t), PodNetwork: true}
	ctx := context.Background()
	for _, c := range []struct {
		record, name string
		want         []string
	}{
		{"srv", "headless.ns.svc.local", []string{"emqx@core-0.headless.ns.svc.local", "emqx@core-1.headless.ns.svc.local"}},
		{"a", "headless.ns.svc.local", []string{"emqx@10.1.2.3", "emqx@10.1.2.4"}},
		{"srv", "nobody.ns.svc.local", nil},
	} {
		tree := settings.Tree{"cluster": settings.Tree{
			"discovery_strategy": "dns", "dns": settings.Tree{"name": c.name, "record_type": c.record},
		}}
		discover, err := Discovery(tree, "emqx@core-0.headless.ns.svc.local", r)
		require.NoError(t, err)
		nodes, err := discover(ctx)
		require.NoError(t, err)
		require.Equal(t, c.want, nodes)
	}
	for node, want := range map[string]string{
		"emqx@core-1.headless.ns.svc.local": "127.1.2.4:4370", "emqx@10.1.2.9": "127.1.2.9:4370", "emqx@127.0.0.11": "127.0.0.11:4370",
	} {
		address, err := r.Node(ctx, node)
		require.NoError(t, err)
		require.Equal(t, want, address)
	}
	_, err := r.Node(ctx, "emqx@nobody.ns.svc.local")
	require.Error(t, err)
	_, err = Discovery(settings.Tree{"cluster": settings.Tree{"discovery_strategy": "etcd"}}, "a@b", r)
	require.ErrorContains(t, err, "etcd")
}
