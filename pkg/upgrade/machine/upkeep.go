package machine

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// upkeep keeps what is there as it shall be, in every phase, also while the cluster is paused, stalled or refused: the
// gates first, then the Services, the budget, the sets and what belongs to no revision. Each is a group of its own: none can stop
// another.
func upkeep(s Snapshot) []Group {
	groups := gates(s)
	groups = append(groups, keepServices(s)...)
	groups = append(groups, keepBudget(s)...)
	groups = append(groups, keepSets(s)...)
	groups = append(groups, keepCookies(s)...)
	groups = append(groups, keepConfigMaps(s)...)
	groups = append(groups, siteConditions(s)...)
	groups = append(groups, keepClaims(s)...)
	groups = append(groups, keepDrained(s)...)
	groups = append(groups, releasePods(s)...)
	groups = append(groups, remakeLost(s)...)
	// With another cookie, nodes could not join those that run.
	if s.CookieSecret == Missing && !s.anyRuns() {
		groups = append(groups, Group{CreateCookieSecret{}})
	}
	if s.KeysSecret == Missing || s.KeysSecret == Current && s.Keys.Outdated && s.Keys.Problem == "" {
		groups = append(groups, Group{WriteKeysSecret{}})
	}
	if s.Headless == Missing || s.Headless == Outdated {
		groups = append(groups, Group{ApplyHeadlessService{}})
	}
	return groups
}

// keepSets gives sets back what strangers took: labels, owner, number of pods. A number that the user changed is no
// stranger's doing; it is not put back where clients would be cut off.
func keepSets(s Snapshot) []Group {
	var groups []Group
	for _, set := range s.Sets {
		target := s.target(set.Role)
		switch {
		case set.Deleting || set.Orphaned:
		case set.Mislabelled:
			groups = append(groups, Group{RelabelSet{SetRef: set.ref(), Revision: set.Revision}})
		case set.Revision != target.Revision:
			// Nobody but a stranger adds to what leaves.
			if set.Asked > 0 && set.Replicas > set.Asked && !servesFrom(set, set.Asked) {
				groups = append(groups, Group{ScaleSet{SetRef: set.ref(), Replicas: set.Asked, NodeCount: set.NodeCount}})
			}
			if s.keeps(set) > set.Replicas {
				// What somebody scaled away leaves anyway. From now on EMQX may forget it.
				groups = append(groups, Group{ScaleSet{SetRef: set.ref(), Replicas: set.Replicas, NodeCount: set.NodeCount}})
			}
		case target.Replicas < 1:
		case set.Replicas > target.Replicas && !surplusServes(s, set):
			groups = append(groups, Group{scale(s, set)})
		case scaledDown(s, set), grows(s, set):
			if group, _ := grow(s, set); len(group) > 0 {
				groups = append(groups, group)
			}
		case set.NodeCount > set.Replicas && len(set.Pods) == int(set.Replicas) && !set.PodsUnseen && allLeft(s, set):
			// EMQX has forgotten the nodes that there were once more.
			groups = append(groups, Group{ScaleSet{SetRef: set.ref(), Replicas: set.Replicas, NodeCount: set.Replicas}})
		}
	}
	return groups
}

// scaledDown reports whether a target set that has served has fewer pods than it ever had and than is asked for: nobody
// but a stranger takes any away.
func scaledDown(s Snapshot, set Set) bool {
	return set.Replicas < s.target(set.Role).Replicas && set.Replicas < set.NodeCount && !set.ServingSince.IsZero()
}

// grows reports whether the specification asks for more nodes of a set that serves already, in mid-upgrade: Provisioning
// has been left, and the nodes that are asked for are waited for in every phase.
func grows(s Snapshot, set Set) bool {
	switch s.phase() {
	case v2beta1.PhaseSwitching, v2beta1.PhaseEvacuating, v2beta1.PhaseScalingDown:
		return set.Replicas < s.target(set.Role).Replicas && !s.updateStrategy().Paused && problemOf(s) == nil
	case v2beta1.PhasePending, v2beta1.PhaseProvisioning, v2beta1.PhaseDone:
	}
	return false
}

// allLeft reports whether EMQX has forgotten the nodes that a set has no more.
func allLeft(s Snapshot, set Set) bool {
	for _, name := range absent(Snapshot{EMQX: s.EMQX, Wanted: s.Wanted, Sets: []Set{set}, Claims: s.Claims}) {
		if !s.Observation.Left[name] {
			return false
		}
	}
	return true
}

// keepConfigMaps puts back the ConfigMap of a set when the specification still says what was in it, and removes those of
// revisions that have no set any more. A pod never starts with the configuration of another revision: what was in one that
// was lost and cannot be told any more is not guessed.
func keepConfigMaps(s Snapshot) []Group {
	var groups []Group
	needed := map[string]bool{s.EMQX.ConfigMapName(): true}
	if target := s.target(Core); s.targetSet(Core) == nil || target.Replacement != "" {
		needed[s.EMQX.RevisionConfigMapName(target.Name())] = true // It is about to be made, before what needs it.
	}
	for _, set := range s.Sets {
		needed[set.ConfigMap] = true
		for _, pod := range set.Pods {
			needed[s.EMQX.RevisionConfigMapName(cmp.Or(pod.Template, set.Revision))] = true
		}
		if s.ConfigMaps[set.ConfigMap] == Missing && set.ConfigMap != "" && set.ConfigHash == s.ConfigHash && s.ConfigError == nil && !set.Deleting {
			groups = append(groups, Group{ApplyConfigMap{Name: set.ConfigMap, Revision: set.Revision}})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.ConfigMaps)) {
		if !needed[name] && s.ConfigMaps[name] == Current && s.ConfigError == nil {
			groups = append(groups, Group{DeleteConfigMap{Name: name}})
		}
	}
	return groups
}

// gates opens the readiness gate of pods whose nodes are in the cluster, and closes it for nodes that are known to be
// out of it. Silence, an error or a missing entry closes no gate: that would empty the Service.
func gates(s Snapshot) []Group {
	var groups []Group
	for pod := range s.eachPod() {
		gate := SetGate{Pod: pod.Name, UID: pod.UID, Container: pod.Container}
		in := joined(s, pod)
		switch {
		case pod.Deleting:
			continue
		case pod.OnServing && s.isMoving(pod):
			gate.Message = "Kubernetes node " + pod.KubernetesNode + " is drained: clients are moved off its node"
		case in && (!pod.OnServing && mayServe(s, pod) || pod.OnServing && pod.GateContainer != pod.Container):
			gate.Serving, gate.Message = true, "the node runs in its cluster"
		case pod.OnServing && restarted(pod) && !in && !notAsked(s.node(pod)):
			gate.Message = "the container was started again and its node has not been seen in the cluster since"
		case pod.OnServing && apart(s, pod):
			gate.Message = "the node runs apart from the rest of its cluster"
		default:
			continue
		}
		groups = append(groups, Group{gate})
	}
	return groups
}

// mayServe reports whether a pod may get clients: one that nobody asked for is on its way out, and so is one that is moved, and one of
// a set that never served and leaves, where users lead clients to all that are ready: it is removed without evacuation.
func mayServe(s Snapshot, pod Pod) bool {
	if s.isMoving(pod) {
		return false
	}
	if target := s.target(pod.Role); pod.Revision == target.Revision {
		return pod.Ordinal < int(target.Replicas)
	}
	set := s.setOfPod(pod.UID)
	ours := resources.ServiceEnabled(s.EMQX, resources.Listeners) // It leads to what serves, and nowhere else.
	return set == nil || (ours || s.served(*set)) && (set.Asked == 0 || pod.Ordinal < int(set.Asked))
}

// restarted reports whether a pod's gate was opened for a container before the one that runs. A core that boots takes
// clients for a second before it joins.
func restarted(pod Pod) bool {
	return pod.GateContainer != "" && pod.Container != "" && pod.GateContainer != pod.Container
}

// joined reports whether another member has seen the pod's node running, and the node it. A core that boots takes
// clients for a second before it joins its cluster and restarts its applications; only the join counts. A node that has
// nobody beside it vouches for itself, and so does one beside which nobody answers, once it had the time to join: what it
// would wait for may never come back.
func joined(s Snapshot, pod Pod) bool {
	node := s.node(pod)
	if !node.Running() {
		return false
	}
	nobody := true
	for other := range s.eachPod() {
		if other.UID == pod.UID || !other.ContainerRunning {
			continue
		}
		nobody = false
		if witness := s.node(other); witness.Running() && sees(witness, pod) && sees(node, other) {
			return true
		}
	}
	left, lone := lonely(s, pod)
	return nobody && s.target(pod.Role).Replicas == 1 || lone && left <= 0
}

// joinTime is how long a core takes at most from its first answer until it has joined a cluster that it can reach.
const joinTime = 10 * time.Second

// lonely reports whether a node that runs sees nobody while nobody beside it answers, and how much time it has left to join.
func lonely(s Snapshot, pod Pod) (left time.Duration, lone bool) {
	node := s.node(pod)
	lone = node.Running() && len(node.Members) == 1 && !node.MembersSince.IsZero()
	for other := range s.eachPod() {
		lone = lone && (other.UID == pod.UID || !s.node(other).Known())
	}
	return joinTime - s.Now.Sub(node.MembersSince), lone
}

// vouching is when a node that is alone vouches for itself; zero for never. Time alone shows it.
func vouching(s Snapshot) time.Duration {
	var next time.Duration
	for pod := range s.eachPod() {
		if left, lone := lonely(s, pod); lone && left > 0 {
			next = soonest(next, left)
		}
	}
	return next
}

// apart reports whether a node is known to be out of the cluster: it answers, another with a larger view answers, and
// neither sees the other, although the node has answered since the other lost sight of it: a view from before would be
// of a cluster that both were in. When all views are of one size, nobody is apart.
func apart(s Snapshot, pod Pod) bool {
	node := s.node(pod)
	if !node.Running() || joined(s, pod) {
		return false
	}
	return slices.ContainsFunc(s.pods(), func(other Pod) bool { return other.UID != pod.UID && farFrom(node, s.node(other), pod, other) })
}

func farFrom(node, witness evacuate.NodeObservation, pod, other Pod) bool {
	return witness.Running() && len(witness.Members) > len(node.Members) &&
		!sees(witness, pod) && !sees(node, other) && node.Seen.After(witness.MembersSince)
}
