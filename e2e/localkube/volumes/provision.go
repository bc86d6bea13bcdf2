package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/reference"
)

const (
	// wantedAnnotation is what the controller of Kubernetes writes on a claim when it is time to provision it.
	wantedAnnotation = "volume.kubernetes.io/storage-provisioner"
	// madeAnnotation says on a volume which provisioner has made it.
	madeAnnotation = "pv.kubernetes.io/provisioned-by"
	// finalizer keeps a volume until its directory is removed.
	finalizer = Provisioner + "/directory"
)

// syncClaim makes the volume of a claim that waits for one.
func (p *provisioner) syncClaim(ctx context.Context, name cache.ObjectName) error {
	claim, err := p.claims.PersistentVolumeClaims(name.Namespace).Get(name.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Annotations[wantedAnnotation] != Provisioner {
		return nil
	}
	volume, err := p.provision(ctx, claim)
	if err != nil {
		p.recorder.Event(claim, corev1.EventTypeWarning, "ProvisioningFailed", err.Error())
		return err
	}
	if volume != "" {
		p.recorder.Eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume %s", volume)
	}
	return nil
}

// provision makes the directory and the volume of a claim. It returns the volume's name, empty when it was there already.
func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) (string, error) {
	if mode := claim.Spec.VolumeMode; mode != nil && *mode == corev1.PersistentVolumeBlock {
		return "", errors.New("there are no block volumes here, only directories")
	}
	if claim.Spec.Selector != nil {
		return "", errors.New("a claim with a selector is not provisioned")
	}
	if claim.Spec.StorageClassName == nil {
		return "", errors.New("the claim names no StorageClass")
	}
	class, err := p.classes.Get(*claim.Spec.StorageClassName)
	if err != nil {
		return "", fmt.Errorf("find the claim's StorageClass: %w", err)
	}
	owner, err := reference.GetReference(scheme.Scheme, claim)
	if err != nil {
		return "", fmt.Errorf("refer to the claim: %w", err)
	}
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(p.root, name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", fmt.Errorf("make the directory of volume %s: %w", name, err)
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Annotations: map[string]string{madeAnnotation: Provisioner}, Finalizers: []string{finalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			ClaimRef:                      owner,
			// For a local volume, unlike for a host path, kubelet gives the directory to the fsGroup of the pod.
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity:           everywhere(),
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("make volume %s: %w", name, err)
	}
	return name, nil
}

// everywhere is what Kubernetes wants to be said of a local volume.
func everywhere() *corev1.VolumeNodeAffinity {
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpExists}},
	}}}}
}

// syncVolume removes a volume when its claim is gone and that is its policy, or when somebody has deleted it.
func (p *provisioner) syncVolume(ctx context.Context, name string) error {
	if cached, err := p.volumes.Get(name); apierrors.IsNotFound(err) || (err == nil && !ended(cached)) {
		return nil
	}
	// What the cache knows may be old, and what is removed is lost.
	volume, err := p.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read volume %s: %w", name, err)
	}
	if !ended(volume) {
		return nil
	}
	if volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		if err := os.RemoveAll(filepath.Join(p.root, name)); err != nil {
			p.recorder.Event(volume, corev1.EventTypeWarning, "VolumeFailedDelete", err.Error())
			return fmt.Errorf("remove the directory of volume %s: %w", name, err)
		}
	}
	return p.remove(ctx, volume)
}

// ended reports whether a volume of this provisioner is to go.
func ended(volume *corev1.PersistentVolume) bool {
	if !slices.Contains(volume.Finalizers, finalizer) {
		return false
	}
	if volume.DeletionTimestamp != nil {
		return volume.Status.Phase != corev1.VolumeBound
	}
	return volume.Status.Phase == corev1.VolumeReleased &&
		volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
}

// remove deletes the volume and lets go of it.
func (p *provisioner) remove(ctx context.Context, volume *corev1.PersistentVolume) error {
	if volume.DeletionTimestamp == nil {
		options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(volume.UID))}
		// That it is being deleted comes back as a change of it.
		if err := p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, options); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete volume %s: %w", volume.Name, err)
		}
		return nil
	}
	volume.Finalizers = slices.DeleteFunc(volume.Finalizers, func(name string) bool { return name == finalizer })
	if _, err := p.client.CoreV1().PersistentVolumes().Update(ctx, volume, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("let go of volume %s: %w", volume.Name, err)
	}
	return nil
}
