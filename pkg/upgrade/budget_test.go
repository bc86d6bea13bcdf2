package upgrade

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// liveBudget is the budget of a cluster as the API server shows it once it was applied.
func liveBudget(t *testing.T, emqx *v2beta1.EMQX) *policyv1.PodDisruptionBudget {
	t.Helper()
	data, err := json.Marshal(resources.Budget(emqx, "5d8c"))
	require.NoError(t, err)
	var live policyv1.PodDisruptionBudget
	require.NoError(t, json.Unmarshal(data, &live))
	live.UID = "budget-uid"
	return &live
}

func TestGatherBudget(t *testing.T) {
	several := func(c *cluster) { c.emqx.Spec.CoreTemplate.Spec.Replicas = ptr.To(int32(3)) }
	for _, test := range []struct {
		reason string
		change func(*cluster)
		want   machine.Budget
		taken  []machine.Taken
	}{
		{"none", func(c *cluster) { c.budget = nil }, machine.Budget{}, nil},
		{"as it shall be", several, machine.Budget{State: machine.Current, UID: "budget-uid", Revision: "5d8c"}, nil},
		{"that of another revision", func(c *cluster) {
			c.budget.Spec.Selector.MatchLabels[v2beta1.LabelPodTemplateHash] = "7f9b"
		}, machine.Budget{State: machine.Outdated, UID: "budget-uid", Revision: "7f9b"}, nil},
		{"without a selector", func(c *cluster) { c.budget.Spec.Selector = nil }, machine.Budget{State: machine.Outdated, UID: "budget-uid"}, nil},
		{"made again by a person, with labels", func(c *cluster) { c.budget.OwnerReferences = nil }, machine.Budget{State: machine.Outdated, UID: "budget-uid", Revision: "5d8c"}, nil},
		{"somebody else's", func(c *cluster) {
			several(c)
			c.budget.OwnerReferences, c.budget.Labels = nil, nil
		}, machine.Budget{State: machine.Unavailable}, []machine.Taken{{Kind: "PodDisruptionBudget", Name: "e-core"}}},
		{"somebody else's, where none is wanted", func(c *cluster) { c.budget.OwnerReferences, c.budget.Labels = nil, nil }, machine.Budget{State: machine.Unavailable}, nil},
		{"that of the deleted resource of this name", func(c *cluster) {
			several(c)
			c.budget.OwnerReferences[0].UID = "former"
		}, machine.Budget{State: machine.Unavailable}, []machine.Taken{{Kind: "PodDisruptionBudget", Name: "e-core", Owner: "EMQX e", Former: true}}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			c := newCluster(t)
			c.budget = liveBudget(t, c.emqx)
			test.change(c)
			s := c.snapshot(t)
			require.Equal(t, test.want, s.Budget)
			require.Equal(t, test.taken, s.Taken)
		})
	}
}

// TestBudgetOfAnotherOperator: the fields that emqx-operator 2.x owns of its budget are known, and handed over.
func TestBudgetOfAnotherOperator(t *testing.T) {
	c := newCluster(t)
	c.budget = liveBudget(t, c.emqx)
	delete(c.budget.Spec.Selector.MatchLabels, v2beta1.LabelPodTemplateHash)
	c.budget.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: formerManager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "policy/v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:minAvailable":{}}}`),
	}}
	require.Contains(t, string(c.snapshot(t).Budget.Inheritance), FieldManager)
}

// TestBudgetIsWritten: it is made, its number replaced, and only the one that was seen is removed.
func TestBudgetIsWritten(t *testing.T) {
	kube, written := fake.NewClientset(), newWrites()
	e := &executor{kube: kube, writes: written, observe: func(string, error) {}}
	emqx := &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "u"}}
	s := machine.Snapshot{EMQX: emqx}
	live := func() *policyv1.PodDisruptionBudget {
		budget, err := kube.PolicyV1().PodDisruptionBudgets("n").Get(t.Context(), "e-core", metav1.GetOptions{})
		require.NoError(t, err)
		return budget
	}
	require.Empty(t, e.execute(t.Context(), s, []machine.Group{{machine.ApplyBudget{Revision: "blue"}}}))
	require.True(t, resources.SameBudget(live(), emqx, "blue"))
	require.Contains(t, written.all[key(emqx)], "PodDisruptionBudget")

	s.Budget = machine.Budget{State: machine.Outdated}
	emqx.Spec.CoreTemplate.Spec.MinAvailable = ptr.To(intstr.FromString("50%"))
	require.Empty(t, e.execute(t.Context(), s, []machine.Group{{machine.ApplyBudget{Revision: "green"}}}))
	require.True(t, resources.SameBudget(live(), emqx, "green"), "%+v", live().Spec)

	require.Empty(t, e.execute(t.Context(), s, []machine.Group{{machine.DeleteBudget{UID: live().UID}}}))
	_, err := kube.PolicyV1().PodDisruptionBudgets("n").Get(t.Context(), "e-core", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err))
	require.Empty(t, e.execute(t.Context(), s, []machine.Group{{machine.DeleteBudget{}}}), "what is gone need not be removed")
}
