package upgrade

import (
	"time"

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
	// Actions are carried out in order, up to the first that fails.
	Actions []Action
	// Goal is what EMQX shall be like; nil leaves the driver's goal as it is.
	Goal *evacuate.Goal
	// Waiting says in a sentence what the phase waits for; empty when it does not wait.
	Waiting string
	// Stalled says why only a person can help; nil when that is not so.
	Stalled *Problem
	// Notices are things that the user should know, told by an event once a generation.
	Notices []Problem
	// Paused tells that the user holds the cluster.
	Paused bool
	// After is when to look again even if nothing happens; zero for never.
	After time.Duration
	// Gone tells that the resource is being deleted: nothing is written any more.
	Gone bool
}

// Problem is a reason, for machines, and a message, for people.
type Problem struct {
	// Reason is one CamelCase word.
	Reason string
	// Message says cause and remedy.
	Message string
}

// Action is something to be done in Kubernetes. The set of its kinds is closed.
type Action interface{ isAction() }

// CreateCookieSecret makes the Secret with the nodes' cookie, a new one, unless it exists.
type CreateCookieSecret struct{}

// CreateKeysSecret makes the Secret with the API keys, unless it exists. The operator's own keeps its password if that
// is known.
type CreateKeysSecret struct{}

// ApplyConfigMap writes emqx.conf from the specification.
type ApplyConfigMap struct{}

// ApplyHeadlessService writes the Service through which nodes find each other.
type ApplyHeadlessService struct{}

// CreateSet makes the set of the update revision.
type CreateSet struct{ Set resources.CoreSet }

// ScaleSet gives a set its number of pods.
type ScaleSet struct {
	Name      string
	UID       types.UID
	Replicas  int32
	NodeCount int32
}

// AdoptSet notes on a set that another operator made what this one notes when it makes a set.
type AdoptSet struct {
	Name       string
	UID        types.UID
	At         time.Time
	Intent     string
	ConfigHash string
	Ports      resources.Ports
}

// MarkServing notes on a set that it is about to serve.
type MarkServing struct {
	Name string
	UID  types.UID
	At   time.Time
}

// DeleteSet removes a set that has no pods.
type DeleteSet struct {
	Name string
	UID  types.UID
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

// SetGate writes the readiness gate of a pod.
type SetGate struct {
	Pod     string
	UID     types.UID
	Serving bool
	Message string
}

func (CreateCookieSecret) isAction()   {}
func (CreateKeysSecret) isAction()     {}
func (ApplyConfigMap) isAction()       {}
func (ApplyHeadlessService) isAction() {}
func (CreateSet) isAction()            {}
func (ScaleSet) isAction()             {}
func (AdoptSet) isAction()             {}
func (MarkServing) isAction()          {}
func (DeleteSet) isAction()            {}
func (ApplyService) isAction()         {}
func (InheritService) isAction()       {}
func (DeleteService) isAction()        {}
func (SetGate) isAction()              {}
