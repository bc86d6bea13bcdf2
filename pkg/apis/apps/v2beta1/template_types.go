package v2beta1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TemplateMeta is what is used of the metadata of a template. Existing manifests may say more, such as a name: that is
// accepted, has no effect and, since nothing checks it, is not decoded.
//
// +kubebuilder:pruning:PreserveUnknownFields
type TemplateMeta struct {
	// Labels are further labels.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations are further annotations.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// EMQXCoreTemplate describes the core nodes.
type EMQXCoreTemplate struct {
	// ObjectMeta gives labels and annotations for the pods.
	// +optional
	ObjectMeta TemplateMeta `json:"metadata,omitempty"`
	// Spec describes the pods of the core nodes.
	// +optional
	Spec EMQXCoreTemplateSpec `json:"spec,omitempty"`
}

// EMQXCoreTemplateSpec describes the pods of the core nodes.
//
// Every core node is connected to every other and takes part in every write, and in an upgrade there are twice as many: 50
// make a mesh of 100 nodes and 4,950 connections, which is about what Erlang's distribution bears. More clients want
// replicant nodes, or larger cores.
//
// +kubebuilder:validation:XValidation:rule="!has(self.replicas) || self.replicas <= 50",message="replicas of core nodes must be at most 50: each is connected to all others, and an upgrade has twice as many"
// +kubebuilder:validation:XValidation:rule="!(has(self.minAvailable) && has(self.maxUnavailable))",message="minAvailable and maxUnavailable exclude each other: give at most one of them"
type EMQXCoreTemplateSpec struct {
	EMQXReplicantTemplateSpec `json:",inline"`

	// VolumeClaimTemplates asks for a persistent volume a node, which holds its data; without it the data lives as long as
	// the pod. A change starts a blue-green upgrade: each set has volumes of its own, and none is used a second time. How
	// long those of earlier revisions are kept, revisionHistoryLimit says.
	// +optional
	VolumeClaimTemplates corev1.PersistentVolumeClaimSpec `json:"volumeClaimTemplates,omitempty"`

	// VolumeClaimRetention says what becomes of the claims when this resource is deleted: they stay, or are deleted with it.
	// +optional
	// +kubebuilder:default=Retain
	VolumeClaimRetention VolumeClaimRetention `json:"volumeClaimRetention,omitempty"`
}

// VolumeClaimRetention says what becomes of claims when their cluster is deleted.
// +kubebuilder:validation:Enum=Retain;Delete
type VolumeClaimRetention string

// What becomes of claims.
const (
	// VolumeClaimsRetained stay, until a person deletes them.
	VolumeClaimsRetained VolumeClaimRetention = "Retain"
	// VolumeClaimsDeleted are deleted by Kubernetes' garbage collection.
	VolumeClaimsDeleted VolumeClaimRetention = "Delete"
)

// EMQXReplicantTemplate describes the replicant nodes.
type EMQXReplicantTemplate struct {
	// ObjectMeta gives labels and annotations for the pods.
	// +optional
	ObjectMeta TemplateMeta `json:"metadata,omitempty"`
	// Spec describes the pods of the replicant nodes.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!(has(self.minAvailable) && has(self.maxUnavailable))",message="minAvailable and maxUnavailable exclude each other: give at most one of them"
	Spec EMQXReplicantTemplateSpec `json:"spec,omitempty"`
}

// EMQXReplicantTemplateSpec describes the pods of one role. A change of anything but replicas, minAvailable and
// maxUnavailable starts a blue-green upgrade.
//
// The number of replicas is bounded for both roles, so that a slip of the keyboard does not fill the Kubernetes cluster: a
// replicant is connected to every core, and ten times the replicants that EMQX's own largest tests had are allowed.
type EMQXReplicantTemplateSpec struct {
	// NodeSelector selects the Kubernetes nodes that the pods may run on.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// NodeName places the pods on one Kubernetes node, without a scheduler.
	// +optional
	NodeName string `json:"nodeName,omitempty"`
	// Affinity steers where the pods run.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// ToleRations is an earlier spelling of tolerations; both lists are used, this one last.
	// +optional
	ToleRations []corev1.Toleration `json:"toleRations,omitempty"`
	// Tolerations are the taints of Kubernetes nodes that the pods tolerate.
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// TopologySpreadConstraints say how the pods spread over zones and nodes.
	// +optional
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// Replicas is the number of nodes. More are added at once. Core nodes cannot be taken away by this version of the
	// operator: a smaller number is reported as Stalled and changes nothing.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=200
	Replicas *int32 `json:"replicas,omitempty"`
	// MinAvailable is for the PodDisruptionBudget of the role: how many pods, or how many percent of them, must stay
	// available when Kubernetes nodes are drained. With it the budget protects the pods that serve; those of a revision that
	// leaves, or does not serve yet, neither count nor are held. Kubernetes evicts pods as it allows, whatever clients they have.
	// +optional
	MinAvailable *intstr.IntOrString `json:"minAvailable,omitempty"`
	// MaxUnavailable is for the PodDisruptionBudget of the role: how many pods, or how many percent of them, may be
	// unavailable when Kubernetes nodes are drained, as with minAvailable. Without either the budget refuses evictions, and the
	// operator moves clients and sessions off the pods of a Kubernetes node that is drained, one by one; where it may not watch
	// Nodes it is 1. A cluster of one node has no budget then.
	// +optional
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
	// Command replaces the entrypoint of the image.
	// +optional
	Command []string `json:"command,omitempty"`
	// Args replaces the arguments of the image.
	// +optional
	Args []string `json:"args,omitempty"`
	// Ports are further ports of the EMQX container. Those of the dashboard are added.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:XValidation:rule="self.all(p, p.containerPort > 0 && p.containerPort < 65536)",message="ports must be between 1 and 65535"
	Ports []corev1.ContainerPort `json:"ports,omitempty"`
	// Env are further environment variables of the EMQX container. They come after those of the operator and win.
	// +optional
	Env []corev1.EnvVar `json:"env,omitempty"`
	// EnvFrom takes environment variables from Secrets and ConfigMaps.
	// +optional
	EnvFrom []corev1.EnvFromSource `json:"envFrom,omitempty"`
	// Resources are what the EMQX container asks for and may use.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	// PodSecurityContext is the security context of the pods.
	// +optional
	// +kubebuilder:default={runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, fsGroupChangePolicy: Always, supplementalGroups: {1000}}
	PodSecurityContext *corev1.PodSecurityContext `json:"podSecurityContext,omitempty"`
	// ContainerSecurityContext is the security context of the EMQX container. The default is what namespaces that enforce
	// the restricted pod security standard ask for.
	// +optional
	// +kubebuilder:default={runAsUser: 1000, runAsGroup: 1000, runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: {ALL}}, seccompProfile: {type: RuntimeDefault}}
	ContainerSecurityContext *corev1.SecurityContext `json:"containerSecurityContext,omitempty"`
	// InitContainers run before EMQX.
	// +optional
	InitContainers []corev1.Container `json:"initContainers,omitempty"`
	// ExtraContainers run beside EMQX.
	// +optional
	ExtraContainers []corev1.Container `json:"extraContainers,omitempty"`
	// ExtraVolumes are further volumes of the pods.
	// +optional
	ExtraVolumes []corev1.Volume `json:"extraVolumes,omitempty"`
	// ExtraVolumeMounts are further mounts of the EMQX container.
	// +optional
	ExtraVolumeMounts []corev1.VolumeMount `json:"extraVolumeMounts,omitempty"`
	// LivenessProbe tells when the EMQX container must be restarted.
	// +optional
	// +kubebuilder:default={initialDelaySeconds: 60, periodSeconds: 30, failureThreshold: 3, httpGet: {path: /status, port: dashboard}}
	LivenessProbe *corev1.Probe `json:"livenessProbe,omitempty"`
	// ReadinessProbe tells when the EMQX container answers.
	// +optional
	// +kubebuilder:default={initialDelaySeconds: 10, periodSeconds: 5, failureThreshold: 12, httpGet: {path: /status, port: dashboard}}
	ReadinessProbe *corev1.Probe `json:"readinessProbe,omitempty"`
	// StartupProbe holds the other probes back until EMQX has started.
	// +optional
	StartupProbe *corev1.Probe `json:"startupProbe,omitempty"`
	// Lifecycle are hooks of the EMQX container.
	// +optional
	Lifecycle *corev1.Lifecycle `json:"lifecycle,omitempty"`
}
