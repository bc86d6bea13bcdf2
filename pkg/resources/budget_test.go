package resources

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

func TestBudget(t *testing.T) {
	number, share := ptr.To(intstr.FromInt32(2)), ptr.To(intstr.FromString("50%"))
	for _, test := range []struct {
		reason                         string
		minAvailable, maxUnavailable   *intstr.IntOrString
		nodes                          int32
		wanted                         bool
		wantAvailable, wantUnavailable *intstr.IntOrString
	}{
		{"one at a time by default", nil, nil, 3, true, nil, ptr.To(intstr.FromInt32(1))},
		{"a single node by default", nil, nil, 1, false, nil, ptr.To(intstr.FromInt32(1))},
		{"a number that must stay", number, nil, 3, true, number, nil},
		{"a share that may go", nil, share, 3, true, nil, share},
		{"a single node, on demand", number, nil, 1, true, number, nil},
		{"a single node that may go", nil, share, 1, true, nil, share},
	} {
		t.Run(test.reason, func(t *testing.T) {
			emqx := sample(func(e *v2beta1.EMQX) {
				e.Spec.CoreTemplate.Spec.MinAvailable, e.Spec.CoreTemplate.Spec.MaxUnavailable = test.minAvailable, test.maxUnavailable
			})
			require.Equal(t, test.wanted, BudgetWanted(emqx, test.nodes))
			budget := Budget(emqx, "5d8c")
			require.Equal(t, test.wantAvailable, budget.Spec.MinAvailable)
			require.Equal(t, test.wantUnavailable, budget.Spec.MaxUnavailable)
			require.Equal(t, CoreRevisionLabels(emqx, "5d8c"), budget.Spec.Selector.MatchLabels)
		})
	}
}

// TestSameBudget: what others add stays, and is no reason to write; what they change of the operator's is.
func TestSameBudget(t *testing.T) {
	for _, test := range []struct {
		reason string
		change func(*policyv1.PodDisruptionBudget)
		want   bool
	}{
		{"as it was applied", func(*policyv1.PodDisruptionBudget) {}, true},
		{"its status", func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = 1 }, true},
		{"a label more", func(b *policyv1.PodDisruptionBudget) { b.Labels["team"], b.Labels["more"] = "iot", "of it" }, true},
		{"another policy for pods that are not ready", func(b *policyv1.PodDisruptionBudget) {
			b.Spec.UnhealthyPodEvictionPolicy = ptr.To(policyv1.AlwaysAllow)
		}, true},
		{"a label less", func(b *policyv1.PodDisruptionBudget) { delete(b.Labels, v2beta1.LabelInstance) }, false},
		{"no owner", func(b *policyv1.PodDisruptionBudget) { b.OwnerReferences = nil }, false},
		{"no selector", func(b *policyv1.PodDisruptionBudget) { b.Spec.Selector = nil }, false},
		{"a wider selector", func(b *policyv1.PodDisruptionBudget) {
			delete(b.Spec.Selector.MatchLabels, v2beta1.LabelPodTemplateHash)
		}, false},
		{"a narrower selector", func(b *policyv1.PodDisruptionBudget) { b.Spec.Selector.MatchLabels["nobody"] = "has" }, false},
		{"another number", func(b *policyv1.PodDisruptionBudget) { b.Spec.MaxUnavailable = ptr.To(intstr.FromInt32(2)) }, false},
		{"the other number", func(b *policyv1.PodDisruptionBudget) {
			b.Spec.MaxUnavailable, b.Spec.MinAvailable = nil, ptr.To(intstr.FromInt32(1))
		}, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			emqx := sample()
			data, err := json.Marshal(Budget(emqx, "5d8c"))
			require.NoError(t, err)
			var live policyv1.PodDisruptionBudget
			require.NoError(t, json.Unmarshal(data, &live))
			test.change(&live)
			require.Equal(t, test.want, SameBudget(&live, emqx, "5d8c"))
			require.False(t, SameBudget(&live, emqx, "7f9b"), "it is another revision's")
		})
	}
}

// TestBudgetThatRefusesAll: of all core nodes but those that were let go, and with a number that no scaling of a set can meet.
func TestBudgetThatRefusesAll(t *testing.T) {
	emqx := &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n"}}
	spec := Budget(emqx, "").Spec
	require.Equal(t, CoreLabels(emqx), spec.Selector.MatchLabels)
	require.Len(t, spec.Selector.MatchExpressions, 1)
	require.Equal(t, v2beta1.LabelLetGo, *spec.Selector.MatchExpressions[0].Key)
	require.Nil(t, spec.MaxUnavailable)
	require.Equal(t, intstr.FromInt32(RefuseAll), *spec.MinAvailable)
}
