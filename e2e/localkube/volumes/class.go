package volumes

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// Provisioner is how StorageClasses name the provisioner of this package.
	Provisioner = "volumes.emqx-bg.example"
	// ClassName is the name of the default StorageClass.
	ClassName = "volumes"

	defaultClassAnnotation = "storageclass.kubernetes.io/is-default-class"
)

// EnsureClass makes the default StorageClass. One that exists already is left as it is.
func EnsureClass(ctx context.Context, client kubernetes.Interface) error {
	policy, mode := corev1.PersistentVolumeReclaimDelete, storagev1.VolumeBindingWaitForFirstConsumer
	_, err := client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: ClassName, Annotations: map[string]string{defaultClassAnnotation: "true"}},
		Provisioner: Provisioner, ReclaimPolicy: &policy, VolumeBindingMode: &mode,
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make the StorageClass %s: %w", ClassName, err)
	}
	return nil
}
