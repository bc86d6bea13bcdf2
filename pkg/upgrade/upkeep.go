package upgrade

import (
	"slices"

	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// upkeep keeps what is there as it shall be, in every phase: what belongs to no revision, the Services for the revision
// that they select, and the gates.
func upkeep(s Snapshot) []Action {
	var actions []Action
	// With another cookie, nodes could not join those that run.
	if s.CookieSecret == Missing && !s.anyRuns() {
		actions = append(actions, CreateCookieSecret{})
	}
	if s.KeysSecret == Missing {
		actions = append(actions, CreateKeysSecret{})
	}
	// The nodes that run have read the ConfigMap that was there when they were made. It is written again when a set is
	// made; only one that was lost is put back.
	if s.ConfigMap == Missing && s.ConfigError == nil && len(s.Sets) > 0 {
		actions = append(actions, ApplyConfigMap{})
	}
	if s.Headless != Current {
		actions = append(actions, ApplyHeadlessService{})
	}
	for _, kind := range resources.ServiceKinds() {
		service, exists := s.Services[kind]
		set := s.set(service.Revision)
		switch {
		case exists && !resources.ServiceEnabled(s.EMQX, kind):
			actions = append(actions, DeleteService{Kind: kind})
		case exists && service.State != Current && set != nil:
			actions = append(actions, ApplyService{Kind: kind, Revision: set.Revision, Ports: set.Ports})
		}
	}
	return append(actions, gates(s)...)
}

// gates opens the readiness gate of pods whose nodes are in the cluster, and closes it for nodes that are known to be
// out of it. Silence, an error or a missing entry closes no gate: that would empty the Service.
func gates(s Snapshot) []Action {
	var actions []Action
	for _, pod := range s.pods() {
		if pod.Deleting {
			continue
		}
		switch {
		case !pod.OnServing && joined(s, pod):
			actions = append(actions, SetGate{Pod: pod.Name, UID: pod.UID, Serving: true, Message: "the node runs in its cluster"})
		case pod.OnServing && apart(s, pod):
			actions = append(actions, SetGate{Pod: pod.Name, UID: pod.UID, Serving: false, Message: "the node runs apart from the rest of its cluster"})
		}
	}
	return actions
}

// joined reports whether another member has seen the pod's node running, and the node it. A core that boots takes
// clients for a second before it joins its cluster and restarts its applications; only the join counts. A node that has
// nobody beside it vouches for itself.
func joined(s Snapshot, pod Pod) bool {
	node := s.node(pod)
	if !node.Running() {
		return false
	}
	alone := true
	for _, other := range s.pods() {
		if other.UID == pod.UID || !other.ContainerRunning {
			continue
		}
		alone = false
		if witness := s.node(other); witness.Running() && sees(witness, pod) && sees(node, other) {
			return true
		}
	}
	return alone && s.wantedReplicas() == 1
}

// apart reports whether a node is known to be out of the cluster: it answers, another with a larger view answers, and
// neither sees the other, although the node has answered since the other lost sight of it: a view from before would be
// of a cluster that both were in. When all views are of one size, nobody is apart.
func apart(s Snapshot, pod Pod) bool {
	node := s.node(pod)
	if !node.Running() || joined(s, pod) {
		return false
	}
	for _, other := range s.pods() {
		witness := s.node(other)
		if other.UID != pod.UID && witness.Running() && len(witness.Members) > len(node.Members) &&
			!sees(witness, pod) && !sees(node, other) && node.Seen.After(witness.MembersSince) {
			return true
		}
	}
	return false
}

// agree reports whether all nodes that answer see each other. While they do not, time alone can show who is right.
func agree(s Snapshot) bool {
	for _, pod := range s.pods() {
		if node := s.node(pod); node.Running() && notSeen(s, pod, node) != "" {
			return false
		}
	}
	return true
}

func sees(node evacuate.NodeObservation, pod Pod) bool {
	return slices.Contains(node.Members, pod.Node)
}
