package upgrade

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// guard may take a decision out of the hands of the phase.
type guard func(Snapshot) (Decision, bool)

// guards run before every phase, in this order. The last of DESIGN's guards, DeadlineExceeded, changes no decision, it
// only says more: see withDeadline.
func guards() []guard {
	return []guard{deleted, invalid, superseded, paused}
}

// deleted: the resource is on its way out, and what it owns goes with it.
func deleted(s Snapshot) (Decision, bool) {
	return Decision{Gone: true}, !s.EMQX.DeletionTimestamp.IsZero()
}

// invalid: the specification cannot be carried out, or what it needs was lost. The last good state keeps serving;
// evacuations are stopped.
func invalid(s Snapshot) (Decision, bool) {
	problem := problemOf(s)
	if problem == nil {
		return Decision{}, false
	}
	decision := stay(s)
	decision.Stalled = problem
	decision.Waiting = "a person to do what the condition Stalled says"
	return decision, true
}

// problemOf says what only a person can mend before the specification can be carried out, nil when it can be.
func problemOf(s Snapshot) *Problem {
	spec := s.EMQX.Spec
	unsupported := func(format string, args ...any) *Problem {
		return &Problem{Reason: "Unsupported", Message: fmt.Sprintf(format, args...)}
	}
	core := s.updateSet()
	claim := spec.CoreTemplate.Spec.VolumeClaimTemplates
	switch {
	case s.CookieSecret == Missing && s.anyRuns():
		return &Problem{Reason: "CookieLost", Message: fmt.Sprintf("Secret %s with the cookie of the nodes that run is gone, and others could not join them: "+
			"make it again, with the labels %s=%s and %s=%s and the entry %s, which a node's environment variable EMQX_NODE__COOKIE tells",
			s.EMQX.NodeCookieSecretName(), v2beta1.LabelManagedBy, v2beta1.ManagedBy, v2beta1.LabelInstance, s.EMQX.Name, resources.NodeCookieKey)}
	case s.ConfigError != nil:
		return &Problem{Reason: "InvalidConfig", Message: "spec.config.data: " + s.ConfigError.Error()}
	case s.Config.DurableSessions:
		return unsupported("spec.config.data: durable_sessions.enable: this version does not move durable storage off the nodes that leave; set it to false")
	case s.wantedReplicas() < 1:
		return unsupported("spec.coreTemplate.spec.replicas: a cluster needs at least one core node")
	case spec.ReplicantTemplate != nil && (spec.ReplicantTemplate.Spec.Replicas == nil || *spec.ReplicantTemplate.Spec.Replicas > 0):
		return unsupported("spec.replicantTemplate: this version runs clusters of core nodes; set its replicas to 0 or remove it")
	case !equality.Semantic.DeepEqual(claim, corev1.PersistentVolumeClaimSpec{}):
		return unsupported("spec.coreTemplate.spec.volumeClaimTemplates: this version keeps no persistent volumes; remove it")
	case spec.UpdateStrategy.Promotion == v2beta1.PromotionManual:
		return unsupported("spec.updateStrategy.promotion: this version knows Automatic only; paused holds an upgrade")
	case spec.UpdateStrategy.OnDeadline == v2beta1.DeadlineRollback:
		return unsupported("spec.updateStrategy.onDeadline: this version knows Hold only; to go back, change the specification back")
	case core != nil && s.wantedReplicas() < core.Replicas:
		return unsupported("spec.coreTemplate.spec.replicas: this version cannot take core nodes away: set it to %d or more, or change it together with the pods", core.Replicas)
	}
	return nil
}

// superseded: the specification changed while an upgrade was under way, which starts over with it.
func superseded(s Snapshot) (Decision, bool) {
	upgrade := s.EMQX.Status.Upgrade
	switch s.EMQX.Status.Phase {
	case v2beta1.PhaseProvisioning, v2beta1.PhaseSwitching, v2beta1.PhaseEvacuating, v2beta1.PhaseScalingDown:
		if upgrade != nil && upgrade.To != s.Revision {
			return advance(s, v2beta1.PhasePending, fmt.Sprintf("the specification changed: revision %s instead of %s", s.Revision, upgrade.To)), true
		}
	case v2beta1.PhasePending, v2beta1.PhaseDone:
	}
	return Decision{}, false
}

// paused: the user holds the cluster. Serving goes on, evacuations are stopped, nothing new begins.
func paused(s Snapshot) (Decision, bool) {
	if !s.EMQX.Spec.UpdateStrategy.Paused {
		return Decision{}, false
	}
	since := s.upgradeStatus().PausedTime
	decision := stay(s)
	decision.Paused = true
	decision.Waiting = "spec.updateStrategy.paused to be removed"
	if since == nil {
		since = at(s.Now)
	}
	decision.Upgrade.PausedTime = since
	decision.Upgrade.PausedSeconds = s.upgradeStatus().PausedSeconds
	return decision, true
}

// withDeadline is DeadlineExceeded: new nodes that are not ready in time are reported as Stalled, and waited for.
func withDeadline(s Snapshot, decision Decision) Decision {
	if s.EMQX.Status.Phase != v2beta1.PhaseProvisioning || decision.Phase != v2beta1.PhaseProvisioning {
		return decision
	}
	deadline := 10 * time.Minute
	if seconds := s.EMQX.Spec.UpdateStrategy.ProgressDeadlineSeconds; seconds != nil {
		deadline = time.Duration(*seconds) * time.Second
	}
	left := deadline - inPhase(s)
	if left > 0 {
		decision.After = soonest(decision.After, left)
		return decision
	}
	decision.Stalled = &Problem{
		Reason: "ProgressDeadlineExceeded",
		Message: fmt.Sprintf("the nodes of revision %s are not ready after %s: %s; correct the specification, or wait",
			s.Revision, deadline, decision.Waiting),
	}
	return decision
}

// soonest is the shorter of two times to wait, of which zero is none.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
