package machine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// Which versions of EMQX may meet: for the time of an upgrade both revisions are one EMQX cluster. EMQX publishes which pairs
// may (docs.emqx.com, "Rolling Upgrade", supported paths since 5.0); what it says there of nodes that are replaced one by one
// goes for those that stand beside each other, too.

// versionOf reads a version: what a node tells, such as 5.8.9 or e5.8.9, or the tag of an image. Nil when there is none to be
// read, as of latest or of a digest.
func versionOf(text string) *version.Version {
	if at := strings.LastIndex(text, ":"); at >= 0 && !strings.Contains(text[at:], "/") && !strings.Contains(text, "@") {
		text = text[at+1:]
	}
	told, err := version.ParseSemantic(strings.TrimPrefix(text, "e"))
	if err != nil {
		return nil
	}
	return told
}

// before reports whether a version is older than a release. What comes before a release, as a beta, counts as it.
func before(v *version.Version, major, minor, patch uint) bool {
	return cmp.Or(cmp.Compare(v.Major(), major), cmp.Compare(v.Minor(), minor), cmp.Compare(v.Patch(), patch)) < 0
}

// first reports whether a version is the first release of its kind, without any mending.
func first(v *version.Version, major, minor uint) bool {
	return v.Major() == major && v.Minor() == minor && v.Patch() == 0
}

// path is what EMQX says of two versions in one cluster.
type path int

const (
	// free: they may meet.
	free path = iota
	// lossy: they may, and something is lost, or has to be done before. It needs the user's consent.
	lossy
	// closed: they may not.
	closed
)

// pathOf says whether nodes of one version may be replaced by nodes of another beside them, and what a person has to know.
// What EMQX has not published is taken for free: a version that is newer than this operator must not be held up by it.
func pathOf(from, to *version.Version) (path, string) {
	switch {
	case from.Major() == to.Major() && from.Minor() == to.Minor():
		return free, ""
	case from.Major() < 5 || to.Major() < 5:
		return closed, "EMQX 5 cannot be in one cluster with an older one: set up a cluster of its own and import the data there"
	case before(to, from.Major(), from.Minor(), 0):
		return lossy, "EMQX does not say that a cluster can go back to an older version"
	case before(from, 5, 4, 0) && !before(to, 5, 10, 0):
		return closed, "EMQX deletes the routing table that versions before 5.4 have: upgrade to 5.9 first, restart all nodes of the cluster at once, and go on from there"
	case first(to, 6, 3):
		return closed, "6.3.0 writes API keys in a form that older nodes beside it cannot check, so that nobody could tell these to move their clients: go to 6.3.1, where that is mended"
	case before(from, 5, 1, 0) && !before(to, 5, 9, 0):
		return lossy, "settings of limiters in the form of 5.0 have to be removed from the configuration before"
	case before(from, 5, 6, 0) && !before(from, 5, 4, 0) && !before(to, 5, 6, 0) && before(to, 5, 7, 0):
		return lossy, "EMQX says that this path has limitations: 5.7 has none"
	case before(from, 5, 9, 0) && !before(from, 5, 8, 7) && (first(to, 5, 9) || first(to, 5, 10)):
		return lossy, "the settings of OpenTelemetry's headers that 5.8.7 has are not known there: go to 5.9.1 or 5.10.1, or remove them before"
	}
	return free, ""
}

// sessionsLost is what is lost on any way from 5 to 6.
func sessionsLost(from, to *version.Version) bool { return from.Major() == 5 && to.Major() >= 6 }

// upgradePath says that the versions of the nodes that run and of those that are asked for must not meet, or that the user has to
// consent to what is lost; nil when they may. It is judged by the image before a pod is made, and by what the new nodes tell of
// themselves before they take clients. Nodes that have served beside the others have met them already.
func upgradePath(s Snapshot) *Lack {
	target := s.target(Core)
	set := s.targetSet(Core)
	inPlace := target.Replacement != ""
	if target.Revision == "" || set != nil && s.served(*set) && !inPlace {
		return nil
	}
	wanted := versionOf(s.EMQX.Spec.Image)
	if set != nil && !inPlace {
		wanted = cmp.Or(s.toldVersion(*set), wanted)
	}
	if wanted == nil {
		return nil
	}
	for _, other := range s.Sets {
		from := cmp.Or(s.toldVersion(other), versionOf(other.Image))
		if from == nil || other.Revision == target.Revision && !inPlace || !s.served(other) || len(other.Pods) == 0 {
			continue
		}
		way, words := pathOf(from, wanted)
		if inPlace && first(wanted, 6, 3) {
			way = free // There are no older nodes beside it.
		}
		if way == free && sessionsLost(from, wanted) && s.hasDatabase("messages") {
			way, words = lossy, "the state of durable sessions is lost: to clients that come back their sessions are new"
		}
		if way == free || way == lossy && s.updateStrategy().PromotedRevision == target.Name() {
			continue
		}
		message := fmt.Sprintf("spec.image: from EMQX %s to %s: %s", from, wanted, words)
		if way == lossy {
			message += "; to go on all the same, set spec.updateStrategy.promotedRevision to " + target.Name()
		}
		return &Lack{"UnsupportedUpgradePath", message}
	}
	return nil
}

// toldVersion is what a node of a set tells of itself; nil while none has.
func (s *Snapshot) toldVersion(set Set) *version.Version {
	for _, pod := range set.Pods {
		if told := versionOf(s.node(pod).Info.Version); told != nil {
			return told
		}
	}
	return nil
}

// hasDatabase reports whether a database of durable storage is known to be open.
func (s *Snapshot) hasDatabase(name string) bool {
	return slices.ContainsFunc(s.Observation.Storage.Databases, func(database emqx.Database) bool { return database.Name == name })
}
