package machine

import (
	"slices"
	"time"
)

// When a node counts as stopped, or as gone. Silence alone proves nothing.

// stopped reports whether a pod's node is known not to run: the kubelet says that its container does not run, and no node
// that answers counts it among the running. Silence alone proves nothing.
func (s *Snapshot) stopped(pod Pod) bool {
	return !pod.ContainerRunning && s.unlisted(pod) || s.endedAlone(pod) || s.lost(pod)
}

// endedAlone reports whether a pod's node ended because of its licence, and starts again and again only to find another.
func (s *Snapshot) endedAlone(pod Pod) bool {
	return pod.OneNodeLicence && !pod.Ready && !s.freshNode(pod).Known() && s.unlisted(pod)
}

// lost reports whether a leaving pod counts as gone although Kubernetes still has it: its Kubernetes node has been unreachable
// for as long as the user tolerates, and EMQX counts its node as stopped.
func (s *Snapshot) lost(pod Pod) bool {
	left, tolerated := s.tolerance(pod)
	return tolerated && left <= 0 && s.unlisted(pod) && !s.freshNode(pod).Known()
}

// tolerance is for how long a leaving pod on an unreachable Kubernetes node is still waited for; false when it is on none, or
// without end.
func (s *Snapshot) tolerance(pod Pod) (time.Duration, bool) {
	seconds := s.updateStrategy().UnreachableTolerationSeconds
	if seconds == nil || pod.UnreachableSince.IsZero() || !s.leaves(pod) {
		return 0, false
	}
	return pod.UnreachableSince.Add(time.Duration(*seconds) * time.Second).Sub(s.Now), true
}

// remaining are the pods of a set that do not count as gone.
func (s *Snapshot) remaining(set Set) []Pod { return slices.DeleteFunc(slices.Clone(set.Pods), s.lost) }

// unlisted reports whether EMQX itself counts a pod's node as stopped: other nodes answer, and each leaves it out of its
// cluster. A node that is cut off may have its clients all the same.
func (s *Snapshot) unlisted(pod Pod) bool {
	listed, witnesses := s.listed(pod)
	return witnesses > 0 && !listed
}

// listed reports whether any other node that answers counts a pod's node among the running of its cluster, and how many
// answer.
func (s *Snapshot) listed(pod Pod) (listed bool, witnesses int) {
	for other := range s.eachPod() {
		if witness := s.freshNode(other); other.UID != pod.UID && witness.Running() {
			witnesses++
			listed = listed || slices.Contains(witness.Members, pod.Node)
		}
	}
	return listed, witnesses
}
