package v2beta1

import "k8s.io/apimachinery/pkg/util/intstr"

// UpdateStrategyType names a way to upgrade.
// +kubebuilder:validation:Enum=Recreate
type UpdateStrategyType string

// UpdateStrategyRecreate is the blue-green upgrade.
const UpdateStrategyRecreate UpdateStrategyType = "Recreate"

// PromotionType says who lets an upgrade switch the Services.
// +kubebuilder:validation:Enum=Automatic;Manual
type PromotionType string

// Who lets an upgrade switch the Services.
const (
	PromotionAutomatic PromotionType = "Automatic"
	PromotionManual    PromotionType = "Manual"
)

// DeadlineAction says what happens to an upgrade whose new nodes are not ready in time.
// +kubebuilder:validation:Enum=Hold;Rollback
type DeadlineAction string

// What happens to an upgrade whose new nodes are not ready in time.
const (
	DeadlineHold     DeadlineAction = "Hold"
	DeadlineRollback DeadlineAction = "Rollback"
)

// UpdateStrategy says how an upgrade is made.
type UpdateStrategy struct {
	// Type is the way to upgrade. Recreate, the only one, is blue-green.
	// +optional
	// +kubebuilder:default=Recreate
	Type UpdateStrategyType `json:"type,omitempty"`

	// InitialDelaySeconds is the time between the switch of the Services and the first eviction, in seconds.
	// +optional
	// +kubebuilder:validation:Minimum=0
	InitialDelaySeconds int32 `json:"initialDelaySeconds,omitempty"`

	// EvacuationStrategy says how fast connections and sessions are moved.
	// +optional
	EvacuationStrategy EvacuationStrategy `json:"evacuationStrategy,omitempty"`

	// Paused holds the cluster as it is: nothing new is started, running evacuations are stopped, serving goes on.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// Promotion says who lets an upgrade switch the Services: Automatic, as soon as the new nodes are ready, or Manual.
	// This version of the operator knows Automatic: Manual is reported as Stalled and changes nothing.
	// +optional
	// +kubebuilder:default=Automatic
	Promotion PromotionType `json:"promotion,omitempty"`

	// PromotedRevision names the revision that is approved: its switch when promotion is Manual, and what is lost on the way to it
	// between some versions of EMQX.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	PromotedRevision string `json:"promotedRevision,omitempty"`

	// ProgressDeadlineSeconds is how long the new nodes may take to become ready before the upgrade is reported as
	// Stalled, in seconds. The time while paused does not count.
	// +optional
	// +kubebuilder:default=600
	// +kubebuilder:validation:Minimum=1
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`

	// OnDeadline says what happens then: Hold, and wait for a person, or Rollback. This version of the operator knows
	// Hold: Rollback is reported as Stalled and changes nothing.
	// +optional
	// +kubebuilder:default=Hold
	OnDeadline DeadlineAction `json:"onDeadline,omitempty"`

	// UnreachableTolerationSeconds is how long the Kubernetes node of a leaving pod may be unreachable before that pod counts
	// as gone, with the clients and sessions it had, in seconds. EMQX must count its node as stopped, too. Unset, it is waited
	// for until somebody deletes the pod, or taints the node with node.kubernetes.io/out-of-service.
	// +optional
	// +kubebuilder:validation:Minimum=1
	UnreachableTolerationSeconds *int32 `json:"unreachableTolerationSeconds,omitempty"`
}

// EvacuationStrategy says how fast connections and sessions are moved. Rates are for the cluster, not for a node.
type EvacuationStrategy struct {
	// WaitTakeover is how long clients have to come back by themselves and take their sessions over, before the
	// sessions left are moved, in seconds.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967
	WaitTakeover int32 `json:"waitTakeover,omitempty"`

	// ConnEvictRate is how many connections are closed a second.
	// +optional
	// +kubebuilder:default=1000
	// +kubebuilder:validation:Minimum=1
	ConnEvictRate int32 `json:"connEvictRate,omitempty"`

	// SessEvictRate is how many sessions are moved a second.
	// +optional
	// +kubebuilder:default=1000
	// +kubebuilder:validation:Minimum=1
	SessEvictRate int32 `json:"sessEvictRate,omitempty"`

	// MaxUnavailableClients is how many evicted clients, or how many percent of those at the start, may be missing
	// before evictions are stopped until they have come back.
	// +optional
	// +kubebuilder:default="10%"
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == string ? self.matches('^(100|[0-9]{1,2})%$') : self >= 0",message="maxUnavailableClients must be a number from 0 up or a percentage from 0% to 100%"
	MaxUnavailableClients *intstr.IntOrString `json:"maxUnavailableClients,omitempty"`

	// DeadlineSeconds is how long a leaving node may take to become empty before it is removed all the same, with
	// the clients and sessions it still has, in seconds. Unset, the upgrade waits for ever.
	// +optional
	// +kubebuilder:validation:Minimum=1
	DeadlineSeconds *int32 `json:"deadlineSeconds,omitempty"`
}
