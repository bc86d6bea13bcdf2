package machine

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
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
	// Wanted is what the specification asks for, by role; a role that it does not ask for is missing.
	Wanted map[Role]Target
	// Editor is who changed the specification last, by the name of the field manager; empty when unknown.
	Editor string
	// Sets are the sets of the cluster, oldest first.
	Sets []Set
	// Services are the Services that select one revision. One that does not exist is missing.
	Services map[resources.ServiceKind]Service
	// Budget is how the PodDisruptionBudget of the core nodes stands.
	Budget Budget
	// ConfigMaps tells how the ConfigMaps of the revisions stand, by name. One that does not exist is missing.
	ConfigMaps map[string]ObjectState
	// Headless, CookieSecret and KeysSecret tell how the other objects of the cluster stand.
	Headless, CookieSecret, KeysSecret ObjectState
	// Cookie is the one that the cookie's Secret holds now.
	Cookie Cookie
	// Keys are how the API keys in the keys' Secret stand.
	Keys Keys
	// Trust is whom to trust where nodes are asked over HTTPS.
	Trust emqx.Trust
	// Claims are those of the volumes of core nodes, by name.
	Claims []Claim
	// Taken are the names that the cluster needs and that something else has.
	Taken []Taken
	// Observation is what EMQX was last seen to be like.
	Observation evacuate.Observation
	// Rebalances are those that name the cluster, oldest first.
	Rebalances []*v2beta1.Rebalance
	// NodesWatched tells that it is known which Kubernetes nodes are drained.
	NodesWatched bool
	// MaxUpgrades is how many clusters of the operator may be upgraded at the same time; zero means any number. Others are
	// those that are, but for this one.
	MaxUpgrades int
	Others      []string
}

// Role tells the nodes of a cluster apart: each has sets, and a target, of its own.
type Role string

// Core is the role of the nodes that hold the cluster's data.
const Core Role = v2beta1.RoleCore

// Target is a revision of a role's nodes, and how many there shall be.
type Target struct {
	// Revision is the name of the revision: the hash of Intent, or the name of an existing set that has this intent.
	Revision string
	// Intent is what the revision stands for; see IntentOf.
	Intent string
	// Replicas is the number of nodes.
	Replicas int32
	// Replacement is the name that the revision would have, when the set that has its name now stands for another intent and
	// is to get this one: its node is replaced in place. Empty otherwise.
	Replacement string
}

// Name tells the revision from all others, also from the one that is replaced by it in place.
func (t Target) Name() string { return cmp.Or(t.Replacement, t.Revision) }

// ObjectState tells how an object stands to what it shall be.
type ObjectState int

// How an object stands.
const (
	// Missing: it does not exist.
	Missing ObjectState = iota
	// Unavailable: something else has its name; see Snapshot.Taken.
	Unavailable
	// Outdated: it exists and is not as it shall be.
	Outdated
	// Current: it is as it shall be.
	Current
)

// Taken is an object that has a name which the cluster needs, and is not the cluster's.
type Taken struct {
	// Kind and Name say which object it is.
	Kind, Name string
	// Owner says whose it is, such as "Deployment x"; empty for an object that nothing controls.
	Owner string
	// Former tells that it belongs to a deleted resource of the same name: it goes by itself.
	Former bool
}

// Service is a Service that selects one revision.
type Service struct {
	// Revision is the revision that it selects; empty for none.
	Revision string
	// State is Current when it is as its revision's set wants it, else Outdated or Unavailable.
	State ObjectState
	// Ours tells that this operator has written it before.
	Ours bool
	// Endpoints are the pods that the Service leads to, by its EndpointSlices.
	Endpoints []Endpoint
	// Inheritance hands the fields of an operator that had the Service before over to this one; nil when there are none.
	Inheritance []byte
}

// Budget is a PodDisruptionBudget, which protects the pods of one revision.
type Budget struct {
	// State is Current when it protects the pods that serve, as it shall, else Missing, Outdated or Unavailable.
	State ObjectState
	UID   types.UID
	// Revision is the revision that it selects; empty for none.
	Revision string
	// Inheritance hands the fields of an operator that had it before over to this one; nil when there are none.
	Inheritance []byte
}

// Endpoint is an entry of an EndpointSlice.
type Endpoint struct {
	PodUID types.UID
	Ready  bool
}

// Set is a set of pods of one revision and role: a StatefulSet with its pods or, when it is Orphaned, pods that a set
// left behind.
type Set struct {
	Name string
	UID  types.UID
	// ResourceVersion is that of the StatefulSet: what is written to it carries it, so that nothing is changed that was
	// not seen.
	ResourceVersion string
	Role            Role
	Revision        string
	// Replicas is the number of pods asked for.
	Replicas int32
	// PodsUnseen tells that Kubernetes has pods of it, or may be about to make some, that are not among Pods: the StatefulSet
	// controller counts more, or has not seen the last change of the set yet.
	PodsUnseen bool
	// NodeCount is the largest number of nodes that it ever had.
	NodeCount int32
	// Asked is the number of pods that this operator asked for last; zero when it is not known.
	Asked int32
	// ServingSince is when it was last about to serve; zero for never.
	ServingSince time.Time
	// Ports and ConfigHash are those of the configuration that it was created with.
	Ports      resources.Ports
	ConfigHash string
	// PortNames are the names that the containers of its pods give to their ports.
	PortNames []string
	// ConfigMap is the name of the ConfigMap that its pods read.
	ConfigMap string
	// Intent is what its revision was hashed from; empty when another operator made the set.
	Intent string
	// Image is that of EMQX's container.
	Image string
	// CookieDigest is that of the cookie that it was made with; empty when unknown.
	CookieDigest string
	// LiveKeys tells that what is written to the Secret of the API keys comes into its pods while they run.
	LiveKeys bool
	// Template is the revision that its template was last written for; empty when that was never said.
	Template string
	// Domain is the DNS domain of its pods: the node of a pod is emqx@POD.DOMAIN.
	Domain string
	// Deleting tells that it is being deleted.
	Deleting bool
	// Orphaned tells that the StatefulSet has gone and left its pods.
	Orphaned bool
	// Mislabelled tells that its labels or its owner were taken off.
	Mislabelled bool
	// Finalizers are what keeps it while it is being deleted.
	Finalizers []string
	// Pods are its pods by ordinal.
	Pods []Pod
}

// NodeName is the name of the EMQX node in a pod of the set.
func (set Set) NodeName(pod string) string { return "emqx@" + pod + "." + set.Domain }

// nodeAt is the name of the EMQX node in the pod of an ordinal, whether there is one or not.
func (set Set) nodeAt(ordinal int32) string {
	return set.NodeName(fmt.Sprintf("%s-%d", set.Name, ordinal))
}

// Pod is a pod of a set.
type Pod struct {
	Name     string
	UID      types.UID
	IP       string
	Ordinal  int
	Role     Role
	Revision string
	// Node is the name of its EMQX node.
	Node string
	// Template is the revision that its set's template was written for when it was made; empty when that was not said.
	Template string
	// Ready is the pod's condition, gate included; ContainersReady is without the gate.
	Ready, ContainersReady bool
	// OnServing is the gate, and GateContainer the container that it was opened for; empty when unknown.
	OnServing     bool
	GateContainer string
	// SiteCondition is what was last told of its site of durable storage; empty for nothing.
	SiteCondition metav1.ConditionStatus
	// ContainerRunning tells whether EMQX's container runs, Container which it is, and ContainerStarted since when.
	ContainerRunning bool
	Container        string
	ContainerStarted time.Time
	// Deleting tells that it is being deleted, and Finalizers what keeps it then.
	Deleting   bool
	Finalizers []string
	// UnreachableSince is since when nothing was heard of the kubelet of its Kubernetes node; zero while that is heard of.
	UnreachableSince time.Time
	// KubernetesNode is the name of the Kubernetes node that it is on, empty for none, and Drained tells that the latter is drained.
	KubernetesNode string
	Drained        bool
	// LetGo tells that it may be evicted: the budget protects it no more.
	LetGo bool
	// Created is when it was made.
	Created time.Time
	// StartTime is how long it took from when it was made until it was ready; zero when that is not known.
	StartTime time.Duration
	// OneNodeLicence tells that EMQX ended in it because the licence allows one node.
	OneNodeLicence bool
	// Trouble is why its containers do not run, in Kubernetes' words; empty when there is nothing to say.
	Trouble string
}

// target is what the cluster is led to: what the specification asks for.
func (s *Snapshot) target(role Role) Target { return s.Wanted[role] }

// roles are the roles that have nodes, or shall have, in the order in which they are built.
func (s *Snapshot) roles() []Role { return []Role{Core} }

// targetSet is the set of a role's target revision, nil when there is none.
func (s *Snapshot) targetSet(role Role) *Set { return s.set(s.target(role).Revision) }

// set is the set of a revision, nil when there is none. Nothing has no revision.
func (s *Snapshot) set(revision string) *Set {
	if revision == "" {
		return nil
	}
	for i := range s.Sets {
		if s.Sets[i].Revision == revision && !s.Sets[i].Deleting && !s.Sets[i].Orphaned {
			return &s.Sets[i]
		}
	}
	return nil
}

// currentRevision is the revision that serves: what the listeners Service selects or, when there is no such Service,
// what it was last seen to select, or the revision that was last about to serve.
func (s *Snapshot) currentRevision() string {
	if revision := s.Services[resources.Listeners].Revision; revision != "" {
		return revision
	}
	if set := s.set(s.EMQX.Status.CoreNodesStatus.CurrentRevision); set != nil {
		return set.Revision
	}
	latest := Set{}
	for _, set := range s.Sets {
		if set.ServingSince.After(latest.ServingSince) {
			latest = set
		}
	}
	return latest.Revision
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

// Has reports whether a pod is one of the cluster's.
func (s *Snapshot) Has(pod types.UID) bool { return s.setOfPod(pod) != nil }

// pods are the pods of all sets.
func (s *Snapshot) pods() []Pod {
	count := 0
	for i := range s.Sets {
		count += len(s.Sets[i].Pods)
	}
	return slices.AppendSeq(make([]Pod, 0, count), s.eachPod())
}

// eachPod goes through them without making a list.
func (s *Snapshot) eachPod() iter.Seq[Pod] {
	return func(yield func(Pod) bool) {
		for i := range s.Sets {
			for j := range s.Sets[i].Pods {
				if !yield(s.Sets[i].Pods[j]) {
					return
				}
			}
		}
	}
}

// anyRuns reports whether EMQX runs in any pod.
func (s *Snapshot) anyRuns() bool {
	return slices.ContainsFunc(s.pods(), func(pod Pod) bool { return pod.ContainerRunning })
}

// byNode are the pods by the names of their nodes.
func (s *Snapshot) byNode() map[string]Pod {
	pods := map[string]Pod{}
	for pod := range s.eachPod() {
		pods[pod.Node] = pod
	}
	return pods
}

// node is what is known of a pod's node. What was observed of it before its container was started again says nothing of it now.
func (s *Snapshot) node(pod Pod) evacuate.NodeObservation {
	if node := s.Observation.Nodes[pod.Node]; node.Life == pod.Container {
		return node
	}
	return evacuate.NodeObservation{}
}

// fresh bounds the age of what a step that cannot be undone relies on.
const fresh = 15 * time.Second

// freshNode is what is known of a pod's node, unless that is too old to act on.
func (s *Snapshot) freshNode(pod Pod) evacuate.NodeObservation {
	node := s.node(pod)
	if node.Known() && s.Now.Sub(node.Seen) > fresh {
		node.Failure = "it was not asked since"
	}
	return node
}

// updateStrategy is how an upgrade is made.
func (s *Snapshot) updateStrategy() v2beta1.UpdateStrategy { return s.EMQX.Spec.UpdateStrategy }

// strategy is how connections and sessions are to be moved.
func (s *Snapshot) strategy() v2beta1.EvacuationStrategy {
	return s.updateStrategy().EvacuationStrategy
}

// upgradeStatus is a copy of what the resource remembers of the upgrade.
func (s *Snapshot) upgradeStatus() v2beta1.UpgradeStatus {
	if s.EMQX.Status.Upgrade == nil {
		return v2beta1.UpgradeStatus{}
	}
	return *s.EMQX.Status.Upgrade.DeepCopy()
}

// phase is the phase that the cluster is in. A new resource has none yet and begins with Pending.
func (s *Snapshot) phase() v2beta1.Phase {
	if phase := s.EMQX.Status.Phase; slices.Contains(v2beta1.Phases(), phase) {
		return phase
	}
	return v2beta1.PhasePending
}
