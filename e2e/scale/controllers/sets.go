package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// runSets makes and deletes pods as sets ask for, with parallel pod management, and writes the status of sets. Pods whose set
// has gone are deleted, as the garbage collector does.
func (c *Controllers) runSets(ctx context.Context, found *cluster) error {
	var problems []error
	for _, set := range found.sets {
		problems = append(problems, c.runSet(ctx, found, set))
	}
	for _, pod := range found.pods {
		owned := slices.ContainsFunc(found.sets, func(set *appsv1.StatefulSet) bool { return metav1.IsControlledBy(pod, set) })
		if !owned && pod.DeletionTimestamp.IsZero() {
			problems = append(problems, c.deletePod(ctx, pod))
		}
	}
	return errors.Join(problems...)
}

func (c *Controllers) runSet(ctx context.Context, found *cluster, set *appsv1.StatefulSet) error {
	if !set.DeletionTimestamp.IsZero() {
		return nil
	}
	var problems []error
	status := *set.Status.DeepCopy()
	status.ObservedGeneration, status.Replicas, status.ReadyReplicas = set.Generation, 0, 0
	have := map[int]bool{}
	for _, pod := range found.pods {
		if !metav1.IsControlledBy(pod, set) {
			continue
		}
		number, err := strconv.Atoi(ordinal(pod.Name))
		if err != nil {
			continue
		}
		have[number] = true
		status.Replicas++
		if isTrue(pod, corev1.PodReady) {
			status.ReadyReplicas++
		}
		if number >= int(*set.Spec.Replicas) && pod.DeletionTimestamp.IsZero() {
			problems = append(problems, c.deletePod(ctx, pod))
		}
	}
	for number := range int(*set.Spec.Replicas) {
		if !have[number] {
			problems = append(problems, c.createPod(ctx, set, number))
		}
	}
	status.CurrentReplicas, status.UpdatedReplicas, status.AvailableReplicas = status.Replicas, status.Replicas, status.ReadyReplicas
	if !equality.Semantic.DeepEqual(status, set.Status) {
		next := set.DeepCopy()
		next.Status = status
		if _, err := c.config.Kube.AppsV1().StatefulSets(set.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
			problems = append(problems, fmt.Errorf("write the status of set %s: %w", set.Name, err))
		}
	}
	return errors.Join(problems...)
}

// createPod makes a pod that is scheduled at once.
func (c *Controllers) createPod(ctx context.Context, set *appsv1.StatefulSet, number int) error {
	template := set.Spec.Template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name, pod.Namespace = fmt.Sprintf("%s-%d", set.Name, number), set.Namespace
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))}
	pod.Labels[appsv1.StatefulSetPodNameLabel], pod.Labels[appsv1.PodIndexLabel] = pod.Name, strconv.Itoa(number)
	pod.Spec.Hostname, pod.Spec.Subdomain, pod.Spec.NodeName = pod.Name, set.Spec.ServiceName, state.NodeName
	_, err := c.config.Kube.CoreV1().Pods(set.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make pod %s: %w", pod.Name, err)
	}
	return nil
}

func (c *Controllers) deletePod(ctx context.Context, pod *corev1.Pod) error {
	options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	err := c.config.Kube.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete pod %s: %w", pod.Name, err)
	}
	return nil
}

func isTrue(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool {
		return condition.Type == kind && condition.Status == corev1.ConditionTrue
	})
}
