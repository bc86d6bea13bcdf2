package resources

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// ServiceKind tells the Services that select one revision apart.
type ServiceKind string

// The Services that select one revision.
const (
	// Listeners is the Service that clients connect to.
	Listeners ServiceKind = "listeners"
	// Dashboard is the Service of the dashboard and the management API.
	Dashboard ServiceKind = "dashboard"
)

// ServiceKinds lists the Services that select one revision, in the order in which they are switched.
func ServiceKinds() []ServiceKind { return []ServiceKind{Listeners, Dashboard} }

// ServiceName is the name of a Service.
func ServiceName(emqx *v2beta1.EMQX, kind ServiceKind) string {
	if kind == Dashboard {
		return emqx.DashboardServiceName()
	}
	return emqx.ListenersServiceName()
}

// ServiceEnabled tells whether a Service is wanted.
func ServiceEnabled(emqx *v2beta1.EMQX, kind ServiceKind) bool {
	template := serviceTemplate(emqx, kind)
	return template.Enabled == nil || *template.Enabled
}

func serviceTemplate(emqx *v2beta1.EMQX, kind ServiceKind) v2beta1.ServiceTemplate {
	template := emqx.Spec.ListenersServiceTemplate
	if kind == Dashboard {
		template = emqx.Spec.DashboardServiceTemplate
	}
	if template == nil {
		return v2beta1.ServiceTemplate{}
	}
	return *template
}

// Service is the Service of the given kind, selecting the core nodes of one revision.
func Service(emqx *v2beta1.EMQX, kind ServiceKind, revision string, ports Ports) (*applycore.ServiceApplyConfiguration, error) {
	template := serviceTemplate(emqx, kind)
	generated := ports.Listeners
	if kind == Dashboard {
		generated = ports.Dashboard
	}
	spec := template.Spec
	spec.Ports = servicePorts(spec, generated)
	spec.Selector = CoreRevisionLabels(emqx, revision)
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("render Service %s: %w", ServiceName(emqx, kind), err)
	}
	apply := applycore.ServiceSpec()
	if err := json.Unmarshal(data, apply); err != nil {
		return nil, fmt.Errorf("render Service %s: %w", ServiceName(emqx, kind), err)
	}
	service := applycore.Service(ServiceName(emqx, kind), emqx.Namespace).
		WithLabels(with(template.ObjectMeta.Labels, Labels(emqx))).
		WithAnnotations(template.ObjectMeta.Annotations).
		WithOwnerReferences(ApplyOwnerReference(emqx)).
		WithSpec(apply)
	hash, err := Hash(service)
	if err != nil {
		return nil, err
	}
	return service.WithAnnotations(map[string]string{AnnotationAppliedHash: hash}), nil
}

// AnnotationAppliedHash identifies what was applied, so that something that is no longer wanted is noticed, too: Covers
// only sees what is missing.
const AnnotationAppliedHash = "apps.emqx.io/applied-hash"

// servicePorts puts the ports of the template first and adds those of the configuration whose name, and whose number
// with its protocol, the template has not taken.
func servicePorts(spec corev1.ServiceSpec, generated []Port) []corev1.ServicePort {
	var merged []corev1.ServicePort
	for _, port := range spec.Ports {
		// What the API server fills in is filled in here, so that the object is seen to be as it shall be.
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		if port.TargetPort == (intstr.IntOrString{}) && spec.Type != corev1.ServiceTypeExternalName {
			port.TargetPort = intstr.FromInt32(port.Port)
		}
		merged = append(merged, port)
	}
	for _, port := range generated {
		if taken(merged, port) {
			continue
		}
		merged = append(merged, corev1.ServicePort{
			Name: port.Name, Port: port.Number, Protocol: port.Protocol, TargetPort: intstr.FromInt32(port.Number),
		})
	}
	return merged
}

func taken(ports []corev1.ServicePort, port Port) bool {
	for _, other := range ports {
		if other.Name == port.Name || other.Port == port.Number && other.Protocol == port.Protocol {
			return true
		}
	}
	return false
}

// Erlang's distribution and EMQX's remote calls.
const (
	erlangDistPort = 4370
	genRPCPort     = 5369
)

// HeadlessService is the Service through which nodes find each other: core nodes of all revisions, ready or not.
func HeadlessService(emqx *v2beta1.EMQX) *applycore.ServiceApplyConfiguration {
	port := func(name string, number int32) *applycore.ServicePortApplyConfiguration {
		return applycore.ServicePort().WithName(name).WithPort(number).WithProtocol(corev1.ProtocolTCP).
			WithTargetPort(intstr.FromInt32(number))
	}
	return applycore.Service(emqx.HeadlessServiceName(), emqx.Namespace).
		WithLabels(with(emqx.Labels, Labels(emqx))).
		WithOwnerReferences(ApplyOwnerReference(emqx)).
		WithSpec(applycore.ServiceSpec().
			WithClusterIP(corev1.ClusterIPNone).
			WithPublishNotReadyAddresses(true).
			WithSelector(CoreLabels(emqx)).
			WithPorts(port("erlang-dist", erlangDistPort), port("gen-rpc", genRPCPort)))
}
