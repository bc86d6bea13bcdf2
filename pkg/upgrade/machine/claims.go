package machine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Volumes of core nodes: each set has claims of its own, which Kubernetes makes with its pods and keeps. A core that was made
// to leave its cluster and comes back with the data of before does not start. So what lies on the claim of a node that was let
// go is never used again: the claim is kept for a while, for people, and deleted before another node gets its name.

// Claim is a PersistentVolumeClaim with the data of a core node of this cluster, by its labels and its exact name.
type Claim struct {
	Name string
	UID  types.UID
	// Revision and Ordinal are those of the node.
	Revision string
	Ordinal  int
	// Created is when it was made. Former tells that this was before the resource was: it is a deleted one's of the same name.
	Created time.Time
	Former  bool
	// Bound tells that it goes with its resource, by an owner reference that this operator wrote.
	Bound bool
	// Deleting tells that it is being deleted, and Finalizers what keeps it then.
	Deleting   bool
	Finalizers []string
}

// DeleteClaim removes the claim of a node that is gone, unless there is a set by now that has such a node.
type DeleteClaim struct {
	Name     string
	UID      types.UID
	Revision string
	Ordinal  int
}

// BindClaim has a claim go with the resource, or stay.
type BindClaim struct {
	Name string
	UID  types.UID
	Bind bool
}

func (DeleteClaim) isAction() {}
func (BindClaim) isAction()   {}

// claimsOf are the claims of a revision's nodes.
func (s *Snapshot) claimsOf(revision string) []Claim {
	return slices.DeleteFunc(slices.Clone(s.Claims), func(claim Claim) bool { return claim.Revision != revision || claim.Former })
}

// keeps is the number of nodes of a set that this operator has not let go: what somebody else scales away comes back with its
// data, and EMQX is not told to forget it.
func (s *Snapshot) keeps(set Set) int32 {
	if len(s.claimsOf(set.Revision)) == 0 {
		return set.Replicas
	}
	return max(set.Replicas, set.Asked)
}

// keptNodes are the names of the nodes that have not been let go, of all sets, whether their pods are there or not.
func (s *Snapshot) keptNodes() []string {
	var names []string
	for _, set := range s.Sets {
		for ordinal := range s.keeps(set) {
			names = append(names, set.nodeAt(ordinal))
		}
	}
	return names
}

// letGo are the claims of a target set's nodes that EMQX may have been made to forget.
func letGo(s Snapshot, set Set) []Claim {
	return slices.DeleteFunc(s.claimsOf(set.Revision), func(claim Claim) bool { return claim.Ordinal < int(s.keeps(set)) })
}

// grow gives a target set the pods that it lacks, once the claims and the sites are gone of nodes of the same names that were let go.
func grow(s Snapshot, set Set) (Group, Lack) {
	if lack := licenceUntold(s); !lack.None() {
		return nil, lack
	}
	if problem := licenceAllowsOneNode(s); problem != nil {
		return nil, *problem
	}
	if left := letGo(s, set); len(left) > 0 {
		return deleteClaims(left), claimsLeft(left)
	}
	if lack := sitesLeft(s, set, s.keeps(set), s.target(set.Role).Replicas); !lack.None() {
		return nil, lack
	}
	return Group{scale(s, set)}, Lack{"SetTooSmall", fmt.Sprintf("set %s to have %d nodes", set.Name, s.target(set.Role).Replicas)}
}

// unusable are the claims under the name of a target set that is to be made: of nodes that EMQX was made to forget. When the
// set that serves is lost, and nobody is there who could have forgotten its nodes, these come back with their data.
func unusable(s Snapshot) []Claim {
	revision := s.target(Core).Revision
	former := slices.ContainsFunc(s.Claims, func(claim Claim) bool { return claim.Former && claim.Revision == revision })
	alone := !former && !slices.ContainsFunc(s.Sets, func(set Set) bool { return set.Revision != revision })
	if alone && s.lastServed() == revision {
		return nil
	}
	// A set takes back the pods that one of its name left behind, and these have their claims.
	return slices.DeleteFunc(slices.Clone(s.Claims), func(claim Claim) bool {
		return claim.Revision != revision ||
			slices.ContainsFunc(s.pods(), func(pod Pod) bool { return pod.Revision == revision && pod.Ordinal == claim.Ordinal })
	})
}

// lastServed is the revision that serves, or did before its set was lost.
func (s *Snapshot) lastServed() string {
	return cmp.Or(s.currentRevision(), s.EMQX.Status.CoreNodesStatus.CurrentRevision)
}

// formerClaims: claims of a deleted resource of the same name are under the name of the set that is to be made. What lies on
// them is not this cluster's, and was kept on purpose: only a person may delete it.
func formerClaims(s Snapshot) *Lack {
	revision := s.target(Core).Revision
	if s.targetSet(Core) != nil {
		return nil
	}
	var names []string
	for _, claim := range s.Claims {
		if claim.Former && claim.Revision == revision && !claim.Deleting && !claim.Bound { // Others go by themselves.
			names = append(names, claim.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &Lack{"FormerClaims", fmt.Sprintf("PersistentVolumeClaims are left of a deleted EMQX of the same name, and its data is not used again: "+
		"kubectl -n %s delete pvc %s; or give this resource another name", s.EMQX.Namespace, strings.Join(names, " "))}
}

// keepClaims removes the claims that nothing will ever use and nobody asked to be kept, and has the others go with the
// resource or stay.
func keepClaims(s Snapshot) []Group {
	var groups []Group
	removed := map[types.UID]bool{}
	for _, claim := range outdated(s) {
		removed[claim.UID] = true
		if group := deleteClaims([]Claim{claim}); len(group) > 0 {
			groups = append(groups, group)
		}
	}
	bind := s.EMQX.Spec.CoreTemplate.Spec.VolumeClaimRetention == v2beta1.VolumeClaimsDeleted
	for _, claim := range s.Claims {
		if claim.Bound != bind && !claim.Former && !claim.Deleting && !removed[claim.UID] {
			groups = append(groups, Group{BindClaim{Name: claim.Name, UID: claim.UID, Bind: bind}})
		}
	}
	return groups
}

// outdated are the claims that are to be deleted without need: none while a person holds the cluster, who may want to look.
func outdated(s Snapshot) []Claim {
	if s.updateStrategy().Paused {
		return nil
	}
	return append(surplusClaims(s), history(s)...)
}

// surplusClaims are those of pods that a target set has no more and nobody asks for.
func surplusClaims(s Snapshot) []Claim {
	set := s.targetSet(Core)
	if set == nil || set.PodsUnseen {
		return nil
	}
	return slices.DeleteFunc(letGo(s, *set), func(claim Claim) bool {
		return claim.Ordinal < int(s.target(Core).Replicas) || slices.ContainsFunc(set.Pods, func(pod Pod) bool { return pod.Ordinal == claim.Ordinal })
	})
}

// history are the claims of revisions whose sets are gone, but for the newest revisions that are to be kept.
func history(s Snapshot) []Claim {
	limit := 3
	if asked := s.EMQX.Spec.RevisionHistoryLimit; asked != nil {
		limit = int(*asked)
	}
	target, served := s.target(Core).Revision, s.lastServed()
	if target == "" {
		return nil // Nobody knows what is still to be used.
	}
	newest := map[string]time.Time{}
	for _, claim := range s.Claims {
		used := claim.Revision == target || claim.Revision == served || slices.ContainsFunc(s.Sets, func(set Set) bool { return set.Revision == claim.Revision })
		if used || claim.Former {
			continue
		}
		if at, seen := newest[claim.Revision]; !seen || claim.Created.After(at) {
			newest[claim.Revision] = claim.Created
		}
	}
	var revisions []string
	for revision := range newest {
		revisions = append(revisions, revision)
	}
	slices.SortFunc(revisions, func(a, b string) int { return cmp.Or(newest[b].Compare(newest[a]), strings.Compare(a, b)) })
	var old []Claim
	for _, revision := range revisions[min(limit, len(revisions)):] {
		old = append(old, s.claimsOf(revision)...)
	}
	return old
}

// deleteClaims deletes those that are not being deleted yet, and are this cluster's to delete.
func deleteClaims(claims []Claim) Group {
	var group Group
	for _, claim := range claims {
		if !claim.Deleting && !claim.Former {
			group = append(group, DeleteClaim{Name: claim.Name, UID: claim.UID, Revision: claim.Revision, Ordinal: claim.Ordinal})
		}
	}
	return group
}

// claimsLeft waits for claims to be gone.
func claimsLeft(claims []Claim) Lack {
	var names []string
	for _, claim := range claims {
		name := claim.Name
		if claim.Deleting && len(claim.Finalizers) > 0 {
			name += " (kept by " + strings.Join(claim.Finalizers, ", ") + ")"
		}
		names = append(names, name)
	}
	return Lack{"ClaimsLeft", "PersistentVolumeClaims of earlier nodes of the same names to be gone: " + strings.Join(names, ", ")}
}
