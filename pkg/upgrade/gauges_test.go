package upgrade

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// TestScrape: nobody checks these gauges but this test: labels in the order of their names, no gauge twice, all as they are
// described.
func TestScrape(t *testing.T) {
	s := newScrape()
	for _, name := range []string{"a", "b"} {
		resource := &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
		resource.Status.Phase = v2beta1.PhaseEvacuating
		look := shown{
			clients: 5, stalled: "Refused", revisions: map[string]string{"emqx@1": "x", "emqx@2": "y"},
			upgrade: &v2beta1.UpgradeStatus{ClientsTotal: 7, ClientsMoved: 1, EstimatedEndTime: &metav1.Time{Time: time.Unix(100, 0)}},
		}
		labels := labelsOf(resource)
		s.tell(undecodableGauge, labels, 1)
		s.cluster(resource, look, labels)
		s.rebalances([]*v2beta1.Rebalance{{}}, labels)
		s.nodes(resource, look, evacuate.Observation{Nodes: map[string]evacuate.NodeObservation{
			"emqx@2": {Seen: time.Unix(50, 0), Moves: emqx.Moves{Evacuation: &emqx.EvacuationStatus{ConnEvictRate: 10}}}, "emqx@1": {},
		}, Storage: evacuate.StorageObservation{Enabled: true}}, labels)
	}
	described := map[string]string{}
	descriptions := make(chan *prometheus.Desc, gaugesCount)
	(&gauges{}).Describe(descriptions)
	close(descriptions)
	for description := range descriptions {
		described[description.String()] = ""
	}
	require.Len(t, described, int(gaugesCount))

	var text bytes.Buffer
	var names []string
	for _, family := range s.families() {
		names = append(names, family.GetName())
		told := map[string]bool{}
		for _, metric := range family.GetMetric() {
			var labels, values []string
			for _, pair := range metric.GetLabel() {
				labels, values = append(labels, pair.GetName()), append(values, pair.GetValue())
			}
			assert.True(t, slices.IsSorted(labels), labels)
			assert.False(t, told[strings.Join(values, "/")], "%s: %v twice", family.GetName(), values)
			told[strings.Join(values, "/")] = true
			as := prometheus.NewDesc(family.GetName(), family.GetHelp(), slices.Concat([]string{"namespace", "name"}, labels[2:]), nil)
			assert.Contains(t, described, as.String())
		}
		_, err := expfmt.MetricFamilyToText(&text, family)
		require.NoError(t, err)
	}
	assert.True(t, slices.IsSorted(names), names)
	assert.Len(t, names, int(gaugesCount), "all are told")
	assert.Contains(t, text.String(), `emqx_bg_operator_phase{name="a",namespace="n",phase="Evacuating"} 1`)
	assert.Contains(t, text.String(), `emqx_bg_operator_node_connection_eviction_rate{name="b",namespace="n",node="emqx@2",revision="y"} 10`)
	assert.NotContains(t, text.String(), `emqx_bg_operator_node_clients{name="b",namespace="n",node="emqx@1"`, "unknown is not zero")
}
