package network_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

func TestLoopbackBijection(t *testing.T) {
	for _, c := range []struct{ reason, api, loopback, failure string }{
		{reason: "a pod", api: "10.100.3.7", loopback: "127.100.3.7"},
		{reason: "the last address", api: "10.255.255.255", loopback: "127.255.255.255"},
		{reason: "mapped into IPv6", api: "::ffff:10.1.2.3", loopback: "127.1.2.3"},
		{reason: "another network must not be led to loopback", api: "192.168.1.1", failure: "does not begin with 10"},
		{reason: "loopback itself has no twin", api: "127.0.0.1", failure: "does not begin with 10"},
		{reason: "IPv6", api: "fd00::1", failure: "not an IPv4 address"},
		{reason: "a headless Service's cluster address", api: "None", failure: "parse an address"},
		{reason: "nothing", api: "", failure: "parse an address"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			loopback, err := network.LoopbackOf(c.api)
			if c.failure != "" {
				require.ErrorContains(t, err, c.failure)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.loopback, loopback.String())
			back, err := network.FromLoopback(loopback)
			require.NoError(t, err)
			require.Equal(t, netip.MustParseAddr(c.api).Unmap(), back)
		})
	}
}

func TestPlansDoNotOverlap(t *testing.T) {
	var prefixes []netip.Prefix
	for slot := range network.Slots {
		plan := network.Plan{Slot: slot}
		require.True(t, plan.PodPrefix().Contains(plan.Control()), "slot %d", slot)
		require.True(t, plan.ServicePrefix().Contains(plan.KubernetesService()), "slot %d", slot)
		for _, prefix := range []netip.Prefix{plan.PodPrefix(), plan.ServicePrefix()} {
			require.Equal(t, byte(10), prefix.Addr().As4()[0])
			for _, other := range prefixes {
				require.False(t, prefix.Overlaps(other), "%s and %s", prefix, other)
			}
			prefixes = append(prefixes, prefix)
		}
	}
}
