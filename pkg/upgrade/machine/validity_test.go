package machine

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// withTarget has a Service lead to a port by name.
func withTarget(kind resources.ServiceKind, name string) func(*Snapshot) {
	return func(s *Snapshot) {
		template := &v2beta1.ServiceTemplate{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "a", Port: 1}, {Name: "b", Port: 2, TargetPort: intstr.FromString(name)}}}}
		if kind == resources.Dashboard {
			s.EMQX.Spec.DashboardServiceTemplate = template
		} else {
			s.EMQX.Spec.ListenersServiceTemplate = template
		}
	}
}

func withPort(name string) func(*Snapshot) {
	return func(s *Snapshot) {
		s.EMQX.Spec.CoreTemplate.Spec.Ports = append(s.EMQX.Spec.CoreTemplate.Spec.Ports, corev1.ContainerPort{Name: name, ContainerPort: 9})
	}
}

func withReadiness(port intstr.IntOrString) func(*Snapshot) {
	return func(s *Snapshot) {
		s.EMQX.Spec.CoreTemplate.Spec.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: port}}}
	}
}

func withConfig(change func(*resources.Config)) func(*Snapshot) {
	return func(s *Snapshot) { change(&s.Config) }
}

func TestSpecProblem(t *testing.T) {
	listenersOff := withConfig(func(c *resources.Config) { c.Ports.Listeners = nil })
	sidecar := func(s *Snapshot) {
		s.EMQX.Spec.CoreTemplate.Spec.ExtraContainers = []corev1.Container{{Name: "s", Ports: []corev1.ContainerPort{{Name: "side"}},
			LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("side")}}}}}
	}
	for _, test := range []struct {
		reason string
		change []func(*Snapshot)
		want   string
	}{
		{"nothing is wrong", nil, ""},
		{"all listeners are off", []func(*Snapshot){listenersOff}, "spec.config.data: listeners"},
		{"… but the template has ports", []func(*Snapshot){listenersOff, withTarget(resources.Listeners, "dashboard")}, ""},
		{"… but no Service is wanted", []func(*Snapshot){listenersOff, func(s *Snapshot) {
			s.EMQX.Spec.ListenersServiceTemplate = &v2beta1.ServiceTemplate{Enabled: ptr.To(false)}
		}}, ""},
		{"… but not all of the configuration is known", []func(*Snapshot){listenersOff, withConfig(func(c *resources.Config) { c.Unknown = []string{"x"} })}, ""},
		{"the management API is off", []func(*Snapshot){withConfig(func(c *resources.Config) { c.Ports.Dashboard = nil })}, "spec.config.data: dashboard.listeners"},
		{"a target port that no container has", []func(*Snapshot){withTarget(resources.Listeners, "mqtt")}, `spec.listenersServiceTemplate.spec.ports[1].targetPort: no container has a port named "mqtt", only dashboard`},
		{"the same of the dashboard's Service", []func(*Snapshot){withTarget(resources.Dashboard, "mqtt")}, "spec.dashboardServiceTemplate.spec.ports[1].targetPort"},
		{"… but the template of the pods has it", []func(*Snapshot){withTarget(resources.Listeners, "mqtt"), withPort("mqtt")}, ""},
		{"… but a container beside EMQX has it", []func(*Snapshot){withTarget(resources.Listeners, "side"), sidecar}, ""},
		{"a probe of a port that its container has not", []func(*Snapshot){withReadiness(intstr.FromString("http"))}, `spec.coreTemplate.spec.readinessProbe.httpGet.port: the container has no port named "http", only dashboard`},
		{"… that another container has", []func(*Snapshot){withReadiness(intstr.FromString("side")), sidecar}, "spec.coreTemplate.spec.readinessProbe.httpGet.port"},
		{"the default probe, without the port that it asks", []func(*Snapshot){withReadiness(intstr.FromString("dashboard")), withConfig(func(c *resources.Config) { c.Ports.Dashboard[0].Name = "dashboard-https" })},
			`no port named "dashboard", only dashboard-https`},
		{"a probe of a number", []func(*Snapshot){withReadiness(intstr.FromInt32(9999))}, ""},
		{"a hook of a port that its container has not", []func(*Snapshot){func(s *Snapshot) {
			s.EMQX.Spec.CoreTemplate.Spec.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("x")}}}
		}}, "spec.coreTemplate.spec.lifecycle.preStop.httpGet.port"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s := upgrading(v2beta1.PhaseDone, test.change...)
			problem := specProblem(s)
			if test.want == "" {
				require.Nil(t, problem)
				return
			}
			require.NotNil(t, problem)
			require.Equal(t, "InvalidSpec", problem.Reason)
			require.Contains(t, problem.Message, test.want)
			require.Equal(t, problem, Decide(s).Stalled)
		})
	}
}

// TestServiceKeepsLeadingSomewhere: a template that leads to a port which the pods that serve do not have is not written to
// their Service, whether other pods will have it or not.
func TestServiceKeepsLeadingSomewhere(t *testing.T) {
	for _, ports := range [][]string{nil, {"mqtt"}} {
		s := upgrading(v2beta1.PhaseDone, serving("blue"), withTarget(resources.Listeners, "mqtt"))
		for _, name := range ports {
			withPort(name)(&s)
		}
		service := s.Services[resources.Listeners]
		service.State = Outdated
		s.Services[resources.Listeners] = service
		require.Empty(t, keepServices(s))
		s.Sets[0].PortNames = []string{"mqtt"}
		require.Len(t, keepServices(s), 1)
	}
}

func TestUndecodableStalls(t *testing.T) {
	s := upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) {
		s.EMQX.Annotations = map[string]string{v2beta1.AnnotationUndecodable: "a is no text"}
	})
	decision := Decide(s)
	require.Equal(t, Undecodable, decision.Stalled.Reason)
	require.Contains(t, decision.Stalled.Message, "a is no text")
	require.Equal(t, v2beta1.PhaseEvacuating, decision.Phase)
}

// TestWrongProbePortIsNamed: a number may be right although nothing tells of it; it is named while pods are not ready.
func TestWrongProbePortIsNamed(t *testing.T) {
	starting := withSet("green", func(set *Set) { set.Pods[1].ContainersReady, set.Pods[1].Ready = false, false })
	s := upgrading(v2beta1.PhaseProvisioning, starting, withReadiness(intstr.FromInt32(9999)))
	require.Contains(t, Decide(s).Waiting.Message, "spec.coreTemplate.spec.readinessProbe.httpGet.port asks port 9999")
	s = upgrading(v2beta1.PhaseProvisioning, starting, withReadiness(intstr.FromInt32(18083)))
	require.NotContains(t, Decide(s).Waiting.Message, "spec.coreTemplate")
}

func TestSelectorIsNamed(t *testing.T) {
	s := upgrading(v2beta1.PhaseDone, func(s *Snapshot) {
		s.Sets = s.Sets[1:]
		delete(s.ConfigMaps, "e-configs-blue")
		s.EMQX.Spec.ListenersServiceTemplate = &v2beta1.ServiceTemplate{Spec: corev1.ServiceSpec{Selector: map[string]string{"a": "b"}}}
	})
	decision := Decide(s)
	for _, condition := range conditions(s, decision) {
		if condition.Type == v2beta1.ConditionReady {
			require.Equal(t, metav1.ConditionTrue, condition.Status, condition.Message)
			require.Contains(t, condition.Message, "spec.listenersServiceTemplate.spec.selector has no effect")
		}
	}
}
