package v2beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of the EMQX resource.
const GroupName = "apps.emqx.io"

// Kind is the kind of the EMQX resource.
const Kind = "EMQX"

// KindRebalance is the kind of the Rebalance resource.
const KindRebalance = "Rebalance"

// The names below are how generated clients find and register the types.
var (
	// SchemeGroupVersion is the group and version of the types of this package.
	SchemeGroupVersion = schema.GroupVersion{Group: GroupName, Version: "v2beta1"}
	// SchemeBuilder collects what AddToScheme registers.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)
	// AddToScheme registers the types of this package.
	AddToScheme = SchemeBuilder.AddToScheme
)

// Resource qualifies a resource name with the group, for errors.
func Resource(resource string) schema.GroupResource {
	return SchemeGroupVersion.WithResource(resource).GroupResource()
}

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(SchemeGroupVersion, &EMQX{}, &EMQXList{}, &Rebalance{}, &RebalanceList{})
	metav1.AddToGroupVersion(scheme, SchemeGroupVersion)
	return nil
}
