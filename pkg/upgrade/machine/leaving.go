package machine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// Who leaves: the pods of sets that are not their role's target, and the surplus of those that are. All others stay.

// leaves reports whether a pod leaves the cluster.
func (s *Snapshot) leaves(pod Pod) bool {
	target := s.target(pod.Role)
	return pod.Revision != target.Revision || pod.Ordinal >= int(target.Replicas) || s.orphaned(pod)
}

func (s *Snapshot) orphaned(pod Pod) bool {
	set := s.setOfPod(pod.UID)
	return set != nil && set.Orphaned
}

// leavingSets are the sets that are not their role's target. What a set left behind is one as long as any of it remains.
func (s *Snapshot) leavingSets() []Set {
	return slices.DeleteFunc(slices.Clone(s.Sets), func(set Set) bool {
		if set.Orphaned {
			return len(s.remaining(set)) == 0
		}
		return set.Revision == s.target(set.Role).Revision && !set.Deleting
	})
}

// staying are the pods that stay.
func (s *Snapshot) staying() []Pod { return slices.DeleteFunc(s.pods(), s.leaves) }

// leavingPods are the pods that leave, whether they may have clients or not.
func (s *Snapshot) leavingPods() []Pod {
	return slices.DeleteFunc(s.pods(), func(pod Pod) bool { return !s.leaves(pod) })
}

// leaving are the pods that leave and may have clients.
func (s *Snapshot) leaving() []Pod {
	var pods []Pod
	for _, set := range s.Sets {
		if s.served(set) {
			pods = append(pods, set.Pods...)
		}
	}
	return slices.DeleteFunc(pods, func(pod Pod) bool { return !s.leaves(pod) })
}

// served tells whether a set has, ever had or may have had clients. What its nodes tell counts more than any note.
func (s *Snapshot) served(set Set) bool {
	if !set.ServingSince.IsZero() || set.Revision == s.currentRevision() || set.foreign() || set.Orphaned {
		return true
	}
	return slices.ContainsFunc(set.Pods, func(pod Pod) bool {
		node := s.node(pod)
		// Whoever made Services of his own may lead clients to every pod that is ready, at any moment.
		unknown := pod.OnServing && (notAsked(node) || !resources.ServiceEnabled(s.EMQX, resources.Listeners))
		told := node.Seen.IsZero() && s.toldOfClients(pod)
		return node.Info.LiveConnections.Value > 0 || node.Info.Connections.Value > 0 || unknown || told
	})
}

// toldOfClients reports whether clients were told of on a pod's node, by an operator before this one.
func (s *Snapshot) toldOfClients(pod Pod) bool {
	return slices.ContainsFunc(s.EMQX.Status.CoreNodes, func(told v2beta1.EMQXNode) bool {
		return told.PodUID == pod.UID && (told.LiveConnections > 0 || told.Connections > 0)
	})
}

// surplusServes reports whether pods that are more than asked for may have clients: then the specification was changed.
// Others are there because somebody scaled the set: no Service ever led to them.
func surplusServes(s Snapshot, set Set) bool { return servesFrom(set, s.target(set.Role).Replicas) }

// servesFrom reports whether any pod of a set from an ordinal on may have clients.
func servesFrom(set Set, ordinal int32) bool {
	return slices.ContainsFunc(set.Pods, func(pod Pod) bool { return pod.Ordinal >= int(ordinal) && pod.OnServing })
}

// occupied says why a leaving pod may not be removed. Unknown is not zero.
func occupied(s Snapshot, pod Pod) Lack {
	node := s.freshNode(pod)
	switch {
	case node.Empty(), s.stopped(pod), overDeadline(s, pod):
		return Lack{}
	case node.Seen.IsZero() && node.Failure == "":
		return Lack{"NodeNotAsked", "has not been asked yet"}
	case node.Refusal != "":
		return refused(s, node)
	case !node.Known():
		words := "does not answer" + silence(s, pod)
		if s.unlisted(pod) {
			words += ", and EMQX counts it as stopped"
		}
		return Lack{"NodeSilent", words + "; if it is lost for good, delete its pod " + pod.Name + outOfReach(pod)}
	case node.Evacuation == nil && node.OrderFailure != "":
		return Lack{"OrderRefused", "does not do as it is told: " + node.OrderFailure}
	case node.Evacuation == nil:
		return Lack{"ClientsLeft", fmt.Sprintf("has %d clients and %d sessions and is not being evacuated", node.Info.LiveConnections.Value, node.Info.Connections.Value)}
	}
	return Lack{"ClientsLeft", fmt.Sprintf("has %d clients and %d sessions (%s)", node.Info.LiveConnections.Value, node.Info.Connections.Value, node.Evacuation.State)}
}

// silence says since when a node is silent and why, in words that stay the same while it is.
func silence(s Snapshot, pod Pod) string {
	node := s.node(pod)
	words := ""
	if !node.Seen.IsZero() {
		words = " since " + node.Seen.UTC().Format(time.TimeOnly)
	}
	if node.Failure != "" {
		words += " (" + node.Failure + ")"
	}
	return words
}

// overDeadline reports whether the user's deadline for the evacuation has passed for a node. It does not run for a node
// whose evacuation was never started, and is void while the nodes that stay do not take clients: time alone is no reason
// to cut them off.
func overDeadline(s Snapshot, pod Pod) bool {
	seconds, began := s.strategy().DeadlineSeconds, s.upgradeStatus().EvacuationStartedTime
	switch s.phase() {
	case v2beta1.PhaseEvacuating, v2beta1.PhaseScalingDown:
	case v2beta1.PhasePending, v2beta1.PhaseProvisioning, v2beta1.PhaseSwitching, v2beta1.PhaseDone:
		return false
	}
	if seconds == nil || began == nil || !evacuationStarted(s, pod) || !welcome(s) {
		return false
	}
	now := s.Now
	for _, stopped := range []*metav1.MicroTime{s.upgradeStatus().HeldTime, s.upgradeStatus().PausedTime} {
		if stopped != nil && stopped.Time.Before(now) {
			now = stopped.Time // What is held does not run on.
		}
	}
	return now.Sub(began.Time) >= time.Duration(*seconds)*time.Second
}

// evacuationStarted reports whether the evacuation of a node was ever seen to run: by this operator, or by one before it.
func evacuationStarted(s Snapshot, pod Pod) bool {
	return s.node(pod).Evacuation != nil || slices.ContainsFunc(s.EMQX.Status.NodeEvacuationsStatus, func(told v2beta1.NodeEvacuationStatus) bool {
		return told.Node == pod.Node
	})
}

// welcome reports whether the nodes that stay take clients.
func welcome(s Snapshot) bool {
	taking := 0
	for _, pod := range s.staying() {
		if node := s.node(pod); pod.Ready && node.Running() && node.Available {
			taking++
		}
	}
	return taking > 0 && len(s.staying()) == taking && unobserved(s).None()
}

// shrink takes the next step in removing a leaving set, and says what it waits for. With others, another set is losing a
// node at the moment and this one keeps its own.
func shrink(s Snapshot, set Set, others bool) (Group, Lack) {
	if set.Deleting && !set.Orphaned {
		return nil, Lack{"SetLeft", "set " + set.Name + " to be gone" + kept(set.Finalizers)}
	}
	if !s.served(set) {
		if lack := heldBack(s, set); !lack.None() {
			return nil, lack
		}
		return removeSet(s, set, 0), Lack{"SetLeft", "set " + set.Name + ", which never served, to be gone"}
	}
	pods := s.remaining(set)
	if set.Replicas == 0 && len(pods) == 0 {
		message := "EMQX to forget the nodes of set " + set.Name
		if s.Observation.Failure != "" {
			message += ": " + s.Observation.Failure
		}
		return removeSet(s, set, 0), Lack{"MembersLeft", message}
	}
	if i := slices.IndexFunc(pods, func(p Pod) bool { return p.Ordinal >= int(set.Replicas) || p.Deleting }); i >= 0 || others || set.PodsUnseen {
		message := "a pod of set " + set.Name + " to be gone"
		if i >= 0 {
			message = "pod " + pods[i].Name + " to be gone" + kept(pods[i].Finalizers) + outOfReach(pods[i])
		}
		return nil, Lack{"PodsLeft", message}
	}
	// The next to go is the one with the highest ordinal. One that does not exist has nothing to lose.
	next := int(set.Replicas) - 1
	if i := slices.IndexFunc(set.Pods, func(p Pod) bool { return p.Ordinal == next }); i >= 0 {
		if lack := occupied(s, set.Pods[i]); !lack.None() {
			return nil, Lack{lack.Reason, "a leaving node to be empty: " + set.Pods[i].Node + " " + lack.Message}
		}
		if lack := holding(s, set.Pods[i]); !lack.None() {
			return nil, Lack{lack.Reason, "a leaving node to hold no data: " + set.Pods[i].Node + " " + lack.Message}
		}
	}
	return removeSet(s, set, set.Replicas-1), Lack{"PodsLeft", fmt.Sprintf("pod %s-%d to be gone", set.Name, next)}
}

// outOfReach says that a pod cannot go by itself, and what a person can do.
func outOfReach(pod Pod) string {
	if pod.UnreachableSince.IsZero() {
		return ""
	}
	return fmt.Sprintf("; nothing was heard of its Kubernetes node since %s: if that is shut down for good, taint it node.kubernetes.io/out-of-service=nodeshutdown:NoExecute, "+
		"or set spec.updateStrategy.unreachableTolerationSeconds", pod.UnreachableSince.UTC().Format(time.TimeOnly))
}

// kept names the finalizers that keep an object.
func kept(finalizers []string) string {
	if len(finalizers) == 0 {
		return ""
	}
	return ", which its finalizers keep: " + strings.Join(finalizers, ", ")
}

// removeSet takes a set down to the given number of pods, and away when it has none and EMQX has forgotten its nodes. Of
// a set that left its pods behind, these are deleted one by one.
func removeSet(s Snapshot, set Set, replicas int32) Group {
	switch {
	case set.Orphaned:
		var group Group
		for _, pod := range set.Pods {
			if pod.Ordinal >= int(replicas) && !pod.Deleting {
				group = append(group, DeletePod{Name: pod.Name, UID: pod.UID})
			}
		}
		return group
	case set.Deleting:
		return nil
	case set.Replicas != replicas:
		return Group{ScaleSet{SetRef: set.ref(), Replicas: replicas, NodeCount: set.NodeCount}}
	case replicas == 0 && len(s.remaining(set)) == 0 && !set.PodsUnseen && forgotten(s, set):
		return Group{DeleteSet{set.ref()}}
	}
	return nil
}

// forgotten reports whether EMQX has forgotten all nodes that a set ever had.
func forgotten(s Snapshot, set Set) bool {
	for ordinal := range set.NodeCount {
		if !s.Observation.Left[set.nodeAt(ordinal)] {
			return false
		}
	}
	return true
}

// absent are the nodes whose pods have left and that EMQX shall forget: of each set, from the number of pods asked for up
// to the largest number there ever was; and those that the status still tells of, whose sets somebody took away.
func absent(s Snapshot) []string {
	exists := map[string]bool{}
	for pod := range s.eachPod() {
		exists[pod.Node] = !s.lost(pod)
	}
	names := toForget(s)
	for _, set := range s.Sets {
		for ordinal := s.keeps(set); ordinal < set.NodeCount && !set.PodsUnseen; ordinal++ {
			if node := set.nodeAt(ordinal); !exists[node] {
				names = append(names, node)
			}
		}
		kept := s.keeps(set) // Its pods may come back at any moment.
		if set.PodsUnseen {
			kept = max(kept, set.NodeCount) // Or are there.
		}
		for ordinal := range kept {
			exists[set.nodeAt(ordinal)] = true
		}
	}
	for _, told := range s.EMQX.Status.CoreNodes {
		if !exists[told.Node] && !slices.Contains(names, told.Node) {
			names = append(names, told.Node)
		}
	}
	return names
}
