package upgrade

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// explain says, of pods of the target whose EMQX does not run, which field names something that does not exist. It refuses
// nothing: what is missing may come a moment later, and then the kubelet starts the pods by itself.
func explain(caches *informers.Caches, s *machine.Snapshot) {
	for i := range s.Sets {
		if s.Sets[i].Revision != s.Wanted[machine.Core].Revision {
			continue
		}
		for j := range s.Sets[i].Pods {
			pod := &s.Sets[i].Pods[j]
			if pod.ContainerRunning {
				continue
			}
			words := append(missingReferences(caches, s.EMQX, pod.Trouble), untaken(caches, s.EMQX, pod.Name), pod.Trouble)
			pod.Trouble = strings.Join(slices.DeleteFunc(words, func(word string) bool { return word == "" }), "; ")
		}
	}
}

// untaken says that nobody has taken a pod that the specification itself gave to a Kubernetes node.
func untaken(caches *informers.Caches, emqx *v2beta1.EMQX, name string) string {
	pod, ok := caches.Pods.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: name})
	node := emqx.Spec.CoreTemplate.Spec.NodeName
	if !ok || node == "" || pod.Status.StartTime != nil || len(pod.Status.ContainerStatuses) > 0 {
		return ""
	}
	return fmt.Sprintf("spec.coreTemplate.spec.nodeName: no kubelet of a node %q has taken the pod", node)
}

// missingReferences name the fields of the core template that name a ConfigMap or Secret which does not exist, and must.
func missingReferences(caches *informers.Caches, emqx *v2beta1.EMQX, trouble string) []string {
	const path = "spec.coreTemplate.spec"
	var missing []string
	need := func(field, kind, name string, optional *bool) {
		objects := &caches.ConfigMaps
		if kind == "Secret" {
			objects = &caches.Secrets
		}
		if _, exists := objects.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: name}); !exists && (optional == nil || !*optional) {
			missing = append(missing, fmt.Sprintf("%s: there is no %s %q", field, kind, name))
		}
	}
	spec := emqx.Spec.CoreTemplate.Spec
	containerNeeds(path, corev1.Container{Env: spec.Env, EnvFrom: spec.EnvFrom}, need)
	for i, container := range spec.ExtraContainers {
		containerNeeds(fmt.Sprintf("%s.extraContainers[%d]", path, i), container, need)
	}
	for i, container := range spec.InitContainers {
		containerNeeds(fmt.Sprintf("%s.initContainers[%d]", path, i), container, need)
	}
	for i, volume := range spec.ExtraVolumes {
		volumeNeeds(fmt.Sprintf("%s.extraVolumes[%d]", path, i), volume, need)
	}
	if strings.Contains(trouble, "ImagePull") { // A public image needs none of them.
		for i, secret := range emqx.Spec.ImagePullSecrets {
			need(fmt.Sprintf("spec.imagePullSecrets[%d].name", i), "Secret", secret.Name, nil)
		}
	}
	return missing
}

// need is called with a field that names an object, and with whether the pod starts without it.
type need func(field, kind, name string, optional *bool)

func containerNeeds(path string, container corev1.Container, need need) {
	for i, variable := range container.Env {
		if variable.ValueFrom == nil {
			continue
		}
		at := fmt.Sprintf("%s.env[%d].valueFrom", path, i)
		if ref := variable.ValueFrom.ConfigMapKeyRef; ref != nil {
			need(at+".configMapKeyRef.name", "ConfigMap", ref.Name, ref.Optional)
		}
		if ref := variable.ValueFrom.SecretKeyRef; ref != nil {
			need(at+".secretKeyRef.name", "Secret", ref.Name, ref.Optional)
		}
	}
	for i, source := range container.EnvFrom {
		at := fmt.Sprintf("%s.envFrom[%d]", path, i)
		if ref := source.ConfigMapRef; ref != nil {
			need(at+".configMapRef.name", "ConfigMap", ref.Name, ref.Optional)
		}
		if ref := source.SecretRef; ref != nil {
			need(at+".secretRef.name", "Secret", ref.Name, ref.Optional)
		}
	}
}

func volumeNeeds(path string, volume corev1.Volume, need need) {
	if ref := volume.ConfigMap; ref != nil {
		need(path+".configMap.name", "ConfigMap", ref.Name, ref.Optional)
	}
	if ref := volume.Secret; ref != nil {
		need(path+".secret.secretName", "Secret", ref.SecretName, ref.Optional)
	}
	if volume.Projected == nil {
		return
	}
	for i, source := range volume.Projected.Sources {
		at := fmt.Sprintf("%s.projected.sources[%d]", path, i)
		if ref := source.ConfigMap; ref != nil {
			need(at+".configMap.name", "ConfigMap", ref.Name, ref.Optional)
		}
		if ref := source.Secret; ref != nil {
			need(at+".secret.name", "Secret", ref.Name, ref.Optional)
		}
	}
}
