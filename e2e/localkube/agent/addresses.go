package agent

import (
	"errors"
	"net/netip"
	"sync"
)

// firstPodHost leaves room for the control address and others of the cluster's own.
const firstPodHost = 16

// addressPool gives pods their addresses, each to one pod at a time, and not again soon after.
type addressPool struct {
	mu     sync.Mutex
	prefix netip.Prefix
	next   netip.Addr
	used   map[netip.Addr]bool
}

func newAddressPool(prefix netip.Prefix) *addressPool {
	p := &addressPool{prefix: prefix, used: map[netip.Addr]bool{}}
	p.next = p.first()
	return p
}

func (p *addressPool) first() netip.Addr {
	octets := p.prefix.Addr().As4()
	octets[3] = firstPodHost
	return netip.AddrFrom4(octets)
}

// take returns the address a pod had before, when that is free, or else the next free one.
func (p *addressPool) take(former string) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if address, err := netip.ParseAddr(former); err == nil && p.prefix.Contains(address) && !p.used[address] {
		p.used[address] = true
		return address, nil
	}
	for range 1 << (32 - p.prefix.Bits()) {
		address := p.next
		p.next = p.next.Next()
		if !p.prefix.Contains(p.next) {
			p.next = p.first()
		}
		last := address.As4()[3]
		if !p.used[address] && last != 0 && last != 255 {
			p.used[address] = true
			return address, nil
		}
	}
	return netip.Addr{}, errors.New("the pod network has no free address left")
}

// startAfter makes new addresses follow this one, which a pod has had and will take again.
func (p *addressPool) startAfter(former string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if address, err := netip.ParseAddr(former); err == nil && p.prefix.Contains(address) && p.next.Compare(address) <= 0 {
		p.next = address.Next()
	}
}

func (p *addressPool) release(address netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, address)
}
