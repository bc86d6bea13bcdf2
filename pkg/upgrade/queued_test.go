package upgrade

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	emqxfake "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/fake"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// wanting is a cluster that serves, and is asked to be another.
func wanting(name string) machine.Snapshot {
	return machine.Snapshot{
		Now: time.Unix(1000, 0),
		EMQX: &v2beta1.EMQX{
			Spec:       v2beta1.EMQXSpec{Image: "emqx/emqx:6.0.1"},
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n"},
			Status:     v2beta1.EMQXStatus{Phase: v2beta1.PhasePending, CoreNodesStatus: v2beta1.EMQXNodesStatus{CurrentRevision: "blue"}},
		},
		Config: resources.Config{Licence: resources.LicenceKey, Ports: resources.Ports{
			Dashboard: []resources.Port{{Name: "dashboard", Number: 18083}}, Listeners: []resources.Port{{Name: "tcp-default", Number: 1883}},
		}},
		Wanted: map[machine.Role]machine.Target{machine.Core: {Revision: "green", Replicas: 1}},
		Sets:   []machine.Set{{Name: name + "-core-blue", Role: machine.Core, Revision: "blue", Intent: "{}", ConfigHash: "x", ServingSince: time.Unix(1, 0), Replicas: 1}},
		Services: map[resources.ServiceKind]machine.Service{
			resources.Listeners: {Revision: "blue", State: machine.Current, Ours: true}, resources.Dashboard: {Revision: "blue", State: machine.Current, Ours: true},
		},
		CookieSecret: machine.Current, KeysSecret: machine.Current, Headless: machine.Current,
	}
}

// TestUpgradesWaitForOthers: of those that would begin in the last place one does, and who waits looks again when there is room.
func TestUpgradesWaitForOthers(t *testing.T) {
	under := wanting("under").EMQX
	under.Status.Phase = v2beta1.PhaseEvacuating
	emqx := emqxfake.NewSimpleClientset()
	for _, resource := range []*v2beta1.EMQX{under, wanting("a").EMQX, wanting("b").EMQX} {
		require.NoError(t, emqx.Tracker().Create(v2beta1.SchemeGroupVersion.WithResource("emqxes"), resource, "n"))
	}
	caches, err := informers.New(informers.Clients{
		Kube: fake.NewSimpleClientset(&corev1.Pod{}), EMQX: emqx, Metadata: metadatafake.NewSimpleMetadataClient(metadataScheme()),
	}, nil)
	require.NoError(t, err)
	require.NoError(t, caches.Handle(func(cache.ObjectName, string) {}, func() {}))
	require.NoError(t, caches.Run(t.Context()))

	woken := map[string]bool{}
	q := newQueued(caches, 2, func(name cache.ObjectName) { woken[name.Name] = true })
	decide := func(s machine.Snapshot) machine.Decision { return q.decide(&s) }
	first := decide(wanting("a"))
	require.Equal(t, v2beta1.PhaseProvisioning, first.Phase, first.Stalled)
	waits := decide(wanting("b"))
	require.Equal(t, v2beta1.PhasePending, waits.Phase, "the cache does not show yet that the other began")
	require.Equal(t, "a, under to be upgraded first: at most 2 clusters are at a time", waits.Waiting.Message)
	require.Equal(t, v2beta1.PhaseProvisioning, decide(wanting("a")).Phase, "its status was not written: it begins again")

	require.Empty(t, woken)
	q.forget(cache.ObjectName{Namespace: "n", Name: "a"})
	require.Equal(t, map[string]bool{"b": true}, woken)
	require.Equal(t, v2beta1.PhaseProvisioning, decide(wanting("b")).Phase)
	require.Equal(t, v2beta1.PhasePending, decide(wanting("a")).Phase)

	clear(woken)
	reverted := wanting("b")
	reverted.Wanted[machine.Core] = machine.Target{Revision: "blue", Intent: "{}", Replicas: 1}
	require.Equal(t, v2beta1.PhaseDone, decide(reverted).Phase)
	require.Equal(t, map[string]bool{"a": true}, woken, "who did not begin after all makes room")
}
