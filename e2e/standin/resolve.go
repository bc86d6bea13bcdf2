package standin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sort"
	"strings"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/membership"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/settings"
)

// Resolver finds the address of a host name and the hosts of a discovery name.
type Resolver struct {
	// Server is host:port of a DNS server; empty: the machine's.
	Server string
	// PodNetwork turns addresses of the pod network 10.x.y.z into the loopback addresses 127.x.y.z that stand for them.
	PodNetwork bool
}

func (r Resolver) resolver() *net.Resolver {
	if r.Server == "" {
		return net.DefaultResolver
	}
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, r.Server)
		},
	}
}

// Node gives host:port of a node's link.
func (r Resolver) Node(ctx context.Context, node string) (string, error) {
	_, host, found := strings.Cut(node, "@")
	if !found {
		return "", fmt.Errorf("%q is no node name", node)
	}
	ip, err := r.host(ctx, host)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(ip, LinkPort), nil
}

func (r Resolver) host(ctx context.Context, host string) (string, error) {
	if net.ParseIP(host) != nil {
		return r.local(host), nil
	}
	ips, err := r.resolver().LookupIP(ctx, "ip4", absolute(host))
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", host, err)
	}
	if len(ips) == 0 {
		return "", fmt.Errorf("resolve %s: no address", host)
	}
	return r.local(ips[0].String()), nil
}

// absolute keeps the resolver from trying the machine's search domains.
func absolute(host string) string {
	if strings.Contains(host, ".") && !strings.HasSuffix(host, ".") {
		return host + "."
	}
	return host
}

func (r Resolver) local(ip string) string {
	if r.PodNetwork && strings.HasPrefix(ip, "10.") {
		return "127." + strings.TrimPrefix(ip, "10.")
	}
	return ip
}

// Static discovers the given nodes: host names or addresses, or full node names.
func Static(prefix string, seeds []string) membership.Discover {
	nodes := make([]string, 0, len(seeds))
	for _, seed := range seeds {
		if !strings.Contains(seed, "@") {
			seed = prefix + "@" + seed
		}
		nodes = append(nodes, seed)
	}
	return func(context.Context) ([]string, error) { return nodes, nil }
}

// Discovery makes what cluster.discovery_strategy asks for; nil for manual and singleton.
func Discovery(tree settings.Tree, self string, r Resolver) (membership.Discover, error) {
	prefix, _, _ := strings.Cut(self, "@")
	switch strategy := tree.Text("manual", "cluster", "discovery_strategy"); strategy {
	case "manual", "singleton":
		return nil, nil
	case "static":
		seeds, _ := tree.Get("cluster", "static", "seeds")
		list, _ := seeds.([]any)
		var names []string
		for _, seed := range list {
			names = append(names, fmt.Sprint(seed))
		}
		return Static(prefix, names), nil
	case "dns":
		name := tree.Text("localhost", "cluster", "dns", "name")
		record := tree.Text("a", "cluster", "dns", "record_type")
		return func(ctx context.Context) ([]string, error) { return r.discover(ctx, prefix, name, record) }, nil
	default:
		return nil, fmt.Errorf("cluster.discovery_strategy = %s is not supported by this stand-in", strategy)
	}
}

// discover lists the nodes that a DNS name stands for. A name that is not known yet has none.
func (r Resolver) discover(ctx context.Context, prefix, name, record string) ([]string, error) {
	var hosts []string
	var err error
	switch record {
	case "srv":
		var records []*net.SRV
		_, records, err = r.resolver().LookupSRV(ctx, "", "", absolute(name))
		for _, srv := range records {
			hosts = append(hosts, strings.TrimSuffix(srv.Target, "."))
		}
	default:
		var ips []net.IP
		ips, err = r.resolver().LookupIP(ctx, "ip4", absolute(name))
		for _, ip := range ips {
			hosts = append(hosts, ip.String())
		}
	}
	var dnsError *net.DNSError
	if errors.As(err, &dnsError) && dnsError.IsNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look %s up: %w", name, err)
	}
	nodes := make([]string, 0, len(hosts))
	seen := map[string]bool{}
	for _, host := range hosts {
		if !seen[host] {
			seen[host] = true
			nodes = append(nodes, prefix+"@"+host)
		}
	}
	sort.Strings(nodes)
	return nodes, nil
}
