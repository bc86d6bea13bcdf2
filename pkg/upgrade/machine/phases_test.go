package machine

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

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
			[]Action{ApplyConfigMap{"e-configs-green", "green"}, CreateSet{resources.CoreSet{Revision: "green", Template: "green", Replicas: 2, Ports: setOfTwo("green", testNow).Ports, Intent: `{"image":"b"}`, ConfigMap: "e-configs-green"}}}},
		{"a set that is too small is enlarged", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withSet("green", func(s *Set) { s.Replicas, s.NodeCount, s.ServingSince, s.Pods = 1, 1, time.Time{}, s.Pods[:1] })), v2beta1.PhaseProvisioning, "to have 2 nodes",
			[]Action{ScaleSet{SetRef: ref("green"), Replicas: 2, NodeCount: 2}}},
		{"a set that never ran is made again when the configuration changes", upgrading(v2beta1.PhaseProvisioning, serving("blue"), neverRan("green")), v2beta1.PhaseProvisioning, "with the configuration of now",
			[]Action{ScaleSet{SetRef: ref("green"), Replicas: 0, NodeCount: 2}}},
		{"it goes when it has no pods, and EMQX keeps its nodes", upgrading(v2beta1.PhaseProvisioning, serving("blue"), neverRan("green"), withSet("green", func(s *Set) { s.Replicas, s.Pods = 0, nil })),
			v2beta1.PhaseProvisioning, "with the configuration of now", []Action{DeleteSet{ref("green")}}},
		{"not while it has pods that have not been seen", upgrading(v2beta1.PhaseProvisioning, serving("blue"), neverRan("green"), withSet("green", func(s *Set) { s.Pods, s.PodsUnseen = nil, true })),
			v2beta1.PhaseProvisioning, "with the configuration of now", nil},
		{"one of which a node runs is not", upgrading(v2beta1.PhaseProvisioning, serving("blue"), neverRan("green"), withPod("e-core-green-0", func(p *Pod) { p.ContainersReady, p.ContainerRunning = true, true }),
			withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Failure = "" })), v2beta1.PhaseProvisioning, "0/2",
			[]Action{SetGate{Pod: "e-core-green-0", UID: "green-0", Serving: true, Container: "c1", Message: "the node runs in its cluster"}}},
		{"the side that an upgrade before led to is lost: the Services go back", upgrading(v2beta1.PhaseProvisioning, leadingTo("red"), unready2("green")), v2beta1.PhaseProvisioning, "go back to revision blue", []Action{
			ApplyService{Kind: resources.Listeners, Revision: "blue", Ports: setOfTwo("blue", testNow).Ports},
			ApplyService{Kind: resources.Dashboard, Revision: "blue", Ports: setOfTwo("blue", testNow).Ports},
		}},
		{"as long as a pod of it is ready they stay", upgrading(v2beta1.PhaseProvisioning, leadingTo("red"), withPod("e-core-green-0", func(p *Pod) { p.Ready = false })), v2beta1.PhaseProvisioning, "to be created",
			[]Action{ApplyConfigMap{"e-configs-red", "red"}, CreateSet{resources.CoreSet{Revision: "red", Template: "red", Replicas: 2, Ports: setOfTwo("green", testNow).Ports, ConfigMap: "e-configs-red"}}}},
		{"all is ready", upgrading(v2beta1.PhaseProvisioning, serving("blue")), v2beta1.PhaseSwitching, "", nil},
		{"a pod is missing", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withSet("green", func(s *Set) { s.Pods = s.Pods[:1] })), v2beta1.PhaseProvisioning, "1/2: e-core-green-1 is not created yet; the events of StatefulSet e-core-green say why", nil},
		{"a pod is missing a moment after", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withSet("green", func(s *Set) { s.Pods = s.Pods[:1] }), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.PhaseStartedTime = at(testNow.Add(-time.Second)) })), v2beta1.PhaseProvisioning, "1/2: e-core-green-1 is not created yet", nil},
		{"a pod has trouble", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withPod("e-core-green-1", func(p *Pod) { p.Trouble = "ImagePullBackOff" })), v2beta1.PhaseProvisioning, "e-core-green-1 has trouble: ImagePullBackOff", nil},
		{"a pod is not ready", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withPod("e-core-green-0", func(p *Pod) { p.ContainersReady = false })), v2beta1.PhaseProvisioning, "e-core-green-0 is starting", nil},
		{"a node is silent", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", silentNode)), v2beta1.PhaseProvisioning, "does not answer", nil},
		{"a node does not know the key", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Failure, n.Refusal = "401", evacuate.Unauthorized })), v2beta1.PhaseProvisioning, "does not know the operator's API key: 401; a core node reads Secret e-bootstrap-api-key when it starts", nil},
		{"a node has a certificate that is not trusted", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Failure, n.Refusal = "x509", evacuate.Untrusted })), v2beta1.PhaseProvisioning, "cannot be asked: x509; spec.apiTLS says whom the operator trusts", nil},
		{"a node does not let the key do what it has to", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withNode("e-core-green-0", func(n *evacuate.NodeObservation) { n.Failure, n.Refusal = "403", evacuate.Forbidden })), v2beta1.PhaseProvisioning, "does not let the operator's API key do what it has to: 403", nil},
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
		{"a set whose gates are open may have clients until its nodes were asked", upgrading(v2beta1.PhaseProvisioning, serving("blue"), func(s *Snapshot) {
			withRed(s)
		}, withPod("e-core-green-0", func(p *Pod) { p.ContainersReady = false })), v2beta1.PhaseProvisioning, "is starting", nil},
		{"also afterwards where the user leads clients himself", upgrading(v2beta1.PhaseProvisioning, serving("blue"), withCurrent("blue"), func(s *Snapshot) {
			withRed(s)
			s.EMQX.Spec.ListenersServiceTemplate = &v2beta1.ServiceTemplate{Enabled: ptr.To(false)}
			delete(s.Services, resources.Listeners)
		}, withNode("e-core-red-0", clients(0, 0)), withNode("e-core-red-1", silentNode), withPod("e-core-green-0", func(p *Pod) { p.ContainersReady = false })),
			v2beta1.PhaseProvisioning, "is starting", nil},
		{"a set that never served is removed at once", upgrading(v2beta1.PhaseProvisioning, serving("blue"), func(s *Snapshot) {
			withRed(s)
		}, withNode("e-core-red-0", silentNode), withNode("e-core-red-1", silentNode), withPod("e-core-green-0", func(p *Pod) { p.ContainersReady = false })), v2beta1.PhaseProvisioning, "is starting", []Action{ScaleSet{SetRef: ref("red"), NodeCount: 2}}},
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
		{"an old node that refuses the key is not called lost", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-0", func(n *evacuate.NodeObservation) { n.Failure, n.Refusal = "401", evacuate.Unauthorized })),
			v2beta1.PhaseEvacuating, "1 leaving nodes to be empty: emqx@e-core-blue-0.pods does not know the operator's API key: 401; a core node reads", nil},
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
		}), v2beta1.PhaseDone, "", []Action{ApplyConfigMap{"e-configs-green", "green"}, WriteKeysSecret{}, ApplyHeadlessService{}}},
		{"the Secret of the API keys is not what it shall be", upgrading(v2beta1.PhaseDone, without("blue"), func(s *Snapshot) { s.Keys.Outdated = true }), v2beta1.PhaseDone, "", []Action{WriteKeysSecret{}}},
		{"nor while an upgrade is under way", upgrading(v2beta1.PhaseEvacuating, evacuatedBlue, withNode("e-core-blue-0", clients(3, 5)), func(s *Snapshot) { s.Keys.Outdated = true }), v2beta1.PhaseEvacuating, "has 3 clients", []Action{WriteKeysSecret{}}},
		{"one that cannot be had is no reason to write the others", upgrading(v2beta1.PhaseDone, without("blue"), func(s *Snapshot) { s.Keys.Outdated, s.Keys.Problem = true, "it is not there" }), v2beta1.PhaseDone, "", nil},
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
		{"more nodes are asked for in mid-upgrade", upgrading(v2beta1.PhaseSwitching, wanting(3)), v2beta1.PhaseSwitching, "hold 2 of 3 pods",
			[]Action{ScaleSet{SetRef: ref("green"), Replicas: 3, NodeCount: 3}}},
		{"not while it is paused", upgrading(v2beta1.PhaseSwitching, wanting(3), func(s *Snapshot) { s.EMQX.Spec.UpdateStrategy.Paused = true }), v2beta1.PhaseSwitching, "paused to be removed", nil},
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
