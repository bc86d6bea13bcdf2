package machine

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// Failure is why an action failed.
type Failure struct {
	// Message says what was being done to which object, and what came of it.
	Message string
	// Final tells that trying again does not help: the API server refused it, and only a person can change that.
	Final bool
}

// StatusOf is the status that a Snapshot and what was decided of it amount to. failures are the actions that failed.
func StatusOf(s Snapshot, d Decision, failures ...Failure) v2beta1.EMQXStatus {
	old := s.EMQX.Status
	if d.Gone {
		status := *old.DeepCopy()
		status.State = stateDeleting
		status.Conditions = conditions(s, d)
		return status
	}
	if blind(s) && d.Phase == old.Phase && d.Stalled == nil && old.ObservedGeneration == s.EMQX.Generation && equality.Semantic.DeepEqual(d.Upgrade, s.upgradeStatus()) {
		return old
	}
	for _, failure := range failures {
		if failure.Final && d.Stalled == nil {
			d.Stalled = &Lack{"Refused", failure.Message}
		}
	}
	live, _ := liveClients(s)
	status := v2beta1.EMQXStatus{
		ObservedGeneration:    s.EMQX.Generation,
		Phase:                 d.Phase,
		Clients:               live,
		CoreNodes:             coreNodes(s),
		CoreNodesStatus:       coreNodesStatus(s, d),
		NodeEvacuationsStatus: evacuations(s),
		EvacuationsToStop:     evacuationsToStop(s, d),
		DSReplication:         storageStatus(s),
		Upgrade:               upgradeOf(s, d),
		Drain:                 d.Drain,
	}
	status.Conditions = conditions(s, d, failures...)
	status.State = stateWord(d, status.Conditions)
	return status
}

// The words of EMQXStatus.State that are no phase.
const (
	// StateReady is the word for a cluster that is as it shall be.
	StateReady = "Ready"
	// StateStalled is the word for one that waits for a person.
	StateStalled  = "Stalled"
	stateNotReady = "NotReady"
	statePaused   = "Paused"
	stateDeleting = "Deleting"
)

// stateWord is one word for people.
func stateWord(d Decision, conditions []metav1.Condition) string {
	switch {
	case d.Stalled != nil:
		return StateStalled
	case d.Paused:
		return statePaused
	case d.Phase != v2beta1.PhaseDone:
		return string(d.Phase)
	case meta.IsStatusConditionTrue(conditions, v2beta1.ConditionReady):
		return StateReady
	default:
		return stateNotReady
	}
}

func coreNodes(s Snapshot) []v2beta1.EMQXNode {
	told := map[string]v2beta1.EMQXNode{}
	for _, node := range s.EMQX.Status.CoreNodes {
		told[node.Node] = node
	}
	var nodes []v2beta1.EMQXNode
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			observed := s.node(pod)
			node := v2beta1.EMQXNode{
				Node: pod.Node, PodName: pod.Name, PodUID: pod.UID, ControllerUID: set.UID, NodeStatus: "unknown", Role: v2beta1.RoleCore,
			}
			if observed.Seen.IsZero() {
				// Not asked since the operator started: what was told last is better than nothing, and is not called known.
				last := told[pod.Node]
				node.Connections, node.LiveConnections, node.Version, node.LastSeenTime = last.Connections, last.LiveConnections, last.Version, last.LastSeenTime
			} else {
				info := observed.Info
				node.Role, node.Version, node.Edition, node.OTPRelease = info.Role, info.Version, info.Edition, info.OTPRelease
				node.Connections, node.LiveConnections = info.Connections.Value, info.LiveConnections.Value
			}
			if s.mayBeLost(set, pod) && s.remade(pod) {
				node.PodUID = told[pod.Node].PodUID // Until it runs: so it is remembered that its disk is another.
			}
			switch {
			case observed.Known():
				node.NodeStatus = observed.Info.Status
			case s.stopped(pod):
				node.NodeStatus = "stopped"
			case !observed.Seen.IsZero():
				seen := metav1.NewTime(observed.Seen.Truncate(time.Second))
				node.LastSeenTime = &seen
			}
			nodes = append(nodes, node)
		}
	}
	return append(nodes, goneNodes(s)...)
}

// goneNodes are those whose pods have gone and that EMQX has not forgotten yet, or whose pods are about to be made again: as long as
// they are told, they are not forgotten here either.
func goneNodes(s Snapshot) []v2beta1.EMQXNode {
	var nodes []v2beta1.EMQXNode
	missing := append(absent(s), s.keptNodes()...)
	for _, told := range s.EMQX.Status.CoreNodes {
		if slices.ContainsFunc(s.pods(), func(pod Pod) bool { return pod.Node == told.Node }) {
			continue // It counts as gone, and is told with its pod.
		}
		if slices.Contains(missing, told.Node) && !s.Observation.Left[told.Node] {
			told.NodeStatus, told.Connections, told.LiveConnections = "stopped", 0, 0
			nodes = append(nodes, told)
		}
	}
	return nodes
}

func coreNodesStatus(s Snapshot, d Decision) v2beta1.EMQXNodesStatus {
	target := s.target(Core)
	status := v2beta1.EMQXNodesStatus{
		Replicas: target.Replicas, CurrentRevision: s.currentRevision(), UpdateRevision: target.Revision,
	}
	if target.Revision == "" {
		status.UpdateRevision = s.EMQX.Status.CoreNodesStatus.UpdateRevision // The specification cannot be read.
	}
	set := s.targetSet(Core)
	over := d.Phase == v2beta1.PhaseEvacuating || d.Phase == v2beta1.PhaseDone
	if over && s.Services[resources.Listeners].Revision == "" && set != nil && !set.ServingSince.IsZero() {
		status.CurrentRevision = target.Revision // There is no Service to tell, and the switch is over.
	}
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			if !s.node(pod).Running() {
				continue
			}
			if pod.Ready {
				status.ReadyReplicas++
			}
			if set.Revision == status.CurrentRevision {
				status.CurrentReplicas++
			}
			if set.Revision == status.UpdateRevision {
				status.UpdateReplicas++
			}
		}
	}
	return status
}

// evacuations are the evacuations that run, as each node last told of its own.
func evacuations(s Snapshot) []v2beta1.NodeEvacuationStatus {
	told := map[string]v2beta1.NodeEvacuationStatus{}
	for _, status := range s.EMQX.Status.NodeEvacuationsStatus {
		told[status.Node] = status
	}
	var all []v2beta1.NodeEvacuationStatus
	for pod := range s.eachPod() {
		observed := s.node(pod)
		if observed.Seen.IsZero() {
			if last, ok := told[pod.Node]; ok {
				all = append(all, last)
			}
			continue
		}
		if observed.Evacuation != nil {
			all = append(all, evacuationStatus(pod.Node, *observed.Evacuation))
		}
	}
	return all
}

func evacuationStatus(node string, e emqx.EvacuationStatus) v2beta1.NodeEvacuationStatus {
	return v2beta1.NodeEvacuationStatus{
		Node: node, State: string(e.State), SessionRecipients: e.Recipients,
		SessionEvictionRate: e.SessEvictRate, ConnectionEvictionRate: e.ConnEvictRate,
		Stats: v2beta1.NodeEvacuationStats{
			InitialSessions: &e.InitialSessions, InitialConnected: &e.InitialConnected,
			CurrentSessions: &e.CurrentSessions, CurrentConnected: &e.CurrentConnected,
		},
	}
}

// upgradeOf is what the decision remembers of the upgrade, with its progress.
func upgradeOf(s Snapshot, d Decision) *v2beta1.UpgradeStatus {
	upgrade := d.Upgrade
	upgrade.WaitingFor = d.Waiting.Message
	upgrade.ClientsMoved, upgrade.ClientsPerSecond, upgrade.EstimatedEndTime, upgrade.DelayedMessages = 0, 0, nil, delayedMessages(s)
	if upgrade.ClientsTotalTime != nil {
		for _, pod := range s.staying() {
			upgrade.ClientsMoved += s.node(pod).Info.LiveConnections.Value
		}
	}
	if d.Phase == v2beta1.PhaseEvacuating {
		leaving := s.observations(s.leaving())
		upgrade.ClientsPerSecond = evacuate.Rate(leaving, s.Now, rateWindow)
		upgrade.EstimatedEndTime = estimatedEnd(s, d, leaving, upgrade.ClientsPerSecond)
	}
	if d.Phase == v2beta1.PhaseScalingDown {
		moveReplicas(s, &upgrade)
	}
	if equality.Semantic.DeepEqual(upgrade, v2beta1.UpgradeStatus{}) {
		return nil
	}
	return &upgrade
}

// moveReplicas tells how far the move of replicas off the leaving nodes is and, at the pace so far, when it will be over.
func moveReplicas(s Snapshot, upgrade *v2beta1.UpgradeStatus) {
	storage := s.Observation.Storage
	if !storage.Known() || upgrade.PhaseStartedTime == nil || storage.Seen.Before(upgrade.PhaseStartedTime.Time) {
		return
	}
	var left int64
	for _, pod := range s.leavingPods() {
		left += int64(storage.Holds(pod.Node))
	}
	upgrade.ReplicasTotal = max(upgrade.ReplicasTotal, left)
	upgrade.ReplicasMoved = upgrade.ReplicasTotal - left
	if left > 0 && upgrade.ReplicasMoved > 0 {
		took := s.Now.Sub(upgrade.PhaseStartedTime.Time)
		upgrade.EstimatedEndTime = about(s, s.Now.Add(took*time.Duration(left)/time.Duration(upgrade.ReplicasMoved)))
	}
}

// about is an estimate to the second. The last stands while it is about right: a status that differs in nothing else need not be
// written.
func about(s Snapshot, end time.Time) *metav1.Time {
	estimate := metav1.NewTime(end.Truncate(time.Second).Add(time.Second))
	if last := s.upgradeStatus().EstimatedEndTime; last != nil && last.After(s.Now) && estimate.Sub(last.Time).Abs() <= 2*time.Second {
		return last
	}
	return &estimate
}

// estimatedEnd is when the leaving nodes will be empty. There is none while nothing moves.
func estimatedEnd(s Snapshot, d Decision, leaving []evacuate.NodeObservation, perSecond int64) *metav1.Time {
	var live int64
	for _, node := range leaving {
		live += node.Info.LiveConnections.Value
	}
	stands := live > 0 && perSecond == 0 && inPhase(s) > 2*rateWindow
	if d.Upgrade.ConnEvictRate == 0 || d.Upgrade.HeldTime != nil || d.Paused || stands {
		return nil
	}
	return about(s, s.Now.Add(evacuate.Remaining(leaving, courseOf(s, d))))
}

// courseOf is how the evacuation is expected to go on: at its present rate or, while it has just begun and nobody knows yet how
// soon clients are back, from then on as if they were back at once.
func courseOf(s Snapshot, d Decision) evacuate.Course {
	course := evacuate.Course{
		Now: s.Now, ConnRate: d.Upgrade.ConnEvictRate, SessRate: rate(s.strategy().SessEvictRate), WaitTakeover: time.Duration(s.strategy().WaitTakeover) * time.Second,
	}
	if began := d.Upgrade.EvacuationStartedTime; began != nil {
		course.Ramp = max(0, evacuate.RampTime-s.Now.Sub(began.Time))
	}
	if course.Ramp > 0 {
		limit := maxUnavailable(s, d.Upgrade.ClientsTotal)
		course.LaterConnRate = evacuate.PaceOf(evacuate.PaceInput{Limit: limit, ConnEvictRate: rate(s.strategy().ConnEvictRate), Prompt: true}).Tick
	}
	return course
}
