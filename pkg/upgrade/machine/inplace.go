package machine

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// One node in place: where a second set cannot be had, the set that serves gets another template, and its pod is made again. It
// keeps its name, and so its node, and its volume. It is the one exception to the rule that a set is written once.

// reasonInPlace is the reason of what is said of it beforehand.
const reasonInPlace = "ReplacedInPlace"

// replacedInPlace is the set whose node is to be replaced, so that it stands for an intent; nil when a new set is to be made.
func (s *Snapshot) replacedInPlace(intent string) *Set {
	serving := s.standing()
	if serving == nil || s.newcomer() != alone || s.notInPlace(*serving, intent) != "" {
		return nil
	}
	return serving
}

// notInPlace says why the nodes that serve cannot be replaced in place; empty when they can.
func (s *Snapshot) notInPlace(serving Set, intent string) string {
	runs, err := decodeIntent(serving.Intent, nil)
	wanted, wrong := decodeIntent(intent, nil)
	switch {
	case serving.foreign() || err != nil || wrong != nil:
		return "its set was made by another operator and has not been adopted as it is"
	case servesFrom(serving, 1):
		return "there are several that serve, which one without a key cannot join"
	case runs.ClusterDomain != wanted.ClusterDomain:
		return "with another spec.clusterDomain it would have another name, and lose its data"
	case !sameClaim(runs, wanted):
		return "spec.coreTemplate.spec.volumeClaimTemplates cannot be changed of a set that exists"
	}
	for _, other := range s.Sets {
		if other.Revision != serving.Revision && s.served(other) && len(other.Pods) > 0 {
			return "other nodes are there that may have clients"
		}
	}
	return ""
}

// replaceInPlace takes the next step in replacing the node of a set, and says what it waits for; nothing when there is none to
// be replaced. The pod goes when Kubernetes is known to make the next by the new template, and when nobody is left whom the
// new node would join.
func replaceInPlace(s Snapshot, set Set) ([]Group, Lack) {
	target := s.target(set.Role)
	if target.Replacement != "" {
		name := s.EMQX.RevisionConfigMapName(target.Replacement)
		return []Group{{
			ApplyConfigMap{Name: name, Revision: set.Revision},
			ReplaceTemplate{SetRef: set.ref(), Set: resources.CoreSet{
				Revision: set.Revision, Template: target.Replacement, Ports: s.Config.Ports, ConfigHash: s.ConfigHash, Intent: target.Intent, ConfigMap: name,
			}},
		}}, Lack{"TemplateNotReplaced", "set " + set.Name + " to get its new template"}
	}
	i := slices.IndexFunc(set.Pods, set.outdated)
	if i < 0 {
		return nil, Lack{}
	}
	pod := set.Pods[i]
	lack := Lack{"ReplacingInPlace", "pod " + pod.Name + " to be gone, which is replaced in place" + kept(pod.Finalizers)}
	for _, other := range s.leavingPods() {
		if other.ContainerRunning || other.ContainersReady {
			return nil, Lack{"PodsLeft", "pod " + other.Name + " to be gone, before the node that serves is replaced in place"}
		}
	}
	if pod.Deleting || set.PodsUnseen {
		return nil, lack
	}
	return []Group{{DeletePod{Name: pod.Name, UID: pod.UID}}}, lack
}

// outdated reports whether a pod was made before its set got its template. Only sets of one node get another. A pod that does
// not say is of the first, as versions made it that did not know any other.
func (set Set) outdated(pod Pod) bool {
	return set.Replicas == 1 && set.Template != "" && cmp.Or(pod.Template, set.Revision) != set.Template
}

// outage says beforehand what it means to clients that a node is replaced in place.
func outage(set Set) string {
	words := "the licence allows one node, so that it is replaced in place: nobody is served for as long as its pod takes to start"
	if len(set.Pods) > 0 && set.Pods[0].StartTime > 0 {
		words += fmt.Sprintf(", which was %s the last time", max(time.Second, set.Pods[0].StartTime.Round(time.Second)))
	}
	return words + "; sessions in memory, and what is queued in them, end with it"
}

// dataLost warns of what goes with a pod that has no volume; empty when it has one.
func dataLost(set Set) string {
	if runs, err := decodeIntent(set.Intent, nil); err != nil || runs.VolumeClaim != nil {
		return ""
	}
	return "; it has no volume, so that retained messages, users, rules and whatever else was set up at run time are lost with its pod: " +
		"spec.coreTemplate.spec.volumeClaimTemplates gives a new resource one"
}

// inPlaceNotices tell of it: at rest, so that nobody learns it from his clients, and when it is about to be done.
func inPlaceNotices(s Snapshot, set Set) []Lack {
	if s.newcomer() != alone || s.target(set.Role).Replicas != 1 {
		return nil
	}
	when := "when the pod template changes: "
	if s.target(set.Role).Replacement != "" {
		when = ""
	}
	return []Lack{{reasonInPlace, when + outage(set) + dataLost(set)}}
}
