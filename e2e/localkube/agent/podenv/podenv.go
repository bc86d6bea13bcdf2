// Package podenv computes a container's environment, command and arguments from the pod's specification as the
// kubelet does, without the variables that name Services.
package podenv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// Source reads the objects that an environment refers to. Errors of absent objects are those of the API machinery.
type Source interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
}

// ConfigError says that something the container refers to is not there; it may appear later.
type ConfigError struct{ message string }

// Error returns the message as the kubelet words it.
func (e *ConfigError) Error() string { return e.message }

// NewConfigError returns a ConfigError with a formatted message.
func NewConfigError(format string, arguments ...any) *ConfigError {
	return &ConfigError{message: fmt.Sprintf(format, arguments...)}
}

// Addresses are the pod's and the node's, as the status will show them.
type Addresses struct{ PodIP, HostIP string }

// Allocatable is what a container without a limit may use, for resource references.
type Allocatable = corev1.ResourceList

// Build returns the container's variables. defaults are overridden by the specification.
func Build(
	ctx context.Context, source Source, pod *corev1.Pod, container *corev1.Container, addresses Addresses,
	allocatable Allocatable, defaults map[string]string,
) (map[string]string, error) {
	b := &builder{source: source, pod: pod, container: container, addresses: addresses, allocatable: allocatable}
	result := maps.Clone(defaults)
	own := map[string]string{}
	for i := range container.EnvFrom {
		if err := b.from(ctx, &container.EnvFrom[i], own); err != nil {
			return nil, err
		}
	}
	expand := expansion.MappingFuncFor(own)
	for i := range container.Env {
		variable := &container.Env[i]
		if variable.ValueFrom == nil {
			own[variable.Name] = expansion.Expand(variable.Value, expand)
			continue
		}
		value, set, err := b.value(ctx, variable.ValueFrom)
		if err != nil {
			return nil, err
		}
		if set {
			own[variable.Name] = value
		}
	}
	maps.Copy(result, own)
	return result, nil
}

// Expand puts the variables into a command or its arguments.
func Expand(words []string, env map[string]string) []string {
	mapping := expansion.MappingFuncFor(env)
	expanded := make([]string, 0, len(words))
	for _, word := range words {
		expanded = append(expanded, expansion.Expand(word, mapping))
	}
	return expanded
}

// List returns the variables as a process takes them, sorted.
func List(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

type builder struct {
	source      Source
	pod         *corev1.Pod
	container   *corev1.Container
	addresses   Addresses
	allocatable Allocatable
}

// from takes all keys of a Secret or ConfigMap that can be names of variables.
func (b *builder) from(ctx context.Context, ref *corev1.EnvFromSource, into map[string]string) error {
	switch {
	case ref.ConfigMapRef != nil:
		configMap, err := b.configMap(ctx, ref.ConfigMapRef.Name, ref.ConfigMapRef.Optional)
		if err != nil || configMap == nil {
			return err
		}
		for key, value := range configMap.Data {
			put(into, ref.Prefix+key, value)
		}
	case ref.SecretRef != nil:
		secret, err := b.secret(ctx, ref.SecretRef.Name, ref.SecretRef.Optional)
		if err != nil || secret == nil {
			return err
		}
		for key, value := range secret.Data {
			put(into, ref.Prefix+key, string(value))
		}
	}
	return nil
}

func put(into map[string]string, name, value string) {
	if name != "" && !strings.ContainsAny(name, "=\x00") {
		into[name] = value
	}
}

// value resolves a reference; set is false when it is optional and absent.
func (b *builder) value(ctx context.Context, ref *corev1.EnvVarSource) (value string, set bool, err error) {
	switch {
	case ref.FieldRef != nil:
		value, err = FieldValue(b.pod, ref.FieldRef.FieldPath, b.addresses)
		return value, err == nil, err
	case ref.ResourceFieldRef != nil:
		value, err = ResourceValue(b.pod, ref.ResourceFieldRef, b.container.Name, b.allocatable)
		return value, err == nil, err
	case ref.SecretKeyRef != nil:
		return b.secretKey(ctx, ref.SecretKeyRef)
	case ref.ConfigMapKeyRef != nil:
		return b.configMapKey(ctx, ref.ConfigMapKeyRef)
	default:
		return "", false, NewConfigError("the local node agent does not know this source of a variable")
	}
}

func (b *builder) secretKey(ctx context.Context, ref *corev1.SecretKeySelector) (string, bool, error) {
	secret, err := b.secret(ctx, ref.Name, ref.Optional)
	if err != nil || secret == nil {
		return "", false, err
	}
	value, has := secret.Data[ref.Key]
	if !has && !isOptional(ref.Optional) {
		return "", false, NewConfigError("couldn't find key %s in Secret %s/%s", ref.Key, b.pod.Namespace, ref.Name)
	}
	return string(value), has, nil
}

func (b *builder) configMapKey(ctx context.Context, ref *corev1.ConfigMapKeySelector) (string, bool, error) {
	configMap, err := b.configMap(ctx, ref.Name, ref.Optional)
	if err != nil || configMap == nil {
		return "", false, err
	}
	value, has := configMap.Data[ref.Key]
	if !has && !isOptional(ref.Optional) {
		return "", false, NewConfigError("couldn't find key %s in ConfigMap %s/%s", ref.Key, b.pod.Namespace, ref.Name)
	}
	return value, has, nil
}

func isOptional(optional *bool) bool { return optional != nil && *optional }

// secret returns nil without an error when the Secret is optional and absent.
func (b *builder) secret(ctx context.Context, name string, optional *bool) (*corev1.Secret, error) {
	secret, err := b.source.Secret(ctx, b.pod.Namespace, name)
	if err != nil {
		return nil, absent(err, optional, "secret", name)
	}
	return secret, nil
}

func (b *builder) configMap(ctx context.Context, name string, optional *bool) (*corev1.ConfigMap, error) {
	configMap, err := b.source.ConfigMap(ctx, b.pod.Namespace, name)
	if err != nil {
		return nil, absent(err, optional, "configmap", name)
	}
	return configMap, nil
}

func absent(err error, optional *bool, kind, name string) error {
	switch {
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read %s %q: %w", kind, name, err)
	case isOptional(optional):
		return nil
	default:
		return NewConfigError("%s %q not found", kind, name)
	}
}

// FieldValue returns a field of the pod by its path, as for the downward API.
func FieldValue(pod *corev1.Pod, path string, addresses Addresses) (string, error) {
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return addresses.HostIP, nil
	case "status.podIP", "status.podIPs":
		return addresses.PodIP, nil
	}
	value, err := fieldpath.ExtractFieldPathAsString(pod, path)
	if err != nil {
		return "", NewConfigError("field %s of the pod: %v", path, err)
	}
	return value, nil
}

// ResourceValue returns a request or limit of a container; a limit that is not set is what the node has.
func ResourceValue(
	pod *corev1.Pod, ref *corev1.ResourceFieldSelector, containerName string, allocatable Allocatable,
) (string, error) {
	if ref.ContainerName != "" {
		containerName = ref.ContainerName
	}
	value, err := resource.ExtractResourceValueByContainerNameAndNodeAllocatable(ref, pod, containerName, allocatable)
	if err != nil {
		return "", NewConfigError("resource %s of the pod: %v", ref.Resource, err)
	}
	return value, nil
}

// IsConfigError reports whether the error is about something that may yet appear.
func IsConfigError(err error) bool {
	var configError *ConfigError
	return errors.As(err, &configError)
}
