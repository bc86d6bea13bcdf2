package machine

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// aged are claims of revisions whose sets are gone, each made an hour before the one before it.
func aged(revisions ...string) func(*Snapshot) {
	return func(s *Snapshot) {
		for i, revision := range revisions {
			withClaims(Claim{Revision: revision, Created: testNow.Add(-time.Duration(i+1) * time.Hour)})(s)
		}
	}
}

func keeping(revisions int32) func(*Snapshot) {
	return withSpec(func(spec *v2beta1.EMQXSpec) { spec.RevisionHistoryLimit = ptr.To(revisions) })
}

// TestClaims: which claims are deleted, or have something written to them, when.
func TestClaims(t *testing.T) {
	asked := func(revision string, replicas, asked int32) func(*Snapshot) {
		return withSet(revision, func(set *Set) {
			set.Replicas, set.Asked, set.Pods = replicas, asked, set.Pods[:min(int(replicas), len(set.Pods))]
		})
	}
	retention := withSpec(func(spec *v2beta1.EMQXSpec) {
		spec.CoreTemplate.Spec.VolumeClaimRetention = v2beta1.VolumeClaimsDeleted
	})
	turned := func(s *Snapshot) { s.Wanted[Core] = Target{Revision: "blue", Intent: `{"image":"a"}`, Replicas: 2} }
	for _, test := range []struct {
		reason  string
		s       Snapshot
		deleted []string
		waits   string
	}{
		{"those of living sets stay, also of one that leaves", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, claimed("blue"), claimed("green"), keeping(0)), nil, ""},
		{"three revisions are kept where nothing is said", upgrading(v2beta1.PhaseDone, without("blue"), claimed("green"), aged("a", "b", "c", "d")), []string{"d-0"}, ""},
		{"the newest first, whatever their names", upgrading(v2beta1.PhaseDone, without("blue"), aged("z", "a"), keeping(1)), []string{"a-0"}, ""},
		{"none is kept", upgrading(v2beta1.PhaseDone, without("blue"), claimed("blue"), keeping(0)), []string{"blue-0", "blue-1"}, ""},
		{"not while it is paused", upgrading(v2beta1.PhaseDone, without("blue"), claimed("blue"), keeping(0), withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })), nil, ""},
		{"one that is being deleted is not deleted again", upgrading(v2beta1.PhaseDone, without("blue"), withClaims(Claim{Revision: "blue", Deleting: true}), keeping(0)), nil, ""},
		{"those of a deleted resource are nobody's to delete", upgrading(v2beta1.PhaseDone, without("blue"), withClaims(Claim{Revision: "blue", Former: true}), keeping(0)), nil, ""},
		{"not while nobody knows what is asked for", upgrading(v2beta1.PhaseDone, without("blue"), claimed("blue"), keeping(0), func(s *Snapshot) { s.Wanted = nil }), nil, ""},
		{"nor those of the set that serves, if it was lost", upgrading(v2beta1.PhaseProvisioning, serving("blue"), without("blue"), claimed("blue"), keeping(0)), nil, ""},

		{"a set is made under a name that has claims: they go first", upgrading(v2beta1.PhaseProvisioning, serving("blue"), without("green"), claimed("green")), []string{"green-0", "green-1"}, "ClaimsLeft"},
		{"they are waited for", upgrading(v2beta1.PhaseProvisioning, serving("blue"), without("green"), withClaims(Claim{Revision: "green", Deleting: true})), nil, "ClaimsLeft"},
		{"so are those that a deleted resource takes along, and nobody deletes them", upgrading(v2beta1.PhaseProvisioning, serving("blue"), without("green"), withClaims(Claim{Revision: "green", Former: true, Bound: true})), nil, "ClaimsLeft"},
		{"the set that serves was lost, and nobody is there to forget its nodes", upgrading(v2beta1.PhaseProvisioning, claimed("green"), without("blue"), without("green")), nil, "SetMissing"},
		{"somebody is", upgrading(v2beta1.PhaseProvisioning, claimed("green"), without("green")), []string{"green-0", "green-1"}, "ClaimsLeft"},
		{"its pods were left behind: the new set takes them back, with their claims", upgrading(v2beta1.PhaseProvisioning, serving("blue"), claimed("green"), withSet("green", func(set *Set) {
			set.Orphaned, set.Deleting = true, true
		})), nil, "SetMissing"},

		{"an upgrade is turned round: the claims of nodes that were let go are deleted first", upgrading(v2beta1.PhaseProvisioning, turned, claimed("blue"), asked("blue", 1, 1), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.To = "blue" })), []string{"blue-1"}, "ClaimsLeft"},
		{"they are waited for, too", upgrading(v2beta1.PhaseProvisioning, turned, withClaims(Claim{Revision: "blue"}, Claim{Revision: "blue", Ordinal: 1, Deleting: true}), asked("blue", 1, 1), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.To = "blue" })), nil, "ClaimsLeft"},
		{"somebody else scaled it: its nodes come back with their data", upgrading(v2beta1.PhaseProvisioning, turned, claimed("blue"), asked("blue", 1, 2), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.To = "blue" })), nil, "SetTooSmall"},
		{"pods that nobody asked for are gone, and so are their claims", upgrading(v2beta1.PhaseDone, without("blue"), claimed("green"), withClaims(Claim{Revision: "green", Ordinal: 2})), []string{"green-2"}, ""},
		{"not while there may be a pod", upgrading(v2beta1.PhaseDone, without("blue"), withClaims(Claim{Revision: "green", Ordinal: 2}), withSet("green", func(set *Set) { set.PodsUnseen = true })), nil, ""},

		{"they go with the resource", upgrading(v2beta1.PhaseDone, without("blue"), withClaims(Claim{Revision: "green"}, Claim{Revision: "green", Ordinal: 1, Bound: true}), retention), []string{"bind green-0"}, ""},
		{"or they stay", upgrading(v2beta1.PhaseDone, without("blue"), withClaims(Claim{Revision: "green", Bound: true})), []string{"unbind green-0"}, ""},
		{"those that are deleted anyway are not written", upgrading(v2beta1.PhaseDone, without("blue"), claimed("blue"), retention, keeping(0)), []string{"blue-0", "blue-1"}, ""},
	} {
		t.Run(test.reason, func(t *testing.T) {
			decision := Decide(test.s)
			var deleted []string
			for _, action := range flat(decision.Groups) {
				switch a := action.(type) { //nolint:gochecksumtype // Nothing else is done to claims.
				case DeleteClaim:
					deleted = append(deleted, a.Name[len("e-core-data-e-core-"):])
				case BindClaim:
					verb := map[bool]string{true: "bind ", false: "unbind "}[a.Bind]
					deleted = append(deleted, verb+a.Name[len("e-core-data-e-core-"):])
				}
			}
			require.Equal(t, test.deleted, slices.Compact(deleted)) // Upkeep and the phase may both want it.
			if test.waits != "" {
				require.Equal(t, test.waits, decision.Waiting.Reason, decision.Waiting.Message)
			}
		})
	}
	kept := claimsLeft([]Claim{{Name: "x", Deleting: true, Finalizers: []string{"backup/hold"}}})
	require.Contains(t, kept.Message, "x (kept by backup/hold)")
}

// TestNobodyForgetsWhatComesBack: EMQX is made to forget the nodes that the operator let go, and not those that somebody else
// scaled away: these come back with their data, and would not start. When their set leaves anyway, it is noted first.
func TestNobodyForgetsWhatComesBack(t *testing.T) {
	scaledAway := func(revision string) func(*Snapshot) {
		return withSet(revision, func(set *Set) { set.Replicas, set.Asked, set.Pods = 1, 2, set.Pods[:1] })
	}
	require.Equal(t, []string{"emqx@e-core-green-1.pods"}, absent(upgrading(v2beta1.PhaseDone, without("blue"), scaledAway("green"))), "without a volume it comes back empty")
	require.Empty(t, absent(upgrading(v2beta1.PhaseDone, without("blue"), claimed("green"), scaledAway("green"))))
	leaving := upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, claimed("blue"), scaledAway("blue"))
	require.Empty(t, absent(leaving))
	require.Contains(t, flat(upkeep(leaving)), Action(ScaleSet{SetRef: ref("blue"), Replicas: 1, NodeCount: 2}))
	withSet("blue", func(set *Set) { set.Asked = 1 })(&leaving)
	require.Equal(t, []string{"emqx@e-core-blue-1.pods"}, absent(leaving))
}

// TestStoppedNodeWithVolume: a node that is known to be stopped has no client, but with a volume it is no empty one: what it holds
// of durable storage is asked of the others, and keeps its pod. All else on the volume is on every core.
func TestStoppedNodeWithVolume(t *testing.T) {
	stopped := func(s *Snapshot) {
		withPod("e-core-blue-1", func(pod *Pod) { pod.ContainerRunning = false })(s)
		unseen("emqx@e-core-blue-1.pods")(s)
		withNode("e-core-blue-1", silentNode)(s)
	}
	s := upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, claimed("blue"), claimed("green"), stopped)
	pod := s.set("blue").Pods[1]
	require.True(t, s.stopped(pod))
	require.True(t, occupied(s, pod).None())
	require.True(t, holding(s, pod).None())
	s.Observation.Storage = evacuate.StorageObservation{Seen: testNow, Storage: emqx.Storage{
		Sites:     []emqx.Site{{ID: "S1", Node: pod.Node}},
		Databases: []emqx.Database{{Name: "mq_state", Shards: []emqx.Shard{{ID: "0", Replicas: []string{"S1"}}}}},
	}}
	require.Equal(t, "ReplicasLeft", holding(s, pod).Reason)
	require.Equal(t, "ReplicasLeft", Decide(s).Waiting.Reason)
}
