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
	return BudgetSaid(emqx) || nodes > 1
}

// RefuseAll is how many core nodes must be available for an eviction to be allowed where none is: more than there can be. That none
// may be unavailable would not do: Kubernetes compares that with what the sets ask for, and while one is scaled down and its pod
// still there, it allows the eviction of another.
const RefuseAll = 100_000

// BudgetSaid tells whether the specification itself says how many core nodes may be evicted.
func BudgetSaid(emqx *v2beta1.EMQX) bool {
	core := emqx.Spec.CoreTemplate.Spec
	return core.MinAvailable != nil || core.MaxUnavailable != nil
}

// Budget is the PodDisruptionBudget of the core nodes of one revision, those that serve. Where the specification does not
// say otherwise, one of them may be away: an eviction then takes one node at a time, and the next only once there is another
// that is ready in its stead. Without a revision it is that of all core nodes, and refuses every eviction but of those that the
// operator has let go.
func Budget(emqx *v2beta1.EMQX, revision string) *applypolicy.PodDisruptionBudgetApplyConfiguration {
	selected := CoreLabels(emqx)
	if revision != "" {
		selected = CoreRevisionLabels(emqx, revision)
	}
	selector := applymeta.LabelSelector().WithMatchLabels(selected)
	spec := applypolicy.PodDisruptionBudgetSpec().WithSelector(selector)
	switch core := emqx.Spec.CoreTemplate.Spec; {
	case revision == "":
		selector.WithMatchExpressions(applymeta.LabelSelectorRequirement().WithKey(v2beta1.LabelLetGo).WithOperator(metav1.LabelSelectorOpDoesNotExist))
		spec.WithMinAvailable(intstr.FromInt32(RefuseAll))
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
	selector := &metav1.LabelSelector{MatchLabels: want.Spec.Selector.MatchLabels}
	for _, requirement := range want.Spec.Selector.MatchExpressions {
		selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{Key: *requirement.Key, Operator: *requirement.Operator})
	}
	for name, value := range want.Labels {
		if live.Labels[name] != value {
			return false
		}
	}
	return metav1.IsControlledBy(live, emqx) &&
		equality.Semantic.DeepEqual(live.Spec.Selector, selector) &&
		equality.Semantic.DeepEqual(live.Spec.MinAvailable, want.Spec.MinAvailable) &&
		equality.Semantic.DeepEqual(live.Spec.MaxUnavailable, want.Spec.MaxUnavailable)
}
