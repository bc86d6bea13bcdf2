package machine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// Durable storage: replicas of shards lie on the disks of cores. A core is taken away when it holds none (invariant 14). Whether
// there are any is asked and not read from the configuration.

// storageGoal is where replicas shall be. At rest they are on all cores that stay, so that one of them can be lost; while the
// old nodes are taken away they are moved off them first. In all other phases they stay where they are, but for those on nodes
// that never served and leave, and on one whose disk goes with its pod when that leaves its Kubernetes node, or is lost.
func storageGoal(s Snapshot) evacuate.StorageGoal {
	goal := evacuate.StorageGoal{Leaving: nodesOfPods(s.leavingPods()), Busy: s.phase() == v2beta1.PhaseScalingDown}
	switch s.phase() {
	case v2beta1.PhaseScalingDown, v2beta1.PhaseDone:
		if !elsewhere(s) && allRun(s, s.staying(), int(s.target(Core).Replicas)) {
			goal.Holders = nodesOfPods(s.staying())
		}
	case v2beta1.PhasePending, v2beta1.PhaseProvisioning, v2beta1.PhaseSwitching, v2beta1.PhaseEvacuating:
		for _, set := range s.leavingSets() {
			if !s.served(set) && len(set.Pods) > 0 {
				goal.Busy = true
				goal.Holders = holdersBeside(s, set)
			}
		}
	}
	if lost := s.lostDisks(); len(lost) > 0 {
		if len(goal.Holders) == 0 {
			goal.Holders = s.survivors(lost)
		}
		goal.Busy, goal.Leaving = true, append(goal.Leaving, nodesOfPods(lost)...)
	}
	goal.Busy = goal.Busy || s.mayHaveLostDisks()
	if pod, set := s.moving(); pod != nil && !hasVolume(*set) {
		if len(goal.Holders) == 0 {
			goal.Holders = nodesOfPods(set.Pods)
		}
		goal.Holders = slices.DeleteFunc(goal.Holders, func(node string) bool { return node == pod.Node })
		goal.Leaving = append(goal.Leaving, pod.Node)
		goal.Busy = true
	}
	if s.updateStrategy().Paused {
		goal.Holders = nil
	}
	return goal
}

// allRun reports whether there are so many pods, all their nodes run, and none is on its way out: what is on its disk may go with it.
func allRun(s Snapshot, pods []Pod, count int) bool {
	return len(pods) == count && !slices.ContainsFunc(pods, func(pod Pod) bool { return pod.Deleting || !s.node(pod).Running() })
}

// holdersBeside are the nodes that served while a set that never did is taken away; none when that holds nothing.
func holdersBeside(s Snapshot, leaving Set) []string {
	if !slices.ContainsFunc(leaving.Pods, func(pod Pod) bool { return s.Observation.Storage.Holds(pod.Node) > 0 }) {
		return nil
	}
	var holders []string
	for _, set := range s.Sets {
		if s.served(set) {
			holders = append(holders, nodesOfPods(slices.DeleteFunc(slices.Clone(set.Pods), untilForgotten))...)
		}
	}
	slices.Sort(holders)
	return holders
}

func nodesOfPods(pods []Pod) []string {
	var names []string
	for _, pod := range pods {
		names = append(names, pod.Node)
	}
	slices.Sort(names)
	return names
}

// heldBack says why a set that never served is not taken away: a database that was opened meanwhile may have replicas on its
// nodes. One that does not run and is not known to hold any is no reason to wait; of one that nobody has asked yet, as after a
// start of the operator, that is not known.
func heldBack(s Snapshot, set Set) Lack {
	if s.endedByLicence() {
		return Lack{} // It was never in one cluster with what serves, and has nothing of that.
	}
	for _, pod := range set.Pods {
		node := s.node(pod)
		unknown := pod.ContainerRunning && notAsked(node)
		if !node.Running() && !unknown && s.Observation.Storage.Holds(pod.Node) == 0 {
			continue
		}
		if lack := holding(s, pod); !lack.None() {
			return Lack{lack.Reason, "node " + pod.Node + ", which never served, to hold no data: it " + lack.Message}
		}
	}
	return Lack{}
}

// holding says why a leaving node's data keeps its pod: replicas of durable storage, or that nobody knows yet whether it holds
// any. No deadline ends that.
func holding(s Snapshot, pod Pod) Lack {
	var since time.Time
	if phase := s.upgradeStatus().PhaseStartedTime; phase != nil {
		since = phase.Time
	}
	return holdingSince(s, pod, since)
}

// holdingSince is holding, by what was told since a time.
func holdingSince(s Snapshot, pod Pod, since time.Time) Lack {
	storage := s.Observation.Storage
	switch {
	case storage.Seen.IsZero() && storage.Failure == "", storage.Failure == "" && storage.Seen.Before(since):
		return Lack{"StorageNotAsked", "may hold replicas of durable storage, which has not been asked about yet"}
	case !storage.Known():
		return Lack{"StorageSilent", "may hold replicas of durable storage: " + storage.Failure}
	}
	target := s.target(Core).Revision
	if s.updateStrategy().PromotedRevision == target {
		// The user consents to lose what the new revision has no place for.
		storage.Databases = slices.DeleteFunc(slices.Clone(storage.Databases), func(d emqx.Database) bool { return storage.Unopened[d.Name] != "" })
	}
	count := storage.Holds(pod.Node)
	if moving := storage.Transitions(); count == 0 && moving > 0 {
		return Lack{"ReplicasMoving", fmt.Sprintf("waits while %d replicas of durable storage move", moving)}
	}
	if count == 0 {
		return Lack{}
	}
	words := fmt.Sprintf("holds replicas of %d shards of durable storage", count)
	for _, name := range slices.Sorted(maps.Keys(storage.Unopened)) {
		if holdsOf(storage, pod.Node, name) {
			return Lack{"DatabaseNotOpen", fmt.Sprintf("%s, and database %s is not open on %s, which replicas could be moved to: have the new revision open it (%s) or, "+
				"if what is in it may be lost, set spec.updateStrategy.promotedRevision to %s", words, name, storage.Unopened[name], opens(name), target)}
		}
	}
	if slices.ContainsFunc(storage.Sites, func(site emqx.Site) bool { return site.Node == pod.Node && !site.Up }) {
		words += ", while it does not run: EMQX gives these up after a minute or two, if others of the same shards live"
	}
	if storage.OrderFailure != "" {
		return Lack{"ReplicasNotMoved", words + ", which do not move: " + storage.OrderFailure}
	}
	return Lack{"ReplicasLeft", words}
}

func holdsOf(storage evacuate.StorageObservation, node, database string) bool {
	only := storage
	only.Databases = slices.DeleteFunc(slices.Clone(storage.Databases), func(d emqx.Database) bool { return d.Name != database })
	return only.Holds(node) > 0
}

// opens names the setting that has EMQX open a database.
func opens(database string) string {
	if strings.HasPrefix(database, "mq_") {
		return "mq.enable = true"
	}
	return "durable_sessions.enable = true"
}

// storageStatus is durable storage by database, by the names that emqx-operator 2.3 gave it; nil where there is none.
func storageStatus(s Snapshot) *v2beta1.DSReplicationStatus {
	storage := s.Observation.Storage
	if storage.Seen.IsZero() {
		return s.EMQX.Status.DSReplication // Not asked since the operator started.
	}
	if !storage.Enabled {
		return nil
	}
	status := &v2beta1.DSReplicationStatus{}
	for _, database := range storage.Databases {
		told := v2beta1.DSDBReplicationStatus{Name: database.Name, NumShards: count(len(database.Shards))}
		for i, shard := range database.Shards {
			replicas := count(len(shard.Replicas))
			told.NumShardReplicas += replicas
			told.LostShardReplicas += count(len(shard.Lost))
			told.NumTransitions += count(len(shard.Joining) + len(shard.Leaving))
			told.MaxReplicas = max(told.MaxReplicas, replicas)
			if i == 0 || replicas < told.MinReplicas {
				told.MinReplicas = replicas
			}
		}
		status.DBs = append(status.DBs, told)
	}
	return status
}

func count(n int) int32 { return int32(n) } //nolint:gosec // Shards and replicas are few: an answer is a megabyte at most.

// siteConditions tells of each core's pod whether its site holds replicas, in the condition that emqx-operator 2.3 made known.
func siteConditions(s Snapshot) []Group {
	storage := s.Observation.Storage
	if !storage.Known() || !storage.Enabled {
		return nil
	}
	var groups []Group
	for pod := range s.eachPod() {
		status := metav1.ConditionUnknown
		switch {
		case storage.Holds(pod.Node) > 0:
			status = metav1.ConditionTrue
		case len(storage.SitesOf(pod.Node)) > 0:
			status = metav1.ConditionFalse
		}
		untold := pod.SiteCondition == "" && status != metav1.ConditionTrue // Nothing is told of what has nothing to lose, or not been asked yet.
		if pod.SiteCondition != status && !untold && !pod.Deleting && s.node(pod).Running() {
			groups = append(groups, Group{SetSiteCondition{Pod: pod.Name, UID: pod.UID, Status: status}})
		}
	}
	return groups
}
