package machine

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// undisturbed is an evacuation in which all goes as it should: two nodes do what the operator says, and each evicted client is
// back before the next look. Its time is virtual.
type undisturbed struct {
	s Snapshot
	// until is when a node's wait for takeovers is over.
	until map[string]time.Time
	// told are the estimates, by when they were made.
	told []estimateAt
}

type estimateAt struct{ at, end time.Time }

func newUndisturbed(clientsEach, sessionsEach int64, strategy v2beta1.EvacuationStrategy) *undisturbed {
	u := &undisturbed{until: map[string]time.Time{}, s: upgrading(v2beta1.PhaseEvacuating, withUpgrade(func(u *v2beta1.UpgradeStatus) {
		u.ClientsTotal, u.ClientsTotalTime, u.EvacuationStartedTime, u.PhaseStartedTime = 0, nil, nil, at(testNow)
	}))}
	u.s.EMQX.Spec.UpdateStrategy.EvacuationStrategy = strategy
	for i := range 2 {
		withNode(fmt.Sprintf("e-core-blue-%d", i), clients(clientsEach, clientsEach+sessionsEach))(&u.s)
		withNode(fmt.Sprintf("e-core-green-%d", i), clients(0, 0))(&u.s)
	}
	return u
}

// run runs it to its end and returns how long it took; zero when it did not end in an hour.
func (u *undisturbed) run() time.Duration {
	for u.s.Now.Sub(testNow) < time.Hour {
		u.look()
		decision := Decide(u.s)
		for decision.After == AtOnce {
			u.s.EMQX.Status = StatusOf(u.s, decision)
			decision = Decide(u.s)
		}
		if decision.Phase == v2beta1.PhaseScalingDown {
			return u.s.Now.Sub(testNow)
		}
		status := StatusOf(u.s, decision)
		if end := status.Upgrade.EstimatedEndTime; end != nil {
			u.told = append(u.told, estimateAt{u.s.Now, end.Time})
		}
		u.s.EMQX.Status = status
		u.obey(decision.Goal)
		u.s.Now = u.s.Now.Add(time.Second)
	}
	return 0
}

// look has all nodes answer.
func (u *undisturbed) look() {
	for name, node := range u.s.Observation.Nodes {
		node.Seen = u.s.Now
		node.Samples = append(node.Samples, evacuate.Sample{At: u.s.Now, Live: node.Info.LiveConnections.Value})
		if len(node.Samples) > 75 {
			node.Samples = node.Samples[1:]
		}
		u.s.Observation.Nodes[name] = node
	}
}

// obey lets a second pass: nodes take their orders, and EMQX does a tick's worth.
func (u *undisturbed) obey(goal evacuate.Goal) {
	var evicted int64
	for _, order := range goal.Nodes {
		node := u.s.Observation.Nodes[order.Name]
		if order.Intent == evacuate.Serve {
			node.Evacuation, node.AskedConnRate, node.AskedSessRate = nil, 0, 0
		}
		if order.Intent == evacuate.Evacuate {
			node.AskedConnRate, node.AskedSessRate = order.Evacuation.ConnEvictRate, order.Evacuation.SessEvictRate
			if node.Evacuation == nil || node.Evacuation.ConnEvictRate != order.Evacuation.ConnEvictRate || node.Evacuation.SessEvictRate != order.Evacuation.SessEvictRate {
				node.Evacuation = &emqx.EvacuationStatus{State: emqx.StateEvictingConns, ConnEvictRate: node.AskedConnRate, SessEvictRate: node.AskedSessRate, Recipients: order.Evacuation.Recipients}
			}
		}
		if node.Evacuation != nil {
			evicted += u.tick(order.Name, &node, order.Evacuation.WaitTakeover)
		}
		u.s.Observation.Nodes[order.Name] = node
	}
	back := u.s.Observation.Nodes["emqx@e-core-green-0.pods"]
	back.Info.LiveConnections.Value += evicted
	back.Info.Connections.Value += evicted
	u.s.Observation.Nodes["emqx@e-core-green-0.pods"] = back
}

// tick is what EMQX does in a second; it returns how many clients it evicted.
func (u *undisturbed) tick(name string, node *evacuate.NodeObservation, takeover time.Duration) int64 {
	evacuation := *node.Evacuation
	defer func() { node.Evacuation = &evacuation }()
	live, all := &node.Info.LiveConnections.Value, &node.Info.Connections.Value
	switch evacuation.State {
	case emqx.StateEvictingConns:
		evicted := min(*live, int64(evacuation.ConnEvictRate))
		*live, *all = *live-evicted, *all-evicted
		if *live == 0 {
			evacuation.State, u.until[name] = emqx.StateWaitingTakeover, u.s.Now.Add(takeover)
		}
		return evicted
	case emqx.StateWaitingTakeover:
		if !u.s.Now.Before(u.until[name]) {
			evacuation.State = emqx.StateEvictingSessions
		}
	case emqx.StateEvictingSessions:
		*all -= min(*all, int64(evacuation.SessEvictRate))
		if *all == 0 {
			evacuation.State = emqx.StateProhibiting
		}
	case emqx.StateWaitingHealthCheck, emqx.StateProhibiting:
	}
	return 0
}

// TestEstimate: when the evacuation runs undisturbed, the end that was told is at most a fifth of the remaining time wrong, and
// never more than a few seconds when little remains.
func TestEstimate(t *testing.T) {
	const slack = 3 * time.Second
	for _, test := range []struct {
		clients, sessions  int64
		connRate, sessRate int32
		limit              string
		takeover           int32
	}{
		{1500, 0, 1000, 1000, "10%", 1},
		{1500, 0, 1000, 1000, "10%", 10},
		{1500, 0, 50, 1000, "10%", 10},
		{1500, 0, 1000, 1000, "100%", 10},
		{1500, 500, 50, 10, "100%", 10},
		{1500, 3000, 1000, 20, "20%", 5},
		{50, 0, 1000, 1000, "10%", 10},
		{50, 5, 5, 1, "50%", 1},
		{100000, 0, 1000, 1000, "10%", 10},
		{100000, 20000, 200, 100, "1%", 30},
		{0, 1000, 1000, 20, "10%", 10},
		{5, 0, 1000, 1000, "10%", 1},
	} {
		t.Run(fmt.Sprintf("%d clients and %d sessions a node, %d and %d a second, %s away, %d s for takeovers",
			test.clients, test.sessions, test.connRate, test.sessRate, test.limit, test.takeover), func(t *testing.T) {
			u := newUndisturbed(test.clients, test.sessions, v2beta1.EvacuationStrategy{
				ConnEvictRate: test.connRate, SessEvictRate: test.sessRate, WaitTakeover: test.takeover, MaxUnavailableClients: ptr.To(intstr.FromString(test.limit)),
			})
			took := u.run()
			require.NotZero(t, took, "it ends")
			require.NotEmpty(t, u.told)
			end, worst := testNow.Add(took), estimateAt{}
			var off time.Duration
			for _, told := range u.told {
				remains := end.Sub(told.at)
				if wrong := told.end.Sub(end).Abs() - max(remains/5, slack); wrong > off {
					off, worst = wrong, told
				}
			}
			t.Logf("it took %s; first told: %s", took, u.told[0].end.Sub(testNow))
			require.Zero(t, off, "after %s it said %s, and it took %s", worst.at.Sub(testNow), worst.end.Sub(testNow), took)
		})
	}
}
