package v2beta1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EMQX is a cluster of EMQX nodes. Any change of its pods is made by a blue-green upgrade: a second set of nodes is
// built, the Services are pointed at it, connections and sessions are moved over at a controlled rate, and the first
// set is removed.
//
// +genclient
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=emqxes,singular=emqx,shortName=emqx,scope=Namespaced
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicantTemplate.spec.replicas,statuspath=.status.replicantNodesStatus.replicas
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 36 && self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')",message="metadata.name must be at most 36 lowercase letters, digits and dashes, and begin with a letter: names of Services and pods are made of it"
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Revision",type=string,priority=1,JSONPath=`.status.coreNodesStatus.updateRevision`
// +kubebuilder:printcolumn:name="Cores",type=integer,priority=1,JSONPath=`.status.coreNodesStatus.readyReplicas`
// +kubebuilder:printcolumn:name="Replicants",type=integer,priority=1,JSONPath=`.status.replicantNodesStatus.readyReplicas`
// +kubebuilder:printcolumn:name="Clients",type=integer,priority=1,JSONPath=`.status.clients`
// +kubebuilder:printcolumn:name="Image",type=string,priority=1,JSONPath=`.spec.image`
type EMQX struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the cluster as it shall be.
	Spec EMQXSpec `json:"spec"`
	// Status is the cluster as it was last seen, and where an upgrade stands.
	// +optional
	Status EMQXStatus `json:"status,omitempty"`
}

// EMQXList is a list of EMQX clusters.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +kubebuilder:object:root=true
type EMQXList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []EMQX `json:"items"`
}

// EMQXSpec is an EMQX cluster as it shall be.
type EMQXSpec struct {
	// Image is the container image of EMQX, such as emqx/emqx:6.0.1. A change starts a blue-green upgrade.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,})?$')",message="image must be an image reference such as emqx/emqx:6.0.1, registry.example.com/emqx:6.0.1 or emqx/emqx@sha256:..."
	Image string `json:"image"`

	// ImagePullPolicy says when the image is pulled: Always, Never or IfNotPresent. Unset, Kubernetes decides by the
	// image's tag. A change starts a blue-green upgrade.
	// +optional
	// +kubebuilder:validation:Enum=Always;Never;IfNotPresent
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`

	// ImagePullSecrets name the Secrets, in the namespace of this resource, with which the image is pulled.
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`

	// ServiceAccountName is the ServiceAccount of the pods.
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`

	// BootstrapAPIKeys are API keys that EMQX knows from its first start, besides that of the operator. A change, also of a
	// Secret that is named here, reaches running nodes within a few minutes; EMQX keeps a key that is removed here until it is
	// deleted on the dashboard. It starts no upgrade.
	// +optional
	// +kubebuilder:validation:MaxItems=100
	BootstrapAPIKeys []BootstrapAPIKey `json:"bootstrapAPIKeys,omitempty"`

	// APITLS says whom the operator trusts when it talks with EMQX's management API over HTTPS: where the dashboard is open for HTTPS
	// only, or where this is given and it is open for both. Unset, the certificate must be one of an authority that the operator's
	// system trusts. A change starts no upgrade.
	// +optional
	APITLS *APITLS `json:"apiTLS,omitempty"`

	// Config is the configuration of EMQX.
	// +optional
	// +kubebuilder:default={}
	Config Config `json:"config,omitempty"`

	// ClusterDomain is the DNS domain of the Kubernetes cluster. It is part of the names of EMQX nodes: a change starts
	// a blue-green upgrade.
	// +optional
	// +kubebuilder:default="cluster.local"
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`
	ClusterDomain string `json:"clusterDomain,omitempty"`

	// RevisionHistoryLimit is for how many earlier revisions the volume claims are kept, the newest first; those of others
	// are deleted as soon as their set is gone. Nothing else is kept of them: a set leaves together with its pods.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=0
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`

	// UpdateStrategy says how an upgrade is made.
	// +optional
	// +kubebuilder:default={type: Recreate, initialDelaySeconds: 10, evacuationStrategy: {waitTakeover: 10, connEvictRate: 1000, sessEvictRate: 1000}}
	UpdateStrategy UpdateStrategy `json:"updateStrategy,omitempty"`

	// CoreTemplate describes the core nodes, which hold the data of the cluster.
	// +optional
	// +kubebuilder:default={spec: {replicas: 1}}
	CoreTemplate EMQXCoreTemplate `json:"coreTemplate,omitempty"`

	// ReplicantTemplate describes the replicant nodes, which only serve clients. This version of the operator runs
	// clusters of core nodes: a template with replicas above 0 is reported as Stalled and changes nothing.
	// +optional
	ReplicantTemplate *EMQXReplicantTemplate `json:"replicantTemplate,omitempty"`

	// DashboardServiceTemplate describes the Service of the dashboard and the management API.
	// +optional
	DashboardServiceTemplate *ServiceTemplate `json:"dashboardServiceTemplate,omitempty"`

	// ListenersServiceTemplate describes the Service that MQTT clients connect to.
	// +optional
	ListenersServiceTemplate *ServiceTemplate `json:"listenersServiceTemplate,omitempty"`
}

// APITLS says whom the operator trusts when it talks with EMQX's management API over HTTPS.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.insecureSkipVerify) && self.insecureSkipVerify) || !(has(self.caSecretName) || has(self.serverName))",message="with insecureSkipVerify nothing is verified: give it alone, or caSecretName and serverName without it"
type APITLS struct {
	// CASecretName names a Secret, in the namespace of this resource, whose entry ca.crt holds the certificates, in PEM, of the
	// authorities that are trusted, and no others. A change of it is followed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	CASecretName string `json:"caSecretName,omitempty"`
	// ServerName is the name that the certificate must be for. Unset, it is that of the dashboard's Service, such as
	// emqx-ee-dashboard.default.svc.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ServerName string `json:"serverName,omitempty"`
	// InsecureSkipVerify takes any certificate, also the self-signed one that EMQX brings along: whoever takes over the address
	// of a pod then gets the operator's API key.
	// +optional
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
}

// BootstrapAPIKey is an API key of EMQX, given here or read from a Secret.
//
// +kubebuilder:validation:XValidation:rule="!has(self.key) || !(self.key in ['emqx-operator-controller', 'emqx-operator-controller-system'])",message="key must not be emqx-operator-controller or emqx-operator-controller-system: these are the operator's own, which it would lose its access with"
// +kubebuilder:validation:XValidation:rule="has(self.secretRef) != (has(self.key) && has(self.secret))",message="give either key and secret, or secretRef"
type BootstrapAPIKey struct {
	// Key is the name of the key.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-zA-Z\d-_]+$`
	Key string `json:"key,omitempty"`
	// Secret is its password.
	// +optional
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="!self.contains(':')",message="the secret must not contain a colon, which ends it in EMQX's file of keys"
	Secret string `json:"secret,omitempty"`
	// SecretRef reads both from Secrets in the namespace of this resource.
	// +optional
	SecretRef *SecretRef `json:"secretRef,omitempty"`
}

// SecretRef says where an API key and its password are found.
type SecretRef struct {
	// Key is where the name of the key is found.
	// +required
	Key KeyRef `json:"key"`
	// Secret is where its password is found.
	// +required
	Secret KeyRef `json:"secret"`
}

// KeyRef is one entry of a Secret.
type KeyRef struct {
	// SecretName is the name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	SecretName string `json:"secretName"`
	// SecretKey is the entry in it.
	// +required
	// +kubebuilder:validation:Pattern=`^[a-zA-Z\d-_]+$`
	SecretKey string `json:"secretKey"`
}

// ConfigMode says how a configuration meets the one that is there.
// +kubebuilder:validation:Enum=Merge;Replace
type ConfigMode string

// The ways in which a configuration is applied to a running cluster.
const (
	ConfigModeMerge   ConfigMode = "Merge"
	ConfigModeReplace ConfigMode = "Replace"
)

// Config is the configuration of EMQX.
type Config struct {
	// Mode says how data is applied to a running cluster. This version applies data with the next revision only, so
	// the mode has no effect yet.
	// +optional
	// +kubebuilder:default=Merge
	Mode ConfigMode `json:"mode,omitempty"`

	// Data is the content of emqx.conf, in HOCON. A text that cannot be read is reported as Stalled with line and
	// column and leaves the running cluster alone. A change of the dashboard's ports starts a blue-green upgrade; any
	// other change reaches the nodes with the next revision.
	// +optional
	// +kubebuilder:validation:MaxLength=1000000
	Data string `json:"data,omitempty"`
}

// ServiceTemplate describes a Service.
type ServiceTemplate struct {
	// Enabled says whether the Service exists. Set to false it is removed.
	// +optional
	// +kubebuilder:default=true
	Enabled *bool `json:"enabled,omitempty"`
	// ObjectMeta gives labels and annotations; a name given here has no effect.
	// +optional
	ObjectMeta TemplateMeta `json:"metadata,omitempty"`
	// Spec is the Service's own. Its ports are merged with those of the configuration and win by name or by number and
	// protocol; its selector has no effect.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.type) || self.type != 'ExternalName'",message="type must not be ExternalName: the Service leads to the pods of this cluster"
	// +kubebuilder:validation:XValidation:rule="!has(self.ports) || self.ports.all(p, p.port > 0 && p.port < 65536)",message="ports must be between 1 and 65535"
	Spec corev1.ServiceSpec `json:"spec,omitempty"`
}
