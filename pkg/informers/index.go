package informers

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
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

// trim drops what no decision is made from before an object is kept: the caches hold every pod of every cluster.
func trim(object any) (any, error) {
	if service, ok := object.(*corev1.Service); ok && service.Spec.Selector[v2beta1.LabelPodTemplateHash] == "" {
		return object, nil // Of one that another operator made, it matters who owns which field.
	}
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	switch o := object.(type) {
	case *corev1.Pod:
		o.Spec = corev1.PodSpec{NodeName: o.Spec.NodeName}
		o.Annotations = nil
	case *appsv1.StatefulSet:
		containers := o.Spec.Template.Spec.Containers
		o.Spec.Template = corev1.PodTemplateSpec{}
		for _, container := range containers {
			o.Spec.Template.Spec.Containers = append(o.Spec.Template.Spec.Containers,
				corev1.Container{Name: container.Name, Image: container.Image, Ports: container.Ports})
		}
	}
	return object, nil
}
