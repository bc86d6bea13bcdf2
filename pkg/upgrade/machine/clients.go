package machine

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

const (
	// departedAfter is how long evictions must have been stopped, and nobody have come back, for those who are missing to
	// have left for good: twice the longest back-off that clients are known to have.
	departedAfter = time.Minute
	// rateWindow is over how long the clients that leave a second are counted.
	rateWindow = 5 * time.Second
	// defaultRate is the schema's default, for objects that were stored without one.
	defaultRate = 1000
)

func rate(asked int32) int32 {
	if asked < 1 {
		return defaultRate
	}
	return asked
}

// liveClients is the number of clients of the cluster, at the last beat that all nodes have answered at. A node that does
// not answer counts with what was last known, by an operator before this one, if need be.
func liveClients(s Snapshot) (live int64, beat time.Time) {
	told := map[types.UID]int64{} // Those of a pod before are on their way to others, if they have not come there.
	for _, node := range s.EMQX.Status.CoreNodes {
		told[node.PodUID] = node.LiveConnections
	}
	var total int64
	var nodes []evacuate.NodeObservation
	for pod := range s.eachPod() {
		node := s.node(pod)
		switch {
		case s.stopped(pod), !node.Known() && s.unlisted(pod):
			// Where EMQX counts the node as stopped, its clients are on their way to others, and would count twice.
		case !node.Seen.IsZero():
			nodes = append(nodes, node)
		default:
			total += told[pod.UID]
		}
	}
	live, beat = evacuate.LiveTogether(nodes)
	return total + live, beat
}

func (s *Snapshot) observations(pods []Pod) []evacuate.NodeObservation {
	nodes := make([]evacuate.NodeObservation, 0, len(pods))
	for _, pod := range pods {
		nodes = append(nodes, s.node(pod))
	}
	return nodes
}

// maxUnavailable is how many clients may be away at once, of so many when the evacuation began.
func maxUnavailable(s Snapshot, baseline int64) int64 {
	limit := intstr.FromString("10%")
	if asked := s.strategy().MaxUnavailableClients; asked != nil {
		limit = *asked
	}
	value, err := intstr.GetScaledValueFromIntOrPercent(&limit, int(baseline), true)
	if err != nil {
		return 0 // The schema lets nothing pass that is no number or percentage: the least rather than a guess.
	}
	return int64(value)
}

// noteClients notes the baseline, before anything is evicted.
func noteClients(s Snapshot, upgrade *v2beta1.UpgradeStatus) {
	upgrade.ClientsTotal, _ = liveClients(s)
	upgrade.ClientsTotalTime, upgrade.EvacuationStartedTime = at(s.Now), at(s.Now)
}

// baselineSteps is in how many steps the baseline may go up by as many clients as may be away.
const baselineSteps = 20

// follow lets the baseline follow the number of clients: up when more come, and down when those who are missing have left
// for good, since they must not hold an upgrade for ever. Up it goes by a step more than is seen: it is remembered, and a
// cluster that grows all day would have it written each second. Too high it only calls more clients away than are.
func follow(s Snapshot, upgrade *v2beta1.UpgradeStatus) {
	live, _ := liveClients(s)
	held := upgrade.HeldTime
	if live > upgrade.ClientsTotal {
		upgrade.ClientsTotal, upgrade.ClientsTotalTime = live+maxUnavailable(s, live)/baselineSteps, at(s.Now)
	}
	if held == nil || upgrade.HeldReason != clientsAway {
		return
	}
	if evacuate.Departed(s.observations(s.pods()), s.Now, held.Time, departedAfter, upgrade.ClientsTotal-live) {
		upgrade.ClientsTotal, upgrade.ClientsTotalTime = live, at(s.Now)
	}
}

// pace is how fast connections may be evicted now.
func pace(s Snapshot, upgrade v2beta1.UpgradeStatus, leaving []Pod) evacuate.Pace {
	limit := maxUnavailable(s, upgrade.ClientsTotal)
	live, beat := liveClients(s)
	return evacuate.PaceOf(evacuate.PaceInput{
		Baseline: upgrade.ClientsTotal, Live: live, SeenFor: seenFor(s, beat), Limit: limit, ConnEvictRate: rate(s.strategy().ConnEvictRate),
		Held:   upgrade.HeldTime != nil && upgrade.HeldReason == clientsAway,
		Prompt: evacuate.Prompt(s.observations(leaving), s.observations(s.pods()), upgrade.ClientsTotal, limit),
	})
}

// seenFor is how long ago a beat was.
func seenFor(s Snapshot, beat time.Time) time.Duration {
	if beat.IsZero() {
		return 0
	}
	return s.Now.Sub(beat)
}

// nextLook is when the pace must be judged again: when the next look at the nodes is late, and again for every further look
// that does not come.
func nextLook(s Snapshot) time.Duration {
	_, beat := liveClients(s)
	late := seenFor(s, beat) - evacuate.LateAfter
	if beat.IsZero() {
		return time.Second
	}
	if late < 0 {
		return -late
	}
	return time.Second - late%time.Second
}

// clientsAway is the reason of a hold because too many clients are away.
const clientsAway = "ClientsAway"

// holdReason says why no connection may be evicted now.
func holdReason(s Snapshot, upgrade v2beta1.UpgradeStatus, pace evacuate.Pace) Lack {
	if lack := unobserved(s); !lack.None() {
		return lack
	}
	if lack := anySilent(s, upgrade.HeldReason); !lack.None() {
		return lack
	}
	if lack := anyDonor(s); !lack.None() {
		return lack
	}
	if len(recipients(s)) == 0 {
		return Lack{"NoRecipients", "a node that stays to answer and to take clients"}
	}
	if pace.Hold {
		return Lack{clientsAway, fmt.Sprintf("evicted clients to come back: %d of %d are away, evictions are stopped", pace.Away, upgrade.ClientsTotal)}
	}
	return Lack{}
}

// recipients are the nodes that take sessions: those that stay, answer and take clients.
func recipients(s Snapshot) []string { return recipientsOf(s, s.staying()) }

// recipientsOf are the nodes of some pods that take sessions.
func recipientsOf(s Snapshot, pods []Pod) []string {
	var names []string
	for _, pod := range pods {
		if node := s.node(pod); node.Running() && node.Available && !pod.Deleting {
			names = append(names, pod.Node)
		}
	}
	return names
}

// plan splits the rates over the leaving nodes. With hold no connection is evicted.
func plan(s Snapshot, tick int32, hold bool) map[string]evacuate.Order {
	return planOf(s, s.leaving(), recipients(s), tick, hold)
}

// planOf splits the rates over nodes that give their clients and sessions to others.
func planOf(s Snapshot, leaving []Pod, recipients []string, tick int32, hold bool) map[string]evacuate.Order {
	input := evacuate.PlanInput{
		ConnEvictRate: tick, SessEvictRate: rate(s.strategy().SessEvictRate),
		WaitTakeover: time.Duration(s.strategy().WaitTakeover) * time.Second,
		Recipients:   recipients, Hold: hold,
	}
	told := map[string]v2beta1.NodeEvacuationStatus{}
	for _, status := range s.EMQX.Status.NodeEvacuationsStatus {
		told[status.Node] = status
	}
	for _, pod := range leaving {
		if s.stopped(pod) {
			continue
		}
		node := evacuate.PlanNode{Name: pod.Node, Observation: s.node(pod)}
		if status, ok := told[pod.Node]; ok {
			node.StatusConnRate, node.StatusSessRate = status.ConnectionEvictionRate, status.SessionEvictionRate
		}
		input.Leaving = append(input.Leaving, node)
	}
	return evacuate.Plan(input)
}
