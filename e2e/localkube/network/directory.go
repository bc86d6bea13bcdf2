package network

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// Directory knows the Services and their endpoints, from informers' caches.
type Directory struct {
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	synced   []cache.InformerSynced
}

// NewDirectory takes its informers from the factory, which the caller starts.
func NewDirectory(factory informers.SharedInformerFactory) *Directory {
	services := factory.Core().V1().Services()
	endpointSlices := factory.Discovery().V1().EndpointSlices()
	return &Directory{
		services: services.Lister(),
		slices:   endpointSlices.Lister(),
		synced:   []cache.InformerSynced{services.Informer().HasSynced, endpointSlices.Informer().HasSynced},
	}
}

// WaitForSync waits until the first lists have arrived, and returns false when done is closed before.
func (d *Directory) WaitForSync(done <-chan struct{}) bool {
	return cache.WaitForCacheSync(done, d.synced...)
}

// Service returns the Service and its EndpointSlices, or an error the API machinery's IsNotFound knows.
func (d *Directory) Service(namespace, name string) (*corev1.Service, []*discoveryv1.EndpointSlice, error) {
	service, err := d.services.Services(namespace).Get(name)
	if err != nil {
		return nil, nil, err
	}
	found, err := d.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name}))
	if err != nil {
		return nil, nil, fmt.Errorf("list the EndpointSlices of Service %s/%s: %w", namespace, name, err)
	}
	return service, found, nil
}

// Endpoint is one ready backend of a Service.
type Endpoint struct {
	// Address is as the API has it, 10.x.y.z.
	Address netip.Addr
	// HostName is the pod's name within a headless Service; empty when it has none.
	HostName string
	// Ports are by name; the only port of a Service may have the empty name.
	Ports map[string]Port
}

// Port is a port of an Endpoint.
type Port struct {
	Number   uint16
	Protocol corev1.Protocol
}

// ReadyEndpoints lists the backends that may be given traffic, sorted by address. With publishNotReadyAddresses the
// endpoints' own condition already says ready.
func ReadyEndpoints(endpointSlices []*discoveryv1.EndpointSlice) []Endpoint {
	byAddress := map[netip.Addr]Endpoint{}
	for _, slice := range endpointSlices {
		if slice.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		ports := slicePorts(slice)
		for i := range slice.Endpoints {
			endpoint := &slice.Endpoints[i]
			if ready := endpoint.Conditions.Ready; (ready != nil && !*ready) || len(endpoint.Addresses) == 0 {
				continue
			}
			address, err := netip.ParseAddr(endpoint.Addresses[0])
			if err != nil {
				continue
			}
			merged, seen := byAddress[address]
			if !seen {
				merged = Endpoint{Address: address, Ports: map[string]Port{}}
			}
			if endpoint.Hostname != nil {
				merged.HostName = *endpoint.Hostname
			}
			for name, port := range ports {
				merged.Ports[name] = port
			}
			byAddress[address] = merged
		}
	}
	endpoints := make([]Endpoint, 0, len(byAddress))
	for _, endpoint := range byAddress {
		endpoints = append(endpoints, endpoint)
	}
	slices.SortFunc(endpoints, func(a, b Endpoint) int { return a.Address.Compare(b.Address) })
	return endpoints
}

func slicePorts(slice *discoveryv1.EndpointSlice) map[string]Port {
	ports := map[string]Port{}
	for _, port := range slice.Ports {
		if port.Port == nil {
			continue
		}
		name, protocol := "", corev1.ProtocolTCP
		if port.Name != nil {
			name = *port.Name
		}
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		ports[name] = Port{Number: portNumber(*port.Port), Protocol: protocol}
	}
	return ports
}

// portNumber is a port as the API has it.
func portNumber(port int32) uint16 {
	return uint16(port) //nolint:gosec // the API takes 1 to 65535 only
}

// Forward is where connections to one Service port go, in loopback addresses.
type Forward struct {
	Listen   netip.AddrPort
	Backends []netip.AddrPort
}

// Forwards says for each TCP port of a Service with a cluster address what to forward where. skipped names the ports
// that are not TCP.
func Forwards(service *corev1.Service, endpointSlices []*discoveryv1.EndpointSlice) (forwards []Forward, skipped []string) {
	address, err := LoopbackOf(service.Spec.ClusterIP)
	if err != nil {
		return nil, nil // headless, or of type ExternalName
	}
	endpoints := ReadyEndpoints(endpointSlices)
	for _, port := range service.Spec.Ports {
		if port.Protocol != corev1.ProtocolTCP && port.Protocol != "" {
			skipped = append(skipped, fmt.Sprintf("%d/%s", port.Port, port.Protocol))
			continue
		}
		forward := Forward{Listen: netip.AddrPortFrom(address, portNumber(port.Port))}
		for _, endpoint := range endpoints {
			target, has := endpoint.Ports[port.Name]
			backend, err := ToLoopback(endpoint.Address)
			if !has || err != nil {
				continue
			}
			forward.Backends = append(forward.Backends, netip.AddrPortFrom(backend, target.Number))
		}
		forwards = append(forwards, forward)
	}
	return forwards, skipped
}
