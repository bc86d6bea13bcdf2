package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// TestGroupsAreIndependent: a write that is refused ends its group and no other.
func TestGroupsAreIndependent(t *testing.T) {
	kube := fake.NewSimpleClientset()
	kube.PrependReactor("create", "secrets", func(kubetesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("refused")
	})
	var done []string
	e := &executor{
		kube: kube, writes: newWrites(), taken: func(*v2beta1.EMQX) *resources.OperatorKey { return nil },
		observe: func(action string, err error) {
			if err != nil {
				action += " failed"
			}
			done = append(done, action)
		},
	}
	s := machine.Snapshot{EMQX: &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "u"}}}
	failures := e.execute(t.Context(), s, []machine.Group{
		{machine.CreateCookieSecret{}, machine.ApplyHeadlessService{}},
		{machine.DeletePod{Name: "e-core-5d8c-0", UID: "p"}},
		{machine.WriteKeysSecret{}},
	})
	require.Equal(t, []string{"CreateCookieSecret failed", "DeletePod", "WriteKeysSecret failed"}, done)
	require.Len(t, failures, 2)
	require.ErrorContains(t, failures[0], "create Secret n/e-node-cookie: refused")
}

// TestSetsAreWrittenAsSeen: a write on a set carries the version that the decision saw, so that it changes nothing else.
func TestSetsAreWrittenAsSeen(t *testing.T) {
	ref := machine.SetRef{Name: "e-core-5d8c", UID: "set", ResourceVersion: "41"}
	for _, action := range []machine.Action{
		machine.ScaleSet{SetRef: ref, Replicas: 3}, machine.RelabelSet{SetRef: ref, Revision: "5d8c"}, machine.MarkServing{SetRef: ref}, machine.NoteCookie{SetRef: ref},
	} {
		t.Run(fmt.Sprintf("%T", action), func(t *testing.T) {
			kube := fake.NewSimpleClientset()
			var written metav1.PartialObjectMetadata
			kube.PrependReactor("patch", "statefulsets", func(action kubetesting.Action) (bool, runtime.Object, error) {
				patch, ok := action.(kubetesting.PatchAction)
				require.True(t, ok)
				require.NoError(t, json.Unmarshal(patch.GetPatch(), &written))
				return true, &appsv1.StatefulSet{}, nil
			})
			e := &executor{kube: kube, writes: newWrites(), observe: func(string, error) {}}
			s := machine.Snapshot{EMQX: &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "u"}}}
			require.Empty(t, e.execute(t.Context(), s, []machine.Group{{action}}))
			require.EqualValues(t, "set", written.UID)
			require.Equal(t, "41", written.ResourceVersion)
		})
	}
}
