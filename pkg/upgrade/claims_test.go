package upgrade

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// TestClaimOf: a claim is the cluster's by its labels and its exact name, and by nothing less.
func TestClaimOf(t *testing.T) {
	made := metav1.NewTime(time.Unix(100, 0))
	emqx := &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "u", CreationTimestamp: made}}
	claim := func(name string, change ...func(*metav1.PartialObjectMetadata)) *metav1.PartialObjectMetadata {
		object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: "c", CreationTimestamp: made, Labels: resources.CoreRevisionLabels(emqx, "5d8c"),
		}}
		for _, c := range change {
			c(object)
		}
		return object
	}
	own := func(object *metav1.PartialObjectMetadata) {
		object.OwnerReferences = []metav1.OwnerReference{{UID: "u"}}
	}
	wrote := func(object *metav1.PartialObjectMetadata) {
		object.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: informers.ClaimManager}}
	}
	const name = "e-core-data-e-core-5d8c-2"
	for _, test := range []struct {
		reason string
		object *metav1.PartialObjectMetadata
		want   machine.Claim
	}{
		{"as a set makes it", claim(name), machine.Claim{Name: name, UID: "c", Revision: "5d8c", Ordinal: 2, Created: made.Time}},
		{"another volume of the pod", claim("logs-e-core-5d8c-2"), machine.Claim{}},
		{"of another resource", claim("e-core-data-f-core-5d8c-2"), machine.Claim{}},
		{"no ordinal", claim("e-core-data-e-core-5d8c-x"), machine.Claim{}},
		{"no ordinal as Kubernetes writes them", claim("e-core-data-e-core-5d8c-02"), machine.Claim{}},
		{"a copy that a person made", claim(name + "-copy"), machine.Claim{}},
		{"a label of another revision", claim("e-core-data-e-core-6e9d-2"), machine.Claim{}},
		{"no labels", claim(name, func(object *metav1.PartialObjectMetadata) { object.Labels = nil }), machine.Claim{}},
		{"it is older than the resource", claim(name, func(object *metav1.PartialObjectMetadata) {
			object.CreationTimestamp = metav1.NewTime(made.Add(-time.Second))
		}), machine.Claim{Name: name, UID: "c", Revision: "5d8c", Ordinal: 2, Created: made.Add(-time.Second), Former: true}},
		{"it goes with the resource", claim(name, own, wrote), machine.Claim{Name: name, UID: "c", Revision: "5d8c", Ordinal: 2, Created: made.Time, Bound: true}},
		{"it goes with a deleted resource", claim(name, wrote, func(object *metav1.PartialObjectMetadata) {
			object.CreationTimestamp = metav1.NewTime(made.Add(-time.Second))
			object.OwnerReferences = []metav1.OwnerReference{{Kind: v2beta1.Kind, UID: "before"}}
		}), machine.Claim{Name: name, UID: "c", Revision: "5d8c", Ordinal: 2, Created: made.Add(-time.Second), Former: true, Bound: true}},
		{"a person wrote that, and it is theirs", claim(name, own), machine.Claim{Name: name, UID: "c", Revision: "5d8c", Ordinal: 2, Created: made.Time}},
		{"the owner is another by now", claim(name, wrote), machine.Claim{Name: name, UID: "c", Revision: "5d8c", Ordinal: 2, Created: made.Time}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			got, ok := claimOf(emqx, test.object)
			require.Equal(t, test.want.Name != "", ok)
			require.Equal(t, test.want, got)
		})
	}
}

// TestClaimsAreWrittenAsSeen: a claim is deleted, or bound, only as the one that the decision saw.
func TestClaimsAreWrittenAsSeen(t *testing.T) {
	kube := fake.NewSimpleClientset()
	var written metav1.PartialObjectMetadata
	var deleted *metav1.Preconditions
	kube.PrependReactor("patch", "persistentvolumeclaims", func(action kubetesting.Action) (bool, runtime.Object, error) {
		patch, ok := action.(kubetesting.PatchAction)
		require.True(t, ok)
		written = metav1.PartialObjectMetadata{}
		require.NoError(t, json.Unmarshal(patch.GetPatch(), &written))
		return true, &corev1.PersistentVolumeClaim{}, nil
	})
	kube.PrependReactor("delete", "persistentvolumeclaims", func(action kubetesting.Action) (bool, runtime.Object, error) {
		deletion, ok := action.(kubetesting.DeleteActionImpl)
		require.True(t, ok)
		deleted = deletion.DeleteOptions.Preconditions
		return true, nil, nil
	})
	e := &executor{kube: kube, writes: newWrites(), observe: func(string, error) {}}
	s := machine.Snapshot{EMQX: &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "u"}}}
	require.Empty(t, e.execute(t.Context(), s, []machine.Group{{machine.BindClaim{Name: "c", UID: "7", Bind: true}}}))
	require.EqualValues(t, "7", written.UID)
	require.Len(t, written.OwnerReferences, 1)
	require.Nil(t, written.OwnerReferences[0].Controller, "the set's controller must not find a claim that another controls")
	require.Empty(t, e.execute(t.Context(), s, []machine.Group{{machine.BindClaim{Name: "c", UID: "7"}, machine.DeleteClaim{Name: "c", UID: "7"}}}))
	require.Empty(t, written.OwnerReferences)
	require.EqualValues(t, "7", *deleted.UID)
}

// TestClaimOfANodeThatASetHasStays: the set is asked for before a claim goes, since the decision may be of a cache that lags.
func TestClaimOfANodeThatASetHasStays(t *testing.T) {
	resource := &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "u"}}
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: resource.CoreSetName("5d8c"), Namespace: "n"},
		Spec:       appsv1.StatefulSetSpec{Replicas: ptr.To[int32](1)},
	}
	deleted := set.DeepCopy()
	deleted.DeletionTimestamp = ptr.To(metav1.Now())
	refusing := func(kube *fake.Clientset) {
		kube.PrependReactor("get", "statefulsets", func(kubetesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("refused") })
	}
	for _, test := range []struct {
		reason  string
		sets    []runtime.Object
		change  func(*fake.Clientset)
		ordinal int
		gone    bool
	}{
		{"there is no set", nil, nil, 0, true},
		{"the set has the node", []runtime.Object{set}, nil, 0, false},
		{"the set has fewer nodes", []runtime.Object{set}, nil, 1, true},
		{"the set is being deleted", []runtime.Object{deleted}, nil, 0, true},
		{"nobody knows", nil, refusing, 0, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "n", UID: "7"}}
			kube := fake.NewSimpleClientset(append(test.sets, claim)...)
			if test.change != nil {
				test.change(kube)
			}
			e := &executor{kube: kube, writes: newWrites(), observe: func(string, error) {}}
			failed := e.execute(t.Context(), machine.Snapshot{EMQX: resource}, []machine.Group{{
				machine.DeleteClaim{Name: "c", UID: "7", Revision: "5d8c", Ordinal: test.ordinal},
			}})
			_, err := kube.CoreV1().PersistentVolumeClaims("n").Get(t.Context(), "c", metav1.GetOptions{})
			require.Equal(t, test.gone, apierrors.IsNotFound(err))
			require.Equal(t, test.gone, len(failed) == 0)
		})
	}
}
