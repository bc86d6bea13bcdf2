package realnode

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

// plan is where the addresses lie: those of the cluster's first slot, as every box has a network of its own. The control plane is
// at its usual address, the nodes are in the lower half of the pod network, pods in the upper.
func plan() network.Plan { return network.Plan{} }

func nodeAddress(index int) netip.Addr {
	octets := plan().Control().As4()
	octets[3] = byte(11 + index) //nolint:gosec // a few nodes
	return netip.AddrFrom4(octets)
}

// podPrefix is the network of a node's pods.
func podPrefix(index int) netip.Prefix {
	octets := plan().Control().As4()
	octets[2], octets[3] = byte(129+index), 0 //nolint:gosec // a few nodes
	return netip.PrefixFrom(netip.AddrFrom4(octets), 24)
}

// allPods is the network of all nodes' pods.
func allPods() netip.Prefix {
	octets := plan().Control().As4()
	octets[2], octets[3] = 128, 0
	return netip.PrefixFrom(netip.AddrFrom4(octets), 17)
}

// dnsService is the cluster address of DNS.
func dnsService() netip.Addr {
	octets := plan().KubernetesService().As4()
	octets[3] = 10
	return netip.AddrFrom4(octets)
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}

func host(address netip.Addr) *net.IPNet {
	return ipNet(netip.PrefixFrom(address, address.BitLen()))
}

// setUpNetwork gives the box of the control plane its address, and has it pass packets between nodes.
func setUpNetwork() error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("set the loopback interface up: %w", err)
	}
	if err := netlink.AddrAdd(loopback, &netlink.Addr{IPNet: host(plan().Control())}); err != nil {
		return fmt.Errorf("give the control plane its address: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
		return fmt.Errorf("pass packets between nodes: %w", err)
	}
	return nil
}

// plug connects a node with the box of the control plane, by a pair of interfaces.
func (n *Node) plug() error {
	// That of a node which was switched off goes by itself, but not at once.
	if old, err := netlink.LinkByName(n.Name); err == nil {
		if err := netlink.LinkDel(old); err != nil {
			return fmt.Errorf("unplug %s: %w", n.Name, err)
		}
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: n.Name}, PeerName: "eth0", PeerNamespace: netlink.NsPid(n.box.PID)}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("plug %s in: %w", n.Name, err)
	}
	namespace, err := netns.GetFromPid(n.box.PID)
	if err != nil {
		return fmt.Errorf("find the network of %s: %w", n.Name, err)
	}
	defer func() { _ = namespace.Close() }() // It was only read.
	inside, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return fmt.Errorf("reach the network of %s: %w", n.Name, err)
	}
	defer inside.Close()
	if err := n.addressInside(inside); err != nil {
		return fmt.Errorf("set up the network of %s: %w", n.Name, err)
	}
	return n.route()
}

// addressInside gives the node its address, and a way to everything else.
func (n *Node) addressInside(inside *netlink.Handle) error {
	loopback, loopbackErr := inside.LinkByName("lo")
	out, outErr := inside.LinkByName("eth0")
	if err := errors.Join(loopbackErr, outErr); err != nil {
		return err
	}
	control := plan().Control().AsSlice()
	return errors.Join(
		inside.LinkSetUp(loopback),
		inside.AddrAdd(out, &netlink.Addr{IPNet: host(n.Address)}),
		inside.LinkSetUp(out),
		inside.RouteAdd(&netlink.Route{LinkIndex: out.Attrs().Index, Dst: host(plan().Control()), Scope: netlink.SCOPE_LINK}),
		inside.RouteAdd(&netlink.Route{LinkIndex: out.Attrs().Index, Gw: control, Flags: int(netlink.FLAG_ONLINK)}),
	)
}

// route sets the interface up and leads packets for the node and its pods there, and for Services if it is the first.
func (n *Node) route() error {
	link, err := netlink.LinkByName(n.Name)
	if err != nil {
		return fmt.Errorf("find the interface of %s: %w", n.Name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set the interface of %s up: %w", n.Name, err)
	}
	control := plan().Control().AsSlice()
	routes := []*netlink.Route{
		{LinkIndex: link.Attrs().Index, Dst: host(n.Address), Scope: netlink.SCOPE_LINK, Src: control},
		{LinkIndex: link.Attrs().Index, Dst: ipNet(n.pods), Gw: n.Address.AsSlice(), Src: control},
	}
	if n.services {
		routes = append(routes, &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(plan().ServicePrefix()), Gw: n.Address.AsSlice(), Src: control})
	}
	for _, route := range routes {
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("lead packets to %s: %w", n.Name, err)
		}
	}
	return nil
}

// Cut takes the node off the network: packets to and from it are lost.
func (n *Node) Cut() error {
	link, err := netlink.LinkByName(n.Name)
	if err != nil {
		return fmt.Errorf("find the interface of %s: %w", n.Name, err)
	}
	if err := netlink.LinkSetDown(link); err != nil {
		return fmt.Errorf("cut %s off: %w", n.Name, err)
	}
	return nil
}

// Rejoin undoes Cut.
func (n *Node) Rejoin() error { return n.route() }
