package resources

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is the resource of the documentation, with the defaults that the schema gives it.
func sample(change ...func(*v2beta1.EMQX)) *v2beta1.EMQX {
	emqx := &v2beta1.EMQX{
		ObjectMeta: metav1.ObjectMeta{Name: "emqx-ee", Namespace: "default", UID: "0000", Labels: map[string]string{"team": "iot"}},
		Spec: v2beta1.EMQXSpec{
			Image: "emqx/emqx:6.0.1", ClusterDomain: "cluster.local",
			Config: v2beta1.Config{Data: "license {\n  key = \"...\"\n}\n"},
		},
	}
	core := &emqx.Spec.CoreTemplate.Spec
	core.Replicas = ptr.To(int32(3))
	core.PodSecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(1000))}
	core.ReadinessProbe = &corev1.Probe{
		InitialDelaySeconds: 10, PeriodSeconds: 5, FailureThreshold: 12,
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/status", Port: intstr.FromString("dashboard")}},
	}
	for _, c := range change {
		c(emqx)
	}
	return emqx
}

func golden(t *testing.T, name string, object any) {
	t.Helper()
	got, err := yaml.Marshal(object)
	require.NoError(t, err)
	file := filepath.Join("testdata", name+".yaml")
	if *update {
		require.NoError(t, os.WriteFile(file, got, 0o600))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "go test ./pkg/resources -update writes it anew")
}

func portsOf(t *testing.T, data string) Ports {
	t.Helper()
	config, err := ParseConfig(data, nil)
	require.NoError(t, err)
	return config.Ports
}

func TestGolden(t *testing.T) {
	emqx := sample()
	ports := portsOf(t, emqx.Spec.Config.Data)
	set, err := StatefulSet(emqx, CoreSet{Revision: "5d8c", Template: "5d8c", Replicas: 3, Ports: ports, ConfigHash: "c0", Intent: "{}", ConfigMap: emqx.RevisionConfigMapName("5d8c"), CookieDigest: "0f1e"})
	require.NoError(t, err)
	golden(t, "statefulset", set)
	volumes := sample(func(e *v2beta1.EMQX) {
		e.Spec.CoreTemplate.Spec.VolumeClaimTemplates = corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To("fast"),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Gi")}},
		}
	})
	set, err = StatefulSet(volumes, CoreSet{Revision: "5d8c", Template: "5d8c", Replicas: 3, Ports: ports, ConfigHash: "c0", Intent: "{}", ConfigMap: emqx.RevisionConfigMapName("5d8c"), CookieDigest: "0f1e"})
	require.NoError(t, err)
	golden(t, "statefulset-volumes", set)
	patch, err := TemplatePatch(emqx, "0000", "7", CoreSet{Revision: "5d8c", Template: "6e9d", Ports: ports, ConfigHash: "c1", Intent: "{}", ConfigMap: emqx.RevisionConfigMapName("6e9d"), CookieDigest: "0f1e"})
	require.NoError(t, err)
	var operations []JSONPatch
	require.NoError(t, json.Unmarshal(patch, &operations))
	golden(t, "template-patch", operations)
	for _, kind := range ServiceKinds() {
		service, err := Service(emqx, kind, "5d8c", ports)
		require.NoError(t, err)
		golden(t, "service-"+string(kind), service)
	}
	golden(t, "service-headless", HeadlessService(emqx))
	golden(t, "budget", Budget(emqx, "5d8c"))
	golden(t, "configmap", ConfigMap(emqx, emqx.RevisionConfigMapName("5d8c"), "5d8c"))
	golden(t, "secret-cookie", NodeCookieSecret(emqx, "random"))
	golden(t, "secret-keys", BootstrapAPIKeySecret(emqx, KeysData{Users: []APIKey{{"user", "pass"}}, Own: OperatorKey{Secret: "random"}}))
}

func TestRenderingIsPure(t *testing.T) {
	emqx := sample(func(e *v2beta1.EMQX) {
		e.Spec.CoreTemplate.Spec.Ports = []corev1.ContainerPort{{Name: "extra", ContainerPort: 1}}
		e.Spec.CoreTemplate.Spec.Env = []corev1.EnvVar{{Name: "X", Value: "y"}}
	})
	before := emqx.DeepCopy()
	first, err := StatefulSet(emqx, CoreSet{Revision: "a", Ports: portsOf(t, "")})
	require.NoError(t, err)
	second, err := StatefulSet(emqx, CoreSet{Revision: "a", Ports: portsOf(t, "")})
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.Equal(t, before, emqx)
	env := first.Spec.Template.Spec.Containers[0].Env
	require.Equal(t, corev1.EnvVar{Name: "X", Value: "y"}, env[len(env)-1], "the user's variables come last and win")
}

func TestServiceTemplate(t *testing.T) {
	emqx := sample(func(e *v2beta1.EMQX) {
		e.Spec.ListenersServiceTemplate = &v2beta1.ServiceTemplate{
			ObjectMeta: v2beta1.TemplateMeta{Labels: map[string]string{"a": "b", v2beta1.LabelInstance: "mine"}, Annotations: map[string]string{"lb": "internal"}},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"x": "y"},
				Ports: []corev1.ServicePort{{Name: "mqtt", Port: 1883, NodePort: 30001}},
			},
		}
	})
	service, err := Service(emqx, Listeners, "r", portsOf(t, ""))
	require.NoError(t, err)
	require.Equal(t, "emqx-ee-listeners", *service.Name)
	require.Equal(t, "emqx-ee", service.Labels[v2beta1.LabelInstance], "the operator's labels win")
	require.Equal(t, "b", service.Labels["a"])
	require.Equal(t, "internal", service.Annotations["lb"])
	require.Equal(t, CoreRevisionLabels(emqx, "r"), service.Spec.Selector)
	require.Equal(t, corev1.ServiceTypeLoadBalancer, *service.Spec.Type)
	require.Len(t, service.Spec.Ports, 4, "1883 is the template's")
	require.Equal(t, "mqtt", *service.Spec.Ports[0].Name)
	require.EqualValues(t, 30001, *service.Spec.Ports[0].NodePort)

	other, err := Service(emqx, Listeners, "r", portsOf(t, "listeners.tcp.x.bind = 1"))
	require.NoError(t, err)
	require.NotEqual(t, service.Annotations[AnnotationAppliedHash], other.Annotations[AnnotationAppliedHash])
	require.True(t, ServiceEnabled(emqx, Listeners))
	emqx.Spec.ListenersServiceTemplate.Enabled = ptr.To(false)
	require.False(t, ServiceEnabled(emqx, Listeners))
}

func TestOperatorKeys(t *testing.T) {
	for _, test := range []struct {
		reason, text, want string
		found              bool
	}{
		{"the last line", "user:a\n" + OperatorAPIKey + ":b\n", "b", true},
		{"with a role", OperatorAPIKey + ":b:administrator", "b", true},
		{"not there", "user:a\n", "", false},
		{"no password", OperatorAPIKey + ":\n", "", false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			own, _ := OperatorKeys(map[string][]byte{BootstrapAPIKeyKey: []byte(test.text)})
			require.Equal(t, test.found, own != nil)
			if own != nil {
				require.Equal(t, test.want, own.Secret)
			}
		})
	}
}

func TestCovers(t *testing.T) {
	for _, test := range []struct {
		reason, live, desired string
		want                  bool
	}{
		{"others may add", `{"a":1,"b":2}`, `{"a":1}`, true},
		{"a value differs", `{"a":1}`, `{"a":2}`, false},
		{"something is missing", `{}`, `{"a":1}`, false},
		{"nested", `{"a":{"b":1,"c":2}}`, `{"a":{"b":1}}`, true},
		{"lists are sets", `{"p":[{"n":1,"x":1},{"n":2}]}`, `{"p":[{"n":2},{"n":1}]}`, true},
		{"an element is missing", `{"p":[{"n":1}]}`, `{"p":[{"n":2}]}`, false},
		{"nothing is asked of what is not there", `{}`, `{"a":{}}`, true},
		{"kind and version, which objects from caches have lost", `{"a":1}`, `{"kind":"Service","apiVersion":"v1","a":1}`, true},
		{"another kind", `{"a":[]}`, `{"a":{"b":1}}`, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			got, err := Covers(json.RawMessage(test.live), json.RawMessage(test.desired))
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

// What the API server fills in is filled in before it is compared: else a Service would be written at every look.
func TestServiceIsSeenToBeAsItShallBe(t *testing.T) {
	emqx := &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n"}}
	emqx.Spec.ListenersServiceTemplate = &v2beta1.ServiceTemplate{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "mqtt", Port: 1883}}}}
	desired, err := Service(emqx, Listeners, "5d8c", Ports{})
	require.NoError(t, err)
	data, err := json.Marshal(desired)
	require.NoError(t, err)
	var live corev1.Service
	require.NoError(t, json.Unmarshal(data, &live))
	live.Spec.Ports[0].TargetPort, live.Spec.Ports[0].Protocol = intstr.FromInt32(1883), corev1.ProtocolTCP
	current, err := Covers(live, desired)
	require.NoError(t, err)
	require.True(t, current)
}
