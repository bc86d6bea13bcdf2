package machine

import (
	"fmt"
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// provisioning builds the nodes that stay.
//
//	waits for  every pod that stays to be Ready, every node of them to run in one cluster with all nodes that answer, its
//	           listeners to be up and clients to be welcome; and for no node that serves to be silent
//	does       writes the configuration, creates or enlarges the sets, deletes before that the volume claims of nodes of
//	           the same names that were let go; removes those that never served; where a second set cannot be had, replaces
//	           the node of the one that serves in place; leads the Services back to a side that serves when the one that
//	           they lead to is lost; notes on a set that it is about to serve
//	then       Switching
func provisioning(s Snapshot) Decision {
	if decision, ok := fallBack(s); ok {
		return decision
	}
	for _, role := range s.roles() {
		target, set := s.target(role), s.targetSet(role)
		if set == nil {
			if lack := licenceUntold(s); !lack.None() {
				return do(s, serve(s), lack, retire(s)...)
			}
			if left := unusable(s); len(left) > 0 {
				return do(s, serve(s), claimsLeft(left), append(retire(s), deleteClaims(left))...)
			}
			return do(s, serve(s), Lack{"SetMissing", "the set of revision " + target.Revision + " to be created"}, create(s, role)...)
		}
		if groups, lack := replaceInPlace(s, *set); !lack.None() {
			return do(s, serve(s), lack, append(groups, retire(s)...)...)
		}
		if madeOtherwise(s, *set) {
			return do(s, serve(s), Lack{"ConfigChanged", "set " + set.Name + ", none of whose nodes ever ran, to be made again with the configuration of now"},
				remake(s, *set))
		}
		if set.Replicas < target.Replicas {
			group, lack := grow(s, *set)
			return do(s, serve(s), lack, group)
		}
		if lack := unready(s, *set); !lack.None() {
			decision := do(s, serve(s), lack, retire(s)...)
			decision.After = soonest(decision.After, max(0, creationGrace-inPhase(s)))
			return decision
		}
	}
	if lack := servingSilent(s); !lack.None() {
		return wait(s, serve(s), lack)
	}
	if i := slices.IndexFunc(s.staying(), func(pod Pod) bool { return pod.LetGo }); i >= 0 {
		return wait(s, serve(s), Lack{"PodLetGo", "pod " + s.staying()[i].Name + ", which may be evicted, to be protected again"})
	}
	if groups := mark(s); len(groups) > 0 {
		return do(s, serve(s), Lack{"NotMarked", "the sets to be marked as serving"}, groups...)
	}
	target := s.target(Core)
	return advance(s, serve(s), v2beta1.PhaseSwitching, fmt.Sprintf("all %d nodes of revision %s run in the cluster", target.Replicas, target.Revision))
}

// create makes the set of a role's target, after its configuration.
func create(s Snapshot, role Role) []Group {
	target := s.target(role)
	name := s.EMQX.RevisionConfigMapName(target.Revision)
	return append(retire(s), Group{
		ApplyConfigMap{Name: name, Revision: target.Revision},
		CreateSet{Set: resources.CoreSet{
			Revision: target.Revision, Template: target.Revision, Replicas: target.Replicas, Ports: s.Config.Ports, ConfigHash: s.ConfigHash, Intent: target.Intent, ConfigMap: name,
		}},
	})
}

// madeOtherwise reports whether a set was made with another configuration and none of its nodes ever got as far as to join:
// then that may be why.
func madeOtherwise(s Snapshot, set Set) bool {
	return set.ConfigHash != s.ConfigHash && !s.served(set) && heldBack(s, set).None() &&
		!slices.ContainsFunc(set.Pods, func(pod Pod) bool { return pod.OnServing || s.node(pod).Running() })
}

// remake takes a set away that is to be made again under its name. EMQX need not forget its nodes, which come back, unless it may know
// their disks, which do not. Of pods that have not been seen nobody knows whether their nodes have joined.
func remake(s Snapshot, set Set) Group {
	switch {
	case set.Replicas > 0 && set.PodsUnseen:
		return nil
	case set.Replicas > 0:
		return Group{ScaleSet{SetRef: set.ref(), Replicas: 0, NodeCount: set.NodeCount}}
	case len(set.Pods) == 0 && !set.PodsUnseen && sitesLeft(s, set, 0, set.NodeCount).None():
		return Group{DeleteSet{set.ref()}}
	}
	return nil
}

// scale gives a target set the number of pods that is asked for.
func scale(s Snapshot, set Set) Action {
	replicas := s.target(set.Role).Replicas
	return ScaleSet{SetRef: set.ref(), Replicas: replicas, NodeCount: max(set.NodeCount, replicas)}
}

// mark notes on the target sets that they are about to serve, whatever Services there are: from now on pods of them may
// have clients. The last that was marked is the one that serves when no Service tells.
func mark(s Snapshot) []Group {
	var groups []Group
	for _, role := range s.roles() {
		set, latest := s.targetSet(role), true
		for _, other := range s.Sets {
			latest = latest && (other.Role != role || other.UID == set.UID || other.ServingSince.Before(set.ServingSince))
		}
		if set.ServingSince.IsZero() || !latest {
			groups = append(groups, Group{MarkServing{SetRef: set.ref(), At: s.Now}})
		}
	}
	return groups
}

// retire removes sets that never served and hold no data: without eviction, since they never had a client.
func retire(s Snapshot) []Group {
	var groups []Group
	for _, set := range s.leavingSets() {
		if s.served(set) || !heldBack(s, set).None() {
			continue
		}
		if group := removeSet(s, set, 0); len(group) > 0 {
			groups = append(groups, group)
		}
	}
	return groups
}
