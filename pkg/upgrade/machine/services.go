package machine

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// serviceRevision is the revision that the Services lead to in the end: that of the nodes that take the clients.
func (s *Snapshot) serviceRevision() string { return s.target(Core).Revision }

// switched reports whether every Service that is wanted selects the target.
func switched(s Snapshot) bool {
	for _, kind := range resources.ServiceKinds() {
		if resources.ServiceEnabled(s.EMQX, kind) && s.Services[kind].Revision != s.serviceRevision() {
			return false
		}
	}
	return true
}

// elsewhere reports whether a wanted Service selects something else than the target. One that is lost does not: it is put
// back where it was, see keepServices.
func elsewhere(s Snapshot) bool {
	for _, kind := range resources.ServiceKinds() {
		service, exists := s.Services[kind]
		if exists && resources.ServiceEnabled(s.EMQX, kind) && service.Revision != s.serviceRevision() && (service.Revision != "" || !service.Ours) {
			return true
		}
	}
	return false
}

// pointServices has the wanted Services select a set, each by itself.
func pointServices(s Snapshot, set Set) []Group {
	var groups []Group
	for _, kind := range resources.ServiceKinds() {
		service := s.Services[kind]
		if resources.ServiceEnabled(s.EMQX, kind) && service.Revision != set.Revision && service.State != Unavailable {
			groups = append(groups, pointService(s, kind, set))
		}
	}
	return groups
}

// pointService writes a Service so that it selects a set, once what another operator owned of it has been taken over.
func pointService(s Snapshot, kind resources.ServiceKind, set Set) Group {
	var group Group
	if patch := s.Services[kind].Inheritance; patch != nil {
		group = append(group, InheritService{Kind: kind, Patch: patch})
	}
	return append(group, ApplyService{Kind: kind, Revision: set.Revision, Ports: set.Ports})
}

// keepServices puts back wanted Services that were lost or changed, for the revision that they select or, when they are
// gone or select nothing, for the one that serves; and takes away those that are not wanted.
func keepServices(s Snapshot) []Group {
	var groups []Group
	for _, kind := range resources.ServiceKinds() {
		service, exists := s.Services[kind]
		if service.State == Unavailable {
			continue
		}
		if exists && service.Revision == "" && !service.Ours && s.phase() != v2beta1.PhaseDone {
			continue // It is another operator's, and selects all nodes: its adoption, or the switch, points it.
		}
		set := s.set(service.Revision)
		if set == nil {
			set = s.set(s.currentRevision())
		}
		switch {
		case exists && !resources.ServiceEnabled(s.EMQX, kind):
			groups = append(groups, Group{DeleteService{Kind: kind}})
		case !resources.ServiceEnabled(s.EMQX, kind) || set == nil || exists && service.State == Current:
		case !exists && set.ServingSince.IsZero(): // The switch makes it.
		case exists && service.Revision != "" && wrongTarget(s, kind, set.PortNames) != "":
			// It would lead to nobody. What it says now goes on; the switch to pods that have the port writes it.
		default:
			groups = append(groups, pointService(s, kind, *set))
		}
	}
	return groups
}

// unobserved says in what the EndpointSlices of the listeners Service differ from the pods that stay, all of them ready
// and no others.
func unobserved(s Snapshot) Lack {
	if !resources.ServiceEnabled(s.EMQX, resources.Listeners) {
		return Lack{}
	}
	ready := map[types.UID]bool{}
	for _, endpoint := range s.Services[resources.Listeners].Endpoints {
		ready[endpoint.PodUID] = ready[endpoint.PodUID] || endpoint.Ready
	}
	name := resources.ServiceName(s.EMQX, resources.Listeners)
	target := s.target(Core)
	shown := int32(0)
	for _, pod := range s.staying() {
		if ready[pod.UID] {
			shown++
		}
		delete(ready, pod.UID)
	}
	switch {
	case len(ready) > 0:
		return Lack{"EndpointsNotSwitched", fmt.Sprintf("Service %s to lead to revision %s alone: its EndpointSlices still hold %d other pods", name, target.Revision, len(ready))}
	case shown < target.Replicas:
		return Lack{"EndpointsMissing", fmt.Sprintf("Service %s to lead to revision %s: its EndpointSlices hold %d of %d pods, ready", name, target.Revision, shown, target.Replicas)}
	}
	return Lack{}
}

// lost reports whether the target takes no clients any more: none of its pods is ready.
func lost(s Snapshot) bool {
	for _, pod := range s.staying() {
		if pod.Ready && !pod.Deleting {
			return false
		}
	}
	return true
}

// haven is a set to go back to when the target is lost: one that has served, and of which every node is ready and runs.
// It is nil when there is none.
func haven(s Snapshot) *Set {
	for i, set := range s.Sets {
		if set.Revision == s.serviceRevision() || set.ServingSince.IsZero() || set.Deleting || set.Orphaned || set.Replicas == 0 || len(set.Pods) != int(set.Replicas) {
			continue
		}
		whole := true
		for _, pod := range set.Pods {
			whole = whole && pod.Ready && !pod.Deleting && s.freshNode(pod).Running() && joined(s, pod)
		}
		if whole {
			return &s.Sets[i]
		}
	}
	return nil
}

// fallBack has the Services lead back to a set that is whole, while the target is being built and none of the pods that they lead to
// takes clients any more: an earlier upgrade was given up after its switch.
func fallBack(s Snapshot) (Decision, bool) {
	current, back := s.set(s.currentRevision()), haven(s)
	if current == nil || back == nil || current.Revision == s.serviceRevision() || current.Revision == back.Revision ||
		slices.ContainsFunc(current.Pods, func(pod Pod) bool { return pod.Ready && !pod.Deleting }) {
		return Decision{}, false
	}
	lack := Lack{"ServingLost", fmt.Sprintf("the Services to go back to revision %s: no pod of revision %s is ready any more", back.Revision, current.Revision)}
	return do(s, serve(s), lack, pointServices(s, *back)...), true
}

// retreat has the Services lead back to the side that serves, when the target is lost after the switch; false when that is
// not so, or there is nowhere to go.
func retreat(s Snapshot) (Decision, bool) {
	back := haven(s)
	if !lost(s) || back == nil || s.Services[resources.Listeners].Revision != s.serviceRevision() {
		return Decision{}, false
	}
	lack := Lack{"TargetLost", fmt.Sprintf("no pod of revision %s is ready any more: the Services go back to revision %s", s.serviceRevision(), back.Revision)}
	decision := do(s, serve(s), lack, pointServices(s, *back)...)
	decision.Upgrade.SwitchedTime = nil
	decision.Stalled = &lack
	return decision, true
}
