package upgrade

import (
	"fmt"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// switching points the Services at the update revision.
//
//	waits for  the Services to select the update revision and the EndpointSlices to show its pods, ready, and no others;
//	           then for initialDelaySeconds
//	does       notes on the set that it is about to serve, then one write a Service
//	then       Evacuating, or Done when nothing is outgoing; back to Provisioning when the new nodes are ready no more
func switching(s Snapshot) Decision {
	update := s.updateSet()
	if update == nil {
		return advance(s, v2beta1.PhaseProvisioning, "the set of revision "+s.Revision+" is gone")
	}
	if !switched(s) {
		if missing := unready(s, *update); missing != "" && s.currentRevision() != s.Revision {
			return advance(s, v2beta1.PhaseProvisioning, "the new nodes are ready no more: "+missing)
		}
		return pointServices(s, *update)
	}
	if missing := unobserved(s, *update); missing != "" {
		decision := wait(s, missing)
		decision.Upgrade.SwitchedTime = nil
		return decision
	}
	if s.upgradeStatus().SwitchedTime == nil {
		decision := wait(s, "the switch to be noted")
		decision.Upgrade.SwitchedTime = at(s.Now)
		decision.After = atOnce
		return decision
	}
	if len(s.outgoing()) == 0 {
		return finish(s, "the Services lead to revision "+s.Revision)
	}
	delay := time.Duration(s.EMQX.Spec.UpdateStrategy.InitialDelaySeconds) * time.Second
	if left := s.upgradeStatus().SwitchedTime.Add(delay).Sub(s.Now); left > 0 {
		decision := wait(s, fmt.Sprintf("initialDelaySeconds (%s) since the switch", delay))
		decision.After = left
		return decision
	}
	return advance(s, v2beta1.PhaseEvacuating, fmt.Sprintf("the Services lead to revision %s alone since %s", s.Revision, delay))
}

// switched reports whether every Service that is wanted selects the update revision.
func switched(s Snapshot) bool {
	for _, kind := range resources.ServiceKinds() {
		if resources.ServiceEnabled(s.EMQX, kind) && s.Services[kind].Revision != s.Revision {
			return false
		}
	}
	return true
}

// pointServices notes on the set that it is about to serve, and once that shows, writes the Services.
func pointServices(s Snapshot, update Set) Decision {
	if update.ServingSince.IsZero() {
		decision := wait(s, "set "+update.Name+" to be marked as serving")
		decision.Actions = append(decision.Actions, MarkServing{Name: update.Name, UID: update.UID, At: s.Now})
		return decision
	}
	decision := wait(s, "the Services to select revision "+s.Revision)
	for _, kind := range resources.ServiceKinds() {
		if resources.ServiceEnabled(s.EMQX, kind) && s.Services[kind].Revision != s.Revision {
			decision.Actions = append(decision.Actions, pointService(s, kind, update)...)
		}
	}
	return decision
}

// pointService writes a Service so that it selects a set, once what another operator owned of it has been taken over.
func pointService(s Snapshot, kind resources.ServiceKind, set Set) []Action {
	var actions []Action
	if patch := s.Services[kind].Inheritance; patch != nil {
		actions = append(actions, InheritService{Kind: kind, Patch: patch})
	}
	return append(actions, ApplyService{Kind: kind, Revision: set.Revision, Ports: set.Ports})
}

// unobserved says in what the EndpointSlices of the listeners Service differ from the update set's pods, all of them
// ready and no others; empty when in nothing.
func unobserved(s Snapshot, update Set) string {
	if !resources.ServiceEnabled(s.EMQX, resources.Listeners) {
		return ""
	}
	ready := map[string]bool{}
	for _, endpoint := range s.Services[resources.Listeners].Endpoints {
		ready[string(endpoint.PodUID)] = ready[string(endpoint.PodUID)] || endpoint.Ready
	}
	name := resources.ServiceName(s.EMQX, resources.Listeners)
	shown := int32(0)
	for _, pod := range update.Pods {
		if ready[string(pod.UID)] {
			shown++
		}
		delete(ready, string(pod.UID))
	}
	switch {
	case len(ready) > 0:
		return fmt.Sprintf("Service %s to lead to revision %s alone: its EndpointSlices still hold %d other pods", name, update.Revision, len(ready))
	case shown < update.Replicas:
		return fmt.Sprintf("Service %s to lead to revision %s: its EndpointSlices hold %d of %d pods, ready", name, update.Revision, shown, update.Replicas)
	}
	return ""
}
