package machine

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// atRest is a Snapshot of a two-node cluster at rest, of whose pods one is on a Kubernetes node that is drained.
func atRest(change ...func(*Snapshot)) Snapshot {
	changes := []func(*Snapshot){without("blue"), func(s *Snapshot) {
		s.NodesWatched, s.EMQX.Status.CoreNodesStatus.CurrentRevision = true, "green"
		s.Budget.Revision = ""
		onDrained("e-core-green-0")(s)
	}}
	return upgrading(v2beta1.PhaseDone, append(changes, change...)...)
}

func onDrained(pod string) func(*Snapshot) {
	return withPod(pod, func(p *Pod) { p.KubernetesNode, p.Drained = "k", true })
}

// remembered has the resource remember that a pod leaves its Kubernetes node, and that pod have left the Services.
func leavingNode(s *Snapshot) {
	s.EMQX.Status.Drain = &v2beta1.DrainStatus{
		PodName: "e-core-green-0", PodUID: "green-0", KubernetesNode: "k", StartedTime: *at(testNow.Add(-time.Second)), ClientsTotal: 10, ClientsTotalTime: at(testNow.Add(-time.Second)),
	}
}

func outOfServices(s *Snapshot) {
	withPod("e-core-green-0", func(p *Pod) { p.OnServing, p.Ready = false, false })(s)
	for kind, service := range s.Services {
		service.Endpoints = []Endpoint{{PodUID: "green-1", Ready: true}}
		s.Services[kind] = service
	}
}

// emptied has the node of the pod be evacuated, to its end.
func emptied(s *Snapshot) {
	withNode("e-core-green-0", clients(0, 0))(s)
	withNode("e-core-green-1", clients(10, 10))(s)
	withNode("e-core-green-0", func(n *evacuate.NodeObservation) {
		n.Evacuation, n.Available = &emqx.EvacuationStatus{State: emqx.StateProhibiting}, false
	})(s)
}

// mayGo has the pod have been let go of some time ago.
func mayGo(ago time.Duration) func(*Snapshot) {
	return func(s *Snapshot) {
		withPod("e-core-green-0", func(p *Pod) { p.LetGo = true })(s)
		s.EMQX.Status.Drain.EmptyTime = at(testNow.Add(-ago))
	}
}

// TestDrain: a pod leaves its Kubernetes node one step at a time.
func TestDrain(t *testing.T) {
	gate := SetGate{Pod: "e-core-green-0", UID: "green-0", Container: "c1", Message: "Kubernetes node k is drained: clients are moved off its node"}
	gone := DeletePod{Name: "e-core-green-0", UID: "green-0"}
	let := LetGo{Name: "e-core-green-0", UID: "green-0", LetGo: true}
	for _, test := range []struct {
		reason  string
		change  []func(*Snapshot)
		begins  bool   // It is noted that the pod leaves.
		waits   string // Of what the condition says; empty for nothing of it.
		actions []Action
		evicts  bool
	}{
		{"the clients are counted first", nil, true, "the number of clients to be noted", nil, false},
		{"then it leaves the Services", []func(*Snapshot){leavingNode}, false, "its readiness gate to be closed", []Action{gate}, false},
		{"which is waited for", []func(*Snapshot){leavingNode, outOfServices, func(s *Snapshot) {
			service := s.Services[resources.Listeners]
			service.Endpoints = append(service.Endpoints, Endpoint{PodUID: "green-0", Ready: true})
			s.Services[resources.Listeners] = service
		}}, false, "to lead to others alone", nil, false},
		{"then its clients are moved", []func(*Snapshot){leavingNode, outOfServices}, false, "has 5 clients and 5 sessions", nil, true},
		{"not while too many are away", []func(*Snapshot){leavingNode, outOfServices, withNode("e-core-green-1", clients(3, 3))}, false, "evicted clients to come back: 2 of 10", nil, false},
		{"not while the other takes none", []func(*Snapshot){leavingNode, outOfServices, withNode("e-core-green-1", func(n *evacuate.NodeObservation) { n.Available = false })},
			false, "a node that stays to answer", nil, false},
		{"not while the other is silent", []func(*Snapshot){leavingNode, outOfServices, withNode("e-core-green-1", silentNode)}, false, "it is silent", nil, false},
		{"it is let go when it is empty", []func(*Snapshot){leavingNode, outOfServices, emptied}, false, "it to be let go", []Action{let}, false},
		{"and evicted by who drains", []func(*Snapshot){leavingNode, outOfServices, emptied, mayGo(time.Second)}, false, "its eviction", nil, false},
		{"or deleted after a while", []func(*Snapshot){leavingNode, outOfServices, emptied, mayGo(time.Minute)}, false, "it to be gone", []Action{gone}, false},
		{"not while its disk holds replicas, and goes with it", []func(*Snapshot){leavingNode, outOfServices, emptied, withReplicas(nil, green0)}, false, "holds replicas", nil, false},
		{"but with a volume", []func(*Snapshot){leavingNode, outOfServices, emptied, withReplicas(nil, green0), withSet("green", func(s *Set) {
			s.Intent = `{"image":"b","volumeClaim":{}}`
		}), func(s *Snapshot) {
			s.Wanted[Core] = Target{Revision: "green", Intent: `{"image":"b","volumeClaim":{}}`, Replicas: 2}
		}}, false, "it to be let go", []Action{let}, false},
		{"not while nobody was asked about that", []func(*Snapshot){leavingNode, outOfServices, emptied, func(s *Snapshot) { s.Observation.Storage.Seen = testNow.Add(-time.Hour) }},
			false, "has not been asked about yet", nil, false},
		{"the next waits until all others serve", []func(*Snapshot){withPod("e-core-green-1", func(p *Pod) { p.Ready = false })}, false, "", nil, false},
		{"a single node stays", []func(*Snapshot){withSet("green", func(s *Set) { s.Replicas, s.NodeCount, s.Pods = 1, 1, s.Pods[:1] }), func(s *Snapshot) {
			s.Wanted[Core] = Target{Revision: "green", Intent: s.Wanted[Core].Intent, Replicas: 1}
		}}, false, "", nil, false},
		{"whoever says how many may be evicted has Kubernetes evict them", []func(*Snapshot){func(s *Snapshot) {
			s.EMQX.Spec.CoreTemplate.Spec.MaxUnavailable = ptr.To(intstr.FromInt32(1))
			s.Budget.Revision = "green"
		}}, false, "", nil, false},
		{"nor where Nodes are not watched", []func(*Snapshot){func(s *Snapshot) { s.NodesWatched, s.Budget.Revision = false, "green" }}, false, "", nil, false},
		{"a pause stops it", []func(*Snapshot){leavingNode, outOfServices, func(s *Snapshot) { s.EMQX.Spec.UpdateStrategy.Paused = true }}, false, "",
			[]Action{SetGate{Pod: "e-core-green-0", UID: "green-0", Container: "c1", Serving: true, Message: "the node runs in its cluster"}}, false},
		{"so does who uncordons it", []func(*Snapshot){leavingNode, outOfServices, withPod("e-core-green-0", func(p *Pod) { p.Drained = false })}, false, "",
			[]Action{SetGate{Pod: "e-core-green-0", UID: "green-0", Container: "c1", Serving: true, Message: "the node runs in its cluster"}}, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s := atRest(test.change...)
			decision := Decide(s)
			var actions []Action
			for _, group := range decision.Groups {
				for _, action := range group {
					switch action.(type) { //nolint:gochecksumtype // Others have nothing to do with it.
					case SetGate, DeletePod, LetGo:
						actions = append(actions, action)
					}
				}
			}
			require.Equal(t, test.actions, actions)
			require.Equal(t, test.begins, decision.Drain != nil && s.EMQX.Status.Drain == nil)
			if test.waits == "" {
				require.Nil(t, decision.Drain)
				require.NotEqual(t, "NodeDrained", decision.Waiting.Reason)
			} else {
				require.NotNil(t, decision.Drain)
				require.Equal(t, "NodeDrained", decision.Waiting.Reason)
				require.Contains(t, decision.Waiting.Message, test.waits)
				require.True(t, decision.Goal.Busy)
			}
			for _, node := range decision.Goal.Nodes {
				evicts := node.Intent == evacuate.Evacuate && node.Evacuation.ConnEvictRate > 0
				require.Equal(t, test.evicts && node.Name == "emqx@e-core-green-0.pods", evicts, node.Name)
				if evicts {
					require.Equal(t, []string{"emqx@e-core-green-1.pods"}, node.Evacuation.Recipients)
				}
			}
		})
	}
}

// TestDrainInMidUpgrade: what serves leaves its Kubernetes node while the new nodes are built, what never served is let go of at once,
// and while clients are moved anyway they are not moved twice.
func TestDrainInMidUpgrade(t *testing.T) {
	watched := func(s *Snapshot) { s.NodesWatched, s.Budget.Revision = true, "" }
	building := upgrading(v2beta1.PhaseProvisioning, serving("blue"), watched, onDrained("e-core-blue-1"), unready2("green"))
	require.Equal(t, "e-core-blue-1", Decide(building).Drain.PodName)

	fresh := upgrading(v2beta1.PhaseProvisioning, serving("blue"), watched, onDrained("e-core-green-1"), withSet("green", func(s *Set) { s.ServingSince = time.Time{} }),
		withNode("e-core-green-0", clients(0, 0)), withNode("e-core-green-1", clients(0, 0)), withPod("e-core-green-0", func(p *Pod) { p.Ready = false }))
	decision := Decide(fresh)
	require.Nil(t, decision.Drain)
	require.Contains(t, decision.Groups, Group{LetGo{Name: "e-core-green-1", UID: "green-1", LetGo: true}})

	about := fresh
	withPod("e-core-green-0", func(p *Pod) { p.Ready = true })(&about)
	withPod("e-core-green-1", func(p *Pod) { p.LetGo = true })(&about)
	decision = Decide(about)
	require.Equal(t, "PodLetGo", decision.Waiting.Reason, "what is about to serve is protected first")
	require.Contains(t, decision.Groups, Group{LetGo{Name: "e-core-green-1", UID: "green-1"}})

	for _, phase := range []v2beta1.Phase{v2beta1.PhaseSwitching, v2beta1.PhaseEvacuating, v2beta1.PhaseScalingDown} {
		for _, pod := range []string{"e-core-blue-1", "e-core-green-1"} {
			require.Nil(t, Decide(upgrading(phase, watched, onDrained(pod))).Drain, "%s in %s", pod, phase)
		}
	}
}

// TestDrainMovesReplicas: those on a disk that goes with its pod are moved to the others.
func TestDrainMovesReplicas(t *testing.T) {
	goal := Decide(atRest(leavingNode, outOfServices)).Goal.Storage
	require.Equal(t, []string{"emqx@e-core-green-1.pods"}, goal.Holders)
	require.Contains(t, goal.Leaving, "emqx@e-core-green-0.pods")
	require.True(t, goal.Busy)
	onItsWayOut := withPod("e-core-green-0", func(p *Pod) { p.Deleting = true })
	require.Empty(t, Decide(atRest(outOfServices, emptied, onItsWayOut)).Goal.Storage.Holders, "nothing is ordered onto a disk that goes")
	withVolume := withSet("green", func(s *Set) { s.Intent = `{"image":"b","volumeClaim":{}}` })
	require.Len(t, Decide(atRest(leavingNode, outOfServices, withVolume)).Goal.Storage.Holders, 2)
}

// TestDrainEvents: that a pod leaves is told once.
func TestDrainEvents(t *testing.T) {
	s := atRest()
	decision := Decide(s)
	events := EventsOf(s.EMQX, decision, StatusOf(s, decision))
	require.Len(t, events, 1)
	require.Equal(t, "NodeDrained", events[0].Reason)
	leavingNode(&s)
	decision = Decide(s)
	require.Empty(t, EventsOf(s.EMQX, decision, StatusOf(s, decision)))
}

// TestDrainForgetsTheDisk: a pod whose disk goes with it stays, once it has ended, until EMQX has forgotten its node.
func TestDrainForgetsTheDisk(t *testing.T) {
	stored := withReplicas(nil, green1)
	kept := withPod("e-core-green-0", func(p *Pod) { p.Finalizers = []string{v2beta1.FinalizerForgotten} })
	ended := withPod("e-core-green-0", func(p *Pod) { p.Deleting, p.ContainerRunning = true, false })
	hold, let := LetGo{Name: "e-core-green-0", UID: "green-0", LetGo: true, Forget: true}, LetGo{Name: "e-core-green-0", UID: "green-0"}
	for _, test := range []struct {
		reason  string
		change  []func(*Snapshot)
		actions []Action
		absent  bool
	}{
		{"it is told to stay", []func(*Snapshot){leavingNode, outOfServices, emptied, stored}, []Action{hold}, false},
		{"then it may be evicted", []func(*Snapshot){leavingNode, outOfServices, emptied, stored, kept, mayGo(time.Second)}, nil, false},
		{"its node is forgotten once it has ended", []func(*Snapshot){outOfServices, emptied, stored, kept, ended}, nil, true},
		{"not before", []func(*Snapshot){outOfServices, emptied, stored, kept, ended, withPod("e-core-green-0", func(p *Pod) { p.ContainerRunning = true })}, nil, false},
		{"then it may go", []func(*Snapshot){outOfServices, emptied, stored, kept, ended, func(s *Snapshot) { s.Observation.Left["emqx@e-core-green-0.pods"] = true }}, []Action{let}, true},
		{"one that does not leave after all is let go of", []func(*Snapshot){kept, withPod("e-core-green-0", func(p *Pod) { p.Drained = false })}, []Action{let}, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			decision := Decide(atRest(test.change...))
			var actions []Action
			for _, group := range decision.Groups {
				for _, action := range group {
					switch action.(type) { //nolint:gochecksumtype // Others have nothing to do with it.
					case LetGo, DeletePod:
						actions = append(actions, action)
					}
				}
			}
			require.Equal(t, test.actions, actions)
			require.Equal(t, test.absent, slices.Contains(decision.Goal.Absent, "emqx@e-core-green-0.pods"))
		})
	}
}
