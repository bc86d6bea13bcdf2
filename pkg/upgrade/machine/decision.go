package machine

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// Decision is what a sync decides: a pure function of the Snapshot.
type Decision struct {
	// Phase is where the cluster stands after this sync.
	Phase v2beta1.Phase
	// Upgrade is what the resource shall remember of the upgrade.
	Upgrade v2beta1.UpgradeStatus
	// Why says, when the phase changes, what led to it.
	Why string
	// Groups are what is to be done in Kubernetes. They are independent of each other.
	Groups []Group
	// Rebalances are what is to be done about Rebalances, one action each. That one fails says nothing of the cluster.
	Rebalances []Action
	// Goal is what EMQX shall be like.
	Goal evacuate.Goal
	// Waiting says what the phase waits for; zero when it does not wait.
	Waiting Lack
	// Unknown says what cannot be known at rest, and is waited for by nobody; zero when all is known.
	Unknown Lack
	// Drain is what the resource shall remember of the pod that leaves its Kubernetes node; nil while none does.
	Drain *v2beta1.DrainStatus
	// Stalled says why only a person can help; nil when that is not so.
	Stalled *Lack
	// Notices are things that the user should know, told by an event when Done is entered, and once a generation in it.
	Notices []Lack
	// Paused tells that the user holds the cluster.
	Paused bool
	// After is when to look again even if nothing happens; zero for never.
	After time.Duration
	// Gone tells that the resource is being deleted: only its status is written any more.
	Gone bool
}

// Lack is something that is not as it must be. The zero value is no lack.
type Lack struct {
	// Reason is one CamelCase word, for machines: conditions, events and metrics.
	Reason string
	// Message is for people: what is lacking and, where a person can help, how.
	Message string
}

// None reports whether nothing is lacking.
func (l Lack) None() bool { return l == Lack{} }

// Group is a number of actions that build on each other: the first that fails ends the group, and no other.
type Group []Action

// Action is something to be done in Kubernetes. The set of its kinds is closed.
//
//sumtype:decl
type Action interface{ isAction() }

// CreateCookieSecret makes the Secret with the nodes' cookie, a new one, unless it exists.
type CreateCookieSecret struct{}

// WriteKeysSecret makes the Secret with the API keys, or gives it what it lacks. The operator's key that the nodes know stays
// in it.
type WriteKeysSecret struct{}

// ApplyConfigMap writes emqx.conf from the specification to the ConfigMap of the given name.
type ApplyConfigMap struct{ Name, Revision string }

// DeleteConfigMap removes the ConfigMap of a revision that has no set any more.
type DeleteConfigMap struct{ Name string }

// ApplyHeadlessService writes the Service through which nodes find each other.
type ApplyHeadlessService struct{}

// CreateSet makes the set of a target revision.
type CreateSet struct{ Set resources.CoreSet }

// ReplaceTemplate gives a set of one node another template, with which its pod is made again: the node is replaced in place.
type ReplaceTemplate struct {
	SetRef
	Set resources.CoreSet
}

// SetRef names a set as it was seen: what is written to another, or to one that has changed since, is refused.
type SetRef struct {
	Name            string
	UID             types.UID
	ResourceVersion string
}

// ScaleSet gives a set its number of pods.
type ScaleSet struct {
	SetRef
	Replicas  int32
	NodeCount int32
}

// RelabelSet gives a set back its labels and its owner.
type RelabelSet struct {
	SetRef
	Revision string
}

// NoteCookie notes on a set which cookie its nodes have.
type NoteCookie struct {
	SetRef
	Digest string
}

// AdoptSet notes on a set that another operator made what this one notes when it makes a set.
type AdoptSet struct {
	SetRef
	At         time.Time
	Intent     string
	ConfigHash string
	Ports      resources.Ports
	NodeCount  int32
}

// MarkServing notes on a set that it is about to serve.
type MarkServing struct {
	SetRef
	At time.Time
}

// DeleteSet removes a set that has no pods.
type DeleteSet struct{ SetRef }

// DeletePod removes a pod that its set left behind, or that is to be made again on another Kubernetes node.
type DeletePod struct {
	Name string
	UID  types.UID
}

// LetGo has a pod be evicted by whoever drains its Kubernetes node and, with Forget, stay, once it has ended, until EMQX has
// forgotten its node. Without LetGo and Forget it is as before.
type LetGo struct {
	Name   string
	UID    types.UID
	LetGo  bool
	Forget bool
}

// ApplyService writes a Service so that it selects a revision, with the ports of that revision's set.
type ApplyService struct {
	Kind     resources.ServiceKind
	Revision string
	Ports    resources.Ports
}

// InheritService hands the fields of a Service that another operator owns over to this one.
type InheritService struct {
	Kind  resources.ServiceKind
	Patch []byte
}

// DeleteService removes a Service that is not wanted any more.
type DeleteService struct{ Kind resources.ServiceKind }

// ApplyBudget writes the PodDisruptionBudget so that it protects the pods of a revision or, with none, lets nobody but the operator
// take any core node.
type ApplyBudget struct{ Revision string }

// InheritBudget hands the fields of a PodDisruptionBudget that another operator owns over to this one.
type InheritBudget struct{ Patch []byte }

// DeleteBudget removes the PodDisruptionBudget where none is wanted any more.
type DeleteBudget struct{ UID types.UID }

// SetGate writes the readiness gate of a pod.
type SetGate struct {
	Pod     string
	UID     types.UID
	Serving bool
	// Container is the one that the gate is opened for.
	Container string
	Message   string
}

// SetSiteCondition tells on a pod whether its node's site of durable storage holds replicas.
type SetSiteCondition struct {
	Pod    string
	UID    types.UID
	Status metav1.ConditionStatus
}

func (CreateCookieSecret) isAction()   {}
func (WriteKeysSecret) isAction()      {}
func (ApplyConfigMap) isAction()       {}
func (DeleteConfigMap) isAction()      {}
func (ApplyHeadlessService) isAction() {}
func (CreateSet) isAction()            {}
func (ReplaceTemplate) isAction()      {}
func (ScaleSet) isAction()             {}
func (RelabelSet) isAction()           {}
func (NoteCookie) isAction()           {}
func (AdoptSet) isAction()             {}
func (MarkServing) isAction()          {}
func (DeleteSet) isAction()            {}
func (DeletePod) isAction()            {}
func (LetGo) isAction()                {}
func (ApplyService) isAction()         {}
func (InheritService) isAction()       {}
func (DeleteService) isAction()        {}
func (ApplyBudget) isAction()          {}
func (InheritBudget) isAction()        {}
func (DeleteBudget) isAction()         {}
func (SetGate) isAction()              {}
func (SetSiteCondition) isAction()     {}

// ref names a set as it was seen.
func (set Set) ref() SetRef {
	return SetRef{Name: set.Name, UID: set.UID, ResourceVersion: set.ResourceVersion}
}
