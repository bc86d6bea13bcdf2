package network

import (
	"fmt"
	"net/netip"
)

const (
	// Slots is how many clusters can have networks of their own at the same time.
	Slots = 64
	// firstSecondOctet keeps clear of 127.0.x.y and the small 10.x.0.0 networks people use by hand.
	firstSecondOctet = 100
)

// Plan is where the addresses of one cluster lie. Every address is a pair: 10.x.y.z, which the Kubernetes API knows,
// and 127.x.y.z, where something really listens.
type Plan struct {
	// Slot tells clusters on one machine apart, 0 to Slots-1.
	Slot int
}

// PodPrefix is the pod network, a /16 within 10.0.0.0/8.
func (p Plan) PodPrefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, p.secondOctet(), 0, 0}), 16)
}

// ServicePrefix is the network of the Services' cluster addresses, a /16 within 10.0.0.0/8.
func (p Plan) ServicePrefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, p.secondOctet() + 1, 0, 0}), 16)
}

// Control is the address, in the pod network, of the control plane and the node. Its loopback twin is where they
// listen.
func (p Plan) Control() netip.Addr { return netip.AddrFrom4([4]byte{10, p.secondOctet(), 0, 1}) }

// KubernetesService is the cluster address of the Service `kubernetes`, the first of the Service network.
func (p Plan) KubernetesService() netip.Addr {
	return netip.AddrFrom4([4]byte{10, p.secondOctet() + 1, 0, 1})
}

// Contains reports whether the address, as the API knows it, belongs to a pod or a Service of the cluster.
func (p Plan) Contains(addr netip.Addr) bool {
	return p.PodPrefix().Contains(addr) || p.ServicePrefix().Contains(addr)
}

func (p Plan) secondOctet() byte {
	return byte(firstSecondOctet + 2*p.Slot) //nolint:gosec // below 256 for every slot
}

// ToLoopback returns the loopback address 127.x.y.z at which the owner of the address 10.x.y.z listens. An address
// that is no 10.x.y.z is an error.
func ToLoopback(addr netip.Addr) (netip.Addr, error) { return swapFirstOctet(addr, 10, 127) }

// FromLoopback is the inverse of ToLoopback.
func FromLoopback(addr netip.Addr) (netip.Addr, error) { return swapFirstOctet(addr, 127, 10) }

func swapFirstOctet(addr netip.Addr, from, to byte) (netip.Addr, error) {
	addr = addr.Unmap()
	if !addr.Is4() {
		return netip.Addr{}, fmt.Errorf("address %s is not an IPv4 address", addr)
	}
	octets := addr.As4()
	if octets[0] != from {
		return netip.Addr{}, fmt.Errorf("address %s does not begin with %d", addr, from)
	}
	octets[0] = to
	return netip.AddrFrom4(octets), nil
}

// LoopbackOf is ToLoopback for an address in text, as the API has it.
func LoopbackOf(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("parse an address: %w", err)
	}
	return ToLoopback(addr)
}
