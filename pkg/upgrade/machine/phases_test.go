package machine

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

var testNow = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// upgrading is a Snapshot of a two-node cluster in the middle of an upgrade from blue to green, in the given phase, in
// which nothing is wrong: everything that the phase waits for is there.
func upgrading(phase v2beta1.Phase, change ...func(*Snapshot)) Snapshot {
	s := Snapshot{
		Now: testNow, Wanted: map[Role]Target{Core: {Revision: "green", Intent: `{"image":"b"}`, Replicas: 2}},
		Headless: Current, CookieSecret: Current, KeysSecret: Current, Config: resources.Config{Ports: setOfTwo("green", testNow).Ports},
		ConfigMaps: map[string]ObjectState{"e-configs-blue": Current, "e-configs-green": Current},
		EMQX: &v2beta1.EMQX{
			ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", Generation: 2},
			Spec:       v2beta1.EMQXSpec{Image: "b"},
			Status: v2beta1.EMQXStatus{Phase: phase, Upgrade: &v2beta1.UpgradeStatus{
				From: "blue", To: "green", StartedTime: at(testNow.Add(-time.Minute)), PhaseStartedTime: at(testNow.Add(-time.Minute)),
				SwitchedTime: at(testNow.Add(-time.Minute)), EvacuationStartedTime: at(testNow.Add(-time.Minute)), ClientsTotal: 10, ClientsTotalTime: at(testNow.Add(-time.Minute)),
			}},
		},
		Observation: evacuate.Observation{Nodes: map[string]evacuate.NodeObservation{}, Left: map[string]bool{}},
		Services:    map[resources.ServiceKind]Service{},
	}
	s.EMQX.Spec.UpdateStrategy.EvacuationStrategy = v2beta1.EvacuationStrategy{ConnEvictRate: 10, SessEvictRate: 10, WaitTakeover: 1}
	s.Sets = []Set{setOfTwo("blue", testNow.Add(-time.Hour)), setOfTwo("green", testNow.Add(-time.Minute))}
	var members []string
	for _, pod := range s.pods() {
		members = append(members, pod.Node)
	}
	for _, pod := range s.pods() {
		s.Observation.Nodes[pod.Node] = evacuate.NodeObservation{
			Seen: testNow, Members: members, Available: true, Listeners: map[string]bool{"tcp:default": true},
			Info: emqx.NodeInfo{Status: "running", Connections: emqx.Count{Known: true}, LiveConnections: emqx.Count{Known: true}},
		}
	}
	withNode("e-core-green-0", clients(5, 5))(&s)
	withNode("e-core-green-1", clients(5, 5))(&s)
	point(&s, "green")
	for _, c := range change {
		c(&s)
	}
	return s
}

func setOfTwo(revision string, serving time.Time) Set {
	set := Set{
		Name: "e-core-" + revision, UID: types.UID(revision), ResourceVersion: "7", Role: Core, Revision: revision, Replicas: 2, NodeCount: 2,
		ServingSince: serving, Domain: "pods", ConfigMap: "e-configs-" + revision,
		Ports: resources.Ports{
			Dashboard: []resources.Port{{Name: "dashboard", Number: 18083}},
			Listeners: []resources.Port{{Name: "tcp-default", Number: 1883, Listener: "tcp:default"}},
		},
		Intent: fmt.Sprintf(`{"image":%q}`, map[string]string{"blue": "a", "green": "b"}[revision]),
	}
	for i := range 2 {
		set.Pods = append(set.Pods, Pod{
			Name: fmt.Sprintf("e-core-%s-%d", revision, i), UID: types.UID(fmt.Sprintf("%s-%d", revision, i)), Ordinal: i,
			IP: fmt.Sprintf("10.0.%d.%d", len(revision), i), Node: fmt.Sprintf("emqx@e-core-%s-%d.pods", revision, i),
			Role: Core, Revision: revision, Ready: true, ContainersReady: true, OnServing: true, ContainerRunning: true,
			Container: "c1", GateContainer: "c1",
		})
	}
	return set
}

// point has both Services select a revision, and lead to its pods.
func point(s *Snapshot, revision string) {
	for _, kind := range resources.ServiceKinds() {
		service := Service{Revision: revision, State: Current, Ours: true}
		for _, pod := range s.set(revision).Pods {
			service.Endpoints = append(service.Endpoints, Endpoint{PodUID: pod.UID, Ready: true})
		}
		s.Services[kind] = service
	}
}

// Modifiers, to be read as "… but".

func serving(revision string) func(*Snapshot) { return func(s *Snapshot) { point(s, revision) } }

// foreign has another operator have made a set.
func foreign(revision string) func(*Snapshot) {
	return withSet(revision, func(s *Set) { s.Intent, s.ConfigHash, s.ServingSince = "", "", time.Time{} })
}

// unselective has the Services select all nodes, as those of emqx-operator 2.x do, and another own fields of one.
func unselective() func(*Snapshot) {
	return func(s *Snapshot) {
		for kind, service := range s.Services {
			service.Revision, service.State, service.Ours = "", Outdated, false
			if kind == resources.Dashboard {
				service.Inheritance = []byte("fields")
			}
			s.Services[kind] = service
		}
	}
}

// ref is a set as it was seen.
func ref(revision string) SetRef {
	return SetRef{Name: "e-core-" + revision, UID: types.UID(revision), ResourceVersion: "7"}
}

// servicesOff has no Service be wanted, nor be there.
func servicesOff(s *Snapshot) {
	off := &v2beta1.ServiceTemplate{Enabled: ptr.To(false)}
	s.EMQX.Spec.ListenersServiceTemplate, s.EMQX.Spec.DashboardServiceTemplate = off, off
	s.Services = map[resources.ServiceKind]Service{}
	s.EMQX.Status.CoreNodesStatus.CurrentRevision = "blue"
}

func withDeadline(seconds int32) func(*Snapshot) {
	return func(s *Snapshot) { s.EMQX.Spec.UpdateStrategy.EvacuationStrategy.DeadlineSeconds = &seconds }
}

// withRed adds a set that was never marked as serving.
func withRed(s *Snapshot) {
	s.Sets = append(s.Sets, setOfTwo("red", time.Time{}))
	s.ConfigMaps["e-configs-red"] = Current
}

// withCurrent has the status tell which revision was last seen to serve.
func withCurrent(revision string) func(*Snapshot) {
	return func(s *Snapshot) { s.EMQX.Status.CoreNodesStatus.CurrentRevision = revision }
}

// unready2 has both pods of a set be ready no more.
func unready2(revision string) func(*Snapshot) {
	return func(s *Snapshot) {
		for i := range 2 {
			withPod(fmt.Sprintf("e-core-%s-%d", revision, i), func(p *Pod) { p.Ready, p.ContainersReady = false, false })(s)
		}
	}
}

func withPod(name string, change func(*Pod)) func(*Snapshot) {
	return func(s *Snapshot) {
		for i := range s.Sets {
			for j := range s.Sets[i].Pods {
				if s.Sets[i].Pods[j].Name == name {
					change(&s.Sets[i].Pods[j])
				}
			}
		}
	}
}

func withNode(pod string, change func(*evacuate.NodeObservation)) func(*Snapshot) {
	return func(s *Snapshot) {
		node := s.Observation.Nodes["emqx@"+pod+".pods"]
		change(&node)
		s.Observation.Nodes["emqx@"+pod+".pods"] = node
	}
}

func withSet(revision string, change func(*Set)) func(*Snapshot) {
	return func(s *Snapshot) { change(s.set(revision)) }
}

func withSpec(change func(*v2beta1.EMQXSpec)) func(*Snapshot) {
	return func(s *Snapshot) { change(&s.EMQX.Spec) }
}

func wanting(replicas int32) func(*Snapshot) {
	return func(s *Snapshot) {
		target := s.Wanted[Core]
		target.Replicas = replicas
		s.Wanted[Core] = target
	}
}

func withUpgrade(change func(*v2beta1.UpgradeStatus)) func(*Snapshot) {
	return func(s *Snapshot) { change(s.EMQX.Status.Upgrade) }
}

func without(revision string) func(*Snapshot) {
	return func(s *Snapshot) {
		delete(s.ConfigMaps, "e-configs-"+revision)
		for i := range s.Sets {
			if s.Sets[i].Revision == revision {
				s.Sets = append(s.Sets[:i:i], s.Sets[i+1:]...)
				return
			}
		}
	}
}

func silentNode(n *evacuate.NodeObservation) { n.Failure = "no answer in time" }

func clients(live, sessions int64) func(*evacuate.NodeObservation) {
	return func(n *evacuate.NodeObservation) {
		n.Info.LiveConnections.Value, n.Info.Connections.Value = live, sessions
	}
}

func state(state emqx.State) func(*evacuate.NodeObservation) {
	return func(n *evacuate.NodeObservation) {
		n.Evacuation = &emqx.EvacuationStatus{State: state, ConnEvictRate: 5, SessEvictRate: 5, Recipients: []string{"emqx@e-core-green-0.pods"}}
		n.Available = false
	}
}

// evacuatedBlue has both blue nodes evacuated and empty.
func evacuatedBlue(s *Snapshot) {
	for i := range 2 {
		withNode(fmt.Sprintf("e-core-blue-%d", i), state(emqx.StateProhibiting))(s)
	}
}

func TestPhases(t *testing.T) {
	for _, test := range []struct {
		reason  string
		s       Snapshot
		phase   v2beta1.Phase
		waiting string
		actions []Action
	}{
		// Pending
		{"a new resource is provisioned", upgrading("", without("blue"), without("green"), func(s *Snapshot) { s.Services = nil }), v2beta1.PhaseProvisioning, "", nil},
		{"another revision is provisioned", upgrading(v2beta1.PhasePending, serving("blue")), v2beta1.PhaseProvisioning, "", nil},
		{"nothing changes", upgrading(v2beta1.PhasePending, without("blue")), v2beta1.PhaseDone, "", nil},
		{"a set that is left over is dealt with", upgrading(v2beta1.PhasePending), v2beta1.PhaseProvisioning, "", nil},
		{"a set of another operator is noted to be what is asked for", upgrading("", without("blue"), foreign("green"), unselective()), v2beta1.PhasePending, "to be adopted",
			[]Action{AdoptSet{SetRef: ref("green"), At: testNow, Intent: `{"image":"b"}`, Ports: setOfTwo("green", testNow).Ports, NodeCount: 2}}},
		{"sets of earlier revisions that the other operator kept are removed, which is no upgrade", upgrading(v2beta1.PhasePending, foreign("blue"), withSet("blue", func(s *Set) { s.Replicas, s.Pods = 0, nil })), v2beta1.PhasePending, "to be adopted",
			[]Action{DeleteSet{ref("blue")}}},
		{"its Services come to select what they lead to, with their fields", upgrading(v2beta1.PhasePending, without("blue"), unselective()), v2beta1.PhasePending, "to be adopted", []Action{
			ApplyService{Kind: resources.Listeners, Revision: "green", Ports: setOfTwo("green", testNow).Ports},
			InheritService{Kind: resources.Dashboard, Patch: []byte("fields")},
			ApplyService{Kind: resources.Dashboard, Revision: "green", Ports: setOfTwo("green", testNow).Ports},
		}},
		{"a set of another operator that is not what is asked for is marked first", upgrading("", serving("blue"), foreign("blue"), without("green"), unselective()), v2beta1.PhasePending, "to be adopted",
			[]Action{MarkServing{SetRef: ref("blue"), At: testNow}}},
		{"Services that lead to several sets stay as they are until the switch", upgrading("", serving("blue"), unselective(), func(s *Snapshot) {
			for kind, service := range s.Services {
				service.Endpoints = append(service.Endpoints, Endpoint{PodUID: "green-0", Ready: true})
				s.Services[kind] = service
			}
		}), v2beta1.PhaseProvisioning, "", nil},

		// Provisioning
		{"the set is made, after the configuration", upgrading(v2beta1.PhaseProvisioning, serving("blue"), without("green")), v2beta1.PhaseProvisioning, "to be created",
			[]Action{ApplyConfigMap{"e-configs-green", "green"}, CreateSet{resources.CoreSet{Revision: "green", Replicas: 2, Ports: setOfTwo("green", testNow).Ports, Intent: `{"image":"b"}`, ConfigMap: "e-configs-green"}}}},
		{"a set that is too small is enlarged", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withSet("green", func(s *Set) { s.Replicas, s.NodeCount, s.ServingSince, s.Pods = 1, 1, time.Time{}, s.Pods[:1] })), v2beta1.PhaseProvisioning, "to have 2 nodes",
			[]Action{ScaleSet{SetRef: ref("green"), Replicas: 2, NodeCount: 2}}},
		{"all is ready", upgrading(v2beta1.PhaseProvisioning, serving("blue")), v2beta1.PhaseSwitching, "", nil},
		{"a pod is missing", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withSet("green", func(s *Set) { s.Pods = s.Pods[:1] })), v2beta1.PhaseProvisioning, "1/2: e-core-green-1 is not created yet; the events of StatefulSet e-core-green say why", nil},
		{"a pod is missing a moment after", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withSet("green", func(s *Set) { s.Pods = s.Pods[:1] }), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.PhaseStartedTime = at(testNow.Add(-time.Second)) })), v2beta1.PhaseProvisioning, "1/2: e-core-green-1 is not created yet", nil},
		{"a pod has trouble", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withPod("e-core-green-1", func(p *Pod) { p.Trouble = "ImagePullBackOff" })), v2beta1.PhaseProvisioning, "e-core-green-1 has trouble: ImagePullBackOff", nil},
		{"a pod is not ready", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withPod("e-core-green-0", func(p *Pod) { p.ContainersReady = false })), v2beta1.PhaseProvisioning, "e-core-green-0 is starting", nil},
		{"a node is silent", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", silentNode)), v2beta1.PhaseProvisioning, "does not answer", nil},
		{"a node does not know the key", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Failure, n.Unauthorized = "401", true })), v2beta1.PhaseProvisioning, "does not know the operator's API key", nil},
		{"a node refuses clients", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Available = false })), v2beta1.PhaseProvisioning, "refuses clients", nil},
		{"a listener is down", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Listeners = nil })), v2beta1.PhaseProvisioning, "listener tcp:default", nil},
		{"a node is alone", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Members = []string{"emqx@e-core-green-0.pods"} })), v2beta1.PhaseProvisioning, "does not see", nil},
		{"an old node that is frozen holds the switch", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-blue-0", silentNode)), v2beta1.PhaseProvisioning, "emqx@e-core-blue-0.pods, which may have clients, to answer: it is silent since 12:00:00 (no answer in time); deleting its pod e-core-blue-0 ends the wait", nil},
		{"one that is known to be gone does not", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-blue-0", silentNode),
			withPod("e-core-blue-0", func(p *Pod) { p.ContainerRunning = false }), unseen("emqx@e-core-blue-0.pods")), v2beta1.PhaseSwitching, "", nil},
		{"the set is marked before it serves", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withSet("green", func(s *Set) { s.ServingSince = time.Time{} })), v2beta1.PhaseProvisioning, "marked as serving",
			[]Action{MarkServing{SetRef: ref("green"), At: testNow}}},
		{"also when there are no Services", upgrading(v2beta1.PhaseProvisioning, servicesOff, withSet("green", func(s *Set) { s.ServingSince = time.Time{} })), v2beta1.PhaseProvisioning, "marked as serving",
			[]Action{MarkServing{SetRef: ref("green"), At: testNow}}},
		{"and again when another was marked since", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withSet("blue", func(s *Set) { s.ServingSince = testNow })), v2beta1.PhaseProvisioning, "marked as serving",
			[]Action{MarkServing{SetRef: ref("green"), At: testNow}}},
		{"of several nodes the one that says most is named", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", silentNode),
			withPod("e-core-green-1", func(p *Pod) { p.Trouble = "ImagePullBackOff" })), v2beta1.PhaseProvisioning, "0/2: e-core-green-1 has trouble", nil},
		{"a set with clients is evacuated, whatever was noted", upgrading(v2beta1.PhaseProvisioning, serving("blue"), func(s *Snapshot) {
			withRed(s)
			s.Observation.Nodes["emqx@e-core-red-0.pods"] = evacuate.NodeObservation{Seen: testNow.Add(-time.Hour), Failure: "silent", Info: emqx.NodeInfo{Connections: emqx.Count{Value: 1}}}
		}, withPod("e-core-green-0", func(p *Pod) { p.ContainersReady = false })), v2beta1.PhaseProvisioning, "is starting", nil},
		{"a set that never served is removed at once", upgrading(v2beta1.PhaseProvisioning, serving("blue"), func(s *Snapshot) {
			withRed(s)
		}, withPod("e-core-green-0", func(p *Pod) { p.ContainersReady = false })), v2beta1.PhaseProvisioning, "is starting", []Action{ScaleSet{SetRef: ref("red"), NodeCount: 2}}},
		{"one that another operator made may have served", upgrading(v2beta1.PhaseProvisioning, serving("blue"), func(s *Snapshot) {
			withRed(s)
		}, foreign("red"), withPod("e-core-green-0", func(p *Pod) { p.ContainersReady = false })), v2beta1.PhaseProvisioning, "is starting", nil},

		// Switching
		{"the Services are pointed", upgrading(v2beta1.PhaseSwitching, serving("blue")), v2beta1.PhaseSwitching, "to select revision green", []Action{
			ApplyService{Kind: resources.Listeners, Revision: "green", Ports: setOfTwo("green", testNow).Ports},
			ApplyService{Kind: resources.Dashboard, Revision: "green", Ports: setOfTwo("green", testNow).Ports},
		}},
		{"a Service of another operator is taken over first", upgrading(v2beta1.PhaseSwitching, unselective()), v2beta1.PhaseSwitching, "to select revision green", []Action{
			ApplyService{Kind: resources.Listeners, Revision: "green", Ports: setOfTwo("green", testNow).Ports},
			InheritService{Kind: resources.Dashboard, Patch: []byte("fields")},
			ApplyService{Kind: resources.Dashboard, Revision: "green", Ports: setOfTwo("green", testNow).Ports},
		}},
		{"new nodes that are ready no more go back", upgrading(v2beta1.PhaseSwitching, serving("blue"), withNode("e-core-green-0", silentNode)), v2beta1.PhaseProvisioning, "", nil},
		{"after the switch a node that falls silent changes nothing", upgrading(v2beta1.PhaseSwitching, withNode("e-core-green-0", silentNode)), v2beta1.PhaseEvacuating, "", nil},
		{"old pods are still in the slices", upgrading(v2beta1.PhaseSwitching, func(s *Snapshot) {
			service := s.Services[resources.Listeners]
			service.Endpoints = append(service.Endpoints, Endpoint{PodUID: "blue-0", Ready: false})
			s.Services[resources.Listeners] = service
		}), v2beta1.PhaseSwitching, "still hold 1 other pods", nil},
		{"new pods are not ready in the slices", upgrading(v2beta1.PhaseSwitching, func(s *Snapshot) { s.Services[resources.Listeners].Endpoints[0].Ready = false }), v2beta1.PhaseSwitching, "hold 1 of 2 pods", nil},
		{"the delay has not passed", upgrading(v2beta1.PhaseSwitching, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.InitialDelaySeconds = 61 })), v2beta1.PhaseSwitching, "initialDelaySeconds", nil},
		{"it has", upgrading(v2beta1.PhaseSwitching, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.InitialDelaySeconds = 60 })), v2beta1.PhaseEvacuating, "", nil},
		{"a first installation has nothing to evacuate", upgrading(v2beta1.PhaseSwitching, without("blue")), v2beta1.PhaseDone, "", nil},
		{"a Service that is off is not waited for", upgrading(v2beta1.PhaseSwitching, without("blue"), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.ListenersServiceTemplate = &v2beta1.ServiceTemplate{Enabled: ptr.To(false)}
		}), func(s *Snapshot) { delete(s.Services, resources.Listeners) }), v2beta1.PhaseDone, "", nil},

		// Evacuating
		{"clients are left", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-1", clients(3, 5))), v2beta1.PhaseEvacuating, "has 3 clients and 5 sessions (prohibiting)", nil},
		{"sessions are left", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-1", clients(0, 1))), v2beta1.PhaseEvacuating, "1 leaving nodes", nil},
		{"an empty node that nobody evacuates may get clients", upgrading(v2beta1.PhaseEvacuating), v2beta1.PhaseEvacuating, "is not being evacuated", nil},
		{"silence is not zero", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-0", silentNode)), v2beta1.PhaseEvacuating, "it is silent since 12:00:00", nil},
		{"what was seen long ago is not zero", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-0", func(n *evacuate.NodeObservation) { n.Seen = testNow.Add(-time.Minute) })), v2beta1.PhaseEvacuating, "does not answer since 11:59:00", nil},
		{"all is empty", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue), v2beta1.PhaseScalingDown, "", nil},
		{"a node that is known to be stopped has nothing", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-0", silentNode),
			withPod("e-core-blue-0", func(p *Pod) { p.ContainerRunning = false }), unseen("emqx@e-core-blue-0.pods")), v2beta1.PhaseScalingDown, "", nil},
		{"one whose container has ended and whom others still see is not known to be stopped", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-0", silentNode),
			withPod("e-core-blue-0", func(p *Pod) { p.ContainerRunning = false })), v2beta1.PhaseEvacuating, "does not answer", nil},
		{"the user's deadline passed", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-0", clients(3, 5)), withDeadline(60)), v2beta1.PhaseScalingDown, "", nil},
		{"it does not run for a node whose evacuation was never started", upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", clients(3, 5)), withDeadline(60)), v2beta1.PhaseEvacuating, "is not being evacuated", nil},
		{"it is void while the nodes that stay do not take clients", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-0", clients(3, 5)), withDeadline(60),
			withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Available = false })), v2beta1.PhaseEvacuating, "has 3 clients", nil},
		{"held time does not count", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-0", clients(3, 5)), withDeadline(60), withUpgrade(func(u *v2beta1.UpgradeStatus) {
			u.HeldTime = at(testNow.Add(-time.Second))
		})), v2beta1.PhaseEvacuating, "has 3 clients", nil},
		{"more clients are away than may be", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-green-0", clients(3, 3))), v2beta1.PhaseEvacuating, "2 of 10 are away", nil},
		{"somebody pointed the Services elsewhere", upgrading(v2beta1.PhaseEvacuating, serving("blue")), v2beta1.PhasePending, "", nil},

		// ScalingDown
		{"the highest ordinal goes first", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue), v2beta1.PhaseScalingDown, "pod e-core-blue-1 to be gone",
			[]Action{ScaleSet{SetRef: ref("blue"), Replicas: 1, NodeCount: 2}}},
		{"unless it has clients again", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, withNode("e-core-blue-1", clients(1, 1))), v2beta1.PhaseScalingDown, "a leaving node to be empty", nil},
		{"a deadline that has not passed removes nothing", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, withNode("e-core-blue-1", clients(1, 1)), withDeadline(61)), v2beta1.PhaseScalingDown, "a leaving node to be empty", nil},
		{"one that has does", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, withNode("e-core-blue-1", clients(1, 1)), withDeadline(60)), v2beta1.PhaseScalingDown, "pod e-core-blue-1 to be gone", []Action{ScaleSet{SetRef: ref("blue"), Replicas: 1, NodeCount: 2}}},
		{"a pod that somebody's finalizer keeps is named, with the finalizer", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, withSet("blue", func(s *Set) { s.Replicas = 1 }),
			withPod("e-core-blue-1", func(p *Pod) { p.Deleting, p.Finalizers = true, []string{"them/keep"} })), v2beta1.PhaseScalingDown, "pod e-core-blue-1 to be gone, which its finalizers keep: them/keep", nil},
		{"one at a time", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, withSet("blue", func(s *Set) { s.Replicas = 1 })), v2beta1.PhaseScalingDown, "pod e-core-blue-1 to be gone", nil},
		{"a pod that does not exist has nothing to lose", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, withSet("blue", func(s *Set) { s.Pods = s.Pods[:1] })), v2beta1.PhaseScalingDown, "to be gone",
			[]Action{ScaleSet{SetRef: ref("blue"), Replicas: 1, NodeCount: 2}}},
		{"EMQX has not forgotten the nodes", upgrading(v2beta1.PhaseScalingDown, withSet("blue", func(s *Set) { s.Replicas, s.Pods = 0, nil })), v2beta1.PhaseScalingDown, "EMQX to forget the nodes", nil},
		{"then the set goes", upgrading(v2beta1.PhaseScalingDown, withSet("blue", func(s *Set) { s.Replicas, s.Pods = 0, nil }), func(s *Snapshot) {
			s.Observation.Left = map[string]bool{"emqx@e-core-blue-0.pods": true, "emqx@e-core-blue-1.pods": true}
		}), v2beta1.PhaseScalingDown, "to forget", []Action{DeleteSet{ref("blue")}}},
		{"nothing is left", upgrading(v2beta1.PhaseScalingDown, without("blue")), v2beta1.PhaseDone, "", nil},

		// Done
		{"all is well", upgrading(v2beta1.PhaseDone, without("blue")), v2beta1.PhaseDone, "", nil},
		{"the specification asks for another revision", upgrading(v2beta1.PhaseDone, serving("blue")), v2beta1.PhasePending, "", nil},
		{"more nodes are asked for", upgrading(v2beta1.PhaseDone, without("blue"), wanting(3)), v2beta1.PhasePending, "", nil},
		{"a Service was lost", upgrading(v2beta1.PhaseDone, without("blue"), func(s *Snapshot) { delete(s.Services, resources.Dashboard) }), v2beta1.PhaseDone, "",
			[]Action{ApplyService{Kind: resources.Dashboard, Revision: "green", Ports: setOfTwo("green", testNow).Ports}}},
		{"a Service was edited", upgrading(v2beta1.PhaseDone, without("blue"), func(s *Snapshot) { s.Services[resources.Dashboard] = Service{Revision: "green", State: Outdated} }), v2beta1.PhaseDone, "",
			[]Action{ApplyService{Kind: resources.Dashboard, Revision: "green", Ports: setOfTwo("green", testNow).Ports}}},
		{"a Service selects no revision any more", upgrading(v2beta1.PhaseDone, without("blue"), func(s *Snapshot) { s.Services[resources.Dashboard] = Service{State: Outdated} }), v2beta1.PhaseDone, "",
			[]Action{ApplyService{Kind: resources.Dashboard, Revision: "green", Ports: setOfTwo("green", testNow).Ports}}},
		{"what belongs to no revision was lost", upgrading(v2beta1.PhaseDone, without("blue"), func(s *Snapshot) {
			s.KeysSecret, s.Headless = Missing, Missing
			delete(s.ConfigMaps, "e-configs-green")
		}), v2beta1.PhaseDone, "", []Action{ApplyConfigMap{"e-configs-green", "green"}, CreateKeysSecret{}, ApplyHeadlessService{}}},
		{"a set was scaled by a stranger", upgrading(v2beta1.PhaseDone, without("blue"), withSet("green", func(s *Set) { s.Replicas, s.NodeCount = 5, 5 })), v2beta1.PhaseDone, "",
			[]Action{ScaleSet{SetRef: ref("green"), Replicas: 2, NodeCount: 5}}},
		{"the nodes that it had then have left EMQX", upgrading(v2beta1.PhaseDone, without("blue"), withSet("green", func(s *Set) { s.NodeCount = 3 }), func(s *Snapshot) {
			s.Observation.Left["emqx@e-core-green-2.pods"] = true
		}), v2beta1.PhaseDone, "", []Action{ScaleSet{SetRef: ref("green"), Replicas: 2, NodeCount: 2}}},
		{"labels or the owner were taken off a set", upgrading(v2beta1.PhaseDone, without("blue"), withSet("green", func(s *Set) { s.Mislabelled = true })), v2beta1.PhaseDone, "",
			[]Action{RelabelSet{SetRef: ref("green"), Revision: "green"}}},
		{"a configuration that was lost and cannot be told any more is not guessed", upgrading(v2beta1.PhaseDone, without("blue"), func(s *Snapshot) {
			s.ConfigHash = "another"
			s.ConfigMaps = nil
		}), v2beta1.PhaseDone, "", nil},
		{"the missing pod is named, not a healthy node", upgrading(v2beta1.PhaseDone, without("blue"), withSet("green", func(s *Set) { s.Pods = s.Pods[:1] }),
			withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Listeners, n.Members = nil, nil })), v2beta1.PhaseDone, "e-core-green-1 is not created yet", nil},
		{"the cookie was lost, and no node runs that knows it", upgrading(v2beta1.PhaseDone, without("blue"), func(s *Snapshot) { s.CookieSecret = Missing },
			withPod("e-core-green-0", func(p *Pod) { p.ContainerRunning = false }), withPod("e-core-green-1", func(p *Pod) { p.ContainerRunning = false })), v2beta1.PhaseDone, "has not been seen", []Action{CreateCookieSecret{}}},
		{"a node does not answer, which proves nothing", upgrading(v2beta1.PhaseDone, without("blue"), withNode("e-core-green-0", silentNode)), v2beta1.PhaseDone, "", nil},
		{"a node is down", upgrading(v2beta1.PhaseDone, without("blue"), withPod("e-core-green-0", func(p *Pod) { p.ContainersReady, p.Ready = false, false })), v2beta1.PhaseDone, "is starting", nil},

		// Whatever the phase
		{"a lost Service leads to the revision that serves", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withCurrent("blue"), withPod("e-core-green-0", func(p *Pod) { p.ContainersReady = false }),
			func(s *Snapshot) { delete(s.Services, resources.Listeners) }), v2beta1.PhaseProvisioning, "is starting",
			[]Action{ApplyService{Kind: resources.Listeners, Revision: "blue", Ports: setOfTwo("blue", testNow).Ports}}},
		{"also while only a person can help", upgrading(v2beta1.PhaseEvacuating, withCurrent("green"), func(s *Snapshot) {
			delete(s.Services, resources.Listeners)
			s.ConfigError = errors.New("line 1")
		}), v2beta1.PhaseEvacuating, "a person", []Action{ApplyService{Kind: resources.Listeners, Revision: "green", Ports: setOfTwo("green", testNow).Ports}}},
		{"a set that was scaled to nothing", upgrading(v2beta1.PhaseSwitching, withSet("green", func(s *Set) { s.Replicas, s.Pods = 0, nil }), func(s *Snapshot) {
			point(s, "green")
		}, withPod("e-core-blue-0", func(p *Pod) { p.Ready = false })), v2beta1.PhaseSwitching, "hold 0 of 2 pods",
			[]Action{ScaleSet{SetRef: ref("green"), Replicas: 2, NodeCount: 2}}},
		{"the new nodes die after the switch: the Services go back", upgrading(v2beta1.PhaseSwitching, unready2("green")), v2beta1.PhaseSwitching, "go back to revision blue", []Action{
			ApplyService{Kind: resources.Listeners, Revision: "blue", Ports: setOfTwo("blue", testNow).Ports},
			ApplyService{Kind: resources.Dashboard, Revision: "blue", Ports: setOfTwo("blue", testNow).Ports},
		}},
		{"also while they take clients over", upgrading(v2beta1.PhaseEvacuating, unready2("green")), v2beta1.PhaseEvacuating, "go back to revision blue", []Action{
			ApplyService{Kind: resources.Listeners, Revision: "blue", Ports: setOfTwo("blue", testNow).Ports},
			ApplyService{Kind: resources.Dashboard, Revision: "blue", Ports: setOfTwo("blue", testNow).Ports},
		}},
		{"a set whose name nobody has any more: its pods are evacuated and deleted", upgrading(v2beta1.PhaseScalingDown, evacuatedBlue, withSet("blue", func(s *Set) { s.Orphaned = true })), v2beta1.PhaseScalingDown, "pod e-core-blue-1 to be gone",
			[]Action{DeletePod{"e-core-blue-1", "blue-1"}}},
	} {
		t.Run(string(test.s.EMQX.Status.Phase)+": "+test.reason, func(t *testing.T) {
			before := fmt.Sprintf("%+v", test.s)
			decision := Decide(test.s)
			require.Equal(t, test.phase, decision.Phase, decision.Why)
			require.Equal(t, test.actions, flat(decision.Groups))
			if test.waiting == "" {
				require.True(t, decision.Waiting.None(), decision.Waiting.Message)
			} else {
				require.NotEmpty(t, decision.Waiting.Reason)
			}
			require.Contains(t, decision.Waiting.Message, test.waiting)
			require.Equal(t, before, fmt.Sprintf("%+v", test.s), "a decision changes nothing")
			if decision.Phase != test.s.EMQX.Status.Phase && test.s.EMQX.Status.Phase != "" {
				require.Equal(t, flat(upkeep(test.s)), flat(decision.Groups), "a handler never acts and advances at once")
				require.NotEmpty(t, decision.Why, "a transition says why")
			}
		})
	}
}

func flat(groups []Group) []Action {
	var actions []Action
	for _, group := range groups {
		actions = append(actions, group...)
	}
	return actions
}

// unseen takes a node out of everybody's view.
func unseen(name string) func(*Snapshot) {
	return func(s *Snapshot) {
		for node, observation := range s.Observation.Nodes {
			var members []string
			for _, member := range observation.Members {
				if member != name {
					members = append(members, member)
				}
			}
			observation.Members = members
			s.Observation.Nodes[node] = observation
		}
	}
}

func TestGuards(t *testing.T) {
	for _, test := range []struct {
		reason  string
		s       Snapshot
		phase   v2beta1.Phase
		stalled string
		paused  bool
	}{
		{"a configuration that cannot be read", upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) { s.ConfigError = errors.New("line 1") }), v2beta1.PhaseEvacuating, "InvalidConfig", false},
		{"something else has a name that is needed", upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) {
			s.Taken = []Taken{{Kind: "Service", Name: "e-listeners", Owner: "Deployment web"}}
		}), v2beta1.PhaseEvacuating, "NameTaken", false},
		{"what a deleted resource of this name left goes by itself", upgrading(v2beta1.PhaseDone, func(s *Snapshot) {
			s.Taken, s.CookieSecret = []Taken{{Kind: "Secret", Name: "e-node-cookie", Owner: "EMQX e", Former: true}}, Unavailable
		}), v2beta1.PhaseDone, "", false},
		{"the cookie of nodes that run is lost", upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) { s.CookieSecret = Missing }), v2beta1.PhaseEvacuating, "CookieLost", false},
		{"the cookie was changed while nodes run with the one before", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withCookie("new", time.Second)), v2beta1.PhaseProvisioning, "CookieChanged", false},
		{"it was put back", upgrading(v2beta1.PhaseEvacuating, withCookie("old", time.Second)), v2beta1.PhaseEvacuating, "", false},
		{"all nodes have started with it since", upgrading(v2beta1.PhaseEvacuating, withCookie("new", -time.Second)), v2beta1.PhaseEvacuating, "", false},
		{"what the Secret holds is not known", upgrading(v2beta1.PhaseEvacuating, withCookie("", time.Second)), v2beta1.PhaseEvacuating, "", false},
		{"nobody noted what a set was made with", upgrading(v2beta1.PhaseEvacuating, withCookie("new", time.Second), withSet("blue", func(s *Set) { s.CookieDigest = "" }),
			withSet("green", func(s *Set) { s.CookieDigest = "" })), v2beta1.PhaseEvacuating, "", false},
		{"replicants", upgrading(v2beta1.PhaseDone, withSpec(func(spec *v2beta1.EMQXSpec) { spec.ReplicantTemplate = &v2beta1.EMQXReplicantTemplate{} })), v2beta1.PhaseDone, "Unsupported", false},
		{"volumes", upgrading(v2beta1.PhaseDone, withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.CoreTemplate.Spec.VolumeClaimTemplates.StorageClassName = ptr.To("fast")
		})), v2beta1.PhaseDone, "Unsupported", false},
		{"durable sessions", upgrading(v2beta1.PhaseDone, func(s *Snapshot) { s.Config.DurableSessions = true }), v2beta1.PhaseDone, "Unsupported", false},
		{"manual promotion", upgrading(v2beta1.PhaseDone, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Promotion = v2beta1.PromotionManual })), v2beta1.PhaseDone, "Unsupported", false},
		{"rollback on deadline", upgrading(v2beta1.PhaseDone, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.OnDeadline = v2beta1.DeadlineRollback })), v2beta1.PhaseDone, "Unsupported", false},
		{"fewer nodes", upgrading(v2beta1.PhaseDone, wanting(1)), v2beta1.PhaseDone, "Unsupported", false},
		{"no node", upgrading(v2beta1.PhaseDone, wanting(0)), v2beta1.PhaseDone, "Unsupported", false},
		{"superseded while provisioning", upgrading(v2beta1.PhaseProvisioning, withUpgrade(func(u *v2beta1.UpgradeStatus) { u.To = "red" })), v2beta1.PhasePending, "", false},
		{"superseded while evacuating: evictions are stopped at once", upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", state(emqx.StateEvictingConns)), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.To = "red" })), v2beta1.PhasePending, "", false},
		{"paused", upgrading(v2beta1.PhaseEvacuating, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })), v2beta1.PhaseEvacuating, "", true},
		{"invalid comes before paused", upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) { s.ConfigError = errors.New("line 1") }, withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })), v2beta1.PhaseEvacuating, "InvalidConfig", false},
		{"superseded comes before paused", upgrading(v2beta1.PhaseEvacuating, withUpgrade(func(u *v2beta1.UpgradeStatus) { u.To = "red" }), withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })), v2beta1.PhasePending, "", false},
		{"the deadline has passed", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withPod("e-core-green-0", func(p *Pod) { p.Trouble = "ImagePullBackOff" }), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.ProgressDeadlineSeconds = ptr.To(int32(60))
		})), v2beta1.PhaseProvisioning, "ProgressDeadlineExceeded", false},
		{"time while paused does not count", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withPod("e-core-green-0", func(p *Pod) { p.Trouble = "ImagePullBackOff" }), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.PausedSeconds = 1 }), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.ProgressDeadlineSeconds = ptr.To(int32(60))
		})), v2beta1.PhaseProvisioning, "", false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			decision := Decide(test.s)
			require.Equal(t, test.phase, decision.Phase)
			require.Equal(t, test.paused, decision.Paused)
			if test.stalled == "" {
				require.Nil(t, decision.Stalled)
			} else {
				require.NotNil(t, decision.Stalled)
				require.Equal(t, test.stalled, decision.Stalled.Reason)
				require.NotEmpty(t, decision.Stalled.Message)
			}
			if test.paused || test.stalled == "InvalidConfig" || test.phase == v2beta1.PhasePending {
				for _, node := range decision.Goal.Nodes {
					require.Equal(t, evacuate.Serve, node.Intent, "evacuations are stopped")
				}
			}
		})
	}
	require.True(t, Decide(upgrading(v2beta1.PhaseDone, func(s *Snapshot) { s.EMQX.DeletionTimestamp = ptr.To(metav1.NewTime(testNow)) })).Gone)
}

// withCookie has the cookie's Secret hold a cookie that was written so long after the nodes started with the old one.
func withCookie(digest string, after time.Duration) func(*Snapshot) {
	return func(s *Snapshot) {
		s.Cookie = Cookie{Digest: digest, Writer: "kubectl-edit", Written: testNow}
		for i := range s.Sets {
			s.Sets[i].CookieDigest = "old"
			for j := range s.Sets[i].Pods {
				s.Sets[i].Pods[j].ContainerStarted = testNow.Add(-after)
			}
		}
	}
}

func TestChangedCookieIsNamed(t *testing.T) {
	problem := problemOf(upgrading(v2beta1.PhaseDone, withCookie("new", time.Second)))
	require.Equal(t, "the cookie in Secret e-node-cookie was changed by kubectl-edit at 2026-01-01T12:00:00Z, and nodes such as emqx@e-core-blue-0.pods run with the one before, "+
		"so that nodes that start now cannot join them: put that back as the entry node_cookie, as the environment variable EMQX_NODE__COOKIE of pod e-core-blue-0 tells it", problem.Message)
}

func TestPauseIsAccountedFor(t *testing.T) {
	s := upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", silentNode), withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true }))
	held := Decide(s)
	require.Equal(t, testNow, held.Upgrade.PausedTime.Time)
	s.EMQX.Status.Upgrade, s.Now = &held.Upgrade, testNow.Add(30*time.Second)
	require.Equal(t, testNow, Decide(s).Upgrade.PausedTime.Time, "it is since when, not how long")
	s.EMQX.Spec.UpdateStrategy.Paused = false
	resumed := Decide(s)
	require.Nil(t, resumed.Upgrade.PausedTime)
	require.EqualValues(t, 30, resumed.Upgrade.PausedSeconds)
}

// intents are what the goal wants of the nodes, by pod.
func intents(d Decision) map[string]evacuate.Intent {
	wanted := map[string]evacuate.Intent{}
	for _, node := range d.Goal.Nodes {
		wanted[node.Name] = node.Intent
	}
	return wanted
}

func TestEvacuationGoal(t *testing.T) {
	blue0, blue1, green0 := "emqx@e-core-blue-0.pods", "emqx@e-core-blue-1.pods", "emqx@e-core-green-0.pods"
	full := func(s *Snapshot) {
		s.EMQX.Spec.UpdateStrategy.EvacuationStrategy.MaxUnavailableClients = ptr.To(intstr.FromString("100%"))
		s.EMQX.Status.Upgrade.ClientsTotal = 20
		withNode("e-core-blue-0", clients(5, 5))(s)
		withNode("e-core-blue-1", clients(5, 5))(s)
	}
	t.Run("all leaving nodes together, to those that stay", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full))
		require.Equal(t, evacuate.Evacuate, intents(decision)[blue0])
		require.Equal(t, evacuate.Evacuate, intents(decision)[blue1])
		require.Equal(t, evacuate.Serve, intents(decision)[green0])
		require.Equal(t, []string{green0, "emqx@e-core-green-1.pods"}, decision.Goal.Nodes[0].Evacuation.Recipients)
		require.True(t, decision.Goal.Busy)
	})
	t.Run("a member that is frozen holds all evictions", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full, withNode("e-core-green-1", silentNode)))
		require.Equal(t, evacuate.Serve, intents(decision)[blue0])
		require.Equal(t, memberSilent, decision.Upgrade.HeldReason)
		require.Contains(t, decision.Waiting.Message, "emqx@e-core-green-1.pods")
	})
	t.Run("never to a node that takes no clients", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full, withNode("e-core-green-1", func(n *evacuate.NodeObservation) { n.Available = false })))
		require.Equal(t, []string{green0}, decision.Goal.Nodes[0].Evacuation.Recipients)
	})
	t.Run("a silent node is left as it is", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full, withNode("e-core-blue-1", silentNode)))
		require.Equal(t, evacuate.Observe, intents(decision)[blue1])
	})
	t.Run("after a restart nothing is started before the nodes were asked", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, func(s *Snapshot) { s.Observation = evacuate.Observation{} }))
		require.Equal(t, map[string]evacuate.Intent{blue0: evacuate.Observe, blue1: evacuate.Observe, green0: evacuate.Serve, "emqx@e-core-green-1.pods": evacuate.Serve}, intents(decision))
	})
	t.Run("nothing new starts while the slices are not as they should be", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full, withNode("e-core-blue-0", state(emqx.StateEvictingConns)),
			func(s *Snapshot) { s.Services[resources.Listeners].Endpoints[0].Ready = false }))
		require.Equal(t, evacuate.Serve, intents(decision)[blue0], "what runs is stopped")
		require.Equal(t, evacuate.Serve, intents(decision)[blue1])
	})
	t.Run("the baseline is noted before anything starts", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseEvacuating, full, withUpgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsTotalTime = nil })))
		require.EqualValues(t, 20, decision.Upgrade.ClientsTotal)
		require.Equal(t, evacuate.Serve, intents(decision)[blue0])
	})
	t.Run("too many missing clients stop evictions, not the moving of sessions", func(t *testing.T) {
		s := upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", clients(5, 5)), withNode("e-core-blue-0", state(emqx.StateEvictingConns)),
			withNode("e-core-blue-1", clients(0, 5)), withNode("e-core-blue-1", state(emqx.StateEvictingSessions)),
			withUpgrade(func(u *v2beta1.UpgradeStatus) { u.ClientsTotal = 20 }))
		decision := Decide(s)
		require.Equal(t, evacuate.Serve, intents(decision)[blue0])
		require.Equal(t, evacuate.Observe, intents(decision)[blue1])
		require.Contains(t, decision.Waiting.Message, "5 of 20 are away")
		require.NotNil(t, decision.Upgrade.HeldTime)
		require.NotZero(t, decision.After, "time alone can change this")
	})
}

func TestGates(t *testing.T) {
	closed := func(p *Pod) { p.OnServing = false }
	opened := SetGate{Pod: "e-core-green-0", UID: "green-0", Serving: true, Container: "c1", Message: "the node runs in its cluster"}
	restarted := func(p *Pod) { p.Container = "c2" }
	alone := func(n *evacuate.NodeObservation) { n.Members = []string{"emqx@e-core-green-0.pods"} }
	one := func(s *Snapshot) {
		without("blue")(s)
		wanting(1)(s)
		withSet("green", func(set *Set) { set.Replicas, set.Pods = 1, set.Pods[:1] })(s)
	}
	for _, test := range []struct {
		reason string
		s      Snapshot
		want   []Action
	}{
		{"opened once another member has seen the node", upgrading(v2beta1.PhaseProvisioning, withPod("e-core-green-0", closed)), []Action{opened}},
		{"not while it is alone", upgrading(v2beta1.PhaseProvisioning, withPod("e-core-green-0", closed), withNode("e-core-green-0", alone)), nil},
		{"not while it is silent", upgrading(v2beta1.PhaseProvisioning, withPod("e-core-green-0", closed), withNode("e-core-green-0", silentNode)), nil},
		{"a one-node cluster vouches for itself", upgrading(v2beta1.PhaseProvisioning, one, withPod("e-core-green-0", closed), withNode("e-core-green-0", alone)), []Action{opened}},
		{"never closed on silence", upgrading(v2beta1.PhaseDone, withNode("e-core-green-0", silentNode), withNode("e-core-green-1", silentNode)), nil},
		{"nor because the others are silent", upgrading(v2beta1.PhaseDone, without("blue"), withNode("e-core-green-0", alone), withNode("e-core-green-1", silentNode)), nil},
		{"closed for a node that is known to be apart", upgrading(v2beta1.PhaseDone, withNode("e-core-green-0", alone), unseenBut("emqx@e-core-green-0.pods")), []Action{SetGate{Pod: "e-core-green-0", UID: "green-0", Container: "c1", Message: "the node runs apart from the rest of its cluster"}}},
		{"not on a view from before the others lost sight of it", upgrading(v2beta1.PhaseDone, withNode("e-core-green-0", alone), unseenBut("emqx@e-core-green-0.pods"), func(s *Snapshot) {
			for _, pod := range s.pods() {
				withNode(pod.Name, func(n *evacuate.NodeObservation) { n.MembersSince = testNow })(s)
			}
		}), nil},
		{"nor while one still sees it", upgrading(v2beta1.PhaseDone, unseenBut("emqx@e-core-green-0.pods"), withNode("e-core-blue-0", func(n *evacuate.NodeObservation) {
			n.Members = append(n.Members, "emqx@e-core-green-0.pods")
		}), withNode("e-core-green-0", func(n *evacuate.NodeObservation) {
			n.Members = []string{"emqx@e-core-green-0.pods", "emqx@e-core-blue-0.pods"}
		})), nil},
		{"not for all of them when nobody sees anybody", upgrading(v2beta1.PhaseDone, func(s *Snapshot) {
			for _, pod := range s.pods() {
				withNode(pod.Name, func(n *evacuate.NodeObservation) { n.Members = []string{pod.Node} })(s)
			}
		}), nil},
		{"closed for a container that was started again", upgrading(v2beta1.PhaseDone, withPod("e-core-green-0", restarted), withNode("e-core-green-0", func(n *evacuate.NodeObservation) { *n = evacuate.NodeObservation{} })),
			[]Action{SetGate{Pod: "e-core-green-0", UID: "green-0", Container: "c2", Message: "the container was started again and its node has not been seen in the cluster since"}}},
		{"until it has joined", upgrading(v2beta1.PhaseDone, withPod("e-core-green-0", restarted)), []Action{SetGate{Pod: "e-core-green-0", UID: "green-0", Serving: true, Container: "c2", Message: "the node runs in its cluster"}}},
		{"not for one that nobody knows which container it was opened for", upgrading(v2beta1.PhaseDone, withPod("e-core-green-0", func(p *Pod) { p.GateContainer = "" }), withNode("e-core-green-0", silentNode)), nil},
		{"never opened for a surplus pod", upgrading(v2beta1.PhaseDone, withPod("e-core-green-1", closed), wanting(1)), nil},
		{"a pod that goes is left alone", upgrading(v2beta1.PhaseProvisioning, withPod("e-core-green-0", closed), withPod("e-core-green-0", func(p *Pod) { p.Deleting = true })), nil},
	} {
		t.Run(test.reason, func(t *testing.T) { require.Equal(t, test.want, flat(gates(test.s))) })
	}
	t.Run("nodes that disagree are looked at again soon, and asked often", func(t *testing.T) {
		decision := Decide(upgrading(v2beta1.PhaseDone, without("blue"), withNode("e-core-green-0", alone)))
		require.NotZero(t, decision.After)
		require.True(t, decision.Goal.Busy)
		decision = Decide(upgrading(v2beta1.PhaseDone, without("blue")))
		require.Zero(t, decision.After)
		require.False(t, decision.Goal.Busy)
	})
}

// unseenBut takes a node out of the view of all others.
func unseenBut(name string) func(*Snapshot) {
	return func(s *Snapshot) {
		own := s.Observation.Nodes[name].Members
		unseen(name)(s)
		node := s.Observation.Nodes[name]
		node.Members = own
		s.Observation.Nodes[name] = node
	}
}
