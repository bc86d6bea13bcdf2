package machine

import (
	"fmt"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// switching points the Services at the target.
//
//	waits for  the Services to select the target and the EndpointSlices to show its pods, ready, and no others; then for
//	           initialDelaySeconds
//	does       one write a Service; when the new nodes die here, leads the Services back to the side that serves
//	then       Evacuating, or Done when nothing leaves; back to Provisioning when the new nodes are ready no more
func switching(s Snapshot) Decision {
	set, revision := s.targetSet(Core), s.serviceRevision()
	if set == nil {
		return advance(s, serve(s), v2beta1.PhaseProvisioning, "the set of revision "+revision+" is gone")
	}
	if !switched(s) {
		if lack := unready(s, *set); !lack.None() && s.currentRevision() != revision {
			return advance(s, serve(s), v2beta1.PhaseProvisioning, "the new nodes are ready no more: "+lack.Message)
		}
		return do(s, serve(s), Lack{"ServicesNotSwitched", "the Services to select revision " + revision}, pointServices(s, *set)...)
	}
	if decision, ok := retreat(s); ok {
		return decision
	}
	if lack := unobserved(s); !lack.None() {
		decision := wait(s, serve(s), lack)
		decision.Upgrade.SwitchedTime = nil
		return decision
	}
	if s.upgradeStatus().SwitchedTime == nil {
		decision := wait(s, serve(s), Lack{"SwitchNotNoted", "the switch to be noted"})
		decision.Upgrade.SwitchedTime = at(s.Now)
		decision.After = AtOnce
		return decision
	}
	if len(s.leavingSets()) == 0 {
		return finish(s, "the Services lead to revision "+revision)
	}
	delay := time.Duration(s.updateStrategy().InitialDelaySeconds) * time.Second
	if left := s.upgradeStatus().SwitchedTime.Add(delay).Sub(s.Now); left > 0 {
		decision := wait(s, serve(s), Lack{"InitialDelay", fmt.Sprintf("initialDelaySeconds (%s) since the switch", delay)})
		decision.After = left
		return decision
	}
	decision := advance(s, serve(s), v2beta1.PhaseEvacuating, fmt.Sprintf("the Services lead to revision %s alone since %s", revision, delay))
	if decision.Upgrade.ClientsTotalTime == nil {
		noteClients(s, &decision.Upgrade)
	}
	return decision
}
