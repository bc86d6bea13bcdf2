package upgrade

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// Snapshot is all that a decision is made from: values, no clients, contexts or pointers into caches. It is not changed
// once it is gathered.
type Snapshot struct {
	// Now is the time of the decision.
	Now time.Time
	// EMQX is the resource.
	EMQX *v2beta1.EMQX
	// Config is what was read of the configuration in the specification, and ConfigError says why it cannot be read.
	Config      resources.Config
	ConfigError error
	// ConfigHash identifies that configuration.
	ConfigHash string
	// Revision is the update revision: what the specification asks for. It is the hash of Intent, or the name of an
	// adopted set that has this intent.
	Revision string
	Intent   string
	// Editor is who changed the specification last, by the name of the field manager; empty when unknown.
	Editor string
	// Sets are the sets of the cluster, oldest first.
	Sets []Set
	// Services are the Services that select one revision. One that does not exist is missing.
	Services map[resources.ServiceKind]Service
	// Headless, ConfigMap, CookieSecret and KeysSecret tell how the other objects of the cluster stand.
	Headless, ConfigMap, CookieSecret, KeysSecret ObjectState
	// Observation is what EMQX was last seen to be like.
	Observation evacuate.Observation
}

// ObjectState tells how an object stands to what it shall be.
type ObjectState int

// How an object stands.
const (
	// Missing: it does not exist.
	Missing ObjectState = iota
	// Outdated: it exists and is not as it shall be.
	Outdated
	// Current: it is as it shall be.
	Current
)

// Service is a Service that selects one revision.
type Service struct {
	// Revision is the revision that it selects; empty for none.
	Revision string
	// State is Current when it is as its revision's set wants it, else Outdated.
	State ObjectState
	// Endpoints are the pods that the Service leads to, by its EndpointSlices.
	Endpoints []Endpoint
	// Inheritance hands the fields of an operator that had the Service before over to this one; nil when there are none.
	Inheritance []byte
}

// Endpoint is an entry of an EndpointSlice.
type Endpoint struct {
	PodUID types.UID
	Ready  bool
}

// Set is a StatefulSet of the cluster with its pods.
type Set struct {
	Name     string
	UID      types.UID
	Revision string
	// Replicas is the number of pods asked for.
	Replicas int32
	// NodeCount is the largest number of nodes that it ever had.
	NodeCount int32
	// ServingSince is when a Service was about to select it first; zero for never.
	ServingSince time.Time
	// Ports and ConfigHash are those of the configuration that it was created with.
	Ports      resources.Ports
	ConfigHash string
	// Intent is what its revision was hashed from; empty when another operator made the set.
	Intent string
	// Image is that of EMQX's container.
	Image string
	// Deleting tells that it is being deleted.
	Deleting bool
	// Pods are its pods by ordinal.
	Pods []Pod
}

// Pod is a pod of a set.
type Pod struct {
	Name    string
	UID     types.UID
	IP      string
	Ordinal int
	// Node is the name of its EMQX node.
	Node string
	// Ready is the pod's condition, gate included; ContainersReady is without the gate.
	Ready, ContainersReady bool
	// OnServing is the gate.
	OnServing bool
	// ContainerRunning tells whether EMQX's container runs.
	ContainerRunning bool
	// Deleting tells that it is being deleted.
	Deleting bool
	// Trouble is why its containers do not run, in Kubernetes' words; empty when there is nothing to say.
	Trouble string
}

// updateSet is the set of the update revision, nil when there is none.
func (s *Snapshot) updateSet() *Set { return s.set(s.Revision) }

func (s *Snapshot) set(revision string) *Set {
	for i := range s.Sets {
		if s.Sets[i].Revision == revision && !s.Sets[i].Deleting {
			return &s.Sets[i]
		}
	}
	return nil
}

// currentRevision is the revision that serves: what the listeners Service selects, or, when there is no such Service,
// what the status last called so.
func (s *Snapshot) currentRevision() string {
	if service, ok := s.Services[resources.Listeners]; ok && service.Revision != "" {
		return service.Revision
	}
	return s.EMQX.Status.CoreNodesStatus.CurrentRevision
}

// setOfPod is the set that a pod belongs to, nil when there is none.
func (s *Snapshot) setOfPod(uid types.UID) *Set {
	for i := range s.Sets {
		if slices.ContainsFunc(s.Sets[i].Pods, func(p Pod) bool { return p.UID == uid }) {
			return &s.Sets[i]
		}
	}
	return nil
}

// outgoing are all sets but that of the update revision.
func (s *Snapshot) outgoing() []Set {
	var sets []Set
	for _, set := range s.Sets {
		if set.Revision != s.Revision {
			sets = append(sets, set)
		}
	}
	return sets
}

// served tells whether a set ever had, or may have had, clients.
func (s *Snapshot) served(set Set) bool {
	return !set.ServingSince.IsZero() || set.Revision == s.currentRevision() || set.foreign()
}

// wantedReplicas is the number of core nodes that the specification asks for.
func (s *Snapshot) wantedReplicas() int32 {
	if replicas := s.EMQX.Spec.CoreTemplate.Spec.Replicas; replicas != nil {
		return *replicas
	}
	return 1
}

// node is what is known of a pod's node.
func (s *Snapshot) node(pod Pod) evacuate.NodeObservation { return s.Observation.Nodes[pod.Node] }

// fresh bounds the age of what a step that cannot be undone relies on.
const fresh = 15 * time.Second

// freshNode is what is known of a pod's node, unless that is too old to act on.
func (s *Snapshot) freshNode(pod Pod) evacuate.NodeObservation {
	node := s.node(pod)
	if node.Known() && s.Now.Sub(node.Seen) > fresh {
		node.Failure = "it has not answered for " + s.Now.Sub(node.Seen).Round(time.Second).String()
	}
	return node
}

// pods are the pods of all sets.
func (s *Snapshot) pods() []Pod {
	var pods []Pod
	for _, set := range s.Sets {
		pods = append(pods, set.Pods...)
	}
	return pods
}

// anyRuns reports whether EMQX runs in any pod.
func (s *Snapshot) anyRuns() bool {
	return slices.ContainsFunc(s.pods(), func(pod Pod) bool { return pod.ContainerRunning })
}

// stopped reports whether a pod's node is known not to run: the kubelet says that its container does not run, and a
// node that answers does not count it among the running. Silence alone proves nothing.
func (s *Snapshot) stopped(pod Pod) bool {
	if pod.ContainerRunning {
		return false
	}
	for _, other := range s.pods() {
		if witness := s.freshNode(other); other.UID != pod.UID && witness.Running() {
			return !slices.Contains(witness.Members, pod.Node)
		}
	}
	return false
}

// strategy is how connections and sessions are to be moved.
func (s *Snapshot) strategy() v2beta1.EvacuationStrategy {
	return s.EMQX.Spec.UpdateStrategy.EvacuationStrategy
}

// upgradeStatus is a copy of what the resource remembers of the upgrade.
func (s *Snapshot) upgradeStatus() v2beta1.UpgradeStatus {
	if s.EMQX.Status.Upgrade == nil {
		return v2beta1.UpgradeStatus{}
	}
	return *s.EMQX.Status.Upgrade.DeepCopy()
}
