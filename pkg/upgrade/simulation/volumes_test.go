package simulation

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
)

const protection = "kubernetes.io/pvc-protection"

func volume(size string) corev1.PersistentVolumeClaimSpec {
	return corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
	}
}

// openVolumes has half of the worlds keep the data of nodes on volumes.
func (w *world) openVolumes() {
	if w.once("volumes", 2) {
		w.names.Spec.CoreTemplate.Spec.VolumeClaimTemplates = volume("1Gi")
		w.happen("volumes")
	}
}

// volumeEdits are what users do to the fields of volumes.
func volumeEdits() []happening {
	edit := func(what string, change func(*world, *v2beta1.EMQXSpec)) happening {
		return happening{what, 1, func(w *world) bool {
			return w.edit(what, func(spec *v2beta1.EMQXSpec) { change(w, spec) })
		}}
	}
	return []happening{
		edit("another volume, or none", func(w *world, spec *v2beta1.EMQXSpec) {
			spec.CoreTemplate.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaimSpec{{}, volume("1Gi"), volume("2Gi")}[w.rng.IntN(3)]
		}),
		edit("another history limit", func(w *world, spec *v2beta1.EMQXSpec) { spec.RevisionHistoryLimit = ptr.To(int32(w.rng.IntN(3))) }),
		edit("another retention of volumes", func(w *world, spec *v2beta1.EMQXSpec) {
			spec.CoreTemplate.Spec.VolumeClaimRetention = []v2beta1.VolumeClaimRetention{"", v2beta1.VolumeClaimsDeleted}[w.rng.IntN(2)]
		}),
	}
}

// claimOf is the claim that a pod of the given name has; false when there is none.
func (w *world) claimOf(pod string) (*corev1.PersistentVolumeClaim, bool) {
	return get[*corev1.PersistentVolumeClaim](w.kube, volumeClaims, w.names.CoreDataVolume()+"-"+pod)
}

// claims makes the claim of a pod that is to be made, as the StatefulSet controller does, and reports whether the pod can be:
// one whose claim is being deleted finds no machine.
func (w *world) claims(set *appsv1.StatefulSet, ordinal int) bool {
	if len(set.Spec.VolumeClaimTemplates) == 0 {
		return true
	}
	template := set.Spec.VolumeClaimTemplates[0]
	name := fmt.Sprintf("%s-%s-%d", template.Name, set.Name, ordinal)
	if claim, exists := get[*corev1.PersistentVolumeClaim](w.kube, volumeClaims, name); exists {
		return claim.DeletionTimestamp.IsZero()
	}
	claim := template.DeepCopy()
	claim.Name, claim.Namespace, claim.Finalizers = name, namespace, []string{protection}
	w.kube.put(volumeClaims, claim)
	return true
}

// deleteClaim begins the deletion of a claim, which Kubernetes protects while a pod uses it.
func (w *world) deleteClaim(claim *corev1.PersistentVolumeClaim) {
	if claim.DeletionTimestamp.IsZero() {
		claim = claim.DeepCopy()
		claim.DeletionTimestamp = ptr.To(metav1.NewTime(w.now()))
		w.kube.put(volumeClaims, claim)
	}
}

// usedBy is the pod that mounts a claim; false when there is none.
func (w *world) usedBy(claim *corev1.PersistentVolumeClaim) (*corev1.Pod, bool) {
	return get[*corev1.Pod](w.kube, pods, strings.TrimPrefix(claim.Name, w.names.CoreDataVolume()+"-"))
}

// tickClaims ends those that are deleted, and deletes those whose owner is gone, now and then.
func (w *world) tickClaims() {
	for _, claim := range all[*corev1.PersistentVolumeClaim](w.kube, volumeClaims) {
		gone := slices.ContainsFunc(claim.OwnerReferences, func(owner metav1.OwnerReference) bool { return owner.UID != w.owner })
		_, used := w.usedBy(claim)
		switch {
		case w.rng.IntN(3) > 0:
		case !claim.DeletionTimestamp.IsZero() && !used:
			w.kube.remove(volumeClaims, claim.Name)
		case gone:
			w.deleteClaim(claim)
		}
	}
}

// diskOf names what a pod's data lies on: its claim, or a directory that goes with it.
func (w *world) diskOf(pod *corev1.Pod) string {
	if claim, exists := w.claimOf(pod.Name); exists && w.mounts(pod) {
		return string(claim.UID)
	}
	return string(pod.UID)
}

// mounts reports whether a pod has a volume: its set says so.
func (w *world) mounts(pod *corev1.Pod) bool {
	set, exists := get[*appsv1.StatefulSet](w.kube, statefulSets, pod.Name[:strings.LastIndexByte(pod.Name, '-')])
	return !exists || len(set.Spec.VolumeClaimTemplates) > 0
}

// forget notes that a node was made to leave: what is on its volume starts no more.
func (w *world) forget(node string) {
	pod, _, _ := strings.Cut(strings.TrimPrefix(node, "emqx@"), ".")
	if claim, exists := w.claimOf(pod); exists {
		w.forgotten[string(claim.UID)] = true
	}
}

// checkDisk is that no node starts with the data of one that was made to leave, unless somebody else has it start.
func (w *world) checkDisk(pod *corev1.Pod) {
	asked := 0
	if set, exists := get[*appsv1.StatefulSet](w.kube, statefulSets, pod.Name[:strings.LastIndexByte(pod.Name, '-')]); exists {
		asked, _ = strconv.Atoi(set.Annotations[v2beta1.AnnotationReplicas])
	}
	if w.forgotten[w.diskOf(pod)] && ordinalOf(pod.Name) < asked {
		w.violate("pod %s starts with the data of a node that was made to leave", pod.Name)
	}
}

// deleteFormerClaims is what a person does about claims of a deleted resource that stand in the way.
func (w *world) deleteFormerClaims() {
	emqx := w.resource()
	if emqx == nil {
		return
	}
	if stalled := meta.FindStatusCondition(emqx.Status.Conditions, v2beta1.ConditionStalled); stalled == nil || stalled.Reason != "FormerClaims" {
		return
	}
	for _, claim := range all[*corev1.PersistentVolumeClaim](w.kube, volumeClaims) {
		if claim.CreationTimestamp.Before(&emqx.CreationTimestamp) && claim.DeletionTimestamp.IsZero() {
			w.note("a person deletes %s", claim.Name)
			w.deleteClaim(claim)
		}
	}
}

// checkClaimsEnd is that no claim is left but those of the living set and of as many revisions as were to be kept; and those of
// a deleted resource, unless they were to go with it.
func (w *world) checkClaimsEnd(revision string, replicas int) {
	emqx := w.resource()
	limit := int(ptr.Deref(emqx.Spec.RevisionHistoryLimit, 3))
	history := map[string]bool{}
	living := 0
	for _, claim := range all[*corev1.PersistentVolumeClaim](w.kube, volumeClaims) {
		bound := slices.ContainsFunc(claim.OwnerReferences, func(owner metav1.OwnerReference) bool { return owner.UID == emqx.UID })
		switch of := claim.Labels[v2beta1.LabelPodTemplateHash]; {
		case claim.CreationTimestamp.Before(&emqx.CreationTimestamp):
			continue
		case !claim.DeletionTimestamp.IsZero():
			w.violate("claim %s is not gone", claim.Name)
		case of == revision:
			living++
			if _, used := w.usedBy(claim); !used {
				w.violate("claim %s of the living set is left", claim.Name)
			}
		default:
			history[of] = true
		}
		if bound != (emqx.Spec.CoreTemplate.Spec.VolumeClaimRetention == v2beta1.VolumeClaimsDeleted) {
			w.violate("claim %s goes with the resource: %v", claim.Name, bound)
		}
	}
	if len(history) > 0 {
		w.happen("claims that are kept")
	}
	if len(history) > limit {
		w.violate("claims of %d revisions are left, of %d: %v", len(history), limit, history)
	}
	set, _ := get[*appsv1.StatefulSet](w.kube, statefulSets, emqx.CoreSetName(revision))
	if set != nil && len(set.Spec.VolumeClaimTemplates) > 0 && living != replicas {
		w.violate("%d claims for %d nodes", living, replicas)
	}
}

// claimsOf is the client of claims. What is applied to one are its owner references, as a whole.
type claimsOf struct {
	restOfClaims
	claimsClient
}

func (c claimsOf) Apply(ctx context.Context, applied *applycore.PersistentVolumeClaimApplyConfiguration, _ metav1.ApplyOptions) (result *corev1.PersistentVolumeClaim, err error) {
	err = c.server().write(ctx, c.by, "apply", volumeClaims, *applied.Name, "", func() error {
		existing, exists := get[*corev1.PersistentVolumeClaim](c.server(), volumeClaims, *applied.Name)
		if !exists {
			existing = &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: *applied.Name}}
		}
		if err := checkPreconditions(volumeClaims, existing, ptr.Deref(applied.UID, ""), ""); err != nil {
			return err
		}
		result = existing.DeepCopy()
		result.OwnerReferences, result.ManagedFields = nil, []metav1.ManagedFieldsEntry{{Manager: informers.ClaimManager, Time: ptr.To(metav1.NewTime(time.Now()))}}
		for _, owner := range applied.OwnerReferences {
			result.OwnerReferences = append(result.OwnerReferences, metav1.OwnerReference{APIVersion: *owner.APIVersion, Kind: *owner.Kind, Name: *owner.Name, UID: *owner.UID})
		}
		c.server().put(volumeClaims, result)
		result = result.DeepCopy()
		return nil
	})
	return result, err
}
