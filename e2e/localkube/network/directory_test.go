package network_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

func pointer[T any](value T) *T { return &value }

// service returns a Service default/NAME with two TCP ports and one of UDP.
func service(name, clusterIP string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: clusterIP, Ports: []corev1.ServicePort{
			{Name: "mqtt", Port: 1883, Protocol: corev1.ProtocolTCP},
			{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP},
			{Name: "quic", Port: 14567, Protocol: corev1.ProtocolUDP},
		}},
	}
}

// slice returns an EndpointSlice with the same ports, of which http is 8080 at the endpoints.
func slice(endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints,
		Ports: []discoveryv1.EndpointPort{
			{Name: pointer("mqtt"), Port: pointer[int32](1883), Protocol: pointer(corev1.ProtocolTCP)},
			{Name: pointer("http"), Port: pointer[int32](8080), Protocol: pointer(corev1.ProtocolTCP)},
			{Name: pointer("quic"), Port: pointer[int32](14567), Protocol: pointer(corev1.ProtocolUDP)},
		},
	}
}

func endpoint(address, host string, ready *bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ready}}
	if host != "" {
		e.Hostname = &host
	}
	return e
}

func addrPorts(texts ...string) []netip.AddrPort {
	var list []netip.AddrPort
	for _, text := range texts {
		list = append(list, netip.MustParseAddrPort(text))
	}
	return list
}

func TestForwards(t *testing.T) {
	ready := []*discoveryv1.EndpointSlice{
		slice(endpoint("10.1.0.9", "", pointer(true)), endpoint("10.1.0.5", "", pointer(false))),
		slice(endpoint("10.1.0.4", "", nil)),
	}
	for _, c := range []struct {
		reason string
		ip     string
		slices []*discoveryv1.EndpointSlice
		want   []network.Forward
	}{
		{reason: "only endpoints that are ready, and absent means ready; sorted over slices", ip: "10.2.0.1", slices: ready, want: []network.Forward{
			{Listen: netip.MustParseAddrPort("127.2.0.1:1883"), Backends: addrPorts("127.1.0.4:1883", "127.1.0.9:1883")},
			{Listen: netip.MustParseAddrPort("127.2.0.1:80"), Backends: addrPorts("127.1.0.4:8080", "127.1.0.9:8080")},
		}},
		{reason: "no endpoints", ip: "10.2.0.1", want: []network.Forward{
			{Listen: netip.MustParseAddrPort("127.2.0.1:1883")}, {Listen: netip.MustParseAddrPort("127.2.0.1:80")},
		}},
		{reason: "headless", ip: corev1.ClusterIPNone, slices: ready},
		{reason: "without an address yet", ip: "", slices: ready},
	} {
		t.Run(c.reason, func(t *testing.T) {
			forwards, skipped := network.Forwards(service("web", c.ip), c.slices)
			require.Equal(t, c.want, forwards)
			if len(c.want) > 0 {
				require.Equal(t, []string{"14567/UDP"}, skipped)
			}
		})
	}
}

// source is a ServiceSource of fixed Services.
type source map[string]struct {
	service *corev1.Service
	slices  []*discoveryv1.EndpointSlice
}

func (s source) Service(namespace, name string) (*corev1.Service, []*discoveryv1.EndpointSlice, error) {
	found, has := s[namespace+"/"+name]
	if !has {
		return nil, nil, apierrors.NewNotFound(corev1.Resource("services"), name)
	}
	return found.service, found.slices, nil
}

func testSource() source {
	return source{
		"default/emqx": {service: service("emqx", "10.2.0.1"), slices: []*discoveryv1.EndpointSlice{slice(endpoint("10.1.0.4", "", nil))}},
		"default/emqx-headless": {service: service("emqx-headless", corev1.ClusterIPNone), slices: []*discoveryv1.EndpointSlice{slice(
			endpoint("10.1.0.4", "emqx-0", pointer(true)),
			endpoint("10.1.0.5", "", pointer(true)),
			endpoint("10.1.0.6", "emqx-2", pointer(false)),
		)}},
		"default/empty": {service: service("empty", corev1.ClusterIPNone)},
	}
}
