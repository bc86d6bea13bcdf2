package upgrade

import (
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	applyv2beta1 "github.com/emqx-bg/emqx-bg-operator/pkg/generated/applyconfiguration/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// statusOf is the status that a Snapshot and what was decided of it amount to. failure is why an action failed, nil for
// none.
func statusOf(s Snapshot, d Decision, failure error) v2beta1.EMQXStatus {
	status := v2beta1.EMQXStatus{
		ObservedGeneration:    s.EMQX.Generation,
		Phase:                 d.Phase,
		Clients:               liveClients(s),
		CoreNodes:             coreNodes(s),
		CoreNodesStatus:       coreNodesStatus(s, d),
		NodeEvacuationsStatus: evacuations(s),
		Upgrade:               upgradeOf(s, d),
	}
	status.Conditions = conditions(s, d, failure)
	status.State = stateWord(d, status.Conditions)
	return status
}

// The words of EMQXStatus.State that are no phase.
const (
	stateReady    = "Ready"
	stateNotReady = "NotReady"
	statePaused   = "Paused"
	stateStalled  = "Stalled"
)

// stateWord is one word for people.
func stateWord(d Decision, conditions []metav1.Condition) string {
	switch {
	case d.Stalled != nil:
		return stateStalled
	case d.Paused:
		return statePaused
	case d.Phase != v2beta1.PhaseDone:
		return string(d.Phase)
	case meta.IsStatusConditionTrue(conditions, v2beta1.ConditionReady):
		return stateReady
	default:
		return stateNotReady
	}
}

// conditions are Ready, Available, Progressing and Stalled, in this order. Each keeps the time of its last change.
func conditions(s Snapshot, d Decision, failure error) []metav1.Condition {
	now := metav1.NewTime(s.Now)
	kept := append([]metav1.Condition(nil), s.EMQX.Status.Conditions...)
	var all []metav1.Condition
	for _, condition := range []metav1.Condition{ready(d, failure), available(s), progressing(d), stalled(d)} {
		condition.ObservedGeneration = s.EMQX.Generation
		condition.LastTransitionTime = now
		if old := meta.FindStatusCondition(kept, condition.Type); old != nil && old.Status == condition.Status {
			condition.LastTransitionTime = old.LastTransitionTime
		}
		all = append(all, condition)
	}
	return all
}

func condition(kind string, value bool, reason, message string) metav1.Condition {
	status := metav1.ConditionFalse
	if value {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

func ready(d Decision, failure error) metav1.Condition {
	switch {
	case d.Stalled != nil:
		return condition(v2beta1.ConditionReady, false, d.Stalled.Reason, d.Stalled.Message)
	case failure != nil:
		return condition(v2beta1.ConditionReady, false, "ActionFailed", failure.Error())
	case d.Phase != v2beta1.PhaseDone:
		return condition(v2beta1.ConditionReady, false, string(d.Phase), waitingFor(d))
	case d.Waiting != "" && !d.Paused:
		return condition(v2beta1.ConditionReady, false, "NodesNotReady", waitingFor(d))
	}
	return condition(v2beta1.ConditionReady, true, "Done", "the cluster is as the specification asks")
}

func waitingFor(d Decision) string {
	if d.Waiting == "" {
		return ""
	}
	return "waiting for " + d.Waiting
}

func available(s Snapshot) metav1.Condition {
	count := 0
	service, exists := s.Services[resources.Listeners]
	for _, endpoint := range service.Endpoints {
		if endpoint.Ready {
			count++
		}
	}
	if !exists && !resources.ServiceEnabled(s.EMQX, resources.Listeners) {
		for _, pod := range s.pods() {
			if pod.Ready {
				count++
			}
		}
	}
	if count == 0 {
		return condition(v2beta1.ConditionAvailable, false, "NoEndpoints", "no pod takes clients")
	}
	return condition(v2beta1.ConditionAvailable, true, "EndpointsReady", fmt.Sprintf("%d pods take clients", count))
}

func progressing(d Decision) metav1.Condition {
	switch {
	case d.Stalled != nil:
		return condition(v2beta1.ConditionProgressing, false, d.Stalled.Reason, d.Stalled.Message)
	case d.Paused:
		return condition(v2beta1.ConditionProgressing, false, statePaused, waitingFor(d))
	case d.Phase == v2beta1.PhaseDone:
		return condition(v2beta1.ConditionProgressing, false, "Done", "no upgrade is under way")
	}
	return condition(v2beta1.ConditionProgressing, true, string(d.Phase), waitingFor(d))
}

func stalled(d Decision) metav1.Condition {
	if d.Stalled != nil {
		return condition(v2beta1.ConditionStalled, true, d.Stalled.Reason, d.Stalled.Message)
	}
	return condition(v2beta1.ConditionStalled, false, "NotStalled", "")
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
	return nodes
}

func coreNodesStatus(s Snapshot, d Decision) v2beta1.EMQXNodesStatus {
	status := v2beta1.EMQXNodesStatus{
		Replicas: s.wantedReplicas(), CurrentRevision: s.currentRevision(), UpdateRevision: s.Revision,
	}
	if s.Revision == "" {
		status.UpdateRevision = s.EMQX.Status.CoreNodesStatus.UpdateRevision // The specification cannot be read.
	}
	if d.Phase == v2beta1.PhaseEvacuating || d.Phase == v2beta1.PhaseDone {
		if _, exists := s.Services[resources.Listeners]; !exists && s.Revision != "" {
			status.CurrentRevision = s.Revision // There is no Service to tell, and the switch is over.
		}
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
	for _, pod := range s.pods() {
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

func evacuationStatus(node string, e evacuate.Status) v2beta1.NodeEvacuationStatus {
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
	upgrade.WaitingFor = d.Waiting
	upgrade.ClientsMoved, upgrade.ClientsPerSecond, upgrade.EstimatedEndTime = 0, 0, nil
	for _, pod := range s.pods() {
		if s.isUpdate(pod) {
			upgrade.ClientsMoved += s.node(pod).Info.LiveConnections.Value
		}
	}
	if d.Phase == v2beta1.PhaseEvacuating {
		var outgoing []evacuate.NodeObservation
		for _, pod := range outgoingPods(s) {
			outgoing = append(outgoing, s.node(pod))
		}
		upgrade.ClientsPerSecond = evacuate.Rate(outgoing, s.Now, returnGrace)
		upgrade.EstimatedEndTime = estimatedEnd(s, evacuate.Remaining(outgoing, rate(s.strategy().ConnEvictRate), rate(s.strategy().SessEvictRate),
			time.Duration(s.strategy().WaitTakeover)*time.Second))
	}
	if upgrade.ClientsTotalTime == nil {
		upgrade.ClientsMoved = 0
	}
	if equality.Semantic.DeepEqual(upgrade, v2beta1.UpgradeStatus{}) {
		return nil
	}
	return &upgrade
}

// estimatedEnd is the end of what remains, to the second. The last estimate stands while it is about right: a status that
// differs in nothing else need not be written.
func estimatedEnd(s Snapshot, remaining time.Duration) *metav1.Time {
	end := metav1.NewTime(s.Now.Add(remaining).Truncate(time.Second).Add(time.Second))
	if last := s.upgradeStatus().EstimatedEndTime; last != nil && last.After(s.Now) && end.Sub(last.Time).Abs() <= 2*time.Second {
		return last
	}
	return &end
}

// applyStatus is the apply configuration of a status.
func applyStatus(emqx *v2beta1.EMQX, status v2beta1.EMQXStatus) (*applyv2beta1.EMQXApplyConfiguration, error) {
	data, err := json.Marshal(status)
	if err != nil {
		return nil, fmt.Errorf("write the status of %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	apply := applyv2beta1.EMQXStatus()
	if err := json.Unmarshal(data, apply); err != nil {
		return nil, fmt.Errorf("write the status of %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	return applyv2beta1.EMQX(emqx.Name, emqx.Namespace).WithUID(emqx.UID).WithStatus(apply), nil
}
