package machine

import (
	"fmt"
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// A core without a volume whose pod is made again has an empty disk under the name of the site that was lost, and EMQX ends it as long
// as that site is known. The replicas that it held are given up, of shards that others hold; the pod stays, ended, until EMQX has
// forgotten the node with its site; the next of its name starts with a site of its own.

// diskLost reports whether a pod was made again without the disk of the site that has its name: its node was never seen to run, that
// site is down, and it was another pod's. Where nobody remembers that, the node has ended, and nothing is on that site that others
// do not have.
func (s *Snapshot) diskLost(set Set, pod Pod) bool {
	storage := s.Observation.Storage
	sites := storage.SitesOf(pod.Node)
	if !s.mayBeLost(set, pod) || len(sites) == 0 || !storage.Known() || !storage.Seen.After(pod.Created) {
		return false
	}
	if slices.ContainsFunc(storage.Sites, func(site emqx.Site) bool { return site.Up && slices.Contains(sites, site.ID) }) {
		return false
	}
	return s.remade(pod) || storage.Holds(pod.Node) == 0 || s.heldElsewhere(pod)
}

// heldElsewhere reports whether all nodes run that hold replicas beside a pod's, and there are any.
func (s *Snapshot) heldElsewhere(pod Pod) bool {
	return slices.ContainsFunc(s.survivors([]Pod{pod}), func(node string) bool { return s.Observation.Storage.Holds(node) > 0 })
}

// mayBeLost reports whether a pod may have been made again without the disk of a site that has its name.
func (s *Snapshot) mayBeLost(set Set, pod Pod) bool {
	storage := s.Observation.Storage
	ended := !pod.ContainerRunning && pod.Container != ""
	if pod.Deleting || set.foreign() || !s.neverJoined(pod) || !s.remade(pod) && !ended || !s.remembered(pod) || hasVolume(set) {
		return false
	}
	return !storage.Seen.After(pod.Created) || len(storage.SitesOf(pod.Node)) > 0
}

// remade reports whether the resource remembers another pod of a pod's name.
func (s *Snapshot) remade(pod Pod) bool {
	return slices.ContainsFunc(s.EMQX.Status.CoreNodes, func(told v2beta1.EMQXNode) bool {
		return told.Node == pod.Node && told.PodUID != "" && told.PodUID != pod.UID
	})
}

// asked reports whether a pod is not one that a stranger added to its set.
func asked(set Set, pod Pod) bool { return set.Asked == 0 || pod.Ordinal < int(set.Asked) }

// remembered reports whether another node runs that knows of the site that has a pod's name.
func (s *Snapshot) remembered(pod Pod) bool {
	return slices.ContainsFunc(s.Sets, func(set Set) bool {
		return slices.ContainsFunc(set.Pods, func(other Pod) bool { return other.UID != pod.UID && other.ContainerRunning && asked(set, other) })
	})
}

// neverJoined reports whether the node of a pod was never seen to run.
func (s *Snapshot) neverJoined(pod Pod) bool {
	return pod.GateContainer == "" && !pod.OnServing && !s.node(pod).Running()
}

// lostDisks are the pods that start anew, or are about to, because their disk is lost.
func (s *Snapshot) lostDisks() []Pod {
	var lost []Pod
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			if s.diskLost(set, pod) || pod.Deleting && untilForgotten(pod) {
				lost = append(lost, pod)
			}
		}
	}
	return lost
}

// mayHaveLostDisks reports whether what is known of durable storage may be older than a pod whose disk is a new one.
func (s *Snapshot) mayHaveLostDisks() bool {
	return slices.ContainsFunc(s.Sets, func(set Set) bool {
		return slices.ContainsFunc(set.Pods, func(pod Pod) bool { return s.mayBeLost(set, pod) && s.Observation.Storage.Enabled })
	})
}

// survivors are the nodes that hold replicas beside those that lost their disk or, where none does, those that may begin anew. There
// are none unless all that hold some run: what does not, or is not made again yet, may come back as it was.
func (s *Snapshot) survivors(lost []Pod) []string {
	pods, isLost := s.byNode(), nodesOfPods(lost)
	var names []string
	for _, name := range s.keptNodes() {
		pod, exists := pods[name]
		switch {
		case s.Observation.Storage.Holds(name) == 0 || slices.Contains(isLost, name):
		case !exists || pod.Deleting || !s.node(pod).Running():
			return nil
		default:
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		names = s.anew(isLost)
	}
	slices.Sort(names)
	return names
}

// anew are the nodes on which databases begin anew of which nobody has anything: those that run, of sets that serve, did or will.
func (s *Snapshot) anew(lost []string) []string {
	var names []string
	for _, set := range s.Sets {
		keeps := set.Revision == s.target(set.Role).Revision || s.served(set)
		for _, pod := range set.Pods {
			if keeps && asked(set, pod) && !slices.Contains(lost, pod.Node) && s.node(pod).Running() && len(s.Observation.Storage.SitesOf(pod.Node)) > 0 {
				names = append(names, pod.Node)
			}
		}
	}
	return names
}

// sitesLeft says which of a set's nodes, from an ordinal to another, EMQX has yet to forget before another of its name is made: that
// would have another disk.
func sitesLeft(s Snapshot, set Set, from, to int32) Lack {
	storage := s.Observation.Storage
	for ordinal := from; ordinal < min(set.NodeCount, to); ordinal++ {
		name := set.nodeAt(ordinal)
		switch {
		case s.Observation.Left[name] || !s.anyRuns():
		case storage.Seen.IsZero():
			return Lack{"StorageNotAsked", "durable storage to be asked about, which may know the disk that node " + name + " had before: " + storage.Failure}
		case storage.Enabled:
			message := "EMQX to forget the disk that node " + name + " had before"
			if s.Observation.Failure != "" {
				message += ": " + s.Observation.Failure
			}
			return Lack{"SitesLeft", message}
		}
	}
	return Lack{}
}

// remakeLost deletes pods that lost their disk, to be kept until EMQX has forgotten it. On the new one is nothing: its node ended
// before it could serve.
func remakeLost(s Snapshot) []Group {
	var groups []Group
	for _, pod := range s.lostDisks() {
		if !pod.Deleting {
			groups = append(groups, Group{LetGo{Name: pod.Name, UID: pod.UID, Forget: true}, DeletePod{Name: pod.Name, UID: pod.UID}})
		}
	}
	return groups
}

// startsAnew says what a pod waits for that lost its disk.
func startsAnew(s Snapshot, pod Pod) string {
	words := "starts anew when EMQX has forgotten the disk that went with its pod"
	storage := s.Observation.Storage
	if held := storage.Holds(pod.Node); held > 0 {
		words += fmt.Sprintf(", which held replicas of %d shards: EMQX gives them up within a minute or two, where others of the same shards live", held)
	}
	if storage.OrderFailure != "" {
		words += "; they are not given up: " + storage.OrderFailure
	}
	return words
}
