package informers

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

const controllerIndex = "controller"

// byController finds objects by the UID of their controller.
var byController = cache.Indexers{controllerIndex: func(object any) ([]string, error) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	if controller := metav1.GetControllerOfNoCopy(accessor); controller != nil {
		return []string{string(controller.UID)}, nil
	}
	return nil, nil
}}

const claimIndex = "claim"

// byClaim finds objects that nothing controls by NAMESPACE/NAME of the resource that they belong to.
var byClaim = cache.Indexers{claimIndex: func(object any) ([]string, error) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	if name := claimant(accessor); name != "" && metav1.GetControllerOfNoCopy(accessor) == nil {
		return []string{accessor.GetNamespace() + "/" + name}, nil
	}
	return nil, nil
}}

const heldIndex = "held"

// byHeld finds pods that the operator's finalizer keeps by NAMESPACE/NAME of the resource that they belong, or belonged, to.
var byHeld = cache.Indexers{heldIndex: func(object any) ([]string, error) {
	if pod, ok := object.(*corev1.Pod); ok && held(pod) {
		return []string{pod.Namespace + "/" + pod.Labels[v2beta1.LabelInstance]}, nil
	}
	return nil, nil
}}

// held reports whether the operator's finalizer keeps an object.
func held(object metav1.Object) bool {
	return slices.Contains(object.GetFinalizers(), v2beta1.FinalizerForgotten)
}

const secretIndex = "secret"

// bySecret finds EMQX resources by NAMESPACE/NAME of the Secrets that they read.
var bySecret = cache.Indexers{secretIndex: func(object any) ([]string, error) {
	emqx, ok := object.(*v2beta1.EMQX)
	if !ok {
		return nil, nil
	}
	var names []string
	for _, name := range emqx.ReadSecretNames() {
		names = append(names, emqx.Namespace+"/"+name)
	}
	return names, nil
}}

const clusterIndex = "cluster"

// byCluster finds Rebalances by NAMESPACE/NAME of the EMQX resource that they name.
var byCluster = cache.Indexers{clusterIndex: func(object any) ([]string, error) {
	rebalance, ok := object.(*v2beta1.Rebalance)
	if !ok {
		return nil, nil
	}
	return []string{clusterOf(rebalance).String()}, nil
}}

// clusterOf is the EMQX resource that a Rebalance names.
func clusterOf(rebalance *v2beta1.Rebalance) cache.ObjectName {
	return cache.ObjectName{Namespace: rebalance.Namespace, Name: rebalance.Spec.InstanceName}
}

const nodeIndex = "node"

// byNode finds pods by the name of their Kubernetes node.
var byNode = cache.Indexers{nodeIndex: func(object any) ([]string, error) {
	if pod, ok := object.(*corev1.Pod); ok && pod.Spec.NodeName != "" {
		return []string{pod.Spec.NodeName}, nil
	}
	return nil, nil
}}

// claimant is the name of the EMQX resource that an object belongs to, or whose name it stands in the way of: by its label
// or else by its own name. It is empty when there can be none.
func claimant(object metav1.Object) string {
	if instance := object.GetLabels()[v2beta1.LabelInstance]; instance != "" {
		return instance
	}
	return v2beta1.ResourceOf(object.GetName())
}

// concerns reports whether an object has to do with a cluster: it is one's, or has a name that one may need.
func concerns(object metav1.Object) bool {
	_, controlled := controllerOf(object)
	return controlled || claimant(object) != ""
}

// trim drops what no decision is made from before an object is kept: the caches hold every pod of every cluster. Of an
// object that has nothing to do with a cluster only what says which it is stays.
func trim(object any) (any, error) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return object, nil //nolint:nilerr // The last known state of what was deleted: it was trimmed before.
	}
	switch o := object.(type) {
	case *corev1.Pod:
		o.Spec = corev1.PodSpec{NodeName: o.Spec.NodeName}
		o.Annotations = only(o.Annotations, v2beta1.AnnotationRevision)
		o.Status = trimmedStatus(o.Status)
		o.Labels = only(o.Labels, v2beta1.LabelInstance, v2beta1.LabelLetGo)
	case *corev1.Node:
		*o = corev1.Node{ObjectMeta: identity(o), Spec: corev1.NodeSpec{Unschedulable: o.Spec.Unschedulable, Taints: o.Spec.Taints}}
	case *discoveryv1.EndpointSlice:
		o.Endpoints, o.Ports = trimmedEndpoints(o.Endpoints), nil
		o.Labels = only(o.Labels, discoveryv1.LabelServiceName)
	case *corev1.Service:
		if concerns(o) && slices.ContainsFunc(o.ManagedFields, updated) {
			return object, nil // Of a Service that another operator made, it matters who owns which field.
		}
		if !concerns(o) {
			*o = corev1.Service{ObjectMeta: identity(o)}
		}
	case *policyv1.PodDisruptionBudget:
		if !concerns(o) {
			*o = policyv1.PodDisruptionBudget{ObjectMeta: identity(o)}
		}
		o.Status = policyv1.PodDisruptionBudgetStatus{}
		if slices.ContainsFunc(o.ManagedFields, updated) {
			return object, nil // As of a Service.
		}
	case *appsv1.StatefulSet:
		if !concerns(o) {
			*o = appsv1.StatefulSet{ObjectMeta: identity(o)}
		}
		o.Spec.VolumeClaimTemplates = nil
		o.Spec.Template = trimmedTemplate(o)
	case *metav1.PartialObjectMetadata:
		if !concerns(o) {
			o.ObjectMeta = identity(o)
		}
		o.Annotations = nil
		o.ManagedFields = writersOfData(o.ManagedFields)
		return object, nil
	}
	accessor.SetManagedFields(nil)
	return object, nil
}

// ClaimManager is the field manager of the owner references that the operator puts on claims of volumes.
const ClaimManager = "emqx-bg-operator-claims"

// trimClaim drops of a claim what no decision is made from: of its managed fields only whether it was the operator that put
// an owner reference on it stays.
func trimClaim(object any) (any, error) {
	claim, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object, nil // The last known state of what was deleted: it was trimmed before.
	}
	var ours []metav1.ManagedFieldsEntry
	for _, fields := range claim.ManagedFields {
		if fields.Manager == ClaimManager {
			ours = append(ours, metav1.ManagedFieldsEntry{Manager: fields.Manager})
		}
	}
	claim.ManagedFields, claim.Annotations = ours, nil
	return claim, nil
}

// updated reports whether managed fields are those of somebody who updates, where this operator applies.
func updated(fields metav1.ManagedFieldsEntry) bool {
	return fields.Operation == metav1.ManagedFieldsOperationUpdate && fields.Subresource == ""
}

// fieldsOfData are the managed fields of whoever wrote content, without its keys.
const fieldsOfData = `{"f:data":{}}`

// WritesData reports whether managed fields are those of who wrote the content of a Secret or ConfigMap.
func WritesData(fields metav1.ManagedFieldsEntry) bool {
	return fields.FieldsV1 != nil && strings.Contains(fields.FieldsV1.GetRawString(), `"f:data"`)
}

// writersOfData are who wrote content, and when.
func writersOfData(all []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	var writers []metav1.ManagedFieldsEntry
	for _, fields := range all {
		if WritesData(fields) {
			writers = append(writers, metav1.ManagedFieldsEntry{Manager: fields.Manager, Time: fields.Time, FieldsV1: metav1.NewFieldsV1(fieldsOfData)})
		}
	}
	return writers
}

// identity is what says which object it is, and whose.
func identity(object metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: object.GetName(), Namespace: object.GetNamespace(), UID: object.GetUID(), ResourceVersion: object.GetResourceVersion(),
		OwnerReferences: object.GetOwnerReferences(),
	}
}

// only are the labels, or annotations, that are read.
func only(labels map[string]string, names ...string) map[string]string {
	var kept map[string]string
	for _, name := range names {
		if value, ok := labels[name]; ok {
			if kept == nil {
				kept = make(map[string]string, 1)
			}
			kept[name] = value
		}
	}
	return kept
}

// trimmedEndpoints are what is read of endpoints: whose they are, and whether they are ready.
func trimmedEndpoints(endpoints []discoveryv1.Endpoint) []discoveryv1.Endpoint {
	kept := make([]discoveryv1.Endpoint, 0, len(endpoints))
	for _, endpoint := range endpoints {
		trimmed := discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: endpoint.Conditions.Ready}}
		if endpoint.TargetRef != nil {
			trimmed.TargetRef = &corev1.ObjectReference{UID: endpoint.TargetRef.UID}
		}
		kept = append(kept, trimmed)
	}
	return kept
}

// trimmedStatus is what is read of a pod's status.
func trimmedStatus(status corev1.PodStatus) corev1.PodStatus {
	containers := func(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
		var kept []corev1.ContainerStatus
		for _, status := range statuses {
			kept = append(kept, corev1.ContainerStatus{
				Name: status.Name, State: status.State, LastTerminationState: status.LastTerminationState, ContainerID: status.ContainerID,
			})
		}
		return kept
	}
	return corev1.PodStatus{
		Phase: status.Phase, Conditions: status.Conditions, PodIP: status.PodIP, StartTime: status.StartTime,
		InitContainerStatuses: containers(status.InitContainerStatuses), ContainerStatuses: containers(status.ContainerStatuses),
	}
}

// trimmedTemplate is what is read of a set's template: what EMQX's container is, and where it has its configuration and its API keys from.
func trimmedTemplate(set *appsv1.StatefulSet) corev1.PodTemplateSpec {
	var template corev1.PodTemplateSpec
	for _, container := range set.Spec.Template.Spec.Containers {
		kept := corev1.Container{Name: container.Name, Image: container.Image, Ports: container.Ports}
		for _, variable := range container.Env {
			if variable.Name == resources.NodeDomainEnv {
				kept.Env = append(kept.Env, variable)
			}
		}
		template.Spec.Containers = append(template.Spec.Containers, kept)
	}
	for _, container := range set.Spec.Template.Spec.InitContainers {
		template.Spec.InitContainers = append(template.Spec.InitContainers, corev1.Container{Name: container.Name, Ports: container.Ports})
	}
	for _, volume := range set.Spec.Template.Spec.Volumes {
		if volume.Name == resources.BootstrapConfigVolume || volume.Name == resources.APIKeysVolume {
			template.Spec.Volumes = append(template.Spec.Volumes, volume)
		}
	}
	return template
}
