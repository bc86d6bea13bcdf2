package v2beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Phase is where a cluster stands in the state machine.
// +kubebuilder:validation:Enum=Pending;Provisioning;Switching;Evacuating;ScalingDown;Done
type Phase string

// The phases, in the order in which an upgrade passes them.
const (
	// PhasePending: the specification is being judged.
	PhasePending Phase = "Pending"
	// PhaseProvisioning: the nodes of the target revision are built.
	PhaseProvisioning Phase = "Provisioning"
	// PhaseSwitching: the Services are pointed at the target revision.
	PhaseSwitching Phase = "Switching"
	// PhaseEvacuating: connections and sessions are moved off the leaving nodes.
	PhaseEvacuating Phase = "Evacuating"
	// PhaseScalingDown: the leaving nodes are removed.
	PhaseScalingDown Phase = "ScalingDown"
	// PhaseDone: the cluster is as it shall be.
	PhaseDone Phase = "Done"
)

// Phases lists all phases in their order.
func Phases() []Phase {
	return []Phase{PhasePending, PhaseProvisioning, PhaseSwitching, PhaseEvacuating, PhaseScalingDown, PhaseDone}
}

// Condition types of an EMQX resource.
const (
	// ConditionReady is True when the cluster is as the specification asks.
	ConditionReady = "Ready"
	// ConditionAvailable is True when the listeners Service has ready pods.
	ConditionAvailable = "Available"
	// ConditionProgressing is True while an upgrade is under way.
	ConditionProgressing = "Progressing"
	// ConditionStalled is True when only a person can help.
	ConditionStalled = "Stalled"
)

// EMQXStatus is an EMQX cluster as it was last seen.
type EMQXStatus struct {
	// ObservedGeneration is the generation of the specification that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// State is one word for people: Ready at rest, else the phase, or Paused or Stalled.
	// +optional
	State string `json:"state,omitempty"`
	// Phase is where the cluster stands in the state machine.
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// Conditions are Ready, Available, Progressing and Stalled, in this order.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Clients is the number of MQTT clients connected to the cluster, as far as its nodes answer, to a tenth and within
	// five minutes; metrics tell it of the moment.
	// +optional
	Clients int64 `json:"clients"`
	// Upgrade tells of the upgrade that is under way, or of the last one.
	// +optional
	Upgrade *UpgradeStatus `json:"upgrade,omitempty"`
	// CoreNodes are the core nodes, as each tells of itself.
	// +optional
	// +listType=map
	// +listMapKey=node
	CoreNodes []EMQXNode `json:"coreNodes,omitempty"`
	// CoreNodesStatus counts the core nodes by revision.
	// +optional
	CoreNodesStatus EMQXNodesStatus `json:"coreNodesStatus,omitempty"`
	// ReplicantNodes are the replicant nodes, as each tells of itself.
	// +optional
	// +listType=map
	// +listMapKey=node
	ReplicantNodes []EMQXNode `json:"replicantNodes,omitempty"`
	// ReplicantNodesStatus counts the replicant nodes by revision.
	// +optional
	ReplicantNodesStatus EMQXNodesStatus `json:"replicantNodesStatus,omitempty"`
	// NodeEvacuationsStatus are the evacuations that run, as each node tells of its own.
	// +optional
	// +listType=map
	// +listMapKey=node
	NodeEvacuationsStatus []NodeEvacuationStatus `json:"nodeEvacuationsStatus,omitempty"`
	// EvacuationsToStop are the nodes that shall serve and whose evacuation the operator stops, until each has told that it has none.
	// An evacuation of any other node that stays was started by somebody else.
	// +optional
	// +listType=set
	EvacuationsToStop []string `json:"evacuationsToStop,omitempty"`
	// DSReplication tells of EMQX's durable storage, absent where there is none.
	// +optional
	DSReplication *DSReplicationStatus `json:"dsReplication,omitempty"`
	// Drain tells of the pod that leaves its Kubernetes node because that is drained; absent while none does.
	// +optional
	Drain *DrainStatus `json:"drain,omitempty"`
}

// DrainStatus tells of a pod that leaves its Kubernetes node: its clients and sessions are moved to other nodes first.
type DrainStatus struct {
	// PodName is the pod's name.
	// +required
	PodName string `json:"podName"`
	// PodUID tells it from another of its name.
	// +required
	PodUID types.UID `json:"podUID"`
	// KubernetesNode is the name of the Kubernetes node that it leaves.
	// +required
	KubernetesNode string `json:"kubernetesNode"`
	// StartedTime is since when it leaves.
	// +required
	StartedTime metav1.MicroTime `json:"startedTime"`
	// ClientsTotal is the number of clients of the cluster when it began; more when more came since, fewer when some left for
	// good. Who is missing of them is away.
	// +optional
	ClientsTotal int64 `json:"clientsTotal"`
	// ClientsTotalTime is when they were counted.
	// +optional
	ClientsTotalTime *metav1.MicroTime `json:"clientsTotalTime,omitempty"`
	// HeldTime is since when no connection is evicted; absent while they are.
	// +optional
	HeldTime *metav1.MicroTime `json:"heldTime,omitempty"`
	// HeldReason is why no connection is evicted, in one word, such as ClientsAway; empty while they are.
	// +optional
	HeldReason string `json:"heldReason,omitempty"`
	// EmptyTime is since when it has nothing to lose and may be evicted, absent before.
	// +optional
	EmptyTime *metav1.MicroTime `json:"emptyTime,omitempty"`
}

// DSReplicationStatus tells how durable storage is replicated.
type DSReplicationStatus struct {
	// DBs are the databases.
	// +optional
	// +listType=map
	// +listMapKey=name
	DBs []DSDBReplicationStatus `json:"dbs,omitempty"`
}

// DSDBReplicationStatus tells how a database of durable storage is replicated. It is stable when nothing is in transition and
// all shards have the same number of replicas.
type DSDBReplicationStatus struct {
	// Name is the name of the database, such as messages.
	// +required
	Name string `json:"name"`
	// NumShards is how many shards it has.
	// +optional
	NumShards int32 `json:"numShards"`
	// NumShardReplicas is how many replicas all shards have together.
	// +optional
	NumShardReplicas int32 `json:"numShardReplicas"`
	// LostShardReplicas is how many of them are on nodes that are no members of the cluster any more.
	// +optional
	LostShardReplicas int32 `json:"lostShardReplicas"`
	// NumTransitions is how many replicas are about to come or to go; EMQX tells since 6.0.
	// +optional
	NumTransitions int32 `json:"numTransitions"`
	// MinReplicas is the smallest number of replicas of a shard.
	// +optional
	MinReplicas int32 `json:"minReplicas"`
	// MaxReplicas is the largest number of replicas of a shard.
	// +optional
	MaxReplicas int32 `json:"maxReplicas"`
}

// LimitedBy says what decides how fast connections are evicted.
// +kubebuilder:validation:Enum=connEvictRate;maxUnavailableClients
type LimitedBy string

// What decides how fast connections are evicted.
const (
	// LimitedByRate: the rate that the user allows.
	LimitedByRate LimitedBy = "connEvictRate"
	// LimitedByClients: how many clients may be away at once.
	LimitedByClients LimitedBy = "maxUnavailableClients"
)

// UpgradeStatus tells of an upgrade.
type UpgradeStatus struct {
	// From is the revision that served when the upgrade began; empty for a first installation.
	// +optional
	From string `json:"from,omitempty"`
	// To is the revision that the upgrade leads to.
	// +optional
	To string `json:"to,omitempty"`
	// StartedTime is when the upgrade began.
	// +optional
	StartedTime *metav1.MicroTime `json:"startedTime,omitempty"`
	// PhaseStartedTime is when the present phase began.
	// +optional
	PhaseStartedTime *metav1.MicroTime `json:"phaseStartedTime,omitempty"`
	// SwitchedTime is when the Services were first seen to lead to the target revision alone.
	// +optional
	SwitchedTime *metav1.MicroTime `json:"switchedTime,omitempty"`
	// FinishedTime is when the upgrade was done.
	// +optional
	FinishedTime *metav1.MicroTime `json:"finishedTime,omitempty"`
	// PausedTime is since when the upgrade is paused.
	// +optional
	PausedTime *metav1.MicroTime `json:"pausedTime,omitempty"`
	// PausedSeconds is how long it was paused in the present phase, up to pausedTime, in seconds.
	// +optional
	PausedSeconds int64 `json:"pausedSeconds,omitempty"`
	// WaitingFor says in a sentence what the upgrade is waiting for.
	// +optional
	WaitingFor string `json:"waitingFor,omitempty"`
	// ClientsTotal is the number of clients when the evacuation began, and follows it when clients leave on their own.
	// +optional
	ClientsTotal int64 `json:"clientsTotal,omitempty"`
	// ClientsTotalTime is when clientsTotal was taken.
	// +optional
	ClientsTotalTime *metav1.MicroTime `json:"clientsTotalTime,omitempty"`
	// ClientsMoved is how many of them are connected to the target revision.
	// +optional
	ClientsMoved int64 `json:"clientsMoved,omitempty"`
	// ReplicasTotal is how many replicas of shards the leaving nodes held when these began to be moved off, in ScalingDown.
	// +optional
	ReplicasTotal int64 `json:"replicasTotal,omitempty"`
	// ReplicasMoved is how many of them have been moved off.
	// +optional
	ReplicasMoved int64 `json:"replicasMoved,omitempty"`
	// DelayedMessages is how many messages to $delayed/... are on the nodes that leave and are not due: EMQX moves none, and they are
	// lost with the node, or left behind on its volume.
	// +optional
	DelayedMessages int64 `json:"delayedMessages,omitempty"`
	// ClientsPerSecond is how many clients leave the leaving nodes a second at present.
	// +optional
	ClientsPerSecond int64 `json:"clientsPerSecond,omitempty"`
	// EvacuationStartedTime is when the evacuation began, moved on by the time when it was paused or held: the time from it
	// to now is what counts for evacuationStrategy.deadlineSeconds.
	// +optional
	EvacuationStartedTime *metav1.MicroTime `json:"evacuationStartedTime,omitempty"`
	// ConnEvictRate is how many connections are evicted a second at present, over all nodes.
	// +optional
	ConnEvictRate int32 `json:"connEvictRate,omitempty"`
	// LimitedBy says what decides that: connEvictRate or maxUnavailableClients of the evacuation strategy.
	// +optional
	LimitedBy LimitedBy `json:"limitedBy,omitempty"`
	// HeldTime is since when evictions are stopped.
	// +optional
	HeldTime *metav1.MicroTime `json:"heldTime,omitempty"`
	// HeldReason says in a word why they are, such as ClientsAway.
	// +optional
	HeldReason string `json:"heldReason,omitempty"`
	// EstimatedEndTime is when the last leaving node will be empty, at the present rates.
	// +optional
	EstimatedEndTime *metav1.Time `json:"estimatedEndTime,omitempty"`
}

// EMQXNode is a node of EMQX, as it tells of itself.
type EMQXNode struct {
	// Node is its name, such as emqx@emqx-core-5d8c-0.emqx-headless.default.svc.cluster.local.
	Node string `json:"node"`
	// PodName is the name of its pod.
	// +optional
	PodName string `json:"podName,omitempty"`
	// PodUID is the UID of its pod.
	// +optional
	PodUID types.UID `json:"podUID,omitempty"`
	// ControllerUID is the UID of the set that its pod belongs to.
	// +optional
	ControllerUID types.UID `json:"controllerUID,omitempty"`
	// NodeStatus is running, stopped, or unknown when it does not answer.
	// +optional
	NodeStatus string `json:"node_status,omitempty"` //nolint:tagliatelle // The existing resource spells its node keys as EMQX does.
	// LastSeenTime is when it last answered, given only while it does not.
	// +optional
	LastSeenTime *metav1.Time `json:"lastSeenTime,omitempty"`
	// OTPRelease is its Erlang version.
	// +optional
	OTPRelease string `json:"otp_release,omitempty"` //nolint:tagliatelle // As EMQX spells it.
	// Version is its EMQX version.
	// +optional
	Version string `json:"version,omitempty"`
	// Role is core or replicant.
	// +optional
	Role string `json:"role,omitempty"`
	// Edition is Enterprise or Opensource.
	// +optional
	Edition string `json:"edition,omitempty"`
	// Connections is the number of its sessions, connected or not: EMQX's own name for it.
	// +optional
	Connections int64 `json:"connections"`
	// LiveConnections is the number of clients connected to it.
	// +optional
	LiveConnections int64 `json:"live_connections"` //nolint:tagliatelle // As EMQX spells it.
}

// EMQXNodesStatus counts the nodes of a role by revision.
type EMQXNodesStatus struct {
	// Replicas is the number of nodes asked for.
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
	// ReadyReplicas is the number of nodes that run and serve, of all revisions.
	// +optional
	ReadyReplicas int32 `json:"readyReplicas,omitempty"`
	// CurrentRevision is the revision that the listeners Service selects.
	// +optional
	CurrentRevision string `json:"currentRevision,omitempty"`
	// CurrentReplicas is the number of nodes of it that run.
	// +optional
	CurrentReplicas int32 `json:"currentReplicas,omitempty"`
	// UpdateRevision is the revision that the specification asks for.
	// +optional
	UpdateRevision string `json:"updateRevision,omitempty"`
	// UpdateReplicas is the number of nodes of it that run.
	// +optional
	UpdateReplicas int32 `json:"updateReplicas,omitempty"`
	// CollisionCount is kept for the sake of existing scripts. Revisions do not collide; it is never set.
	// +optional
	CollisionCount *int32 `json:"collisionCount,omitempty"`
}

// NodeEvacuationStatus is an evacuation, with the keys that EMQX gives it.
type NodeEvacuationStatus struct {
	// Node is the node that is being evacuated.
	Node string `json:"node"`
	// State is waiting_health_check, evicting_conns, waiting_takeover, evicting_sessions or prohibiting.
	// +optional
	State string `json:"state,omitempty"`
	// Stats counts what was there and what is left.
	// +optional
	Stats NodeEvacuationStats `json:"stats,omitempty"`
	// SessionRecipients are the nodes that take sessions at present.
	// +optional
	// +listType=atomic
	SessionRecipients []string `json:"session_recipients,omitempty"` //nolint:tagliatelle // As EMQX spells it.
	// SessionGoal is how many sessions shall be left: none.
	// +optional
	SessionGoal int32 `json:"session_goal"` //nolint:tagliatelle // As EMQX spells it.
	// SessionEvictionRate is how many sessions this node moves a second.
	// +optional
	SessionEvictionRate int32 `json:"session_eviction_rate,omitempty"` //nolint:tagliatelle // As EMQX spells it.
	// ConnectionGoal is how many connections shall be left: none.
	// +optional
	ConnectionGoal int32 `json:"connection_goal"` //nolint:tagliatelle // As EMQX spells it.
	// ConnectionEvictionRate is how many connections this node closes a second.
	// +optional
	ConnectionEvictionRate int32 `json:"connection_eviction_rate,omitempty"` //nolint:tagliatelle // As EMQX spells it.
}

// NodeEvacuationStats counts what a node had when its evacuation began and what it has left.
type NodeEvacuationStats struct {
	// InitialSessions is the number of sessions at the start.
	// +optional
	InitialSessions *int32 `json:"initial_sessions,omitempty"` //nolint:tagliatelle // As EMQX spells it.
	// InitialConnected is the number of connections at the start.
	// +optional
	InitialConnected *int32 `json:"initial_connected,omitempty"` //nolint:tagliatelle // As EMQX spells it.
	// CurrentSessions is the number of sessions left.
	// +optional
	CurrentSessions *int32 `json:"current_sessions,omitempty"` //nolint:tagliatelle // As EMQX spells it.
	// CurrentConnected is the number of connections left.
	// +optional
	CurrentConnected *int32 `json:"current_connected,omitempty"` //nolint:tagliatelle // As EMQX spells it.
}
