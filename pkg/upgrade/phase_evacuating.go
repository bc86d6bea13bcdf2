package upgrade

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

const (
	// returnGrace is how long an evicted client may take to come back before it counts as overdue.
	returnGrace = 5 * time.Second
	// steadyAfter is how long the number of clients must stand still for the baseline to follow it.
	steadyAfter = time.Minute
)

// evacuating moves connections and sessions off the outgoing nodes.
//
//	waits for  every outgoing node to have no client and no session, and to be past the moving of connections
//	does       has them evacuated together, the rates split among them, to the nodes that stay; stops while too many
//	           evicted clients are missing, or the Services do not lead to the update revision alone
//	then       ScalingDown
func evacuating(s Snapshot) Decision {
	update := s.updateSet()
	if update == nil || !switched(s) {
		return advance(s, v2beta1.PhasePending, "the Services do not lead to revision "+s.Revision+" any more")
	}
	left := notEmpty(s)
	if left == "" {
		return advance(s, v2beta1.PhaseScalingDown, "no client and no session is left on the outgoing nodes")
	}
	decision := wait(s, left)
	decision.After = time.Second
	if decision.Upgrade.ClientsTotalTime == nil {
		decision.Waiting = "the number of clients to be noted"
		decision.Upgrade.ClientsTotal, decision.Upgrade.ClientsTotalTime = liveClients(s), at(s.Now)
		decision.Goal = evacuationGoal(s, nil)
		decision.After = atOnce
		return decision
	}
	follow(s, &decision)
	if missing := unobserved(s, *update); missing != "" {
		decision.Waiting = missing
		decision.Goal = evacuationGoal(s, running(s, plan(s, *update), false))
		return decision
	}
	planned := plan(s, *update)
	if watch(s, &decision) {
		planned = running(s, planned, true)
	}
	decision.Goal = evacuationGoal(s, planned)
	return decision
}

// notEmpty says which outgoing nodes are not empty yet; empty when all are.
func notEmpty(s Snapshot) string {
	count, first := 0, ""
	for _, pod := range outgoingPods(s) {
		if lack := occupied(s, pod); lack != "" {
			count++
			if first == "" {
				first = pod.Node + " " + lack
			}
		}
	}
	if count == 0 {
		return ""
	}
	return fmt.Sprintf("%d outgoing nodes to be empty: %s", count, first)
}

// outgoingPods are the pods of outgoing sets that have served.
func outgoingPods(s Snapshot) []Pod {
	var pods []Pod
	for _, set := range s.outgoing() {
		if s.served(set) {
			pods = append(pods, set.Pods...)
		}
	}
	return pods
}

// occupied says why an outgoing pod may not be removed; empty when it may. Unknown is not zero.
func occupied(s Snapshot, pod Pod) string {
	node := s.freshNode(pod)
	switch {
	case node.Empty(), s.stopped(pod), overDeadline(s):
		return ""
	case !node.Known():
		return "does not answer: " + node.Failure
	case node.Evacuation == nil && node.OrderFailure != "":
		return "does not do as it is told: " + node.OrderFailure
	case node.Evacuation == nil:
		return fmt.Sprintf("has %d clients and %d sessions and is not being evacuated", node.Info.LiveConnections.Value, node.Info.Connections.Value)
	}
	return fmt.Sprintf("has %d clients and %d sessions (%s)", node.Info.LiveConnections.Value, node.Info.Connections.Value, node.Evacuation.State)
}

// overDeadline reports whether the user's deadline for the evacuation has passed.
func overDeadline(s Snapshot) bool {
	deadline := s.strategy().DeadlineSeconds
	if deadline == nil {
		return false
	}
	limit := time.Duration(*deadline) * time.Second
	switch upgrade := s.upgradeStatus(); s.EMQX.Status.Phase {
	case v2beta1.PhaseEvacuating:
		return inPhase(s) >= limit
	case v2beta1.PhaseScalingDown:
		// When the evacuation began is not remembered any more: when it could begin at the earliest is.
		delay := time.Duration(s.EMQX.Spec.UpdateStrategy.InitialDelaySeconds) * time.Second
		return upgrade.SwitchedTime != nil && s.Now.Sub(upgrade.SwitchedTime.Time) >= delay+limit+time.Duration(upgrade.PausedSeconds)*time.Second
	default:
		return false
	}
}

// plan splits the rates over the outgoing nodes.
func plan(s Snapshot, update Set) map[string]evacuate.Evacuation {
	input := evacuate.PlanInput{
		ConnEvictRate: rate(s.strategy().ConnEvictRate), SessEvictRate: rate(s.strategy().SessEvictRate),
		WaitTakeover: time.Duration(s.strategy().WaitTakeover) * time.Second,
	}
	for _, pod := range update.Pods {
		if node := s.node(pod); node.Running() && node.Available && !pod.Deleting {
			input.Recipients = append(input.Recipients, pod.Node)
		}
	}
	told := map[string]v2beta1.NodeEvacuationStatus{}
	for _, status := range s.EMQX.Status.NodeEvacuationsStatus {
		told[status.Node] = status
	}
	for _, pod := range outgoingPods(s) {
		if s.stopped(pod) {
			continue
		}
		input.Outgoing = append(input.Outgoing, evacuate.PlanNode{
			Name: pod.Node, Observation: s.node(pod),
			StatusConnRate: told[pod.Node].ConnectionEvictionRate, StatusSessRate: told[pod.Node].SessionEvictionRate,
		})
	}
	return evacuate.Plan(input)
}

// defaultRate is the schema's default, for objects that were stored without one.
const defaultRate = 1000

func rate(asked int32) int32 {
	if asked < 1 {
		return defaultRate
	}
	return asked
}

// running keeps of a plan what already runs, so that nothing new starts; with held, only what evicts no connection any
// more: the moving of sessions disconnects nobody.
func running(s Snapshot, planned map[string]evacuate.Evacuation, held bool) map[string]evacuate.Evacuation {
	kept := map[string]evacuate.Evacuation{}
	for name, evacuation := range planned {
		status := s.Observation.Nodes[name].Evacuation
		if status == nil || held && (status.State == evacuate.StateEvictingConns || status.State == evacuate.StateWaitingHealthCheck) {
			continue
		}
		kept[name] = evacuation
	}
	return kept
}

// watch is the guard of the evacuation: it reports whether evictions must be stopped because too many evicted clients
// are missing, and notes since when.
func watch(s Snapshot, decision *Decision) bool {
	input := evacuate.GuardInput{
		Now: s.Now, Baseline: decision.Upgrade.ClientsTotal, Live: liveClients(s), Grace: returnGrace,
		Limit: maxUnavailable(s, decision.Upgrade.ClientsTotal), Held: decision.Upgrade.HeldTime != nil,
	}
	for _, pod := range outgoingPods(s) {
		input.Outgoing = append(input.Outgoing, s.node(pod))
	}
	if !evacuate.Hold(input) {
		decision.Upgrade.HeldTime = nil
		return false
	}
	if decision.Upgrade.HeldTime == nil {
		decision.Upgrade.HeldTime = at(s.Now)
	}
	decision.Waiting = fmt.Sprintf("evicted clients to come back: %d of %d are missing, evictions are stopped", evacuate.Overdue(input), input.Baseline)
	return true
}

func maxUnavailable(s Snapshot, baseline int64) int64 {
	limit := intstr.FromString("10%")
	if asked := s.strategy().MaxUnavailableClients; asked != nil {
		limit = *asked
	}
	value, err := intstr.GetScaledValueFromIntOrPercent(&limit, int(baseline), true)
	if err != nil {
		return 0 // The schema lets nothing pass that is no number or percentage: hold rather than guess.
	}
	return int64(value)
}

// follow lets the baseline follow the number of clients when that has stood still: clients that left on their own must
// not hold an upgrade for ever.
func follow(s Snapshot, decision *Decision) {
	var nodes []evacuate.NodeObservation
	for _, pod := range s.pods() {
		nodes = append(nodes, s.node(pod))
	}
	live, baseline := liveClients(s), decision.Upgrade.ClientsTotal
	if live != baseline && evacuate.Steady(nodes, s.Now, steadyAfter, baseline/1000) {
		decision.Upgrade.ClientsTotal, decision.Upgrade.ClientsTotalTime = live, at(s.Now)
	}
}

// liveClients is the number of clients of the cluster. A node that does not answer counts with what was last known.
func liveClients(s Snapshot) int64 {
	told := map[string]int64{}
	for _, node := range s.EMQX.Status.CoreNodes {
		told[node.Node] = node.LiveConnections
	}
	var total int64
	for _, pod := range s.pods() {
		node, seen := s.Observation.Nodes[pod.Node]
		switch {
		case s.stopped(pod):
		case seen && !node.Seen.IsZero():
			total += node.Info.LiveConnections.Value
		default:
			total += told[pod.Node]
		}
	}
	return total
}
