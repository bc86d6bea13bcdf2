package upgrade

import "github.com/emqx-bg/emqx-bg-operator/pkg/resources"

// A cluster that emqx-operator 2.x built is adopted as it stands: its set is noted to be what the specification asks
// for, and its Services, which selected all nodes, come to select the revision that they lead to already. No pod is
// restarted and no client is moved; the next change of the pod template makes the first upgrade.

// foreign reports whether another operator made the set: this one notes on each what its revision was hashed from.
func (set Set) foreign() bool { return set.Intent == "" }

// realized is the set that the specification asks for by another name than the hash of its intent: one that was
// adopted, or one to be adopted, which the other operator called the update revision and which runs the image of the
// specification. It is nil when there is none.
func realized(s *Snapshot) *Set {
	if s.Intent == "" {
		return nil
	}
	for i, set := range s.Sets {
		last := set.Revision != "" && set.Revision == s.EMQX.Status.CoreNodesStatus.UpdateRevision
		if !set.Deleting && (set.Intent == s.Intent || set.foreign() && last && set.Image == s.EMQX.Spec.Image) {
			return &s.Sets[i]
		}
	}
	return nil
}

// adopt is what is to be done before the cluster of another operator can be judged like one of this operator's; nothing
// when there is none, or no more.
func adopt(s Snapshot) []Action {
	if update := s.updateSet(); update != nil && update.foreign() {
		return []Action{AdoptSet{
			Name: update.Name, UID: update.UID, At: s.Now, Intent: s.Intent, ConfigHash: s.ConfigHash, Ports: update.Ports,
		}}
	}
	var actions []Action
	for _, kind := range resources.ServiceKinds() {
		service, exists := s.Services[kind]
		set := leadsTo(s, service)
		switch {
		case !exists || service.Revision != "" || !resources.ServiceEnabled(s.EMQX, kind) || set == nil:
		case set.ServingSince.IsZero():
			return []Action{MarkServing{Name: set.Name, UID: set.UID, At: s.Now}}
		default:
			actions = append(actions, pointService(s, kind, *set)...)
		}
	}
	return actions
}

// leadsTo is the set that all ready endpoints of a Service belong to: to select its revision changes nothing for clients.
// It is nil when there is no ready endpoint, or there are some of several sets.
func leadsTo(s Snapshot, service Service) *Set {
	var found *Set
	for _, endpoint := range service.Endpoints {
		if !endpoint.Ready {
			continue
		}
		set := s.setOfPod(endpoint.PodUID)
		if set == nil || found != nil && found != set {
			return nil
		}
		found = set
	}
	return found
}
