package upgrade

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// Only what emqx-operator 2.x owns is taken over: what a user edited stays the user's.
func TestInheritance(t *testing.T) {
	entry := func(manager string, operation metav1.ManagedFieldsOperationType, subresource string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{
			Manager: manager, Operation: operation, Subresource: subresource, APIVersion: "v1", FieldsType: "FieldsV1",
			FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:type":{}}}`),
		}
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7", ManagedFields: []metav1.ManagedFieldsEntry{
		entry("manager", metav1.ManagedFieldsOperationUpdate, ""), entry("kubectl-edit", metav1.ManagedFieldsOperationUpdate, ""),
	}}}
	patch, err := inheritance(service)
	require.NoError(t, err)
	var operations []struct {
		Path  string
		Value any
	}
	require.NoError(t, json.Unmarshal(patch, &operations))
	require.Len(t, operations, 2)
	require.Equal(t, "/metadata/managedFields", operations[0].Path)
	var owners []string
	for _, entry := range operations[0].Value.([]any) {
		owner := entry.(map[string]any)
		owners = append(owners, owner["manager"].(string)+" "+owner["operation"].(string))
	}
	require.Equal(t, []string{FieldManager + " Apply", "kubectl-edit Update"}, owners)
	require.Equal(t, "7", operations[1].Value, "nothing is taken over that changed in the meantime")

	service.ManagedFields = service.ManagedFields[1:]
	patch, err = inheritance(service)
	require.NoError(t, err)
	require.Nil(t, patch)
}

// Of a status that another operator wrote, its names of the revisions are kept and nothing else.
func TestRenewal(t *testing.T) {
	emqx := &v2beta1.EMQX{
		ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"},
		Status: v2beta1.EMQXStatus{
			Conditions:      []metav1.Condition{{Type: "CoreNodesReady"}},
			CoreNodes:       []v2beta1.EMQXNode{{Node: "emqx@a"}},
			CoreNodesStatus: v2beta1.EMQXNodesStatus{CurrentRevision: "blue", UpdateRevision: "green", ReadyReplicas: 3},
		},
	}
	patch, err := renewal(emqx)
	require.NoError(t, err)
	var status v2beta1.EMQXStatus
	operations := []resources.JSONPatch{{Value: &status}, {}}
	require.NoError(t, json.Unmarshal(patch, &operations))
	require.Equal(t, v2beta1.EMQXStatus{CoreNodesStatus: v2beta1.EMQXNodesStatus{CurrentRevision: "blue", UpdateRevision: "green"}}, status)
	require.Equal(t, resources.Replace("/metadata/resourceVersion", "7"), operations[1])

	for reason, change := range map[string]func(*v2beta1.EMQXStatus){
		"no status":                             func(s *v2beta1.EMQXStatus) { s.Conditions = nil },
		"this operator's, even without a phase": func(s *v2beta1.EMQXStatus) { s.ObservedGeneration = 1 },
	} {
		own := emqx.DeepCopy()
		change(&own.Status)
		patch, err := renewal(own)
		require.NoError(t, err)
		require.Nil(t, patch, reason)
	}
}
