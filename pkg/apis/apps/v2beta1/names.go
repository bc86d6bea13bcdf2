package v2beta1

import (
	"fmt"
	"slices"
	"strings"
)

// Labels of everything that belongs to an EMQX resource.
const (
	// LabelInstance names the EMQX resource.
	LabelInstance = "apps.emqx.io/instance"
	// LabelManagedBy tells that an operator of EMQX manages the object.
	LabelManagedBy = "apps.emqx.io/managed-by"
	// LabelDBRole is the role of a pod's node: core or replicant.
	LabelDBRole = "apps.emqx.io/db-role"
	// LabelPodTemplateHash is the revision of a set and its pods.
	LabelPodTemplateHash = "apps.emqx.io/pod-template-hash"
	// ManagedBy is the value of LabelManagedBy.
	ManagedBy = "emqx-operator"
	// RoleCore is the value of LabelDBRole for core nodes.
	RoleCore = "core"
)

// Annotations that the operator puts on a set.
const (
	// AnnotationServingSince is written before a Service first selects the set. Its value is the time.
	AnnotationServingSince = "apps.emqx.io/serving-since"
	// AnnotationServicePorts records the ports that the set's configuration opens.
	AnnotationServicePorts = "apps.emqx.io/service-ports"
	// AnnotationConfigHash identifies the configuration that the set was built with.
	AnnotationConfigHash = "apps.emqx.io/config-hash"
	// AnnotationNodeCount is the largest number of nodes that the set ever had: those whose names EMQX may know.
	AnnotationNodeCount = "apps.emqx.io/node-count"
	// AnnotationRevision is, on a set, the revision that its template was last written for and, on a pod, the one that it was made
	// with. They differ while a node is replaced in place, and else never.
	AnnotationRevision = "apps.emqx.io/revision"
	// AnnotationReplicas is the number of pods that the operator asked for last.
	AnnotationReplicas = "apps.emqx.io/replicas"
)

// LabelLetGo is on a pod that may be evicted: the PodDisruptionBudget protects it no more.
const LabelLetGo = "apps.emqx.io/let-go"

// FinalizerForgotten keeps a pod that has ended until EMQX has forgotten its node: the next of its name has another disk.
const FinalizerForgotten = "apps.emqx.io/forgotten"

// FinalizerRebalance keeps a Rebalance that may run in EMQX until it was stopped there.
const FinalizerRebalance = "apps.emqx.io/finalizer"

// AnnotationUndecodable is never written to a resource. The operator's own client puts it on one that cannot be decoded, as
// it is sent by the API server; its value is why.
const AnnotationUndecodable = "apps.emqx.io/undecodable"

// Undecodable is why the resource could not be decoded; empty when it could be.
func (e *EMQX) Undecodable() string { return e.Annotations[AnnotationUndecodable] }

// Unknown reports whether nothing but metadata and status are known of a resource that could not be decoded. Else its
// specification is the last that could be.
func (e *EMQX) Unknown() bool { return e.Undecodable() != "" && e.Spec.Image == "" }

// Undecodable is why the Rebalance could not be decoded; empty when it could be. Then nothing but its metadata, its status and
// the cluster that it names are known.
func (r *Rebalance) Undecodable() string { return r.Annotations[AnnotationUndecodable] }

// Over reports whether a Rebalance was completed or has failed.
func (r *Rebalance) Over() bool {
	return r.Status.Phase == RebalanceCompleted || r.Status.Phase == RebalanceFailed
}

// ConditionOnServing is the readiness gate of the pods: True once another member of the cluster has seen the pod's node
// running.
const ConditionOnServing = "apps.emqx.io/on-serving"

// ConditionDSReplicationSite is a condition of core pods where there is durable storage: True while the site of the pod's
// node holds replicas of shards, False while it holds none, Unknown while it has no site.
const ConditionDSReplicationSite = "apps.emqx.io/ds-replication-site"

// HeadlessServiceName is the name of the Service through which nodes find each other.
func (e *EMQX) HeadlessServiceName() string { return e.Name + "-headless" }

// DashboardServiceName is the name of the Service of the dashboard.
func (e *EMQX) DashboardServiceName() string { return e.Name + "-dashboard" }

// ListenersServiceName is the name of the Service that clients connect to.
func (e *EMQX) ListenersServiceName() string { return e.Name + "-listeners" }

// ConfigMapName is the name of the ConfigMap with emqx.conf of sets that were made before each revision had one of its
// own, by emqx-operator 2.x among others.
func (e *EMQX) ConfigMapName() string { return e.Name + "-configs" }

// RevisionConfigMapName is the name of the ConfigMap with emqx.conf of a revision.
func (e *EMQX) RevisionConfigMapName(revision string) string {
	return e.ConfigMapName() + "-" + revision
}

// NodeCookieSecretName is the name of the Secret with the cookie that nodes share.
func (e *EMQX) NodeCookieSecretName() string { return e.Name + nodeCookieSuffix }

const nodeCookieSuffix = "-node-cookie"

// ReadSecretNames are the names of all Secrets of users that are read, each once.
func (e *EMQX) ReadSecretNames() []string {
	names := e.KeySecretNames()
	if tls := e.Spec.APITLS; tls != nil && tls.CASecretName != "" && !slices.Contains(names, tls.CASecretName) {
		names = append(names, tls.CASecretName)
	}
	return names
}

// KeySecretNames are the names of the Secrets that API keys are read from, each once.
func (e *EMQX) KeySecretNames() []string {
	var names []string
	for _, key := range e.Spec.BootstrapAPIKeys {
		if key.SecretRef != nil {
			names = append(names, key.SecretRef.Key.SecretName, key.SecretRef.Secret.SecretName)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// BootstrapAPIKeySecretName is the name of the Secret with the API keys.
func (e *EMQX) BootstrapAPIKeySecretName() string { return e.Name + "-bootstrap-api-key" }

// CoreBudgetName is the name of the PodDisruptionBudget of the core nodes.
func (e *EMQX) CoreBudgetName() string { return e.Name + coreBudgetSuffix }

const coreBudgetSuffix = "-core"

// CoreSetName is the name of the StatefulSet of a revision's core nodes.
func (e *EMQX) CoreSetName(revision string) string {
	return fmt.Sprintf("%s-core-%s", e.Name, revision)
}

// CoreDataVolume is the name of the volume with the data of a core node, and of the template of its claim.
func (e *EMQX) CoreDataVolume() string { return e.Name + "-core-data" }

// CoreRevision is the revision of a set of core nodes by its name; false when the name is not that of one.
func (e *EMQX) CoreRevision(set string) (string, bool) {
	revision, ok := strings.CutPrefix(set, e.CoreSetName(""))
	return revision, ok && revision != ""
}

// NodeDomain is the DNS domain that the pods of a new set get: the names of EMQX nodes end in it.
func (e *EMQX) NodeDomain() string {
	domain := e.Spec.ClusterDomain
	if domain == "" {
		domain = "cluster.local"
	}
	return fmt.Sprintf("%s.%s.svc.%s", e.HeadlessServiceName(), e.Namespace, domain)
}

// ResourceOf is the name of the resource that would make an object of the given name; empty when none would.
func ResourceOf(object string) string {
	for _, suffix := range []string{"-headless", "-dashboard", "-listeners", nodeCookieSuffix, "-bootstrap-api-key", "-configs", coreBudgetSuffix} {
		if name, ok := strings.CutSuffix(object, suffix); ok {
			return name
		}
	}
	for _, infix := range []string{"-core-", "-configs-"} {
		if i := strings.LastIndex(object, infix); i > 0 {
			return object[:i]
		}
	}
	return ""
}
