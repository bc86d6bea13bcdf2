package machine

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// The licence that EMQX has without a key, from 5.9 on, allows one node: a second one joins, finds out and ends. So a node that
// is made by the specification as it is now can only stand beside another when the licence that it will have allows it.

const reasonOneNode = "LicenceAllowsOneNode"

// company says whether a node that is made now may be in one cluster with others.
type company int

const (
	// allowed: nothing is known that speaks against it.
	allowed company = iota
	// alone: its licence allows one node.
	alone
	// untold: it will have the licence of the cluster that serves, and no node of that has told it yet.
	untold
)

// newcomer judges by what is known best: a node that ended because of it; the key in the configuration that new nodes get;
// what the cluster that they join tells of its licence; and, where there is none, what EMQX's default means to their version.
func (s *Snapshot) newcomer() company {
	if s.endedByLicence() {
		return alone
	}
	key := s.newcomersKey()
	if key == resources.LicenceKey || key == resources.LicenceNotKnown {
		return allowed
	}
	byDefault := allowed
	wanted := versionOf(s.EMQX.Spec.Image)
	if wanted != nil && needsKey(wanted) {
		byDefault = alone
	}
	if key == resources.LicenceDefault && wanted != nil {
		return byDefault
	}
	serving := s.standing()
	if serving == nil {
		return byDefault
	}
	return s.joining(*serving, byDefault)
}

// endedByLicence reports whether a node has ended because its licence allows one.
func (s *Snapshot) endedByLicence() bool {
	return slices.ContainsFunc(s.pods(), func(pod Pod) bool { return pod.OneNodeLicence && !pod.Ready })
}

// joining says whether a node without a key of its own may join those of a set.
func (s *Snapshot) joining(serving Set, byDefault company) company {
	running := false
	for _, pod := range serving.Pods {
		node := s.node(pod)
		running = running || pod.ContainerRunning
		switch old := versionOf(node.Info.Version); {
		case !node.LicenceKnown:
			continue
		case node.Licence.Type == emqx.LicenceCommunity:
			return alone
		case old != nil && !needsKey(old) && (node.Licence.Type == "" || node.Licence.Type == emqx.LicenceTrial):
			return byDefault // It has no key either, and needed none.
		}
		return allowed
	}
	switch {
	case running:
		return untold
	case serving.Template != "" && serving.Template != serving.Revision, serving.Replicas == 1 && s.remaking():
		return alone // It is, or was, replaced in place. Its data is on its volume, where it has one.
	}
	return byDefault
}

// remaking reports whether an upgrade is under way that makes no other set.
func (s *Snapshot) remaking() bool {
	upgrade := s.upgradeStatus()
	return upgrade.From != "" && upgrade.From == upgrade.To && upgrade.FinishedTime == nil
}

// standing is the set that new nodes would join: the one that serves or, while nothing does, one whose nodes run.
func (s *Snapshot) standing() *Set {
	if set := s.set(s.currentRevision()); set != nil {
		return set
	}
	for i, set := range s.Sets {
		if !set.Deleting && !set.Orphaned && servesFrom(set, 0) {
			return &s.Sets[i]
		}
	}
	return nil
}

// needsKey reports whether a version's default licence allows one node.
func needsKey(v *version.Version) bool { return !before(v, 5, 9, 0) }

// newcomersKey is what the configuration of new nodes says of the licence: they have that of their set.
func (s *Snapshot) newcomersKey() resources.Licence {
	if set := s.targetSet(Core); set != nil && s.target(Core).Replacement == "" && set.ConfigHash != s.ConfigHash {
		return resources.LicenceUnset // What the set's says is not known any more. Most say nothing.
	}
	return s.Config.Licence
}

// asksLicence reports whether the nodes of a set are to be asked for their licence: it matters where new ones may have none of
// their own, and a cluster of several nodes has shown that it allows them, unless these are of a version that does not ask.
func (s *Snapshot) asksLicence(set Set) bool {
	standing, key := s.standing(), s.Config.Licence
	if standing == nil || set.Revision != standing.Revision || key == resources.LicenceKey || key == resources.LicenceNotKnown {
		return false
	}
	if !servesFrom(set, 1) {
		return true
	}
	wanted, runs := versionOf(s.EMQX.Spec.Image), cmp.Or(s.toldVersion(set), versionOf(set.Image))
	return wanted != nil && runs != nil && needsKey(wanted) && !needsKey(runs)
}

// licenceUntold waits until the licence is known before anything is built.
func licenceUntold(s Snapshot) Lack {
	serving := s.standing()
	if serving == nil || !s.asksLicence(*serving) || s.newcomer() != untold {
		return Lack{}
	}
	return Lack{"LicenceUnknown", fmt.Sprintf("node %s to tell its licence, on which it depends whether others may join it", serving.Pods[0].Node)}
}

// licenceAllowsOneNode: more nodes are asked for than the licence allows, for good or for the time of an upgrade. It is said
// before a pod is made that would end, again and again.
func licenceAllowsOneNode(s Snapshot) *Lack {
	target, set := s.target(Core), s.targetSet(Core)
	if target.Revision == "" || s.newcomer() != alone {
		return nil
	}
	const remedy = "give EMQX a licence: as license.key in spec.config.data, which reaches nodes with the next revision, or, to a cluster that runs, " +
		"on its dashboard or by POST /api/v5/license"
	if target.Replicas > 1 {
		return &Lack{reasonOneNode, fmt.Sprintf("spec.coreTemplate.spec.replicas: %d nodes are asked for, and the licence that EMQX has without a key allows one: set it to 1, or %s",
			target.Replicas, remedy)}
	}
	serving := s.standing()
	if serving == nil || serving.Replicas == 0 || target.Revision == serving.Revision || set != nil && s.served(*set) {
		return nil
	}
	return &Lack{reasonOneNode, fmt.Sprintf("the licence that EMQX has without a key allows one node, and %s: undo that, or %s",
		s.notInPlace(*serving, target.Intent), remedy)}
}
