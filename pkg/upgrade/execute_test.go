package upgrade

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
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
		kube: kube, writes: newWrites(), password: func(*v2beta1.EMQX) string { return "" },
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
		{machine.CreateKeysSecret{}},
	})
	require.Equal(t, []string{"CreateCookieSecret failed", "DeletePod", "CreateKeysSecret failed"}, done)
	require.Len(t, failures, 2)
	require.ErrorContains(t, failures[0], "create Secret n/e-node-cookie: refused")
}
