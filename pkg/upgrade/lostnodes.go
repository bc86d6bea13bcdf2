package upgrade

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// ended reports whether Kubernetes itself says that a pod's containers have ended, whatever their last status was: the kubelet
// does, and for a Kubernetes node that is gone, or tainted as out of service, the collector of pods does before it deletes them.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// unreachableSince is since when nothing was heard of a pod's kubelet; zero while that is heard of. Two things tell without a
// look at Nodes, which an operator of one namespace may not have: the pod is not ready although all that the kubelet makes
// that of is true, which the node controller writes in its stead; or it was to be gone by now, and its containers still run.
func unreachableSince(pod *corev1.Pod) time.Time {
	var since time.Time
	parts := 0
	for _, condition := range pod.Status.Conditions {
		want := corev1.ConditionTrue
		switch condition.Type {
		case corev1.PodReady:
			want = corev1.ConditionFalse
		case corev1.ContainersReady, v2beta1.ConditionOnServing:
		default:
			continue
		}
		if condition.Status == want {
			parts++
		}
		if condition.LastTransitionTime.After(since) {
			since = condition.LastTransitionTime.Time
		}
	}
	if parts < 3 {
		since = time.Time{}
	}
	if due := pod.DeletionTimestamp; due != nil && (since.IsZero() || due.Time.Before(since)) {
		since = due.Time
	}
	return since
}
