package informers

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// A predicate tells whether an update may matter to a decision.
type predicate[T any] func(before, after T) bool

func specOrPhaseChanged(before, after *v2beta1.EMQX) bool {
	return before.UID != after.UID || before.Generation != after.Generation || before.Status.Phase != after.Status.Phase ||
		deletionBegan(before, after) || labelsOrAnnotationsChanged(before, after)
}

// rebalanceChanged is also for what the operator writes itself: each is a step that the next follows.
func rebalanceChanged(before, after *v2beta1.Rebalance) bool {
	return before.UID != after.UID || before.Generation != after.Generation || deletionBegan(before, after) ||
		!equality.Semantic.DeepEqual(before.Finalizers, after.Finalizers) || !equality.Semantic.DeepEqual(before.Status, after.Status)
}

func setChanged(before, after *appsv1.StatefulSet) bool {
	return before.UID != after.UID || before.Generation != after.Generation ||
		before.Status.Replicas != after.Status.Replicas || before.Status.ObservedGeneration != after.Status.ObservedGeneration || deletionBegan(before, after) || labelsOrAnnotationsChanged(before, after) ||
		ownersChanged(before, after)
}

func podChanged(before, after *corev1.Pod) bool {
	return before.UID != after.UID || deletionBegan(before, after) || ownersChanged(before, after) || before.Status.PodIP != after.Status.PodIP ||
		before.Labels[v2beta1.LabelLetGo] != after.Labels[v2beta1.LabelLetGo] ||
		before.Status.Phase != after.Status.Phase || !equality.Semantic.DeepEqual(before.Status.Conditions, after.Status.Conditions) ||
		!equality.Semantic.DeepEqual(before.Status.ContainerStatuses, after.Status.ContainerStatuses) ||
		!equality.Semantic.DeepEqual(before.Status.InitContainerStatuses, after.Status.InitContainerStatuses)
}

func serviceChanged(before, after *corev1.Service) bool {
	return before.UID != after.UID || !equality.Semantic.DeepEqual(before.Spec, after.Spec) || labelsOrAnnotationsChanged(before, after) ||
		ownersChanged(before, after)
}

func budgetChanged(before, after *policyv1.PodDisruptionBudget) bool {
	return before.UID != after.UID || !equality.Semantic.DeepEqual(before.Spec, after.Spec) || labelsOrAnnotationsChanged(before, after) ||
		ownersChanged(before, after)
}

func endpointsChanged(before, after *discoveryv1.EndpointSlice) bool {
	return before.UID != after.UID || !equality.Semantic.DeepEqual(before.Endpoints, after.Endpoints) || ownersChanged(before, after)
}

// drainChanged is all that matters of a Node.
func drainChanged(before, after *corev1.Node) bool { return drained(before) != drained(after) }

// replacedOrHandedOver is for objects that only matter by being there, and by whose they are.
func replacedOrHandedOver(before, after *metav1.PartialObjectMetadata) bool {
	return before.UID != after.UID || !equality.Semantic.DeepEqual(before.Labels, after.Labels) || ownersChanged(before, after) ||
		deletionBegan(before, after)
}

// secretChanged is replacedOrHandedOver and any write: only metadata is known, and what is in a Secret matters to who reads it.
func secretChanged(before, after *metav1.PartialObjectMetadata) bool {
	return replacedOrHandedOver(before, after) || before.ResourceVersion != after.ResourceVersion
}

func ownersChanged(before, after metav1.Object) bool {
	return !equality.Semantic.DeepEqual(before.GetOwnerReferences(), after.GetOwnerReferences())
}

func deletionBegan(before, after metav1.Object) bool {
	return before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero()
}

func labelsOrAnnotationsChanged(before, after metav1.Object) bool {
	return !equality.Semantic.DeepEqual(before.GetLabels(), after.GetLabels()) ||
		!equality.Semantic.DeepEqual(before.GetAnnotations(), after.GetAnnotations())
}
