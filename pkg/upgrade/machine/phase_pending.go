package machine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// pending judges what the specification asks for against what is there.
//
//	waits for  the licence to be known, where it decides what can be built; other clusters to be upgraded, where not all may
//	           be at once; guards have seen to it that the specification is valid and its revision known
//	does       adopts what another operator built; names what will change
//	then       Provisioning, or Done when nothing changes
func pending(s Snapshot) Decision {
	if groups := adopt(s); len(groups) > 0 {
		decision := do(s, serve(s), Lack{"Adopting", "what another operator built to be adopted"}, groups...)
		decision.Why = "the cluster of another operator is adopted as it stands"
		return decision
	}
	why := difference(s)
	if why == "" {
		return finish(s, "the cluster is as the specification asks")
	}
	for _, lack := range []Lack{licenceUntold(s), queued(s)} {
		if !lack.None() {
			return wait(s, serve(s), lack)
		}
	}
	decision := advance(s, serve(s), v2beta1.PhaseProvisioning, why)
	began := s.upgradeStatus()
	decision.Upgrade = v2beta1.UpgradeStatus{
		From: s.currentRevision(), To: s.target(Core).Revision, StartedTime: at(s.Now), PhaseStartedTime: at(s.Now),
	}
	if began.To == decision.Upgrade.To && began.FinishedTime == nil && began.StartedTime != nil {
		// It goes on. Those who are away since the evacuation began are still away.
		decision.Upgrade.From, decision.Upgrade.StartedTime = began.From, began.StartedTime
		decision.Upgrade.ClientsTotal, decision.Upgrade.ClientsTotalTime = began.ClientsTotal, began.ClientsTotalTime
		decision.Upgrade.EvacuationStartedTime = began.EvacuationStartedTime
	}
	return decision
}

// UnderWay reports whether a status tells of a cluster that is being upgraded or built.
func UnderWay(status v2beta1.EMQXStatus) bool {
	switch status.Phase {
	case v2beta1.PhaseProvisioning, v2beta1.PhaseSwitching, v2beta1.PhaseEvacuating, v2beta1.PhaseScalingDown:
		return true
	case v2beta1.PhasePending:
		return status.Upgrade != nil && status.Upgrade.StartedTime != nil && status.Upgrade.FinishedTime == nil
	case v2beta1.PhaseDone:
	}
	return false
}

// UpgradesUnderWay is the reason of a wait for other clusters.
const UpgradesUnderWay = "UpgradesUnderWay"

// queued says whom an upgrade waits for that has not begun. A cluster that serves nobody yet waits for no other.
func queued(s Snapshot) Lack {
	if s.MaxUpgrades == 0 || len(s.Others) < s.MaxUpgrades || UnderWay(s.EMQX.Status) || s.currentRevision() == "" {
		return Lack{}
	}
	first, more := s.Others, ""
	if len(first) > 3 {
		first, more = first[:3], fmt.Sprintf(" and %d more", len(s.Others)-3)
	}
	return Lack{UpgradesUnderWay, fmt.Sprintf("%s%s to be upgraded first: at most %d clusters are at a time", strings.Join(first, ", "), more, s.MaxUpgrades)}
}

// difference says in what the cluster differs from the specification; empty when in nothing.
func difference(s Snapshot) string {
	target, current := s.target(Core), s.currentRevision()
	set := s.targetSet(Core)
	by := ""
	if s.Editor != "" {
		by = " (edited by " + s.Editor + ")"
	}
	switch {
	case current == "" && set == nil:
		return "first installation of revision " + target.Revision + by
	case current == "":
		return "revision " + target.Revision + " does not serve yet" + by
	case current != target.Revision:
		what := ""
		if serving := s.set(current); serving != nil && !serving.foreign() {
			what = ": " + changes(serving.Intent, target.Intent)
		}
		return fmt.Sprintf("revision %s instead of %s%s%s", target.Revision, current, what, by)
	case target.Replacement != "":
		return fmt.Sprintf("revision %s: %s%s; %s", target.Replacement, changes(set.Intent, target.Intent), by, outage(*set))
	case set != nil && slices.ContainsFunc(set.Pods, set.outdated):
		return "the node of set " + set.Name + " is to be replaced in place"
	case set == nil:
		return "the set of revision " + target.Revision + " is gone"
	case set.Replicas < target.Replicas:
		return fmt.Sprintf("%d nodes instead of %d%s", target.Replicas, set.Replicas, by)
	case len(s.leavingSets()) > 0:
		return fmt.Sprintf("%d sets of other revisions are left", len(s.leavingSets()))
	}
	return ""
}
