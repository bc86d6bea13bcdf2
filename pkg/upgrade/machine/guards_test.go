package machine

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

func TestGuards(t *testing.T) {
	for _, test := range []struct {
		reason  string
		s       Snapshot
		phase   v2beta1.Phase
		stalled string
		paused  bool
	}{
		{"a configuration that cannot be read", upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) { s.ConfigError = errors.New("line 1") }), v2beta1.PhaseEvacuating, "InvalidConfig", false},
		{"something else has a name that is needed", upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) {
			s.Taken = []Taken{{Kind: "Service", Name: "e-listeners", Owner: "Deployment web"}}
		}), v2beta1.PhaseEvacuating, "NameTaken", false},
		{"what a deleted resource of this name left goes by itself", upgrading(v2beta1.PhaseDone, func(s *Snapshot) {
			s.Taken, s.CookieSecret = []Taken{{Kind: "Secret", Name: "e-node-cookie", Owner: "EMQX e", Former: true}}, Unavailable
		}), v2beta1.PhaseDone, "", false},
		{"the cookie of nodes that run is lost", upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) { s.CookieSecret = Missing }), v2beta1.PhaseEvacuating, "CookieLost", false},
		{"the cookie was changed while nodes run with the one before", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withCookie("new", time.Second)), v2beta1.PhaseProvisioning, "CookieChanged", false},
		{"it was put back", upgrading(v2beta1.PhaseEvacuating, withCookie("old", time.Second)), v2beta1.PhaseEvacuating, "", false},
		{"a second tells no order", upgrading(v2beta1.PhaseEvacuating, withCookie("new", 0)), v2beta1.PhaseEvacuating, "", false},
		{"all nodes have started with it since", upgrading(v2beta1.PhaseEvacuating, withCookie("new", -time.Second)), v2beta1.PhaseEvacuating, "", false},
		{"what the Secret holds is not known", upgrading(v2beta1.PhaseEvacuating, withCookie("", time.Second)), v2beta1.PhaseEvacuating, "", false},
		{"nobody noted what a set was made with", upgrading(v2beta1.PhaseEvacuating, withCookie("new", time.Second), withSet("blue", func(s *Set) { s.CookieDigest = "" }),
			withSet("green", func(s *Set) { s.CookieDigest = "" })), v2beta1.PhaseEvacuating, "", false},
		{"replicants", upgrading(v2beta1.PhaseDone, withSpec(func(spec *v2beta1.EMQXSpec) { spec.ReplicantTemplate = &v2beta1.EMQXReplicantTemplate{} })), v2beta1.PhaseDone, "Unsupported", false},
		{"a volume of no size", upgrading(v2beta1.PhaseDone, without("blue"), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.CoreTemplate.Spec.VolumeClaimTemplates.StorageClassName = ptr.To("fast")
		})), v2beta1.PhaseDone, "InvalidSpec", false},
		{"a volume", upgrading(v2beta1.PhaseDone, without("blue"), withVolumes), v2beta1.PhaseDone, "", false},
		{"claims of a deleted resource under the name of the set that is to be made", upgrading(v2beta1.PhaseProvisioning, serving("blue"), without("green"),
			withClaims(Claim{Revision: "green", Former: true})), v2beta1.PhaseProvisioning, "FormerClaims", false},
		{"they are being deleted", upgrading(v2beta1.PhaseProvisioning, serving("blue"), without("green"),
			withClaims(Claim{Revision: "green", Former: true, Deleting: true})), v2beta1.PhaseProvisioning, "", false},
		{"they are under another name", upgrading(v2beta1.PhaseProvisioning, serving("blue"), without("green"),
			withClaims(Claim{Revision: "red", Former: true})), v2beta1.PhaseProvisioning, "", false},
		{"durable sessions", upgrading(v2beta1.PhaseDone, func(s *Snapshot) { s.Config.DurableSessions = true }), v2beta1.PhaseDone, "Unsupported", false},
		{"manual promotion", upgrading(v2beta1.PhaseDone, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Promotion = v2beta1.PromotionManual })), v2beta1.PhaseDone, "Unsupported", false},
		{"rollback on deadline", upgrading(v2beta1.PhaseDone, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.OnDeadline = v2beta1.DeadlineRollback })), v2beta1.PhaseDone, "Unsupported", false},
		{"fewer nodes", upgrading(v2beta1.PhaseDone, wanting(1)), v2beta1.PhaseDone, "Unsupported", false},
		{"no node", upgrading(v2beta1.PhaseDone, wanting(0)), v2beta1.PhaseDone, "Unsupported", false},
		{"superseded while provisioning", upgrading(v2beta1.PhaseProvisioning, withUpgrade(func(u *v2beta1.UpgradeStatus) { u.To = "red" })), v2beta1.PhasePending, "", false},
		{"superseded while evacuating: evictions are stopped at once", upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", state(emqx.StateEvictingConns)), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.To = "red" })), v2beta1.PhasePending, "", false},
		{"paused", upgrading(v2beta1.PhaseEvacuating, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })), v2beta1.PhaseEvacuating, "", true},
		{"invalid comes before paused", upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) { s.ConfigError = errors.New("line 1") }, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })), v2beta1.PhaseEvacuating, "InvalidConfig", false},
		{"superseded comes before paused", upgrading(v2beta1.PhaseEvacuating, withUpgrade(func(u *v2beta1.UpgradeStatus) { u.To = "red" }), withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })), v2beta1.PhasePending, "", false},
		{"the deadline has passed", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withPod("e-core-green-0", func(p *Pod) { p.Trouble = "ImagePullBackOff" }), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.ProgressDeadlineSeconds = ptr.To(int32(60))
		})), v2beta1.PhaseProvisioning, "ProgressDeadlineExceeded", false},
		{"time while paused does not count", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withPod("e-core-green-0", func(p *Pod) { p.Trouble = "ImagePullBackOff" }), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.PausedSeconds = 1 }), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.ProgressDeadlineSeconds = ptr.To(int32(60))
		})), v2beta1.PhaseProvisioning, "", false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			decision := Decide(test.s)
			require.Equal(t, test.phase, decision.Phase)
			require.Equal(t, test.paused, decision.Paused)
			if test.stalled == "" {
				require.Nil(t, decision.Stalled)
			} else {
				require.NotNil(t, decision.Stalled)
				require.Equal(t, test.stalled, decision.Stalled.Reason)
				require.NotEmpty(t, decision.Stalled.Message)
			}
			if test.paused || test.stalled == "InvalidConfig" || test.phase == v2beta1.PhasePending {
				for _, node := range decision.Goal.Nodes {
					require.Equal(t, evacuate.Serve, node.Intent, "evacuations are stopped")
				}
			}
		})
	}
	require.True(t, Decide(upgrading(v2beta1.PhaseDone, func(s *Snapshot) { s.EMQX.DeletionTimestamp = ptr.To(metav1.NewTime(testNow)) })).Gone)
}

func TestPauseIsAccountedFor(t *testing.T) {
	s := upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", silentNode), withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true }))
	held := Decide(s)
	require.Equal(t, testNow, held.Upgrade.PausedTime.Time)
	s.EMQX.Status.Upgrade, s.Now = &held.Upgrade, testNow.Add(30*time.Second)
	require.Equal(t, testNow, Decide(s).Upgrade.PausedTime.Time, "it is since when, not how long")
	s.EMQX.Spec.UpdateStrategy.Paused = false
	resumed := Decide(s)
	require.Nil(t, resumed.Upgrade.PausedTime)
	require.EqualValues(t, 30, resumed.Upgrade.PausedSeconds)
}

// TestHeldTimeIsTakenOffOnce: a pause that begins in a hold ends it, so that its time moves the deadline on once.
func TestHeldTimeIsTakenOffOnce(t *testing.T) {
	s := upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", clients(5, 5)), withUpgrade(func(u *v2beta1.UpgradeStatus) {
		u.HeldTime, u.HeldReason = at(testNow.Add(-20*time.Second)), clientsAway
	}), withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true }))
	began := s.EMQX.Status.Upgrade.EvacuationStartedTime.Time
	paused := Decide(s)
	require.Nil(t, paused.Upgrade.HeldTime)
	require.Empty(t, paused.Upgrade.HeldReason)
	require.Equal(t, began.Add(20*time.Second), paused.Upgrade.EvacuationStartedTime.Time)

	s.EMQX.Status.Upgrade, s.Now = &paused.Upgrade, testNow.Add(30*time.Second)
	s.EMQX.Spec.UpdateStrategy.Paused = false
	require.Equal(t, began.Add(50*time.Second), Decide(s).Upgrade.EvacuationStartedTime.Time)
}
