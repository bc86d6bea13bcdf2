package upgrade

import (
	"fmt"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// pending judges what the specification asks for against what is there.
//
//	waits for  nothing: guards have seen to it that the specification is valid and its revision known
//	does       adopts what another operator built; names what will change
//	then       Provisioning, or Done when nothing changes
func pending(s Snapshot) Decision {
	if actions := adopt(s); len(actions) > 0 {
		decision := wait(s, "what another operator built to be adopted")
		decision.Actions = append(decision.Actions, actions...)
		decision.Why = "the cluster of another operator is adopted as it stands"
		return decision
	}
	why := difference(s)
	if why == "" {
		return finish(s, "the cluster is as the specification asks")
	}
	decision := advance(s, v2beta1.PhaseProvisioning, why)
	decision.Upgrade = v2beta1.UpgradeStatus{
		From: s.currentRevision(), To: s.Revision, StartedTime: at(s.Now), PhaseStartedTime: at(s.Now),
	}
	return decision
}

// difference says in what the cluster differs from the specification; empty when in nothing.
func difference(s Snapshot) string {
	update, current := s.updateSet(), s.currentRevision()
	by := ""
	if s.Editor != "" {
		by = " (edited by " + s.Editor + ")"
	}
	switch {
	case current == "" && update == nil:
		return "first installation of revision " + s.Revision + by
	case current == "":
		return "revision " + s.Revision + " does not serve yet" + by
	case current != s.Revision:
		what := ""
		if serving := s.set(current); serving != nil && !serving.foreign() {
			what = ": " + changes(serving.Intent, s.Intent)
		}
		return fmt.Sprintf("revision %s instead of %s%s%s", s.Revision, current, what, by)
	case update == nil:
		return "the set of revision " + s.Revision + " is gone"
	case update.Replicas != s.wantedReplicas():
		return fmt.Sprintf("%d nodes instead of %d%s", s.wantedReplicas(), update.Replicas, by)
	case len(s.outgoing()) > 0:
		return fmt.Sprintf("%d sets of other revisions are left", len(s.outgoing()))
	}
	return ""
}
