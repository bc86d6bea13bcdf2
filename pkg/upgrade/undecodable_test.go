package upgrade

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	emqxfake "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/fake"
)

// TestUndecodableIsTold: of a resource that was never decoded nothing is done but to say so, once: in its status, an event
// and a metric. What was said before of its nodes stays.
func TestUndecodableIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		emqxes := v2beta1.SchemeGroupVersion.WithResource("emqxes")
		broken := &v2beta1.EMQX{
			ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "u", Generation: 3, Annotations: map[string]string{v2beta1.AnnotationUndecodable: "a is no text"}},
			Status: v2beta1.EMQXStatus{State: "Ready", Phase: v2beta1.PhaseDone, Clients: 7, Conditions: []metav1.Condition{
				{Type: v2beta1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Done"},
				{Type: v2beta1.ConditionAvailable, Status: metav1.ConditionTrue, Reason: "EndpointsReady"},
			}},
		}
		client := emqxfake.NewSimpleClientset()
		refused := false
		client.PrependReactor("patch", "emqxes", func(action kubetesting.Action) (bool, runtime.Object, error) {
			if !refused {
				refused = true
				return true, nil, errors.New("not now")
			}
			require.Equal(t, "status", action.GetSubresource())
			applied := broken.DeepCopy()
			applied.ResourceVersion = "2"
			var patch []struct {
				Path  string
				Value json.RawMessage
			}
			require.NoError(t, json.Unmarshal(action.(kubetesting.PatchAction).GetPatch(), &patch))
			require.Equal(t, "/status", patch[0].Path, "nothing is applied to what the API server's schema cannot read")
			require.NoError(t, json.Unmarshal(patch[0].Value, &applied.Status))
			return true, applied, client.Tracker().Update(emqxes, applied, "n")
		})
		require.NoError(t, client.Tracker().Create(emqxes, broken, "n"))
		kube := kubefake.NewClientset()
		c := newTestController(t, kube, client)
		c.gauges.working.Store(true)
		recorder := events.NewFakeRecorder(9)
		c.recorder = recorder

		name := cache.ObjectName{Namespace: "n", Name: "e"}
		_, _, err := c.sync(t.Context(), name)
		require.ErrorContains(t, err, "not now")
		require.Empty(t, recorder.Events, "what is tried again is not told each time")
		for range 2 {
			result, _, err := c.sync(t.Context(), name)
			require.NoError(t, err)
			require.Equal(t, "undecodable", result)
			synctest.Wait()
		}
		object, err := client.Tracker().Get(emqxes, "n", "e")
		require.NoError(t, err)
		told := object.(*v2beta1.EMQX)
		require.Equal(t, "Stalled", told.Status.State)
		require.Equal(t, int64(7), told.Status.Clients)
		for kind, want := range map[string]metav1.ConditionStatus{
			v2beta1.ConditionReady: metav1.ConditionFalse, v2beta1.ConditionAvailable: metav1.ConditionTrue, v2beta1.ConditionStalled: metav1.ConditionTrue,
		} {
			for _, condition := range told.Status.Conditions {
				if condition.Type == kind {
					require.Equal(t, want, condition.Status, kind)
				}
			}
		}
		require.Len(t, recorder.Events, 1)
		require.Contains(t, <-recorder.Events, "a is no text")
		require.Empty(t, kube.Actions()[countReads(kube):], "nothing else is written")
		families, err := c.Gather()
		require.NoError(t, err)
		var found bool
		for _, family := range families {
			found = found || family.GetName() == "emqx_bg_operator_undecodable_objects" && len(family.GetMetric()) == 1
		}
		require.True(t, found)
	})
}

// countReads is how many requests in a row were lists and watches.
func countReads(kube *kubefake.Clientset) int {
	for i, action := range kube.Actions() {
		if verb := action.GetVerb(); verb != "list" && verb != "watch" {
			return i
		}
	}
	return len(kube.Actions())
}
