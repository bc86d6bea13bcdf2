package resources

import (
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Labels are those of everything that belongs to the resource.
func Labels(emqx *v2beta1.EMQX) map[string]string {
	return map[string]string{
		v2beta1.LabelInstance:  emqx.Name,
		v2beta1.LabelManagedBy: v2beta1.ManagedBy,
	}
}

// CoreLabels are those of the core nodes of all revisions.
func CoreLabels(emqx *v2beta1.EMQX) map[string]string {
	return with(Labels(emqx), map[string]string{v2beta1.LabelDBRole: v2beta1.RoleCore})
}

// CoreRevisionLabels are those of the core nodes of one revision.
func CoreRevisionLabels(emqx *v2beta1.EMQX, revision string) map[string]string {
	return with(CoreLabels(emqx), map[string]string{v2beta1.LabelPodTemplateHash: revision})
}

// with returns base and over together; over wins.
func with(base, over map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, base)
	maps.Copy(all, over)
	return all
}

// ApplyOwnerReference makes the resource the controller of an object.
func ApplyOwnerReference(emqx *v2beta1.EMQX) *applymeta.OwnerReferenceApplyConfiguration {
	return applymeta.OwnerReference().WithAPIVersion(v2beta1.SchemeGroupVersion.String()).WithKind(v2beta1.Kind).
		WithName(emqx.Name).WithUID(emqx.UID).WithController(true)
}

// ApplyDependence has an object go with the resource, which does not control it.
func ApplyDependence(emqx *v2beta1.EMQX) *applymeta.OwnerReferenceApplyConfiguration {
	return applymeta.OwnerReference().WithAPIVersion(v2beta1.SchemeGroupVersion.String()).WithKind(v2beta1.Kind).WithName(emqx.Name).WithUID(emqx.UID)
}

func ownerReference(emqx *v2beta1.EMQX) *metav1.OwnerReference {
	controller := true
	return &metav1.OwnerReference{
		APIVersion: v2beta1.SchemeGroupVersion.String(), Kind: v2beta1.Kind, Name: emqx.Name, UID: emqx.UID, Controller: &controller,
	}
}
