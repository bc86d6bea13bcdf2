package machine

import (
	"cmp"
	"time"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// Keys is what is known of the API keys in their Secret: never a key itself. The zero value is for not known.
type Keys struct {
	// Version tells this content from another, and Written when it was written.
	Version string
	Written time.Time
	// Outdated tells that it is not what it shall be, or lacks the operator's key that the nodes know.
	Outdated bool
	// Problem says which of the keys that the specification asks for cannot be had; empty when all can.
	Problem string
}

// KeysInDoubt reports whether there is a Secret of the API keys whose content is not known.
func (s *Snapshot) KeysInDoubt() bool { return s.KeysSecret == Current && s.Keys.Version == "" }

// keysProblem says that keys which the specification asks for cannot be had. It changes no decision: the nodes know the keys of
// before.
func keysProblem(s Snapshot, decision Decision) Decision {
	if s.Keys.Problem != "" && decision.Stalled == nil {
		decision.Stalled = &Lack{"InvalidAPIKeys", s.Keys.Problem + "; the API keys stay as they were: correct what it names, or the reference"}
	}
	return decision
}

// keysKept is how long nodes may take to read API keys that were written before it is said that they have not.
const keysKept = 5 * time.Minute

// keysGoal is which API keys the nodes shall know. Those that started after these were written have read them; the others are told
// to, where what is written comes into their pods.
func keysGoal(s Snapshot) evacuate.KeysGoal {
	goal := evacuate.KeysGoal{Version: s.Keys.Version, Written: s.Keys.Written}
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			if set.LiveKeys && pod.ContainerRunning && !pod.ContainerStarted.After(s.Keys.Written) {
				goal.File = resources.APIKeysFile
			}
		}
	}
	return goal
}

// keysNotLoaded says that the nodes do not know the API keys that were written, when they should, or cannot while they run.
func keysNotLoaded(s Snapshot) (Lack, time.Duration) {
	keys := s.Observation.Keys
	if s.Keys.Version == "" || keys.Version != s.Keys.Version || keys.Loaded {
		return Lack{}, 0
	}
	secret := s.EMQX.BootstrapAPIKeySecretName()
	if keysGoal(s).File == "" {
		if keys.Failure != "" {
			return Lack{}, 0 // It is not known.
		}
		return Lack{keysUnknown, "the nodes do not know the API keys of Secret " + secret + " yet: they read them when a core node starts, as with the next revision"}, 0
	}
	if left := keysKept - s.Now.Sub(s.Keys.Written); left > 0 {
		return Lack{}, left
	}
	lack := Lack{keysUnknown, "the nodes were told to read the API keys of Secret " + secret + ", and do not know them"}
	if keys.Failure != "" {
		lack.Message += ": " + keys.Failure
	}
	lack.Message += "; their logs say why, and a core node that starts reads them, too"
	return lack, 0
}

const keysUnknown = "KeysNotLoaded"

// KeyScopes tells whether the operator's API keys shall have scopes: where every node, and every node that is to come, knows them; nil
// when that cannot be told. A node that does not know them reads no key of a file with scopes, from that line on.
func (s *Snapshot) KeyScopes() *bool {
	scoped, versions := true, []*version.Version{versionOf(s.EMQX.Spec.Image)}
	for _, set := range s.Sets {
		versions = append(versions, cmp.Or(s.toldVersion(set), versionOf(set.Image)))
		scoped = scoped && set.LiveKeys // Others would not hear of it.
	}
	for _, version := range versions {
		if version == nil {
			return nil
		}
		scoped = scoped && knowsScopes(version)
	}
	return &scoped
}

// knowsScopes reports whether API keys have scopes in a version.
func knowsScopes(v *version.Version) bool {
	if !before(v, 6, 3, 0) {
		return true
	}
	for _, since := range [][3]uint{{5, 10, 4}, {6, 0, 3}, {6, 1, 2}, {6, 2, 1}} {
		if v.Major() == since[0] && v.Minor() == since[1] {
			return v.Patch() >= since[2]
		}
	}
	return false
}
