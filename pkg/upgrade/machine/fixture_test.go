package machine

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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
		Observation: evacuate.Observation{Nodes: map[string]evacuate.NodeObservation{}, Left: map[string]bool{}, Storage: evacuate.StorageObservation{Seen: testNow}},
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
			Life: pod.Container, Seen: testNow, Members: members, Available: true, Listeners: map[string]bool{"tcp:default": true},
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

// point has both Services select a revision, and lead to its pods, and the budget protect them.
func point(s *Snapshot, revision string) {
	for _, kind := range resources.ServiceKinds() {
		service := Service{Revision: revision, State: Current, Ours: true}
		for _, pod := range s.set(revision).Pods {
			service.Endpoints = append(service.Endpoints, Endpoint{PodUID: pod.UID, Ready: true})
		}
		s.Services[kind] = service
	}
	s.Budget = Budget{State: Current, UID: "budget", Revision: revision}
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
	s.EMQX.Status.CoreNodesStatus.CurrentRevision, s.Budget.Revision = "blue", "blue"
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

// neverRan has a set have been made with another configuration, by which none of its nodes got anywhere.
func neverRan(revision string) func(*Snapshot) {
	return func(s *Snapshot) {
		withSet(revision, func(set *Set) {
			set.ServingSince, set.ConfigHash = time.Time{}, "before"
			for i := range set.Pods {
				set.Pods[i].Ready, set.Pods[i].ContainersReady, set.Pods[i].OnServing, set.Pods[i].ContainerRunning = false, false, false, false
				withNode(set.Pods[i].Name, func(n *evacuate.NodeObservation) {
					n.Info, n.Failure = emqx.NodeInfo{Status: "running", Connections: n.Info.Connections, LiveConnections: n.Info.LiveConnections}, "refused"
				})(s)
				withNode(set.Pods[i].Name, clients(0, 0))(s)
			}
		})(s)
	}
}

// leadingTo has an upgrade lead to a revision that has no set yet.
func leadingTo(revision string) func(*Snapshot) {
	return func(s *Snapshot) {
		s.Wanted[Core], s.EMQX.Status.Upgrade.To = Target{Revision: revision, Replicas: 2}, revision
	}
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
		if node.Life == "" {
			node.Life = "c1"
		}
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

// unasked has nothing be known of a node, booting that it does not answer yet.
func unasked(n *evacuate.NodeObservation) { *n = evacuate.NodeObservation{} }

func booting(n *evacuate.NodeObservation) {
	*n = evacuate.NodeObservation{Failure: "connection refused"}
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

func volume(size string) corev1.PersistentVolumeClaimSpec {
	return corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
	}
}

func withVolumes(s *Snapshot) { s.EMQX.Spec.CoreTemplate.Spec.VolumeClaimTemplates = volume("1Gi") }

// withClaims adds claims, which get their names.
func withClaims(claims ...Claim) func(*Snapshot) {
	return func(s *Snapshot) {
		for _, claim := range claims {
			claim.Name = fmt.Sprintf("e-core-data-e-core-%s-%d", claim.Revision, claim.Ordinal)
			claim.UID = types.UID("claim " + claim.Name)
			s.Claims = append(s.Claims, claim)
		}
	}
}

// claimed gives each pod of a set its claim.
func claimed(revision string) func(*Snapshot) {
	return withClaims(Claim{Revision: revision}, Claim{Revision: revision, Ordinal: 1})
}
