package machine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// withReplicas gives every node a site of its pod's name, and a database of one shard whose replicas are on some of them.
func withReplicas(change func(*emqx.Shard), sites ...string) func(*Snapshot) {
	return func(s *Snapshot) {
		storage := &s.Observation.Storage
		storage.Seen, storage.Enabled = s.Now, true
		for _, pod := range s.pods() {
			storage.Sites = append(storage.Sites, emqx.Site{ID: pod.Name, Node: pod.Node, Up: true})
		}
		shard := emqx.Shard{ID: "0", Replicas: sites}
		if change != nil {
			change(&shard)
		}
		storage.Databases = []emqx.Database{{Name: "mq_state", Shards: []emqx.Shard{shard}}}
	}
}

func withStorage(change func(*evacuate.StorageObservation)) func(*Snapshot) {
	return func(s *Snapshot) { change(&s.Observation.Storage) }
}

const blue0, blue1, green0, green1 = "e-core-blue-0", "e-core-blue-1", "e-core-green-0", "e-core-green-1"

// TestDataKeepsACore is invariant 14: no core that holds a replica is taken away, and none while that is not known.
func TestDataKeepsACore(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change []func(*Snapshot)
		reason string // Empty: it is taken away.
	}{
		{"there is no durable storage", nil, ""},
		{"it holds nothing", []func(*Snapshot){withReplicas(nil, green0, green1)}, ""},
		{"it holds a replica", []func(*Snapshot){withReplicas(nil, blue1, green0)}, "ReplicasLeft"},
		{"it is about to lose its last", []func(*Snapshot){withReplicas(func(s *emqx.Shard) { s.Leaving = []string{blue1} }, green0)}, "ReplicasLeft"},
		{"others move theirs", []func(*Snapshot){withReplicas(func(s *emqx.Shard) { s.Joining = []string{green1} }, green0)}, "ReplicasMoving"},
		{"nobody was asked", []func(*Snapshot){withStorage(func(o *evacuate.StorageObservation) { o.Seen = time.Time{} })}, "StorageNotAsked"},
		{"it was asked before this phase began", []func(*Snapshot){withReplicas(nil, green0), withStorage(func(o *evacuate.StorageObservation) { o.Seen = testNow.Add(-time.Hour) })}, "StorageNotAsked"},
		{"nobody answers", []func(*Snapshot){withReplicas(nil, green0), withStorage(func(o *evacuate.StorageObservation) { o.Failure = "the node does not answer" })}, "StorageSilent"},
		{"EMQX refuses", []func(*Snapshot){withReplicas(nil, blue1), withStorage(func(o *evacuate.StorageObservation) { o.OrderFailure = "database mq_state: no" })}, "ReplicasNotMoved"},
		{"the new revision has no such database", []func(*Snapshot){withReplicas(nil, blue1), withStorage(func(o *evacuate.StorageObservation) {
			o.Unopened = map[string]string{"mq_state": "emqx@x"}
		})}, "DatabaseNotOpen"},
		{"the new revision has no such database, and what is in it may be lost", []func(*Snapshot){withReplicas(nil, blue1), withStorage(func(o *evacuate.StorageObservation) {
			o.Unopened = map[string]string{"mq_state": "emqx@x"}
		}), withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.PromotedRevision = "green" })}, ""},
		{"the user consented to a loss, and nothing stands in the way", []func(*Snapshot){withReplicas(nil, blue1), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.PromotedRevision = "green"
		})}, "ReplicasLeft"},
		{"a deadline has passed", []func(*Snapshot){withReplicas(nil, blue1), withDeadline(1)}, "ReplicasLeft"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := upgrading(v2beta1.PhaseScalingDown, append([]func(*Snapshot){evacuatedBlue}, tt.change...)...)
			decision := Decide(s)
			scaled := false
			for _, action := range flat(decision.Groups) {
				_, is := action.(ScaleSet)
				scaled = scaled || is
			}
			require.Equal(t, tt.reason == "", scaled)
			if tt.reason != "" {
				require.Equal(t, tt.reason, decision.Waiting.Reason, decision.Waiting.Message)
			}
		})
	}
}

// TestWhereReplicasShallBe: on all cores that stay at rest, and while the others are taken away.
func TestWhereReplicasShallBe(t *testing.T) {
	green := []string{"emqx@e-core-green-0.pods", "emqx@e-core-green-1.pods"}
	blue := []string{"emqx@e-core-blue-0.pods", "emqx@e-core-blue-1.pods"}
	for _, tt := range []struct {
		name    string
		phase   v2beta1.Phase
		change  []func(*Snapshot)
		holders []string
	}{
		{"before the switch they stay", v2beta1.PhaseProvisioning, []func(*Snapshot){serving("blue")}, nil},
		{"while clients are moved, too", v2beta1.PhaseEvacuating, nil, nil},
		{"then they go to the new nodes", v2beta1.PhaseScalingDown, nil, green},
		{"and remain there", v2beta1.PhaseDone, []func(*Snapshot){without("blue")}, green},
		{"not while one of these does not run", v2beta1.PhaseScalingDown, []func(*Snapshot){withNode(green1, silentNode)}, nil},
		{"not while one of these is missing", v2beta1.PhaseDone, []func(*Snapshot){without("blue"), withSet("green", func(set *Set) { set.Pods = set.Pods[:1] })}, nil},
		{"not while the Services lead elsewhere", v2beta1.PhaseScalingDown, []func(*Snapshot){serving("blue")}, nil},
		{"not while the user holds the cluster", v2beta1.PhaseScalingDown, []func(*Snapshot){withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })}, nil},
		{"those on a set that never served go back to the one that does", v2beta1.PhaseProvisioning, []func(*Snapshot){
			serving("blue"), withSet("green", func(set *Set) { set.ServingSince = time.Time{} }), neverServedRed, withReplicas(nil, "e-core-red-0", blue0),
		}, blue},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := upgrading(tt.phase, tt.change...)
			require.Equal(t, tt.holders, Decide(s).Goal.Storage.Holders)
		})
	}
}

// neverServedRed adds a set that an edit before the last one made.
func neverServedRed(s *Snapshot) {
	withRed(s)
	for i := range s.set("red").Pods {
		s.set("red").Pods[i].OnServing = false
		withNode(s.set("red").Pods[i].Name, func(n *evacuate.NodeObservation) { n.Seen = testNow; clients(0, 0)(n) })(s)
	}
	for _, pod := range s.set("green").Pods {
		withPod(pod.Name, func(p *Pod) { p.OnServing = false })(s)
		withNode(pod.Name, clients(0, 0))(s)
	}
}

// TestDataKeepsASetThatNeverServed: a database that was opened meanwhile may have replicas there.
func TestDataKeepsASetThatNeverServed(t *testing.T) {
	for _, held := range []bool{false, true} {
		site := blue0
		if held {
			site = "e-core-red-0"
		}
		s := upgrading(v2beta1.PhaseProvisioning, serving("blue"), withSet("green", func(set *Set) { set.ServingSince = time.Time{} }), neverServedRed, withReplicas(nil, site),
			withPod(green0, func(p *Pod) { p.ContainersReady = false }))
		scaled := false
		for _, action := range flat(Decide(s).Groups) {
			scale, is := action.(ScaleSet)
			scaled = scaled || is && scale.Name == "e-core-red"
		}
		require.Equal(t, !held, scaled)
	}
}

func TestStorageStatus(t *testing.T) {
	s := upgrading(v2beta1.PhaseScalingDown, withReplicas(func(shard *emqx.Shard) {
		shard.Lost, shard.Joining, shard.Leaving = []string{"X"}, []string{green1}, []string{blue0}
	}, blue0, green0, "X"))
	s.Observation.Storage.Databases[0].Shards = append(s.Observation.Storage.Databases[0].Shards, emqx.Shard{ID: "1", Replicas: []string{green0}})
	require.Equal(t, &v2beta1.DSReplicationStatus{DBs: []v2beta1.DSDBReplicationStatus{{
		Name: "mq_state", NumShards: 2, NumShardReplicas: 4, LostShardReplicas: 1, NumTransitions: 2, MinReplicas: 1, MaxReplicas: 3,
	}}}, StatusOf(s, Decide(s)).DSReplication)

	told := map[string]metav1.ConditionStatus{}
	for _, action := range flat(Decide(s).Groups) {
		if condition, is := action.(SetSiteCondition); is {
			told[condition.Pod] = condition.Status
		}
	}
	require.Equal(t, map[string]metav1.ConditionStatus{blue0: metav1.ConditionTrue, green0: metav1.ConditionTrue, green1: metav1.ConditionTrue}, told)
	withPod(blue1, func(p *Pod) { p.SiteCondition = metav1.ConditionTrue })(&s)
	told[blue1] = metav1.ConditionFalse
	require.Contains(t, flat(Decide(s).Groups), Action(SetSiteCondition{Pod: blue1, UID: s.set("blue").Pods[1].UID, Status: metav1.ConditionFalse}))
	for pod, status := range told {
		withPod(pod, func(p *Pod) { p.SiteCondition = status })(&s)
	}
	for _, action := range flat(Decide(s).Groups) {
		_, is := action.(SetSiteCondition)
		require.False(t, is, "it is told once")
	}
	s.Observation.Storage.Sites, s.Observation.Storage.Databases = nil, nil
	require.Contains(t, flat(Decide(s).Groups), Action(SetSiteCondition{Pod: blue0, UID: s.set("blue").Pods[0].UID, Status: metav1.ConditionUnknown}))
	withPod(blue0, func(p *Pod) { p.SiteCondition = "" })(&s)
	require.NotContains(t, flat(Decide(s).Groups), Action(SetSiteCondition{Pod: blue0, UID: s.set("blue").Pods[0].UID, Status: metav1.ConditionUnknown}), "of what was never told")
}

// TestUnaskedNodeIsHeldBack: after a start of the operator nobody knows what is on a node that never served. Its set stays until
// that is known; one whose container does not run, or that is known not to answer, is no reason to wait.
func TestUnaskedNodeIsHeldBack(t *testing.T) {
	started := func(change ...func(*Snapshot)) Snapshot {
		return upgrading(v2beta1.PhaseProvisioning, append([]func(*Snapshot){serving("blue"), withRed, func(s *Snapshot) {
			s.Observation.Storage = evacuate.StorageObservation{}
			for i := range s.set("red").Pods {
				s.set("red").Pods[i].OnServing = false
			}
			delete(s.Observation.Nodes, "emqx@e-core-red-0.pods")
			delete(s.Observation.Nodes, "emqx@e-core-red-1.pods")
		}}, change...)...)
	}
	held := func(s Snapshot) string { return heldBack(s, *s.set("red")).Reason }
	require.Equal(t, "StorageNotAsked", held(started()))
	for _, change := range []func(*Snapshot){
		func(s *Snapshot) {
			for i := range s.set("red").Pods {
				s.set("red").Pods[i].ContainerRunning = false
			}
		},
		func(s *Snapshot) {
			withNode("e-core-red-0", booting)(s)
			withNode("e-core-red-1", booting)(s)
		},
		func(s *Snapshot) { s.Observation.Storage.Seen = testNow },
	} {
		require.Empty(t, held(started(change)))
	}
}

// TestMoveOfReplicas: how far it is, and when it will be over at the pace so far.
func TestMoveOfReplicas(t *testing.T) {
	evacuated := func(s *Snapshot) {
		for _, pod := range []string{blue0, blue1} {
			withNode(pod, clients(0, 0))(s)
			withNode(pod, state(emqx.StateProhibiting))(s)
		}
	}
	told := func(total int64, sites ...string) v2beta1.UpgradeStatus {
		s := upgrading(v2beta1.PhaseScalingDown, evacuated, withReplicas(nil, sites...), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.ReplicasTotal = total }))
		return *StatusOf(s, Decide(s)).Upgrade
	}
	begun := told(0, blue0, blue1)
	require.EqualValues(t, 2, begun.ReplicasTotal)
	require.Zero(t, begun.ReplicasMoved)
	require.Nil(t, begun.EstimatedEndTime, "nobody knows the pace yet")

	half := told(2, blue1, green0)
	require.EqualValues(t, 1, half.ReplicasMoved)
	require.Equal(t, testNow.Add(time.Minute+time.Second), half.EstimatedEndTime.Time, "the other half takes as long as the first, which was a minute")

	over := told(2, green0, green1)
	require.EqualValues(t, 2, over.ReplicasMoved)
	require.Nil(t, over.EstimatedEndTime)
}

// TestLicenceAndDataOfASetThatNeverServed: only a node that ended by its licence shows that a set was never in one cluster with what
// serves. That no key is known, while nobody tells, does not: then a replica is as dear as any.
func TestLicenceAndDataOfASetThatNeverServed(t *testing.T) {
	s := upgrading(v2beta1.PhaseProvisioning, serving("blue"), withRed, withReplicas(nil, "e-core-red-0"), func(s *Snapshot) {
		s.EMQX.Spec.Image = "emqx/emqx:6.0.1"
		for _, pod := range []string{blue0, blue1} {
			withPod(pod, func(p *Pod) { p.ContainerRunning, p.Ready = false, false })(s)
			withNode(pod, func(n *evacuate.NodeObservation) { *n = evacuate.NodeObservation{Life: n.Life} })(s)
		}
	})
	require.Equal(t, alone, s.newcomer(), "EMQX's default licence allows one node, as far as anybody knows")
	require.Equal(t, "ReplicasLeft", heldBack(s, *s.set("red")).Reason)
	withPod(blue0, func(p *Pod) { p.OneNodeLicence = true })(&s)
	require.Empty(t, heldBack(s, *s.set("red")).Reason)
}
