package v2beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Rebalance evens out the connections and sessions of an EMQX cluster over its nodes, once. EMQX does it: nodes that have more
// than the average, the donors, disconnect clients at a rate until they are within thresholds of the others, the recipients.
//
// +genclient
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=rebalances,singular=rebalance,scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="EMQX",type=string,priority=1,JSONPath=`.spec.instanceName`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="True")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="True")].message`
type Rebalance struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is to be evened out, and how. It cannot be changed: make another Rebalance instead.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the spec of a Rebalance cannot be changed: make another one"
	Spec RebalanceSpec `json:"spec"`
	// Status is how far it is.
	// +optional
	Status RebalanceStatus `json:"status,omitempty"`
}

// RebalanceList is a list of Rebalances.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +kubebuilder:object:root=true
type RebalanceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Rebalance `json:"items"`
}

// RebalanceSpec is what is to be evened out, and how.
type RebalanceSpec struct {
	// InstanceKind is the kind of the cluster's resource. Either value means the EMQX of the name.
	// +optional
	// +kubebuilder:default=EMQX
	// +kubebuilder:validation:Enum=EMQX;EmqxEnterprise
	InstanceKind string `json:"instanceKind,omitempty"`

	// InstanceName is the name of the EMQX resource, in the same namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	InstanceName string `json:"instanceName"`

	// RebalanceStrategy says how fast, and when it is even enough.
	// +required
	RebalanceStrategy RebalanceStrategy `json:"rebalanceStrategy"`
}

// RebalanceStrategy says how fast connections and sessions are moved, and when they are even enough. Connections and sessions
// are within thresholds when the donors have, on average, no more than the recipients by the absolute or by the relative one.
type RebalanceStrategy struct {
	// ConnEvictRate is how many connections each donor closes a second.
	// +required
	// +kubebuilder:validation:Minimum=1
	ConnEvictRate int32 `json:"connEvictRate"`

	// SessEvictRate is how many sessions of absent clients each donor moves a second.
	// +optional
	// +kubebuilder:default=500
	// +kubebuilder:validation:Minimum=1
	SessEvictRate int32 `json:"sessEvictRate,omitempty"`

	// WaitTakeover is for how many seconds clients may come back by themselves before sessions are moved.
	// +optional
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=0
	WaitTakeover int32 `json:"waitTakeover,omitempty"`

	// WaitHealthCheck is for how many seconds EMQX waits before it closes connections, so that a load balancer of your own that
	// asks for availability_check leads nobody to the donors any more.
	// +optional
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=0
	WaitHealthCheck int32 `json:"waitHealthCheck,omitempty"`

	// AbsConnThreshold is how many connections more than the recipients donors may have.
	// +optional
	// +kubebuilder:default=1000
	// +kubebuilder:validation:Minimum=1
	AbsConnThreshold int32 `json:"absConnThreshold,omitempty"`

	// RelConnThreshold is how many times the recipients' connections donors may have, as a decimal number above 1.
	// +optional
	// +kubebuilder:default="1.1"
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^[0-9]+(\.[0-9]+)?$`
	RelConnThreshold string `json:"relConnThreshold,omitempty"`

	// AbsSessThreshold is how many sessions of absent clients more than the recipients donors may have.
	// +optional
	// +kubebuilder:default=1000
	// +kubebuilder:validation:Minimum=1
	AbsSessThreshold int32 `json:"absSessThreshold,omitempty"`

	// RelSessThreshold is how many times the recipients' sessions of absent clients donors may have, as a decimal number above 1.
	// +optional
	// +kubebuilder:default="1.1"
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^[0-9]+(\.[0-9]+)?$`
	RelSessThreshold string `json:"relSessThreshold,omitempty"`
}

// RebalancePhase is where a Rebalance stands.
type RebalancePhase string

// Where a Rebalance stands. What has been completed or has failed is over for good.
const (
	RebalanceProcessing RebalancePhase = "Processing"
	RebalanceCompleted  RebalancePhase = "Completed"
	RebalanceFailed     RebalancePhase = "Failed"
)

// RebalanceStatus is how far a Rebalance is.
type RebalanceStatus struct {
	// Conditions are Processing, Completed and Failed, of which one is True: the phase. Its reason and message say what it waits for,
	// or what came of it.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []RebalanceCondition `json:"conditions,omitempty"`

	// Phase is Processing, Completed or Failed. One that waits is Processing.
	// +optional
	Phase RebalancePhase `json:"phase,omitempty"`

	// RebalanceStates is the rebalance in EMQX, as its nodes tell of it: at most one. It stands from before EMQX is asked to start it,
	// so that an operator that takes over knows it for its own.
	// +optional
	// +listType=atomic
	RebalanceStates []RebalanceState `json:"rebalanceStates,omitempty"`

	// StartedTime is when EMQX was first asked to rebalance.
	// +optional
	StartedTime *metav1.Time `json:"startedTime,omitempty"`

	// CompletedTime is when the Rebalance was over.
	// +optional
	CompletedTime *metav1.Time `json:"completedTime,omitempty"`
}

// RebalanceCondition is a condition of a Rebalance.
type RebalanceCondition struct {
	// Type is Processing, Completed or Failed.
	Type RebalancePhase `json:"type"`
	// Status is True or False.
	Status metav1.ConditionStatus `json:"status"`
	// LastUpdateTime is when it was last written.
	// +optional
	LastUpdateTime metav1.Time `json:"lastUpdateTime,omitempty"`
	// LastTransitionTime is when Status changed last.
	// +optional
	LastTransitionTime metav1.Time `json:"lastTransitionTime,omitempty"`
	// Reason is one word, for machines.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message is for people.
	// +optional
	Message string `json:"message,omitempty"`
}

// RebalanceState is a rebalance in EMQX.
type RebalanceState struct {
	// State is EMQX's word for where it is: disabled while it does not run, wait_health_check, evicting_conns, wait_takeover,
	// evicting_sessions.
	// +optional
	State string `json:"state,omitempty"`
	// SessionEvictionRate is how many sessions each donor moves a second.
	// +optional
	SessionEvictionRate int32 `json:"session_eviction_rate,omitempty"`
	// Recipients are the nodes that get clients.
	// +optional
	// +listType=atomic
	Recipients []string `json:"recipients,omitempty"`
	// Node is the node that coordinates it.
	// +optional
	Node string `json:"node,omitempty"`
	// Donors are the nodes that give clients away, and refuse new ones meanwhile.
	// +optional
	// +listType=atomic
	Donors []string `json:"donors,omitempty"`
	// CoordinatorNode is the node that coordinates it.
	// +optional
	CoordinatorNode string `json:"coordinator_node,omitempty"`
	// ConnectionEvictionRate is how many connections each donor closes a second.
	// +optional
	ConnectionEvictionRate int32 `json:"connection_eviction_rate,omitempty"`
}
