package agent

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// podChanged handles a new version of the pod's object. metadata says that its labels or annotations may differ.
func (w *worker) podChanged(pod *corev1.Pod, metadata bool) {
	w.pod = pod
	if metadata {
		w.sandbox.stale = true
	}
	w.specChanged(w.inits, pod.Spec.InitContainers)
	w.specChanged(w.mains, pod.Spec.Containers)
}

// specChanged restarts containers whose image was changed, the one part of a container that can be.
func (w *worker) specChanged(containers []*container, specs []corev1.Container) {
	for i, c := range containers {
		if i >= len(specs) || specs[i].Name != c.spec.Name {
			return
		}
		changed := specs[i].Image != c.spec.Image
		c.spec = &specs[i]
		if !changed {
			continue
		}
		c.retryAt = time.Time{}
		if c.run != nil {
			w.kill(c, w.terminationGrace(), "Container "+c.spec.Name+" definition changed, will be restarted")
		}
	}
}

// referenceChanged looks again at volumes, and at containers that could not be started for want of something.
func (w *worker) referenceChanged() {
	w.sandbox.stale = true
	for _, c := range w.all() {
		if c.waiting != nil && c.waiting.Reason == reasonConfigError {
			c.retryAt = time.Time{}
		}
	}
}

// refersTo reports whether the pod uses the Secret or ConfigMap in a volume or a variable.
func refersTo(pod *corev1.Pod, object any) bool {
	var secret, configMap string
	switch o := object.(type) {
	case *corev1.Secret:
		secret = o.Name
	case *corev1.ConfigMap:
		configMap = o.Name
	}
	// The empty name stands for the other kind, and no reference has it.
	matches := func(name, wanted string) bool { return wanted != "" && name == wanted }
	for i := range pod.Spec.Volumes {
		if volumeRefersTo(&pod.Spec.Volumes[i], secret, configMap, matches) {
			return true
		}
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if containerRefersTo(&containers[i], secret, configMap, matches) {
				return true
			}
		}
	}
	return false
}

func volumeRefersTo(volume *corev1.Volume, secret, configMap string, matches func(name, wanted string) bool) bool {
	switch {
	case volume.Secret != nil:
		return matches(volume.Secret.SecretName, secret)
	case volume.ConfigMap != nil:
		return matches(volume.ConfigMap.Name, configMap)
	case volume.Projected != nil:
		for i := range volume.Projected.Sources {
			source := &volume.Projected.Sources[i]
			if (source.Secret != nil && matches(source.Secret.Name, secret)) ||
				(source.ConfigMap != nil && matches(source.ConfigMap.Name, configMap)) {
				return true
			}
		}
	}
	return false
}

func containerRefersTo(container *corev1.Container, secret, configMap string, matches func(name, wanted string) bool) bool {
	for i := range container.EnvFrom {
		from := &container.EnvFrom[i]
		if (from.SecretRef != nil && matches(from.SecretRef.Name, secret)) ||
			(from.ConfigMapRef != nil && matches(from.ConfigMapRef.Name, configMap)) {
			return true
		}
	}
	for i := range container.Env {
		from := container.Env[i].ValueFrom
		if from == nil {
			continue
		}
		if (from.SecretKeyRef != nil && matches(from.SecretKeyRef.Name, secret)) ||
			(from.ConfigMapKeyRef != nil && matches(from.ConfigMapKeyRef.Name, configMap)) {
			return true
		}
	}
	return false
}
