package machine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// lostDisk is a Snapshot of a two-node cluster at rest whose pod green-0 was made again without a volume: the site of its name is down
// and was another pod's.
func lostDisk(change ...func(*Snapshot)) Snapshot {
	changes := []func(*Snapshot){
		without("blue"),
		func(s *Snapshot) { s.EMQX.Status.CoreNodesStatus.CurrentRevision = "green" },
		withReplicas(nil, green0, green1), siteDown(green0),
		withPod(green0, func(p *Pod) {
			p.OnServing, p.Ready, p.GateContainer, p.Created = false, false, "", testNow.Add(-time.Second)
		}),
		withNode(green0, func(n *evacuate.NodeObservation) { *n = evacuate.NodeObservation{Life: n.Life} }),
		rememberedAs("another"),
	}
	return upgrading(v2beta1.PhaseDone, append(changes, change...)...)
}

func siteDown(id string) func(*Snapshot) {
	return withStorage(func(o *evacuate.StorageObservation) {
		for i := range o.Sites {
			if o.Sites[i].ID == id {
				o.Sites[i].Up = false
			}
		}
	})
}

// rememberedAs has the resource remember a pod of the name of green-0.
func rememberedAs(uid string) func(*Snapshot) {
	return func(s *Snapshot) {
		s.EMQX.Status.CoreNodes = nil
		if uid != "" {
			s.EMQX.Status.CoreNodes = []v2beta1.EMQXNode{{Node: "emqx@e-core-green-0.pods", PodName: green0, PodUID: "another"}}
		}
	}
}

// held has the pod be deleted and kept until EMQX has forgotten its node.
func held(s *Snapshot) {
	withPod(green0, func(p *Pod) {
		p.Deleting, p.ContainerRunning, p.Finalizers = true, false, []string{v2beta1.FinalizerForgotten}
	})(s)
}

// thirdHolds has the cluster have a third node, with replicas as the others have.
func thirdHolds(s *Snapshot) {
	withSet("green", func(set *Set) {
		pod := set.Pods[1]
		pod.Name, pod.UID, pod.Ordinal, pod.Node = "e-core-green-2", "green-2", 2, "emqx@e-core-green-2.pods"
		set.Pods, set.Replicas, set.NodeCount = append(set.Pods, pod), 3, 3
	})(s)
	s.Observation.Nodes["emqx@e-core-green-2.pods"] = s.Observation.Nodes["emqx@e-core-green-1.pods"]
	s.Wanted[Core] = Target{Revision: "green", Intent: `{"image":"b"}`, Replicas: 3}
	withReplicas(nil, green0, green1, "e-core-green-2")(s)
	siteDown(green0)(s)
}

func TestLostDisk(t *testing.T) {
	anew := Group{LetGo{Name: green0, UID: "green-0", Forget: true}, DeletePod{Name: green0, UID: "green-0"}}
	ended := withPod(green0, func(p *Pod) { p.ContainerRunning = false })
	for _, test := range []struct {
		reason  string
		s       Snapshot
		anew    bool
		holders []string
		busy    bool
	}{
		{"the pod starts anew, and what was on its disk is given up", lostDisk(), true, []string{"emqx@e-core-green-1.pods"}, true},
		{"nobody else has what was lost: it begins anew on what runs", lostDisk(withReplicas(nil, green0), siteDown(green0)), true, []string{"emqx@e-core-green-1.pods"}, true},
		{"whoever else has it does not answer", lostDisk(withNode(green1, silentNode)), true, nil, true},
		{"two others have what was lost", lostDisk(thirdHolds), true, []string{"emqx@e-core-green-1.pods", "emqx@e-core-green-2.pods"}, true},
		{"… of which one does not answer, and may come back as it was", lostDisk(thirdHolds, withNode("e-core-green-2", silentNode)), true, nil, true},
		{"… of which one has nothing of it", lostDisk(thirdHolds, withReplicas(nil, green0, green1), siteDown(green0), withNode("e-core-green-2", silentNode)), true,
			[]string{"emqx@e-core-green-1.pods"}, true},
		{"what is known may be older than the pod", lostDisk(withPod(green0, func(p *Pod) { p.Created = testNow })), false, nil, true},
		{"the site has the node that runs", lostDisk(withReplicas(nil, green0, green1)), false, nil, true},
		{"there is no such site", lostDisk(withStorage(func(o *evacuate.StorageObservation) { o.Sites = o.Sites[1:] })), false, nil, false},
		{"its node has run: it is the same disk", lostDisk(withPod(green0, func(p *Pod) { p.GateContainer = "c1" })), false, nil, false},
		{"it has a volume", lostDisk(withSet("green", func(set *Set) { set.Intent = `{"image":"b","volumeClaim":{}}` })), false, nil, false},
		{"nobody remembers the pod before it", lostDisk(rememberedAs("")), false, nil, false},
		{"… but its node ended, and others have what was lost", lostDisk(rememberedAs(""), ended), true, []string{"emqx@e-core-green-1.pods"}, true},
		{"… but its node ended, and nobody else has it", lostDisk(rememberedAs(""), ended, withReplicas(nil, green0), siteDown(green0)), false, nil, true},
		{"nobody is there who knows of the site", lostDisk(withPod(green1, func(p *Pod) { p.ContainerRunning = false })), false, nil, false},
		{"it waits until that is done", lostDisk(held), false, []string{"emqx@e-core-green-1.pods"}, true},
	} {
		t.Run(test.reason, func(t *testing.T) {
			decision := Decide(test.s)
			if test.anew {
				require.Contains(t, decision.Groups, anew)
			} else {
				require.NotContains(t, decision.Groups, anew)
			}
			require.Equal(t, test.holders, decision.Goal.Storage.Holders)
			require.Equal(t, test.busy, decision.Goal.Storage.Busy)
		})
	}
}

// TestHeldPod: a pod that lost its disk is kept until EMQX has forgotten its node, which it is not told to before the site is empty.
func TestHeldPod(t *testing.T) {
	const node = "emqx@e-core-green-0.pods"
	release := Group{LetGo{Name: green0, UID: "green-0"}}
	holding := lostDisk(held)
	require.NotContains(t, Decide(holding).Goal.Absent, node)
	require.Contains(t, Decide(holding).Waiting.Message, "starts anew when EMQX has forgotten the disk that went with its pod, which held replicas of 1 shards")

	empty := lostDisk(held, withReplicas(nil, green1))
	require.Contains(t, Decide(empty).Goal.Absent, node)
	require.NotContains(t, Decide(empty).Groups, release)
	empty.Observation.Left[node] = true
	require.Contains(t, Decide(empty).Groups, release)

	alone := lostDisk(held, withPod(green1, func(p *Pod) { p.ContainerRunning = false }))
	require.Contains(t, Decide(alone).Groups, release, "nobody is left who could forget it")
}

// TestLostDiskIsRemembered: until its node runs, the status tells of the pod that was there before.
func TestLostDiskIsRemembered(t *testing.T) {
	uid := func(s Snapshot) string {
		for _, told := range StatusOf(s, Decide(s)).CoreNodes {
			if told.PodName == green0 {
				return string(told.PodUID)
			}
		}
		return ""
	}
	require.Equal(t, "another", uid(lostDisk()))
	require.Equal(t, "another", uid(lostDisk(withSet("green", func(set *Set) { set.Pods = set.Pods[1:] }))), "also while there is no pod")
	require.Equal(t, "green-0", uid(lostDisk(withReplicas(nil, green1), withStorage(func(o *evacuate.StorageObservation) { o.Sites = nil }))))
}

// TestGrowWaitsForSites: a node whose name EMQX knows another disk by is not made before that is forgotten.
func TestGrowWaitsForSites(t *testing.T) {
	shrunk := func(change ...func(*Snapshot)) Snapshot {
		return upgrading(v2beta1.PhaseDone, append([]func(*Snapshot){without("blue"), withReplicas(nil, green0), withSet("green", func(set *Set) {
			set.Replicas, set.Asked, set.Pods = 1, 1, set.Pods[:1]
		}), withNode(green0, func(n *evacuate.NodeObservation) { n.LicenceKnown, n.Licence.Type = true, "official" })}, change...)...)
	}
	grown := Group{ScaleSet{SetRef: ref("green"), Replicas: 2, NodeCount: 2}}
	require.NotContains(t, Decide(shrunk()).Groups, grown)
	require.Contains(t, Decide(shrunk(func(s *Snapshot) { s.Observation.Left["emqx@e-core-green-1.pods"] = true })).Groups, grown)
	require.Contains(t, Decide(shrunk(withStorage(func(o *evacuate.StorageObservation) { o.Enabled = false }))).Groups, grown)
	require.NotContains(t, Decide(shrunk(withStorage(func(o *evacuate.StorageObservation) { *o = evacuate.StorageObservation{} }))).Groups, grown)
}
