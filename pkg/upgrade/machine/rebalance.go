package machine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// A Rebalance has EMQX even out the clients of a cluster at rest. One runs at a time, the oldest first. Before EMQX is asked to start
// it, its coordinator is noted in its status: who takes over knows it for the operator's own, and stops it there. What begins in the
// cluster stops it, and it starts again afterwards. It is over when EMQX, asked to start it, finds all nodes within the thresholds:
// that it ran and runs no more may be because a node that took part has died.

// RebalanceRef names a Rebalance as it was seen: what is written to another, or to one that has changed since, is refused.
type RebalanceRef struct {
	Name            string
	UID             types.UID
	ResourceVersion string
}

// FinalizeRebalance gives a Rebalance its finalizers, which are all that it has then. With Events, that is told.
type FinalizeRebalance struct {
	RebalanceRef
	Finalizers []string
	Events     []Event
}

// TellRebalance writes the status of a Rebalance, and then the events.
type TellRebalance struct {
	RebalanceRef
	Status v2beta1.RebalanceStatus
	Events []Event
}

func (FinalizeRebalance) isAction() {}
func (TellRebalance) isAction()     {}

// Reasons of what a Rebalance does or waits for.
const (
	rebalanceRuns     = "Rebalancing"
	rebalanceStarts   = "Starting"
	rebalanceStops    = "Stopping"
	rebalanceQueued   = "Queued"
	rebalanceEven     = "WithinThresholds"
	rebalanceRefused  = "Refused"
	rebalanceLetGo    = "NotStopped"
	upgradeUnderWay   = "UpgradeUnderWay"
	rebalanceUnderWay = "RebalanceUnderWay"
)

// letGoAfter is how long a Rebalance that is deleted waits for EMQX to answer that it is stopped: a frozen member is given up, and a
// start whose answer was lost is over, after two minutes and one.
const letGoAfter = 2 * time.Minute

// rebalance has the decision run, or stop, the Rebalance whose turn it is, and say of the others what they wait for.
func rebalance(s Snapshot, d Decision) Decision {
	turn := s.turn()
	for _, r := range s.Rebalances {
		var action Action
		if turn != nil && r.UID == turn.UID {
			action = rebalanceStep(s, &d, r)
		} else {
			action = idle(s.Now, r, queuedBehind(s, r, turn))
		}
		if action != nil {
			d.Rebalances = append(d.Rebalances, action)
		}
	}
	return d
}

// Unattended is what is done about Rebalances of a cluster that nobody looks after, for a reason that is said: they wait, and
// those that are deleted are let go.
func Unattended(now time.Time, rebalances []*v2beta1.Rebalance, why Lack) []Action {
	var actions []Action
	for _, r := range rebalances {
		if action := idle(now, r, why); action != nil {
			actions = append(actions, action)
		}
	}
	return actions
}

// NoEMQX is that nobody looks after a cluster, because it has no resource.
func NoEMQX(name string) Lack {
	return Lack{"EMQXNotFound", "EMQX " + name + ": there is none of this name"}
}

// LeavingEMQX is the same, because its resource is being deleted.
func LeavingEMQX(name string) Lack {
	return Lack{"EMQXDeleting", "EMQX " + name + ", which is being deleted"}
}

// UnreadableEMQX is the same, because its resource cannot be decoded.
func UnreadableEMQX(name string) Lack {
	return Lack{Undecodable, "EMQX " + name + ", which cannot be decoded"}
}

// turn is the Rebalance that may run, which is the one that was noted to, else the oldest; nil for none.
func (s *Snapshot) turn() *v2beta1.Rebalance {
	candidates := slices.DeleteFunc(slices.Clone(s.Rebalances), func(r *v2beta1.Rebalance) bool {
		return r.Over() || !r.DeletionTimestamp.IsZero() && !keptForStop(r)
	})
	if i := slices.IndexFunc(candidates, func(r *v2beta1.Rebalance) bool { return coordinatorOf(r) != "" }); i >= 0 {
		return candidates[i]
	}
	i := slices.IndexFunc(candidates, func(r *v2beta1.Rebalance) bool { return r.DeletionTimestamp.IsZero() && r.Undecodable() == "" })
	if i < 0 {
		return nil
	}
	return candidates[i]
}

// keptForStop reports whether the operator's finalizer keeps a Rebalance.
func keptForStop(r *v2beta1.Rebalance) bool {
	return slices.Contains(r.Finalizers, v2beta1.FinalizerRebalance)
}

// coordinatorOf is the node that a Rebalance was, or is about to be, started on; empty for none.
func coordinatorOf(r *v2beta1.Rebalance) string {
	if r.Over() || len(r.Status.RebalanceStates) == 0 {
		return ""
	}
	return r.Status.RebalanceStates[0].CoordinatorNode
}

// idle is what is done about a Rebalance that does not run: it waits, and is let go when it is over or deleted.
func idle(now time.Time, r *v2beta1.Rebalance, why Lack) Action {
	switch {
	case keptForStop(r) && r.Over():
		return release(r)
	case !r.DeletionTimestamp.IsZero() && keptForStop(r) && coordinatorOf(r) != "":
		return release(r, Event{corev1.EventTypeWarning, rebalanceLetGo, "Rebalance", "it is let go without having been stopped on " + coordinatorOf(r) + ", while it waits for " + why.Message})
	case !r.DeletionTimestamp.IsZero() && keptForStop(r):
		return release(r)
	case !r.DeletionTimestamp.IsZero() || r.Over():
		return nil
	}
	return toldOf(now, r, v2beta1.RebalanceProcessing, waits(why), statesOf(r, nil))
}

// queuedBehind says what a Rebalance waits for whose turn it is not.
func queuedBehind(s Snapshot, r, turn *v2beta1.Rebalance) Lack {
	switch {
	case r.Undecodable() != "":
		return Lack{Undecodable, "a person to correct it: it cannot be decoded: " + r.Undecodable()}
	case turn == nil:
		return Lack{rebalanceQueued, "EMQX " + s.EMQX.Name}
	}
	return Lack{rebalanceQueued, "Rebalance " + turn.Name + " to end: one runs at a time"}
}

// rebalanceStep is the next step of the Rebalance whose turn it is.
func rebalanceStep(s Snapshot, d *Decision, r *v2beta1.Rebalance) Action {
	coordinator, outcome := coordinatorOf(r), s.outcomeOf(r)
	goal := evacuate.RebalanceGoal{ID: string(r.UID), Coordinator: coordinator}
	nodes := s.rebalanced()
	switch lack := s.restless(r, *d); {
	case !r.DeletionTimestamp.IsZero():
		return endRebalance(s, d, r, goal)
	case blind(s):
		return nil // Who has just begun leaves alone what may run until all nodes have been asked.
	case outcome.Even:
		return toldOf(s.Now, r, v2beta1.RebalanceCompleted, Lack{rebalanceEven, "all nodes are within the thresholds"}, nil)
	case outcome.Invalid != "":
		return toldOf(s.Now, r, v2beta1.RebalanceFailed, Lack{rebalanceRefused, outcome.Invalid}, nil)
	case !lack.None():
		if coordinator != "" {
			d.Goal.Rebalance = goal
		}
		return toldOf(s.Now, r, v2beta1.RebalanceProcessing, waits(lack), statesOf(r, s.donations(coordinator)))
	case !keptForStop(r):
		return FinalizeRebalance{RebalanceRef: refOf(r), Finalizers: append(slices.Clone(r.Finalizers), v2beta1.FinalizerRebalance)}
	case !slices.Contains(nodes, coordinator):
		return toldOf(s.Now, r, v2beta1.RebalanceProcessing, waits(Lack{rebalanceStarts, "EMQX to be asked on " + nodes[0]}), []v2beta1.RebalanceState{{
			State: string(emqx.RebalanceDisabled), Node: nodes[0], CoordinatorNode: nodes[0],
			ConnectionEvictionRate: r.Spec.RebalanceStrategy.ConnEvictRate, SessionEvictionRate: r.Spec.RebalanceStrategy.SessEvictRate,
		}})
	}
	goal.Run, goal.Rebalance = true, orderOf(r.Spec.RebalanceStrategy, nodes)
	d.Goal.Rebalance, d.Goal.Busy = goal, true
	states := statesOf(r, s.donations(coordinator))
	lack := waits(Lack{rebalanceStarts, "EMQX to begin, or to find all nodes within the thresholds"})
	switch {
	case len(states[0].Donors) > 0:
		lack = Lack{rebalanceRuns, fmt.Sprintf("EMQX moves clients from %s to %s", strings.Join(states[0].Donors, ", "), strings.Join(states[0].Recipients, ", "))}
	case outcome.Failure != "":
		lack = waits(Lack{rebalanceStarts, "EMQX to take the order: " + outcome.Failure})
	}
	return toldOf(s.Now, r, v2beta1.RebalanceProcessing, lack, states)
}

// endRebalance stops a Rebalance that is deleted, and lets it go then, or when that cannot be had in time.
func endRebalance(s Snapshot, d *Decision, r *v2beta1.Rebalance, goal evacuate.RebalanceGoal) Action {
	d.Goal.Rebalance = goal
	pod, exists := s.byNode()[goal.Coordinator]
	left := letGoAfter - s.Now.Sub(r.DeletionTimestamp.Time)
	switch {
	case !exists, !pod.ContainerRunning, s.outcomeOf(r).Stopped: // A coordinator that ends takes its rebalance along.
		return release(r, Event{corev1.EventTypeNormal, "Stopped", "Rebalance", "it is stopped, since it was deleted"})
	case left <= 0:
		return release(r, Event{corev1.EventTypeWarning, rebalanceLetGo, "Rebalance", fmt.Sprintf("it is let go after %s: node %s does not say that it has stopped: %s",
			letGoAfter, goal.Coordinator, cmp.Or(s.outcomeOf(r).Failure, "no answer"))})
	}
	d.Goal.Busy = true
	d.After = soonest(d.After, left)
	return toldOf(s.Now, r, v2beta1.RebalanceProcessing, waits(Lack{rebalanceStops, "EMQX to stop it, since it was deleted"}), statesOf(r, s.donations(goal.Coordinator)))
}

// outcomeOf is what came of the orders about a Rebalance.
func (s *Snapshot) outcomeOf(r *v2beta1.Rebalance) evacuate.RebalanceObservation {
	if s.Observation.Rebalance.ID == string(r.UID) {
		return s.Observation.Rebalance
	}
	return evacuate.RebalanceObservation{}
}

// rebalanced are the nodes that take part: those of the set that serves, by ordinal.
func (s *Snapshot) rebalanced() []string {
	var names []string
	if set := s.targetSet(Core); set != nil {
		for _, pod := range set.Pods {
			names = append(names, pod.Node)
		}
	}
	return names
}

// restless says what a Rebalance waits for: it runs only in a cluster where nothing else is under way, and where all is known.
func (s *Snapshot) restless(r *v2beta1.Rebalance, d Decision) Lack {
	name := "EMQX " + s.EMQX.Name
	switch {
	case r.Undecodable() != "":
		return Lack{Undecodable, "a person to correct it: it cannot be decoded: " + r.Undecodable()}
	case d.Paused:
		return Lack{statePaused, "spec.updateStrategy.paused of " + name + " to be removed"}
	case d.Stalled != nil:
		return Lack{nodesNotReady, name + " to be ready: " + d.Stalled.Message}
	case s.phase() != v2beta1.PhaseDone || d.Phase != v2beta1.PhaseDone:
		return Lack{upgradeUnderWay, "the upgrade of " + name + " to end"}
	case d.Drain != nil || s.anyDrained():
		return Lack{"NodeDrained", "pods of " + name + " to leave a Kubernetes node that is drained"}
	}
	for pod := range s.eachPod() {
		if node := s.node(pod); node.Evacuation != nil || node.Ordered() {
			return Lack{nodeEvacuated, "the evacuation of node " + pod.Node + " to end"}
		}
	}
	for _, lack := range []Lack{anySilent(*s, ""), d.Waiting, d.Unknown} {
		if !lack.None() {
			return Lack{cmp.Or(lack.Reason, nodesNotReady), name + " to be ready: " + lack.Message}
		}
	}
	if other := s.foreignCoordinator(coordinatorOf(r)); other != "" {
		return Lack{rebalanceUnderWay, "the rebalance that node " + other + " coordinates, which the operator did not start, to end"}
	}
	return Lack{}
}

// foreignCoordinator is a node that coordinates a rebalance and is not the one that the operator's is on; empty for none.
func (s *Snapshot) foreignCoordinator(ours string) string {
	for pod := range s.eachPod() {
		if donation := s.node(pod).Donation; donation != nil && donation.Coordinator != ours {
			return donation.Coordinator
		}
	}
	return ""
}

// anyDonor says which node gives clients to a rebalance: EMQX does not evacuate it meanwhile.
func anyDonor(s Snapshot) Lack {
	for pod := range s.eachPod() {
		if donation := s.node(pod).Donation; donation != nil {
			return Lack{rebalanceUnderWay, fmt.Sprintf("the rebalance that node %s coordinates to end: node %s gives clients to it", donation.Coordinator, pod.Node)}
		}
	}
	return Lack{}
}

// donations are the rebalance of a coordinator as its donors tell of it; nil while none does.
func (s *Snapshot) donations(coordinator string) *v2beta1.RebalanceState {
	var state *v2beta1.RebalanceState
	for pod := range s.eachPod() {
		donation := s.node(pod).Donation
		if donation == nil || donation.Coordinator != coordinator {
			continue
		}
		if state == nil {
			state = &v2beta1.RebalanceState{State: string(donation.State), Recipients: slices.Sorted(slices.Values(donation.Recipients))}
		}
		state.Donors = append(state.Donors, pod.Node)
	}
	return state
}

// statesOf is what is noted of a Rebalance in EMQX: its coordinator stands, the rest is as its donors tell.
func statesOf(r *v2beta1.Rebalance, seen *v2beta1.RebalanceState) []v2beta1.RebalanceState {
	if coordinatorOf(r) == "" {
		return nil
	}
	state := r.Status.RebalanceStates[0]
	state.State, state.Donors, state.Recipients = string(emqx.RebalanceDisabled), nil, nil
	if seen != nil {
		state.State, state.Donors, state.Recipients = seen.State, seen.Donors, seen.Recipients
	}
	return []v2beta1.RebalanceState{state}
}

// orderOf is what EMQX is asked for.
func orderOf(strategy v2beta1.RebalanceStrategy, nodes []string) emqx.Rebalance {
	return emqx.Rebalance{
		ConnEvictRate: strategy.ConnEvictRate, SessEvictRate: strategy.SessEvictRate,
		WaitHealthCheck: strategy.WaitHealthCheck, WaitTakeover: strategy.WaitTakeover,
		AbsConnThreshold: strategy.AbsConnThreshold, AbsSessThreshold: strategy.AbsSessThreshold,
		RelConnThreshold: strategy.RelConnThreshold, RelSessThreshold: strategy.RelSessThreshold, Nodes: nodes,
	}
}

func refOf(r *v2beta1.Rebalance) RebalanceRef {
	return RebalanceRef{Name: r.Name, UID: r.UID, ResourceVersion: r.ResourceVersion}
}

// release takes the operator's finalizer off.
func release(r *v2beta1.Rebalance, events ...Event) Action {
	return FinalizeRebalance{RebalanceRef: refOf(r), Events: events, Finalizers: slices.DeleteFunc(slices.Clone(r.Finalizers), func(name string) bool {
		return name == v2beta1.FinalizerRebalance
	})}
}

func waits(lack Lack) Lack { return Lack{lack.Reason, "waiting for " + lack.Message} }
