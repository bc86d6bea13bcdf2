package network

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// ServiceSource looks up a Service and its EndpointSlices.
type ServiceSource interface {
	Service(namespace, name string) (*corev1.Service, []*discoveryv1.EndpointSlice, error)
}

// Resolver answers questions about Services as cluster DNS does: A and SRV records of Services with a cluster address,
// of headless Services and of the pods behind these. Addresses are the API's, 10.x.y.z.
type Resolver struct{ source ServiceSource }

// NewResolver returns a Resolver over the source.
func NewResolver(source ServiceSource) *Resolver { return &Resolver{source: source} }

// Answer is a reply without its header.
type Answer struct {
	RCode       dnsmessage.RCode
	Answers     []dnsmessage.Resource
	Additionals []dnsmessage.Resource
}

// name is what a question asks about.
type name struct {
	service, namespace string
	// host is a pod's name within a headless Service; empty for the Service itself.
	host string
	// port and protocol are those of a question _port._protocol.service; empty for all ports.
	port, protocol string
}

// parseName splits a name; ok is false when it cannot be the name of a Service.
func parseName(fqdn string) (parsed name, ok bool) {
	relative, found := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(fqdn, ".")), ".svc."+Domain)
	if !found {
		return name{}, false
	}
	labels := strings.Split(relative, ".")
	if len(labels) < 2 || len(labels) > 4 {
		return name{}, false
	}
	parsed = name{service: labels[len(labels)-2], namespace: labels[len(labels)-1]}
	switch len(labels) {
	case 3:
		parsed.host = labels[0]
	case 4:
		var isPort, isProtocol bool
		parsed.port, isPort = strings.CutPrefix(labels[0], "_")
		parsed.protocol, isProtocol = strings.CutPrefix(labels[1], "_")
		if !isPort || !isProtocol {
			return name{}, false
		}
	}
	return parsed, true
}

// Lookup returns the addresses of a name; none when there is no such name.
func (r *Resolver) Lookup(fqdn string) []netip.Addr {
	parsed, ok := parseName(fqdn)
	if !ok || parsed.port != "" {
		return nil
	}
	records, err := r.records(parsed)
	if err != nil {
		return nil
	}
	addresses := make([]netip.Addr, 0, len(records))
	for _, record := range records {
		addresses = append(addresses, record.address)
	}
	return addresses
}

// record is one backend with the name it is known by.
type record struct {
	host    string // fully qualified, with the final dot
	address netip.Addr
	ports   map[string]Port
}

// Resolve answers one question. A name that does not exist is NXDOMAIN, one without records of the type asked for is
// an empty answer, and names outside the cluster domain are refused.
func (r *Resolver) Resolve(question dnsmessage.Question) Answer {
	fqdn := question.Name.String()
	if !strings.HasSuffix(strings.ToLower(fqdn), "."+Domain+".") {
		return Answer{RCode: dnsmessage.RCodeRefused}
	}
	parsed, ok := parseName(fqdn)
	if !ok {
		return Answer{RCode: dnsmessage.RCodeNameError}
	}
	records, err := r.records(parsed)
	if apierrors.IsNotFound(err) {
		return Answer{RCode: dnsmessage.RCodeNameError}
	}
	if err != nil {
		return Answer{RCode: dnsmessage.RCodeServerFailure}
	}
	if len(records) == 0 && parsed.host != "" {
		return Answer{RCode: dnsmessage.RCodeNameError}
	}
	switch question.Type {
	case dnsmessage.TypeA:
		return addressAnswer(question.Name, parsed, records)
	case dnsmessage.TypeSRV:
		return serviceAnswer(question.Name, parsed, records)
	default:
		return Answer{}
	}
}

func (r *Resolver) records(parsed name) ([]record, error) {
	service, endpointSlices, err := r.source.Service(parsed.namespace, parsed.service)
	if err != nil {
		return nil, err
	}
	base := service.Name + "." + service.Namespace + ".svc." + Domain + "."
	if service.Spec.ClusterIP != corev1.ClusterIPNone {
		address, err := netip.ParseAddr(service.Spec.ClusterIP)
		if err != nil || parsed.host != "" {
			return nil, nil //nolint:nilerr // a Service without an address, such as ExternalName, has no records
		}
		return []record{{host: base, address: address, ports: servicePorts(service)}}, nil
	}
	var records []record
	for _, endpoint := range ReadyEndpoints(endpointSlices) {
		host := endpoint.HostName
		if host == "" {
			host = strings.ReplaceAll(endpoint.Address.String(), ".", "-")
		}
		if parsed.host == "" || parsed.host == host {
			records = append(records, record{host: host + "." + base, address: endpoint.Address, ports: endpoint.Ports})
		}
	}
	return records, nil
}

func servicePorts(service *corev1.Service) map[string]Port {
	ports := map[string]Port{}
	for _, port := range service.Spec.Ports {
		ports[port.Name] = Port{Number: portNumber(port.Port), Protocol: port.Protocol}
	}
	return ports
}

func addressAnswer(asked dnsmessage.Name, parsed name, records []record) Answer {
	var answer Answer
	if parsed.port != "" {
		return answer
	}
	for _, record := range records {
		answer.Answers = append(answer.Answers, addressRecord(asked, record.address))
	}
	return answer
}

func serviceAnswer(asked dnsmessage.Name, parsed name, records []record) Answer {
	var answer Answer
	for _, record := range records {
		target, err := dnsmessage.NewName(record.host)
		if err != nil {
			continue
		}
		matched := false
		for portName, port := range record.ports {
			if parsed.port != "" && (parsed.port != portName || !strings.EqualFold(parsed.protocol, string(port.Protocol))) {
				continue
			}
			matched = true
			answer.Answers = append(answer.Answers, dnsmessage.Resource{
				Header: header(asked),
				Body:   &dnsmessage.SRVResource{Priority: 0, Weight: 100, Port: port.Number, Target: target},
			})
		}
		if matched {
			answer.Additionals = append(answer.Additionals, addressRecord(target, record.address))
		}
	}
	return answer
}

func addressRecord(owner dnsmessage.Name, address netip.Addr) dnsmessage.Resource {
	return dnsmessage.Resource{Header: header(owner), Body: &dnsmessage.AResource{A: address.As4()}}
}

func header(owner dnsmessage.Name) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: owner, Class: dnsmessage.ClassINET, TTL: dnsTTLSeconds}
}
