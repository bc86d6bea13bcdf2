package resources

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/hocon"
)

// Port is a port that a configuration opens.
type Port struct {
	// Name is the name of the Service port: a DNS label.
	Name string `json:"name"`
	// Number is the port, 1 to 65535.
	Number int32 `json:"port"`
	// Protocol is TCP or UDP.
	Protocol corev1.Protocol `json:"protocol"`
	// Listener is EMQX's name of the MQTT listener, such as tcp:default; empty for other ports.
	Listener string `json:"listener,omitempty"`
}

// Ports are the ports that a configuration opens.
type Ports struct {
	// Dashboard are those of the dashboard and the management API, named dashboard and dashboard-https.
	Dashboard []Port `json:"dashboard,omitempty"`
	// Listeners are those that clients connect to, by name.
	Listeners []Port `json:"listeners,omitempty"`
}

const (
	dashboardPortName      = "dashboard"
	dashboardHTTPSPortName = "dashboard-https"
	defaultDashboardPort   = 18083
)

// defaultListeners is what EMQX opens unless the configuration says otherwise.
const defaultListeners = `listeners.tcp.default.bind = 1883
listeners.ssl.default.bind = 8883
listeners.ws.default.bind = 8083
listeners.wss.default.bind = 8084
`

// ConfigText is the content of emqx.conf: EMQX's default listeners, then the user's text, which wins.
func ConfigText(data string) string {
	if rest, braced := strings.CutPrefix(strings.TrimSpace(data), "{"); braced {
		return "{\n" + defaultListeners + rest
	}
	return defaultListeners + data
}

// Config is what the operator needs to know of a configuration.
type Config struct {
	// Ports are the ports that it opens.
	Ports Ports
	// DurableSessions tells that sessions are kept in EMQX's durable storage, in any zone.
	DurableSessions bool
}

// ParseConfig reads the user's configuration text. A syntax error is a *hocon.Error with the place in that text.
func ParseConfig(data string) (Config, error) {
	if _, err := hocon.Parse(data); err != nil {
		return Config{}, err
	}
	object, err := hocon.Parse(ConfigText(data))
	if err != nil {
		return Config{}, err
	}
	ports := Ports{Dashboard: dashboardPorts(object), Listeners: listenerPorts(object)}
	if len(ports.Dashboard) == 0 {
		return Config{}, errors.New("dashboard.listeners: both http and https are off, so that EMQX could not be managed")
	}
	return Config{Ports: ports, DurableSessions: durableSessions(object)}, nil
}

func durableSessions(config *hocon.Object) bool {
	zones := config.Object("zones")
	return config.Bool(false, "durable_sessions", "enable") || slices.ContainsFunc(zones.Keys(), func(zone string) bool {
		return zones.Bool(false, zone, "durable_sessions", "enable")
	})
}

func dashboardPorts(config *hocon.Object) []Port {
	var ports []Port
	http, found := bindPort(config, "dashboard", "listeners", "http", "bind")
	if !found {
		http = defaultDashboardPort
	}
	if http != 0 {
		ports = append(ports, Port{Name: dashboardPortName, Number: http, Protocol: corev1.ProtocolTCP})
	}
	if https, _ := bindPort(config, "dashboard", "listeners", "https", "bind"); https != 0 {
		ports = append(ports, Port{Name: dashboardHTTPSPortName, Number: https, Protocol: corev1.ProtocolTCP})
	}
	return ports
}

// DashboardPorts are those that a pod template names: what is known of a set whose configuration is not noted on it.
func DashboardPorts(template corev1.PodTemplateSpec) []Port {
	var ports []Port
	for _, name := range []string{dashboardPortName, dashboardHTTPSPortName} {
		for _, container := range template.Spec.Containers {
			for _, port := range container.Ports {
				if container.Name == EMQXContainer && port.Name == name {
					ports = append(ports, Port{Name: name, Number: port.ContainerPort, Protocol: corev1.ProtocolTCP})
				}
			}
		}
	}
	return ports
}

// listenerPorts are those of MQTT listeners and of gateways. A bind that cannot be known here, because it is a
// substitution, opens no port: the Service's template can name it.
func listenerPorts(config *hocon.Object) []Port {
	ports := listenersOf(config.Object("listeners"), "", "quic")
	gateways := config.Object("gateway")
	for _, gateway := range gateways.Keys() {
		object := gateways.Object(gateway)
		if !enabled(object) {
			continue
		}
		for _, port := range listenersOf(object.Object("listeners"), gateway+"-", "udp", "dtls") {
			port.Listener = "" // The API of MQTT listeners does not know it.
			ports = append(ports, port)
		}
	}
	slices.SortFunc(ports, func(a, b Port) int { return cmp.Compare(a.Name, b.Name) })
	return unique(ports)
}

// listenersOf reads TYPE.NAME objects; udp are the types that listen on UDP.
func listenersOf(listeners *hocon.Object, prefix string, udp ...string) []Port {
	var ports []Port
	for _, kind := range listeners.Keys() {
		ofKind := listeners.Object(kind)
		for _, name := range ofKind.Keys() {
			number, found := bindPort(ofKind, name, "bind")
			if !found || number == 0 || !enabled(ofKind.Object(name)) {
				continue
			}
			protocol := corev1.ProtocolTCP
			if slices.Contains(udp, kind) {
				protocol = corev1.ProtocolUDP
			}
			ports = append(ports, Port{Name: portName(prefix + kind + "-" + name), Number: number, Protocol: protocol, Listener: kind + ":" + name})
		}
	}
	return ports
}

func enabled(listener *hocon.Object) bool {
	return listener.Bool(true, "enable") && listener.Bool(true, "enabled")
}

// bindPort reads a bind: a port, or an address and a port. It reports false when there is none that can be known.
func bindPort(object *hocon.Object, path ...string) (int32, bool) {
	text, ok := object.Text(path...)
	if !ok {
		return 0, false
	}
	port, err := strconv.ParseUint(text[strings.LastIndexByte(text, ':')+1:], 10, 16)
	if err != nil {
		return 0, false
	}
	return int32(port), true
}

const maxPortName = 63

// portName makes a DNS label of a listener's name.
func portName(name string) string {
	label := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
	return strings.Trim(label[:min(len(label), maxPortName)], "-")
}

// unique drops ports whose number and protocol are taken and tells apart those whose names became the same. A Service
// takes no two ports of the same number and protocol.
func unique(ports []Port) []Port {
	type key struct {
		number   int32
		protocol corev1.Protocol
	}
	taken, names := map[key]bool{}, map[string]bool{}
	var kept []Port
	for _, port := range ports {
		if taken[key{port.Number, port.Protocol}] {
			continue
		}
		for base, i := port.Name, 2; names[port.Name]; i++ {
			suffix := "-" + strconv.Itoa(i)
			port.Name = base[:min(len(base), maxPortName-len(suffix))] + suffix
		}
		taken[key{port.Number, port.Protocol}], names[port.Name] = true, true
		kept = append(kept, port)
	}
	return kept
}
