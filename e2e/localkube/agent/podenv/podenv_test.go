package podenv_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podenv"
)

// objects is a Source of one Secret "s" and one ConfigMap "c"; broken makes every read fail.
type objects struct{ broken bool }

var errBroken = errors.New("the API does not answer")

func (o objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	switch {
	case o.broken:
		return nil, errBroken
	case name != "s":
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
	}
	return &corev1.Secret{Data: map[string][]byte{"key": []byte("secret"), "with-dash": []byte("d"), "a=b": []byte("no name")}}, nil
}

func (o objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	switch {
	case o.broken:
		return nil, errBroken
	case name != "c":
		return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), name)
	}
	return &corev1.ConfigMap{Data: map[string]string{"key": "config"}}, nil
}

func secretKey(name, key string, optional *bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: optional,
	}}
}

func configMapKey(name, key string, optional *bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: optional,
	}}
}

func field(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func build(container *corev1.Container, source podenv.Source) (map[string]string, error) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-0", Namespace: "shop", UID: "u-1",
			Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"a/b": "noted"},
		},
		Spec: corev1.PodSpec{NodeName: "local", ServiceAccountName: "robot", Containers: []corev1.Container{*container}},
	}
	return podenv.Build(context.Background(), source, pod, container, podenv.Addresses{PodIP: "10.1.2.3", HostIP: "127.1.0.1"},
		corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("7")}, map[string]string{"DEFAULT": "d", "PROXY": "agent's"})
}

func TestBuild(t *testing.T) {
	yes := true
	env, err := build(&corev1.Container{
		Name: "main",
		EnvFrom: []corev1.EnvFromSource{
			{Prefix: "S_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}},
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "absent"}, Optional: &yes}},
		},
		Env: []corev1.EnvVar{
			{Name: "EARLY", Value: "$(NAME) is not known yet"},
			{Name: "NAME", ValueFrom: field("metadata.name")},
			{Name: "HOST", Value: "$(NAME).headless.$(NAMESPACE), $$(NAME), $(UNKNOWN)"},
			{Name: "NAMESPACE", ValueFrom: field("metadata.namespace")},
			{Name: "UID", ValueFrom: field("metadata.uid")},
			{Name: "LABEL", ValueFrom: field("metadata.labels['app']")},
			{Name: "ANNOTATION", ValueFrom: field("metadata.annotations['a/b']")},
			{Name: "NO_LABEL", ValueFrom: field("metadata.labels['none']")},
			{Name: "POD_IP", ValueFrom: field("status.podIP")},
			{Name: "POD_IPS", ValueFrom: field("status.podIPs")},
			{Name: "HOST_IP", ValueFrom: field("status.hostIP")},
			{Name: "NODE", ValueFrom: field("spec.nodeName")},
			{Name: "ACCOUNT", ValueFrom: field("spec.serviceAccountName")},
			{Name: "SECRET", ValueFrom: secretKey("s", "key", nil)},
			{Name: "CONFIG", ValueFrom: configMapKey("c", "key", nil)},
			{Name: "OPTIONAL_SECRET", ValueFrom: secretKey("absent", "key", &yes)},
			{Name: "OPTIONAL_KEY", ValueFrom: secretKey("s", "absent", &yes)},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "PROXY", Value: "the pod's"},
			{Name: "key", Value: "named after envFrom: $(key)"},
		},
	}, objects{})
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"DEFAULT": "d", "PROXY": "the pod's",
		"S_key": "secret", "S_with-dash": "d", "key": "named after envFrom: config",
		"EARLY": "$(NAME) is not known yet", "NAME": "web-0", "HOST": "web-0.headless.$(NAMESPACE), $(NAME), $(UNKNOWN)",
		"NAMESPACE": "shop", "UID": "u-1", "LABEL": "web", "ANNOTATION": "noted", "NO_LABEL": "",
		"POD_IP": "10.1.2.3", "POD_IPS": "10.1.2.3", "HOST_IP": "127.1.0.1", "NODE": "local", "ACCOUNT": "robot",
		"SECRET": "secret", "CONFIG": "config", "CPU": "7",
	}, env)
}

func TestBuildSaysWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		reason  string
		source  podenv.Source
		value   *corev1.EnvVarSource
		message string
		config  bool
	}{
		{reason: "no Secret", value: secretKey("absent", "key", nil), message: `secret "absent" not found`, config: true},
		{reason: "no key in it", value: secretKey("s", "absent", nil), message: "couldn't find key absent in Secret shop/s", config: true},
		{reason: "no ConfigMap", value: configMapKey("absent", "key", nil), message: `configmap "absent" not found`, config: true},
		{reason: "no key in it either", value: configMapKey("c", "absent", nil), message: "couldn't find key absent in ConfigMap shop/c", config: true},
		{reason: "no such field", value: field("status.phase"), message: "field status.phase of the pod", config: true},
		{reason: "the API fails, which says nothing about the Secret", source: objects{broken: true}, value: secretKey("s", "key", nil),
			message: `read secret "s": the API does not answer`},
	} {
		t.Run(c.reason, func(t *testing.T) {
			if c.source == nil {
				c.source = objects{}
			}
			_, err := build(&corev1.Container{Name: "main", Env: []corev1.EnvVar{{Name: "X", ValueFrom: c.value}}}, c.source)
			require.ErrorContains(t, err, c.message)
			require.Equal(t, c.config, podenv.IsConfigError(err))
		})
	}
}

func TestExpandAndList(t *testing.T) {
	env := map[string]string{"B": "2", "A": "1"}
	require.Equal(t, []string{"--a=1", "$(C)", "$(A)"}, podenv.Expand([]string{"--a=$(A)", "$(C)", "$$(A)"}, env))
	require.Equal(t, []string{"A=1", "B=2"}, podenv.List(env))
}
