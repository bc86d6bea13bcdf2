package resources

import (
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	applypolicy "k8s.io/client-go/applyconfigurations/policy/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// BudgetWanted tells whether core nodes of the given number get a PodDisruptionBudget: when the specification asks for one,
// and else when there are several. By default a single node has none: a budget would either refuse every drain of its
// Kubernetes node for ever, or allow every eviction and protect nothing.
func BudgetWanted(emqx *v2beta1.EMQX, nodes int32) bool {
	core := emqx.Spec.CoreTemplate.Spec
	return core.MinAvailable != nil || core.MaxUnavailable != nil || nodes > 1
}

// Budget is the PodDisruptionBudget of the core nodes of one revision, those that serve. Where the specification does not
// say otherwise, one of them may be away: an eviction then takes one node at a time, and the next only once there is another
// that is ready in its stead.
func Budget(emqx *v2beta1.EMQX, revision string) *applypolicy.PodDisruptionBudgetApplyConfiguration {
	spec := applypolicy.PodDisruptionBudgetSpec().
		WithSelector(applymeta.LabelSelector().WithMatchLabels(CoreRevisionLabels(emqx, revision)))
	switch core := emqx.Spec.CoreTemplate.Spec; {
	case core.MinAvailable != nil:
		spec.WithMinAvailable(*core.MinAvailable)
	case core.MaxUnavailable != nil:
		spec.WithMaxUnavailable(*core.MaxUnavailable)
	default:
		spec.WithMaxUnavailable(intstr.FromInt32(1))
	}
	return applypolicy.PodDisruptionBudget(emqx.CoreBudgetName(), emqx.Namespace).
		WithLabels(with(emqx.Labels, Labels(emqx))).
		WithOwnerReferences(ApplyOwnerReference(emqx)).
		WithSpec(spec)
}

// SameBudget reports whether a live budget is as it shall be for a revision. It may have labels, and fields of its
// specification, that others own; its selector and its numbers are the operator's alone.
func SameBudget(live *policyv1.PodDisruptionBudget, emqx *v2beta1.EMQX, revision string) bool {
	want := Budget(emqx, revision)
	for name, value := range want.Labels {
		if live.Labels[name] != value {
			return false
		}
	}
	return metav1.IsControlledBy(live, emqx) &&
		equality.Semantic.DeepEqual(live.Spec.Selector, &metav1.LabelSelector{MatchLabels: want.Spec.Selector.MatchLabels}) &&
		equality.Semantic.DeepEqual(live.Spec.MinAvailable, want.Spec.MinAvailable) &&
		equality.Semantic.DeepEqual(live.Spec.MaxUnavailable, want.Spec.MaxUnavailable)
}
