package machine

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// Undecodable is the reason that is given for a specification that the operator's types do not take.
const Undecodable = "Undecodable"

// UndecodableMessage says so to people.
func UndecodableMessage(emqx *v2beta1.EMQX) string {
	message := "the resource cannot be decoded: " + emqx.Undecodable()
	if emqx.Unknown() {
		return message + "; its cluster stays as it is until that is corrected"
	}
	return message + "; the last specification that could be goes on being served"
}

// undecodable: the specification in the Snapshot is not the one that the user wrote last.
func undecodable(s Snapshot) *Lack {
	if s.EMQX.Undecodable() == "" {
		return nil
	}
	return &Lack{Undecodable, UndecodableMessage(s.EMQX)}
}

// specProblem: parts of the specification do not fit each other, so that pods would never be ready, or nobody could reach
// them. The schema cannot tell: it sees one field at a time, and not what the configuration opens.
func specProblem(s Snapshot) *Lack {
	for _, rule := range []func(Snapshot) string{noPort, targetPort, probePort, volumeClaim} {
		if message := rule(s); message != "" {
			return &Lack{"InvalidSpec", message}
		}
	}
	return nil
}

// noPort: a Service needs a port, and the operator the management API.
func noPort(s Snapshot) string {
	if len(s.Config.Unknown) > 0 {
		return "" // What cannot be known here may open some.
	}
	listeners := s.EMQX.Spec.ListenersServiceTemplate
	switch {
	case len(s.Config.Ports.Dashboard) == 0:
		return "spec.config.data: dashboard.listeners: no port is open, and the operator reaches the nodes through one: turn http or https on"
	case len(s.Config.Ports.Listeners) == 0 && resources.ServiceEnabled(s.EMQX, resources.Listeners) && (listeners == nil || len(listeners.Spec.Ports) == 0):
		return "spec.config.data: listeners: all are off, and a Service needs a port: turn one on, name ports in spec.listenersServiceTemplate.spec.ports, or set spec.listenersServiceTemplate.enabled to false"
	}
	return ""
}

// targetPort: a port of a Service leads to a container's port by a name that no container gives to any.
func targetPort(s Snapshot) string {
	names := portNames(podContainers(s)...)
	for _, kind := range resources.ServiceKinds() {
		if message := wrongTarget(s, kind, names); message != "" {
			return message
		}
	}
	return ""
}

// wrongTarget names the first port in the template of a Service whose target is none of the given names; empty when there
// is none.
func wrongTarget(s Snapshot, kind resources.ServiceKind, names []string) string {
	template := serviceTemplate(s, kind)
	if template == nil || !resources.ServiceEnabled(s.EMQX, kind) {
		return ""
	}
	for i, port := range template.Spec.Ports {
		if target := port.TargetPort; target.Type == intstr.String && !slices.Contains(names, target.StrVal) {
			return fmt.Sprintf("spec.%sServiceTemplate.spec.ports[%d].targetPort: no container has a port named %q, only %s; name one of these, or give a number",
				kind, i, target.StrVal, listed(names))
		}
	}
	return ""
}

func serviceTemplate(s Snapshot, kind resources.ServiceKind) *v2beta1.ServiceTemplate {
	if kind == resources.Dashboard {
		return s.EMQX.Spec.DashboardServiceTemplate
	}
	return s.EMQX.Spec.ListenersServiceTemplate
}

// volumeClaim: Kubernetes makes no claim that does not say how much, and how it is mounted. The set would wait for ever.
func volumeClaim(s Snapshot) string {
	const path = "spec.coreTemplate.spec.volumeClaimTemplates"
	claim := resources.VolumeClaimOf(s.EMQX)
	switch {
	case claim == nil:
		return ""
	case claim.Resources.Requests.Storage().IsZero():
		return path + ".resources.requests.storage: a claim says how much it asks for, such as 10Gi"
	case len(claim.AccessModes) == 0:
		return path + ".accessModes: a claim says how it is mounted, such as ReadWriteOnce"
	case claim.VolumeMode != nil && *claim.VolumeMode != corev1.PersistentVolumeFilesystem:
		return path + ".volumeMode: the data of EMQX lies on a Filesystem"
	}
	return ""
}

// probePort: a probe, or a hook, asks a port by a name that its container gives to none.
func probePort(s Snapshot) string {
	for _, container := range podContainers(s) {
		names := portNames(container)
		for _, asked := range askedPorts(container.Container) {
			if asked.port.Type == intstr.String && !slices.Contains(names, asked.port.StrVal) {
				return fmt.Sprintf("%s.%s: the container has no port named %q, only %s; name one of these, or give a number",
					container.path, asked.path, asked.port.StrVal, listed(names))
			}
		}
	}
	return ""
}

// suspectPort says which probe of EMQX's container asks a number that EMQX is not known to open; empty when there is none.
// Plugins may open ports that nothing tells of, so that it is said of a pod that is not ready and refuses nothing.
func suspectPort(s Snapshot) string {
	known := []int32{}
	for _, port := range slices.Concat(s.Config.Ports.Dashboard, s.Config.Ports.Listeners) {
		known = append(known, port.Number)
	}
	for _, port := range s.EMQX.Spec.CoreTemplate.Spec.Ports {
		known = append(known, port.ContainerPort)
	}
	emqx := podContainers(s)[0]
	for _, asked := range askedPorts(emqx.Container) {
		if asked.port.Type == intstr.Int && !slices.Contains(known, asked.port.IntVal) {
			return fmt.Sprintf("; %s.%s asks port %d, which EMQX is not known to open", emqx.path, asked.path, asked.port.IntVal)
		}
	}
	return ""
}

// templateContainer is a container of the pods, and where the specification describes it.
type templateContainer struct {
	path string
	corev1.Container
}

// podContainers are the containers of the core nodes' pods, as far as they have ports, probes and hooks; EMQX's is the first.
func podContainers(s Snapshot) []templateContainer {
	const path = "spec.coreTemplate.spec"
	spec := s.EMQX.Spec.CoreTemplate.Spec
	emqx := corev1.Container{
		Ports: slices.Clone(spec.Ports), LivenessProbe: spec.LivenessProbe, ReadinessProbe: spec.ReadinessProbe, StartupProbe: spec.StartupProbe, Lifecycle: spec.Lifecycle,
	}
	for _, port := range s.Config.Ports.Dashboard {
		emqx.Ports = append(emqx.Ports, corev1.ContainerPort{Name: port.Name})
	}
	all := []templateContainer{{path, emqx}}
	for i, container := range spec.ExtraContainers {
		all = append(all, templateContainer{fmt.Sprintf("%s.extraContainers[%d]", path, i), container})
	}
	for i, container := range spec.InitContainers {
		all = append(all, templateContainer{fmt.Sprintf("%s.initContainers[%d]", path, i), container})
	}
	return all
}

func portNames(containers ...templateContainer) []string {
	names := map[string]bool{}
	for _, container := range containers {
		for _, port := range container.Ports {
			names[port.Name] = true
		}
	}
	delete(names, "")
	return slices.Sorted(maps.Keys(names))
}

func listed(names []string) string { return cmp.Or(strings.Join(names, ", "), "ports without names") }

// askedPort is a port that the kubelet asks, and the field that says so.
type askedPort struct {
	path string
	port intstr.IntOrString
}

func askedPorts(container corev1.Container) []askedPort {
	var asked []askedPort
	add := func(path string, http *corev1.HTTPGetAction, tcp *corev1.TCPSocketAction) {
		if http != nil {
			asked = append(asked, askedPort{path + ".httpGet.port", http.Port})
		}
		if tcp != nil {
			asked = append(asked, askedPort{path + ".tcpSocket.port", tcp.Port})
		}
	}
	for _, probe := range []struct {
		path string
		*corev1.Probe
	}{{"startupProbe", container.StartupProbe}, {"readinessProbe", container.ReadinessProbe}, {"livenessProbe", container.LivenessProbe}} {
		if probe.Probe != nil {
			add(probe.path, probe.HTTPGet, probe.TCPSocket)
		}
	}
	if container.Lifecycle != nil {
		for _, hook := range []struct {
			path string
			*corev1.LifecycleHandler
		}{{"lifecycle.postStart", container.Lifecycle.PostStart}, {"lifecycle.preStop", container.Lifecycle.PreStop}} {
			if hook.LifecycleHandler != nil {
				add(hook.path, hook.HTTPGet, hook.TCPSocket)
			}
		}
	}
	return asked
}

// ignoredSelector names a selector in the template of a Service, which 2.x manifests may have: the operator's own wins.
func ignoredSelector(s Snapshot) string {
	for _, kind := range resources.ServiceKinds() {
		if template := serviceTemplate(s, kind); template != nil && len(template.Spec.Selector) > 0 {
			return fmt.Sprintf("spec.%sServiceTemplate.spec.selector", kind)
		}
	}
	return ""
}
