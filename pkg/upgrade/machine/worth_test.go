package machine

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// TestWorth: what a person or a machine learns something from is written, the more the sooner.
func TestWorth(t *testing.T) {
	const never, atOnce = time.Duration(-1), time.Duration(0)
	full := func() v2beta1.EMQXStatus {
		s := upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", clients(500, 500)), withNode("e-core-blue-0", state(emqx.StateEvictingConns)),
			withNode("e-core-green-0", clients(500, 500)), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsTotal = 1005 }))
		return StatusOf(s, Decide(s))
	}
	condition := func(kind string, change func(*metav1.Condition)) func(*v2beta1.EMQXStatus) {
		return func(s *v2beta1.EMQXStatus) {
			for i := range s.Conditions {
				if s.Conditions[i].Type == kind {
					change(&s.Conditions[i])
				}
			}
		}
	}
	upgrade := func(change func(*v2beta1.UpgradeStatus)) func(*v2beta1.EMQXStatus) {
		return func(s *v2beta1.EMQXStatus) { change(s.Upgrade) }
	}
	estimate := func(in time.Duration) func(*v2beta1.EMQXStatus) {
		return upgrade(func(u *v2beta1.UpgradeStatus) { u.EstimatedEndTime = ptr.To(metav1.NewTime(testNow.Add(in))) })
	}
	for _, test := range []struct {
		reason         string
		before, change func(*v2beta1.EMQXStatus)
		after          time.Duration // The last write.
	}{
		{"nothing", nil, func(*v2beta1.EMQXStatus) {}, never},
		{"a phase", nil, func(s *v2beta1.EMQXStatus) { s.Phase = v2beta1.PhaseScalingDown }, atOnce},
		{"a generation that was seen", nil, func(s *v2beta1.EMQXStatus) { s.ObservedGeneration++ }, atOnce},
		{"a hold begins", nil, upgrade(func(u *v2beta1.UpgradeStatus) { u.HeldTime, u.HeldReason = at(testNow), clientsAway }), atOnce},
		{"another baseline", nil, upgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsTotal++ }), atOnce},
		{"a pause", nil, upgrade(func(u *v2beta1.UpgradeStatus) { u.PausedTime = at(testNow) }), atOnce},
		{"a condition becomes True", nil, condition(v2beta1.ConditionReady, func(c *metav1.Condition) { c.Status = metav1.ConditionTrue }), atOnce},
		{"what somebody else wrote", nil, func(s *v2beta1.EMQXStatus) { s.ReplicantNodesStatus.Replicas = 7 }, atOnce},
		{"it stalls for another reason", condition(v2beta1.ConditionStalled, func(c *metav1.Condition) { c.Status, c.Reason = metav1.ConditionTrue, "Refused" }),
			condition(v2beta1.ConditionStalled, func(c *metav1.Condition) { c.Status, c.Reason = metav1.ConditionTrue, "NameTaken" }), atOnce},
		{"an evacuation runs", nil, func(s *v2beta1.EMQXStatus) {
			s.NodeEvacuationsStatus = append(s.NodeEvacuationsStatus, v2beta1.NodeEvacuationStatus{Node: "another", ConnectionEvictionRate: 1})
		}, soonAfter},
		{"it runs faster", nil, func(s *v2beta1.EMQXStatus) { s.NodeEvacuationsStatus[0].ConnectionEvictionRate++ }, newsAfter},
		{"a node has joined", nil, func(s *v2beta1.EMQXStatus) {
			s.CoreNodes = append(s.CoreNodes, v2beta1.EMQXNode{Node: "another", NodeStatus: "running"})
		}, soonAfter},
		{"a Service selects another revision", nil, func(s *v2beta1.EMQXStatus) { s.CoreNodesStatus.CurrentRevision = "red" }, soonAfter},
		{"an evacuation is over", nil, func(s *v2beta1.EMQXStatus) { s.NodeEvacuationsStatus = nil }, newsAfter},
		{"it waits for something else", nil, condition(v2beta1.ConditionProgressing, func(c *metav1.Condition) { c.Reason = "NodeSilent" }), newsAfter},
		{"a pod is ready", nil, func(s *v2beta1.EMQXStatus) { s.CoreNodesStatus.ReadyReplicas++ }, newsAfter},
		{"a node is silent", nil, func(s *v2beta1.EMQXStatus) { s.CoreNodes[0].NodeStatus = "unknown" }, newsAfter},
		{"a pod was made", nil, func(s *v2beta1.EMQXStatus) {
			s.CoreNodes = append(s.CoreNodes, v2beta1.EMQXNode{Node: "another", NodeStatus: "unknown"})
		}, newsAfter},
		{"sessions are moved", nil, func(s *v2beta1.EMQXStatus) { s.NodeEvacuationsStatus[0].State = "evicting_sessions" }, newsAfter},
		{"something else decides the rate", nil, upgrade(func(u *v2beta1.UpgradeStatus) { u.LimitedBy = v2beta1.LimitedByClients }), newsAfter},
		{"a tenth of the clients has moved", nil, upgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsMoved += 101 }), newsAfter},
		{"another end is estimated", estimate(time.Minute), estimate(70 * time.Second), newsAfter},
		{"one that is about the same", estimate(time.Minute), estimate(69 * time.Second), detailAfter},
		{"other words for the same", nil, upgrade(func(u *v2beta1.UpgradeStatus) { u.WaitingFor = "no answer in time" }), detailAfter},
		{"some clients have moved", nil, upgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsPerSecond++ }), detailAfter},
		{"a tenth of the clients has gone", nil, func(s *v2beta1.EMQXStatus) { s.Clients -= 101 }, countsAfter},
		{"the first client", func(s *v2beta1.EMQXStatus) { s.Clients = 0 }, func(s *v2beta1.EMQXStatus) { s.Clients = 1 }, countsAfter},
		{"clients of a node", nil, func(s *v2beta1.EMQXStatus) { s.Clients -= 100; s.CoreNodes[0].LiveConnections -= 100 }, never},
		{"a client has gone", nil, func(s *v2beta1.EMQXStatus) { s.Clients--; s.CoreNodes[0].LiveConnections-- }, never},
	} {
		t.Run(test.reason, func(t *testing.T) {
			before, after := full(), full()
			if test.before != nil {
				test.before(&before)
				test.before(&after)
			}
			test.change(&after)
			now, in := Worth(before, after, 0)
			require.Equal(t, test.after == atOnce, now)
			if test.after > 0 {
				require.Equal(t, test.after, in)
				now, in = Worth(before, after, test.after-time.Millisecond)
				require.False(t, now)
				require.Equal(t, time.Millisecond, in)
				now, _ = Worth(before, after, test.after)
				require.True(t, now)
			} else {
				require.Zero(t, in)
			}
			now, _ = Worth(before, after, 24*time.Hour)
			require.Equal(t, test.after != never, now)
		})
	}
}

// TestStatusWritesWhileNothingChanges: in an hour in which errors are told in other words each time, and clients come and go,
// the status is written once a minute at most.
func TestStatusWritesWhileNothingChanges(t *testing.T) {
	noise := func(s *Snapshot, second int) {
		for i, pod := range s.pods() {
			withNode(pod.Name, func(n *evacuate.NodeObservation) {
				if n.Failure != "" {
					n.Failure = []string{"no answer in time", "connection refused", "connection reset"}[second%3]
					return
				}
				n.Seen = s.Now
				n.Samples = nil
				if n.OrderFailure != "" {
					n.OrderFailure = fmt.Sprintf("refused %d times", second)
				}
				if n.Info.LiveConnections.Value > 0 {
					n.Info.LiveConnections.Value = 500 + int64((second+i)%4)
					n.Info.Connections.Value = n.Info.LiveConnections.Value + int64(second%3)
				}
			})(s)
			withPod(pod.Name, func(p *Pod) {
				if p.Trouble != "" {
					p.Trouble = fmt.Sprintf("container emqx: CrashLoopBackOff: exit code %d", second%2)
				}
			})(s)
		}
		if s.Observation.Failure != "" {
			s.Observation.Failure = fmt.Sprintf("status %d", 500+second%3)
		}
	}
	many := func(s *Snapshot) {
		for _, pod := range s.pods() {
			withNode(pod.Name, clients(500, 500))(s)
		}
		s.EMQX.Status.Upgrade.ClientsTotal = 2100
	}
	troubled := func(p *Pod) {
		p.Trouble, p.ContainersReady, p.Ready, p.ContainerRunning = "container emqx", false, false, false
	}
	slices := func(s *Snapshot) {
		for kind, service := range s.Services {
			service.Endpoints = service.Endpoints[:1]
			s.Services[kind] = service
		}
	}
	for _, test := range []struct {
		reason string
		s      Snapshot
	}{
		{"a pod crashes", upgrading(v2beta1.PhaseProvisioning, serving("blue"), many, withPod("e-core-green-0", troubled))},
		{"a new node is silent", upgrading(v2beta1.PhaseProvisioning, serving("blue"), many, withNode("e-core-green-0", silentNode))},
		{"an old node is silent", upgrading(v2beta1.PhaseProvisioning, serving("blue"), many, withNode("e-core-blue-0", silentNode))},
		{"the slices are not switched", upgrading(v2beta1.PhaseSwitching, many, slices)},
		{"the delay", upgrading(v2beta1.PhaseSwitching, many, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.InitialDelaySeconds = 7200 }))},
		{"evictions are held for a member", upgrading(v2beta1.PhaseEvacuating, many, withNode("e-core-green-0", silentNode))},
		{"nobody takes clients", upgrading(v2beta1.PhaseEvacuating, many, withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Available = false }),
			withNode("e-core-green-1", func(n *evacuate.NodeObservation) { n.Available = false }))},
		{"a node does not do as it is told", upgrading(v2beta1.PhaseEvacuating, many, evacuatedBlue, withNode("e-core-blue-0", func(n *evacuate.NodeObservation) { n.Evacuation, n.OrderFailure = nil, "refused" }))},
		{"clients that nobody can move", upgrading(v2beta1.PhaseEvacuating, many, evacuatedBlue)},
		{"a leaving node has clients again", upgrading(v2beta1.PhaseScalingDown, many, evacuatedBlue)},
		{"a leaving node is silent", upgrading(v2beta1.PhaseScalingDown, many, evacuatedBlue, withNode("e-core-blue-1", silentNode))},
		{"EMQX does not forget", upgrading(v2beta1.PhaseScalingDown, many, withSet("blue", func(s *Set) { s.Replicas, s.Pods = 0, nil }), func(s *Snapshot) { s.Observation.Failure = "status 500" })},
		{"paused", upgrading(v2beta1.PhaseEvacuating, many, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true }))},
		{"stalled", upgrading(v2beta1.PhaseEvacuating, many, func(s *Snapshot) { s.ConfigError = errors.New("line 1") })},
		{"at rest", upgrading(v2beta1.PhaseDone, without("blue"), many)},
		{"at rest, with a node that is silent", upgrading(v2beta1.PhaseDone, without("blue"), many, withNode("e-core-green-0", silentNode))},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s, phase := test.s, test.s.EMQX.Status.Phase
			var writes int
			var last time.Time
			for second := 0; second < 3600; second += 7 {
				s.Now = testNow.Add(time.Duration(second) * time.Second)
				noise(&s, second)
				decision := Decide(s)
				require.Equal(t, phase, decision.Phase, "it waits")
				status := StatusOf(s, decision)
				if worth, _ := Worth(s.EMQX.Status, status, s.Now.Sub(last)); worth {
					s.EMQX.Status, last = status, s.Now
					writes++
				}
			}
			require.LessOrEqual(t, writes, 62)
		})
	}
}
