package machine

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// A status differs from one second to the next while clients are moved. It is written when a person or a machine learns
// something from it; metrics tell the figures of the moment.
//
//	at once        what the operator itself must find again after a restart; transitions; what becomes True or False
//	soonAfter      what it would do without for a moment: which nodes are evacuated, which have joined, what a Service selects
//	newsAfter      what it waits for, who is ready, rates and what decides them, replicas, every tenth of the clients
//	detailAfter    words and rates that differ while nothing else does
//	countsAfter    how many clients there are, when that differs by a tenth
//
// The times are since the last write.
const (
	soonAfter   = 2 * time.Second
	newsAfter   = 15 * time.Second
	detailAfter = time.Minute
	countsAfter = 5 * time.Minute
)

// Worth says whether a status is to be written now, so long after the last write or, when it is not, in what time it is to be,
// if it still differs then; zero for not at all.
func Worth(before, after v2beta1.EMQXStatus, since time.Duration) (now bool, in time.Duration) {
	var due time.Duration
	switch {
	case equality.Semantic.DeepEqual(before, after):
		return false, 0
	case remembered(before, after):
		return true, 0
	case soon(before, after):
		due = soonAfter
	case news(before, after):
		due = newsAfter
	case details(before, after):
		due = detailAfter
	case counts(before, after):
		due = countsAfter
	default:
		return false, 0
	}
	return since >= due, max(0, due-since)
}

// remembered reports whether two statuses differ in what the operator must find again after a restart, or in a transition.
func remembered(before, after v2beta1.EMQXStatus) bool {
	return !equality.Semantic.DeepEqual(memory(before), memory(after)) || !equality.Semantic.DeepEqual(truths(before), truths(after))
}

// soon reports whether two statuses differ in what a new leader can do without, if it must. That a node that is silent was being
// evacuated it would not know, without the revision that the Service selected it switches once more, and a node that nobody
// told of is forgotten with its set.
func soon(before, after v2beta1.EMQXStatus) bool {
	was := evictionRates(before)
	for node := range evictionRates(after) {
		if _, known := was[node]; !known {
			return true
		}
	}
	joined := func(node v2beta1.EMQXNode) bool {
		_, known := nodesOf(before)[node.Node]
		return !known && node.NodeStatus == "running"
	}
	return before.CoreNodesStatus.CurrentRevision != after.CoreNodesStatus.CurrentRevision || slices.ContainsFunc(after.CoreNodes, joined)
}

// memory is a status without what tells of progress, of nodes and of conditions.
func memory(status v2beta1.EMQXStatus) v2beta1.EMQXStatus {
	kept := v2beta1.EMQXStatus{
		ObservedGeneration: status.ObservedGeneration, Phase: status.Phase, State: status.State,
		ReplicantNodesStatus: status.ReplicantNodesStatus, // Whoever writes it, it is not this version.
		Drain:                status.Drain,
		EvacuationsToStop:    status.EvacuationsToStop,
	}
	kept.CoreNodesStatus.Replicas, kept.CoreNodesStatus.UpdateRevision = status.CoreNodesStatus.Replicas, status.CoreNodesStatus.UpdateRevision
	if status.Upgrade != nil {
		upgrade := *status.Upgrade
		upgrade.WaitingFor, upgrade.ClientsMoved, upgrade.ClientsPerSecond, upgrade.EstimatedEndTime = "", 0, 0, nil
		upgrade.LimitedBy, upgrade.ConnEvictRate, upgrade.ReplicasMoved, upgrade.DelayedMessages = "", 0, 0, 0
		kept.Upgrade = &upgrade
	}
	return kept
}

// evictionRates are those of each node that is evacuated: what a silent node may be running at.
func evictionRates(status v2beta1.EMQXStatus) map[string][2]int32 {
	rates := map[string][2]int32{}
	for _, evacuation := range status.NodeEvacuationsStatus {
		rates[evacuation.Node] = [2]int32{evacuation.ConnectionEvictionRate, evacuation.SessionEvictionRate}
	}
	return rates
}

// truths are the conditions by what they are and, of a stalled cluster, why.
func truths(status v2beta1.EMQXStatus) map[string]string {
	truths := map[string]string{}
	for _, condition := range status.Conditions {
		truths[condition.Type] = string(condition.Status)
	}
	truths["reason"] = StalledReason(status)
	return truths
}

func nodesOf(status v2beta1.EMQXStatus) map[string]v2beta1.EMQXNode {
	nodes := map[string]v2beta1.EMQXNode{}
	for _, node := range status.CoreNodes {
		nodes[node.Node] = node
	}
	return nodes
}

// news reports whether two statuses differ in a step of the progress.
func news(before, after v2beta1.EMQXStatus) bool {
	return !equality.Semantic.DeepEqual(reasons(before), reasons(after)) ||
		!equality.Semantic.DeepEqual(states(before), states(after)) ||
		!equality.Semantic.DeepEqual(before.DSReplication, after.DSReplication) ||
		before.CoreNodesStatus != after.CoreNodesStatus ||
		progressed(upgradeIn(before), upgradeIn(after)) || faster(before, after)
}

// faster reports whether a node evicts faster than it did: what it may be running at when it is silent. While one is, all
// evictions of connections are stopped; that this is known a little later adds nothing.
func faster(before, after v2beta1.EMQXStatus) bool {
	was := evictionRates(before)
	for node, rates := range evictionRates(after) {
		if rates[0] > was[node][0] || rates[1] > was[node][1] {
			return true
		}
	}
	return false
}

// reasons are those of all conditions: what is waited for.
func reasons(status v2beta1.EMQXStatus) []string {
	var reasons []string
	for _, kind := range []string{v2beta1.ConditionReady, v2beta1.ConditionProgressing} {
		if condition := meta.FindStatusCondition(status.Conditions, kind); condition != nil {
			reasons = append(reasons, condition.Reason)
		}
	}
	return reasons
}

// states are those of the nodes and of their evacuations.
func states(status v2beta1.EMQXStatus) map[string]string {
	states := map[string]string{}
	for _, node := range status.CoreNodes {
		states[node.Node] = node.NodeStatus
	}
	for _, evacuation := range status.NodeEvacuationsStatus {
		states[evacuation.Node] += " " + evacuation.State
	}
	return states
}

// estimateStep is by how much an estimate must differ to be news.
const estimateStep = 10 * time.Second

// progressed reports whether a tenth of the clients or of the replicas has moved, the estimate differs, something else decides the rate,
// or something will be lost.
func progressed(before, after v2beta1.UpgradeStatus) bool {
	moved := after.ClientsMoved - before.ClientsMoved
	was, is := before.EstimatedEndTime, after.EstimatedEndTime
	replicas := after.ReplicasMoved - before.ReplicasMoved
	return moved != 0 && max(moved, -moved)*10 >= after.ClientsTotal || replicas != 0 && max(replicas, -replicas)*10 >= after.ReplicasTotal || before.LimitedBy != after.LimitedBy ||
		(before.DelayedMessages == 0) != (after.DelayedMessages == 0) || (was == nil) != (is == nil) || was != nil && is.Sub(was.Time).Abs() >= estimateStep
}

func upgradeIn(status v2beta1.EMQXStatus) v2beta1.UpgradeStatus {
	if status.Upgrade == nil {
		return v2beta1.UpgradeStatus{}
	}
	return *status.Upgrade
}

// details reports whether two statuses differ in more than in numbers of clients and sessions.
func details(before, after v2beta1.EMQXStatus) bool {
	return !equality.Semantic.DeepEqual(uncounted(before), uncounted(after))
}

func uncounted(status v2beta1.EMQXStatus) v2beta1.EMQXStatus {
	status = *status.DeepCopy()
	status.Clients = 0
	for i := range status.CoreNodes {
		status.CoreNodes[i].Connections, status.CoreNodes[i].LiveConnections = 0, 0
	}
	for i := range status.NodeEvacuationsStatus {
		status.NodeEvacuationsStatus[i].Stats = v2beta1.NodeEvacuationStats{}
	}
	if status.Upgrade != nil {
		status.Upgrade.ClientsMoved, status.Upgrade.ReplicasMoved, status.Upgrade.DelayedMessages = 0, 0, 0
	}
	return status
}

// counts reports whether two statuses differ by a tenth or more in the number of clients. What single nodes have follows it.
func counts(before, after v2beta1.EMQXStatus) bool {
	was, is := before.Clients, after.Clients
	return was != is && max(was-is, is-was)*10 >= was
}
