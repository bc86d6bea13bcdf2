package informers

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// TestUndecodableRebalance: one that Go cannot decode costs only itself. Its cluster, its finalizers and what runs of it stay known.
func TestUndecodableRebalance(t *testing.T) {
	const broken = `{"apiVersion":"apps.emqx.io/v2beta1","kind":"Rebalance","metadata":{"name":"broken","namespace":"n","finalizers":["f"]},
		"spec":{"instanceName":"e","rebalanceStrategy":{"connEvictRate":"many"}},"status":{"phase":"Processing","rebalanceStates":[{"coordinator_node":"a"}]}}`
	const good = `{"apiVersion":"apps.emqx.io/v2beta1","kind":"Rebalance","metadata":{"name":"good","namespace":"n","annotations":{"apps.emqx.io/undecodable":"a lie"}},
		"spec":{"instanceName":"e","rebalanceStrategy":{"connEvictRate":7}}}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := `{"apiVersion":"apps.emqx.io/v2beta1","kind":"RebalanceList","metadata":{"resourceVersion":"9"},"items":[` + broken + "," + good + `]}`
		if r.URL.Path == "/apis/apps.emqx.io/v2beta1/namespaces/n/rebalances/broken" {
			answer = broken
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	client, err := NewEMQXClient(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	list, err := client.AppsV2beta1().Rebalances("n").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Equal(t, "9", list.ResourceVersion)
	require.Len(t, list.Items, 2)
	alone, err := client.AppsV2beta1().Rebalances("n").Get(t.Context(), "broken", metav1.GetOptions{})
	require.NoError(t, err)
	for _, decoded := range []*v2beta1.Rebalance{&list.Items[0], alone} {
		require.Contains(t, decoded.Undecodable(), "connEvictRate")
		require.Equal(t, "e", decoded.Spec.InstanceName)
		require.Equal(t, []string{"f"}, decoded.Finalizers)
		require.Equal(t, "a", decoded.Status.RebalanceStates[0].CoordinatorNode)
	}
	require.Empty(t, list.Items[1].Undecodable())
	require.EqualValues(t, 7, list.Items[1].Spec.RebalanceStrategy.ConnEvictRate)
}
