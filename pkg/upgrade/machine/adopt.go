package machine

import (
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// A cluster that emqx-operator 2.x built is adopted as it stands: its set is noted to be what the specification asks
// for, and its Services, which selected all nodes, come to select the revision that they lead to already. No pod is
// restarted and no client is moved; the next change of the pod template makes the first upgrade.

// foreign reports whether another operator made the set: this one notes on each what its revision was hashed from.
func (set Set) foreign() bool { return set.Intent == "" && !set.Orphaned }

// realized is the set that stands for what is asked for: one that was made or adopted for it, or one to be adopted, which
// the other operator called the update revision and which runs the image of the specification. It is nil when there is
// none.
func realized(emqx *v2beta1.EMQX, sets []Set, asked string) *Set {
	for i, set := range sets {
		last := set.Revision == emqx.Status.CoreNodesStatus.UpdateRevision
		switch {
		case set.Deleting || set.Orphaned || set.Revision == "":
		case set.foreign() && last && set.Image == emqx.Spec.Image, !set.foreign() && sameIntent(set.Intent, asked):
			return &sets[i]
		}
	}
	return nil
}

// adopt is what is to be done before the cluster of another operator can be judged like one of this operator's; nothing
// when there is none, or no more.
func adopt(s Snapshot) []Group {
	var history []Group
	for _, role := range s.roles() {
		target := s.targetSet(role)
		if target != nil && target.foreign() {
			return []Group{{AdoptSet{
				SetRef: target.ref(), At: s.Now, Intent: s.target(role).Intent, ConfigHash: s.ConfigHash, Ports: target.Ports, NodeCount: target.NodeCount,
			}}}
		}
		// The other operator keeps the sets of earlier revisions, without pods. They are no upgrade.
		for _, set := range s.Sets {
			if set.foreign() && set.Role == role && set.Replicas == 0 && len(set.Pods) == 0 && !set.Deleting {
				history = append(history, Group{DeleteSet{set.ref()}})
			}
		}
	}
	if len(history) > 0 {
		return history
	}
	return adoptServices(s)
}

func adoptServices(s Snapshot) []Group {
	var groups []Group
	for _, kind := range resources.ServiceKinds() {
		service, exists := s.Services[kind]
		set := leadsTo(s, service)
		switch {
		case !exists || service.Revision != "" || service.State == Unavailable || !resources.ServiceEnabled(s.EMQX, kind) || set == nil:
		case set.ServingSince.IsZero():
			return []Group{{MarkServing{SetRef: set.ref(), At: s.Now}}}
		default:
			groups = append(groups, pointService(s, kind, *set))
		}
	}
	return groups
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
