package resources

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/hocon"
)

// listenerTypes are EMQX's types of MQTT listeners.
func listenerTypes() []string { return []string{"tcp", "ssl", "ws", "wss", "quic"} }

// defaultBind is the port of a listener that says none.
func defaultBind(listenerType string) int32 {
	return map[string]int32{"tcp": 1883, "ssl": 8883, "ws": 8083, "wss": 8084, "quic": 14567}[listenerType]
}

// gatewayTypes are the types of listeners that EMQX's gateways have. Later versions may have other gateways.
func gatewayTypes(gateway string) []string {
	switch gateway {
	case "stomp", "gbt32960", "jt808":
		return []string{"tcp", "ssl"}
	case "mqttsn", "coap", "lwm2m":
		return []string{"udp", "dtls"}
	case "ocpp":
		return []string{"ws", "wss"}
	case "nats":
		return []string{"tcp", "ssl", "ws", "wss"}
	case exproto:
		return []string{"tcp", "ssl", "udp", "dtls"}
	default:
		return nil
	}
}

const (
	exproto = "exproto"
	// tombstone is what EMQX keeps of a listener that was deleted.
	tombstone = "marked_for_deletion"
	// defaultName is the listener that each type but quic has, whatever the configuration says.
	defaultName = "default"
)

// isListenerName tells what EMQX takes for the name of a listener.
func isListenerName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '-' || c == '_'):
		default:
			return false
		}
	}
	return name != ""
}

// listeners are the ports of MQTT listeners and of gateways, by name.
func (r *reader) listeners(root view) []Port {
	listeners := r.object(root, "listeners", "listeners")
	ports := r.listenersOf(listeners, "listeners", "", listenerTypes())
	for _, listenerType := range listenerTypes() {
		ofType := listeners.get(listenerType)
		missing := ofType.kind() == hocon.Absent || ofType.kind() == hocon.Null ||
			ofType.kind() == hocon.Object && ofType.get(defaultName).kind() == hocon.Absent
		if missing && listenerType != "quic" {
			ports = append(ports, listenerPort("", listenerType, defaultName, defaultBind(listenerType)))
		}
	}
	gateways := r.object(root, "gateway", "gateway")
	for name := range gateways.members() {
		ports = append(ports, r.gateway(gateways, name)...)
	}
	slices.SortFunc(ports, func(a, b Port) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Listener, b.Listener)) })
	return unique(ports)
}

// gateway are the ports of a gateway: its listeners, and the server that an exproto handler calls.
func (r *reader) gateway(gateways view, name string) []Port {
	place := "gateway." + name
	gateway := r.object(gateways, place, name)
	if gateway.kind() == hocon.Absent {
		return nil
	}
	on := r.boolean(gateway, place, true, "enable")
	ports := r.listenersOf(r.object(gateway, place+".listeners", "listeners"), place+".listeners", name+"-", gatewayTypes(name))
	if name == exproto {
		place += ".server"
		server := r.object(gateway, place, "server")
		bound, found := r.bind(server, place, "bind")
		if kind := server.get("bind").kind(); kind == hocon.Absent || kind == hocon.Null {
			r.refuse(place+".bind", "EMQX requires it")
		}
		if found && bound.port != 0 && !bound.loopback {
			ports = append(ports, Port{Name: "exproto-server", Number: bound.port, Protocol: corev1.ProtocolTCP})
		}
	}
	if !on {
		return nil
	}
	for i := range ports {
		ports[i].Listener = "" // The API of MQTT listeners does not know it.
	}
	return ports
}

// listenersOf reads TYPE.NAME objects of the given types, or of any when none is given.
func (r *reader) listenersOf(listeners view, place, prefix string, types []string) []Port {
	var ports []Port
	for listenerType, v := range listeners.members() {
		place := place + "." + listenerType
		if v.kind() == hocon.Null {
			continue
		}
		if len(types) > 0 && !slices.Contains(types, listenerType) {
			r.refuse(place, "EMQX has no listeners of this type here, only "+strings.Join(types, ", "))
			continue
		}
		ofType := r.object(listeners, place, listenerType)
		ports = slices.Grow(ports, ofType.value.Len())
		for name, listener := range ofType.members() {
			if port, opens := r.listener(listener, place, prefix, listenerType, name); opens {
				ports = append(ports, port)
			}
		}
	}
	return ports
}

// listener reads one of the listeners at a place and tells whether it opens a port that can be reached. Null is a listener of all defaults.
func (r *reader) listener(listener view, place, prefix, listenerType, name string) (Port, bool) {
	if !isListenerName(name) {
		r.refuse(place+"."+name, "the name of a listener has only letters, digits, - and _, and begins with a letter or a digit")
		return Port{}, false
	}
	switch listener.kind() {
	case hocon.Object:
	case hocon.Null:
		listener = view{}
	case hocon.Unknown:
		r.cannotKnow(place + "." + name)
		return Port{}, false
	default:
		if text, _ := listener.value.Text(); text != tombstone || prefix != "" {
			r.refuse(place+"."+name, "a listener is an object")
		}
		return Port{}, false
	}
	place += "." + name
	on := r.boolean(listener, place, true, "enable", "enabled")
	bound, found := r.bind(listener, place, "bind")
	if !found {
		if kind := listener.get("bind").kind(); kind == hocon.Unknown {
			return Port{}, false
		}
		if prefix == "" {
			bound.port = defaultBind(listenerType)
		} else if on {
			r.cannotKnow(place + ".bind")
		}
	}
	return listenerPort(prefix, listenerType, name, bound.port), on && bound.port != 0 && !bound.loopback
}

func listenerPort(prefix, listenerType, name string, number int32) Port {
	protocol := corev1.ProtocolTCP
	if listenerType == "quic" || listenerType == "udp" || listenerType == "dtls" {
		protocol = corev1.ProtocolUDP
	}
	return Port{
		Name: portName(prefix + listenerType + "-" + name), Number: number, Protocol: protocol,
		Listener: listenerType + ":" + name,
	}
}

const maxPortName = 63

// portName makes a DNS label of a listener's name.
func portName(name string) string {
	label := strings.ToLower(name[:min(len(name), maxPortName)])
	label = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, label)
	return strings.Trim(label, "-")
}

// unique drops ports whose number and protocol are taken and tells apart those whose names became the same. A Service
// takes no two ports of the same number and protocol.
func unique(ports []Port) []Port {
	taken := map[corev1.Protocol]map[int32]bool{corev1.ProtocolTCP: {}, corev1.ProtocolUDP: {}}
	names, next := make(map[string]bool, len(ports)), map[string]int{}
	kept := ports[:0]
	for _, port := range ports {
		if taken[port.Protocol][port.Number] {
			continue
		}
		for base := port.Name; names[port.Name]; {
			next[base] = max(next[base], 1) + 1 // Goes on where it stopped: there may be thousands of one name.
			suffix := "-" + strconv.Itoa(next[base])
			port.Name = base[:min(len(base), maxPortName-len(suffix))] + suffix
		}
		taken[port.Protocol][port.Number], names[port.Name] = true, true
		kept = append(kept, port)
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}
