package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/nodes"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// kubelet is what is known of a pod that was taken.
type kubelet struct {
	address netip.Addr
	// due is when its node starts or, once it is deleted, when it has gone.
	due     time.Time
	started time.Time
	node    *nodes.Node
	ending  bool
}

// runPod does the kubelet's next step, and returns when there is another.
func (c *Controllers) runPod(ctx context.Context, found *cluster, pod *corev1.Pod) (time.Duration, error) {
	k, err := c.kubelet(found, pod)
	if err != nil {
		return 0, err
	}
	if !pod.DeletionTimestamp.IsZero() {
		return c.endPod(ctx, pod, k)
	}
	if k.node == nil {
		if wait := time.Until(k.due); wait > 0 {
			return wait, c.writeStatus(ctx, pod, scheduled())
		}
		if err := c.startNode(ctx, found, pod, k); err != nil {
			return 0, err
		}
	}
	return 0, c.writeStatus(ctx, pod, k.running(pod))
}

// kubelet takes a pod.
func (c *Controllers) kubelet(found *cluster, pod *corev1.Pod) (*kubelet, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kubelets[found.name] == nil {
		c.kubelets[found.name] = map[types.UID]*kubelet{}
	}
	if k := c.kubelets[found.name][pod.UID]; k != nil {
		return k, nil
	}
	address, err := c.addresses.take()
	if err != nil {
		return nil, err
	}
	k := &kubelet{address: address, due: time.Now().Add(c.config.Start)}
	c.kubelets[found.name][pod.UID] = k
	return k, nil
}

// forget ends what runs for pods that have gone.
func (c *Controllers) forget(found *cluster) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid, k := range c.kubelets[found.name] {
		if slices.ContainsFunc(found.pods, func(pod *corev1.Pod) bool { return pod.UID == uid }) {
			continue
		}
		if k.node != nil {
			k.node.Stop()
		}
		c.addresses.give(k.address)
		delete(c.kubelets[found.name], uid)
	}
}

// endPod ends a pod's node, and takes the pod away after a time.
func (c *Controllers) endPod(ctx context.Context, pod *corev1.Pod, k *kubelet) (time.Duration, error) {
	if !k.ending {
		k.ending, k.due = true, time.Now().Add(c.config.Stop)
		if k.node != nil {
			k.node.Stop()
		}
	}
	if wait := time.Until(k.due); wait > 0 {
		return wait, nil
	}
	options := metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0)), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	err := c.config.Kube.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return 0, fmt.Errorf("take pod %s away: %w", pod.Name, err)
	}
	return 0, nil
}

// startNode starts a pod's node with what the pod gives it.
func (c *Controllers) startNode(ctx context.Context, found *cluster, pod *corev1.Pod, k *kubelet) error {
	index := slices.IndexFunc(pod.Spec.Containers, func(container corev1.Container) bool { return container.Name == resources.EMQXContainer })
	if index < 0 {
		return fmt.Errorf("start pod %s: it has no container %s", pod.Name, resources.EMQXContainer)
	}
	container := pod.Spec.Containers[index]
	domain := ""
	for _, variable := range container.Env {
		if variable.Name == resources.NodeDomainEnv {
			domain = variable.Value
		}
	}
	keys, err := c.keys(ctx, pod)
	if err != nil {
		return err
	}
	_, version, _ := strings.Cut(container.Image, ":")
	name := "emqx@" + pod.Name + "." + domain
	if k.node, err = c.config.Fleet.Cluster(found.name.String()).Start(name, k.address.String(), version, keys); err != nil {
		return fmt.Errorf("start pod %s: %w", pod.Name, err)
	}
	k.started = time.Now()
	return nil
}

// keys reads the API keys from the Secret that a pod mounts.
func (c *Controllers) keys(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	secret := cache.ObjectName{Namespace: pod.Namespace}
	for _, volume := range pod.Spec.Volumes {
		if volume.Secret != nil && strings.HasSuffix(volume.Secret.SecretName, "-bootstrap-api-key") {
			secret.Name = volume.Secret.SecretName
		}
	}
	c.mu.Lock()
	known := c.secrets[secret]
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	object, err := c.config.Kube.CoreV1().Secrets(secret.Namespace).Get(ctx, secret.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the API keys of pod %s: %w", pod.Name, err)
	}
	keys := map[string]string{}
	for line := range strings.Lines(string(object.Data[resources.BootstrapAPIKeyKey])) {
		parts := strings.Split(strings.TrimSpace(line), ":")
		if len(parts) >= 2 {
			keys[parts[0]] = parts[1]
		}
	}
	c.mu.Lock()
	c.secrets[secret] = keys
	c.mu.Unlock()
	return keys, nil
}

// scheduled is the status of a pod whose containers do not run yet.
func scheduled() corev1.PodStatus {
	return corev1.PodStatus{
		Phase: corev1.PodPending,
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodInitialized, Status: corev1.ConditionTrue},
			{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady"},
			{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady"},
		},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: resources.EMQXContainer, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}},
		}},
	}
}

// running is the status of a pod whose node runs: Ready when its gate is True, too.
func (k *kubelet) running(pod *corev1.Pod) corev1.PodStatus {
	ready := corev1.ConditionFalse
	if isTrue(pod, v2beta1.ConditionOnServing) {
		ready = corev1.ConditionTrue
	}
	started := metav1.NewTime(k.started)
	return corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: k.address.String(), PodIPs: []corev1.PodIP{{IP: k.address.String()}}, HostIP: k.address.String(),
		StartTime: &started,
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodInitialized, Status: corev1.ConditionTrue},
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: ready},
		},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: resources.EMQXContainer, Ready: true, Started: ptr.To(true), Image: pod.Spec.Containers[0].Image,
			ContainerID: "fake://" + strings.ReplaceAll(string(pod.UID), "-", ""), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}},
		}},
	}
}

// writeStatus writes a status if it differs from the pod's. What others wrote of it stays.
func (c *Controllers) writeStatus(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus) error {
	same := pod.Status.Phase == status.Phase && pod.Status.PodIP == status.PodIP && len(pod.Status.ContainerStatuses) > 0
	for _, condition := range status.Conditions {
		i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == condition.Type })
		same = same && i >= 0 && pod.Status.Conditions[i].Status == condition.Status
	}
	if same {
		return nil
	}
	next := pod.DeepCopy()
	for _, condition := range pod.Status.Conditions {
		if condition.Type == v2beta1.ConditionOnServing {
			status.Conditions = append(status.Conditions, condition)
		}
	}
	status.QOSClass = pod.Status.QOSClass
	next.Status = status
	_, err := c.config.Kube.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the status of pod %s: %w", pod.Name, err)
	}
	return nil
}
