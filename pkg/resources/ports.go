package resources

import (
	corev1 "k8s.io/api/core/v1"
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

// dashboard are the ports of the dashboard. The operator sets the binds in the environment, to the ports that are wanted
// here and on all addresses; only a variable of the user, which comes after, binds one to an address.
func (r *reader) dashboard(root view, env environment) []Port {
	const place = "dashboard.listeners"
	listeners := r.object(r.object(root, "dashboard", "dashboard"), place, "listeners")
	var ports []Port
	for _, protocol := range []struct {
		name, port string
		otherwise  int32
	}{{"http", dashboardPortName, defaultDashboardPort}, {"https", dashboardHTTPSPortName, 0}} {
		place := place + "." + protocol.name
		bound, found := r.bind(r.object(listeners, place, protocol.name), place, "bind")
		if !found {
			bound.port = protocol.otherwise
		}
		users := env.at("dashboard", "listeners", protocol.name, "bind")
		if bound.port == 0 || bound.loopback && users != nil || users != nil && users.unknown {
			continue
		}
		ports = append(ports, Port{Name: protocol.port, Number: bound.port, Protocol: corev1.ProtocolTCP})
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
