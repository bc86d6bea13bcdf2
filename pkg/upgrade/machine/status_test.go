package machine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// told is a condition in short.
func told(status v2beta1.EMQXStatus, kind string) string {
	condition := meta.FindStatusCondition(status.Conditions, kind)
	return string(condition.Status) + " " + condition.Reason
}

func TestConditions(t *testing.T) {
	for _, test := range []struct {
		reason                        string
		s                             Snapshot
		failures                      []Failure
		state                         string
		ready, available, progressing string
		stalled                       string
	}{
		{"all is well", upgrading(v2beta1.PhaseDone, without("blue")), nil, "Ready", "True Done", "True EndpointsReady", "False Done", "False NotStalled"},
		{"what does not serve is not ready", upgrading(v2beta1.PhaseDone, without("blue"), func(s *Snapshot) {
			s.Services[resources.Listeners] = Service{Revision: "green", State: Current}
		}), nil, "NotReady", "False NoEndpoints", "False NoEndpoints", "False Done", "False NotStalled"},
		{"a node that does not answer at rest is told, and proves nothing", upgrading(v2beta1.PhaseDone, without("blue"), withNode("e-core-green-0", silentNode)), nil,
			"Ready", "True Done", "True EndpointsReady", "False Done", "False NotStalled"},
		{"what an upgrade waits for is its reason", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withPod("e-core-green-1", func(p *Pod) { p.Trouble = "ImagePullBackOff" })), nil,
			"Provisioning", "False PodTrouble", "True EndpointsReady", "True PodTrouble", "False NotStalled"},
		{"a write that may succeed the next time", upgrading(v2beta1.PhaseDone, without("blue")), []Failure{{Message: "timeout"}},
			"NotReady", "False ActionFailed", "True EndpointsReady", "False Done", "False NotStalled"},
		{"one that never will", upgrading(v2beta1.PhaseDone, without("blue")), []Failure{{Message: "ports[0].name: must be no more than 15 characters", Final: true}},
			"Stalled", "False Refused", "True EndpointsReady", "False Refused", "True Refused"},
		{"paused", upgrading(v2beta1.PhaseEvacuating, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })), nil,
			"Paused", "False Paused", "True EndpointsReady", "False Paused", "False NotStalled"},
		{"being deleted, and kept by a finalizer", upgrading(v2beta1.PhaseDone, func(s *Snapshot) {
			s.EMQX.DeletionTimestamp, s.EMQX.Finalizers = ptr.To(metav1.NewTime(testNow)), []string{"them/keep"}
		}), nil, "Deleting", "False Deleting", "True EndpointsReady", "False Deleting", "False NotStalled"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			status := StatusOf(test.s, Decide(test.s), test.failures...)
			require.Equal(t, test.state, status.State)
			require.Equal(t, test.ready, told(status, v2beta1.ConditionReady))
			require.Equal(t, test.available, told(status, v2beta1.ConditionAvailable))
			require.Equal(t, test.progressing, told(status, v2beta1.ConditionProgressing))
			require.Equal(t, test.stalled, told(status, v2beta1.ConditionStalled))
		})
	}
}

// TestLastWordsStand: an operator that has just begun says nothing else before it has asked.
func TestLastWordsStand(t *testing.T) {
	s := upgrading(v2beta1.PhaseDone, without("blue"))
	before := StatusOf(s, Decide(s))
	s.EMQX.Status, s.Observation, s.Now = before, evacuate.Observation{}, s.Now.Add(time.Minute)
	require.Equal(t, before, StatusOf(s, Decide(s)))
	s.Observation = evacuate.Observation{Nodes: map[string]evacuate.NodeObservation{}}
	for _, pod := range s.pods() {
		s.Observation.Nodes[pod.Node] = evacuate.NodeObservation{Life: pod.Container, Failure: "the node does not answer"}
	}
	require.Equal(t, "unknown", StatusOf(s, Decide(s)).CoreNodes[0].NodeStatus, "nodes that were asked and are silent are told")
}

// TestGoneNodesAreToldUntilForgotten: the status remembers nodes whose set somebody took away.
func TestGoneNodesAreToldUntilForgotten(t *testing.T) {
	s := upgrading(v2beta1.PhaseDone, without("blue"))
	s.EMQX.Status.CoreNodes = []v2beta1.EMQXNode{{Node: "emqx@e-core-blue-0.pods", NodeStatus: "running"}}
	decision := Decide(s)
	require.Contains(t, decision.Goal.Absent, "emqx@e-core-blue-0.pods")
	status := StatusOf(s, decision)
	require.Equal(t, "stopped", status.CoreNodes[len(status.CoreNodes)-1].NodeStatus)
	s.Observation.Left["emqx@e-core-blue-0.pods"] = true
	require.Len(t, StatusOf(s, decision).CoreNodes, 2)
}

func TestEstimateIsWithdrawnWhileNothingMoves(t *testing.T) {
	moving := func(live ...int64) func(*evacuate.NodeObservation) {
		return func(n *evacuate.NodeObservation) {
			for i, count := range live {
				n.Samples = append(n.Samples, evacuate.Sample{At: testNow.Add(time.Duration(i-len(live)+1) * time.Second), Live: count})
			}
			n.Info.LiveConnections.Value = live[len(live)-1]
		}
	}
	still := withUpgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsTotal = 0 })
	estimate := func(change ...func(*Snapshot)) *metav1.Time {
		s := upgrading(v2beta1.PhaseEvacuating, append([]func(*Snapshot){still, withNode("e-core-blue-0", state(emqx.StateEvictingConns)), withNode("e-core-blue-1", state(emqx.StateEvictingConns))}, change...)...)
		return StatusOf(s, Decide(s)).Upgrade.EstimatedEndTime
	}
	require.NotNil(t, estimate(withNode("e-core-blue-0", moving(50, 45, 40, 35, 30, 25))))
	require.Nil(t, estimate(withNode("e-core-blue-0", moving(50, 50, 50, 50, 50, 50, 50))))
	require.Nil(t, estimate(withNode("e-core-blue-0", moving(50, 45, 40, 35, 30, 25)), withNode("e-core-green-0", silentNode)), "held")
}

func TestEventsOfAHold(t *testing.T) {
	s := upgrading(v2beta1.PhaseEvacuating, withNode("e-core-green-0", silentNode))
	decision := Decide(s)
	status := StatusOf(s, decision)
	require.Equal(t, memberSilent, status.Upgrade.HeldReason)
	require.Equal(t, []string{reasonHeld}, reasonsOf(EventsOf(s.EMQX, decision, status)))
	s.EMQX.Status = status
	withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Failure = "" })(&s)
	evacuatedBlue(&s)
	decision = Decide(s)
	require.Equal(t, v2beta1.PhaseScalingDown, decision.Phase)
	status = StatusOf(s, decision)
	require.Nil(t, status.Upgrade.HeldTime, "no hold is taken along")
	require.Contains(t, reasonsOf(EventsOf(s.EMQX, decision, status)), reasonResumed)
}

func reasonsOf(events []Event) []string {
	var reasons []string
	for _, event := range events {
		reasons = append(reasons, event.Reason)
	}
	return reasons
}

// TestCurrentIsWhatServed: a Service that was lost while another revision is only asked for leads back to the one that served.
func TestCurrentIsWhatServed(t *testing.T) {
	s := upgrading(v2beta1.PhaseDone, without("green"), withCurrent("blue"), withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true }),
		func(s *Snapshot) { s.Services = map[resources.ServiceKind]Service{} })
	require.Equal(t, "blue", StatusOf(s, Decide(s)).CoreNodesStatus.CurrentRevision)
}
