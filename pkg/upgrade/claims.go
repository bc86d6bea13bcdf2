package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// gatherClaims are the claims of a resource's core nodes: what has its labels, and the name that a set of its gives to the
// claim of a pod. Whatever else has one of the two is somebody else's.
func gatherClaims(caches *informers.Caches, emqx *v2beta1.EMQX) ([]machine.Claim, error) {
	labelled, err := caches.Claims.Claimed(emqx.Namespace, emqx.Name)
	if err != nil {
		return nil, fmt.Errorf("list the volume claims of EMQX %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	var claims []machine.Claim
	for _, object := range labelled {
		if claim, ok := claimOf(emqx, object); ok {
			claims = append(claims, claim)
		}
	}
	return claims, nil
}

func claimOf(emqx *v2beta1.EMQX, object *metav1.PartialObjectMetadata) (machine.Claim, bool) {
	pod, ok := strings.CutPrefix(object.Name, emqx.CoreDataVolume()+"-")
	set, ordinal, numbered := cutOrdinal(pod)
	revision, named := emqx.CoreRevision(set)
	if !ok || !numbered || !named || pod != fmt.Sprintf("%s-%d", set, ordinal) {
		return machine.Claim{}, false
	}
	for name, value := range resources.CoreRevisionLabels(emqx, revision) {
		if object.Labels[name] != value {
			return machine.Claim{}, false
		}
	}
	former := object.CreationTimestamp.Before(&emqx.CreationTimestamp)
	owns := func(owner metav1.OwnerReference) bool {
		return owner.UID == emqx.UID || former && owner.Kind == v2beta1.Kind
	}
	return machine.Claim{
		Name: object.Name, UID: object.UID, Revision: revision, Ordinal: ordinal,
		Created: object.CreationTimestamp.Time, Former: former,
		Bound: slices.ContainsFunc(object.OwnerReferences, owns) &&
			slices.ContainsFunc(object.ManagedFields, func(fields metav1.ManagedFieldsEntry) bool { return fields.Manager == informers.ClaimManager }),
		Deleting: !object.DeletionTimestamp.IsZero(), Finalizers: object.Finalizers,
	}, true
}

// deleteClaim deletes a claim unless its set is there after all, with the node that it is of: a leader that was asleep, or whose
// cache of sets lags behind that of claims, must not take the volume of a node that runs.
func (e *executor) deleteClaim(ctx context.Context, s machine.Snapshot, a machine.DeleteClaim) error {
	name := s.EMQX.CoreSetName(a.Revision)
	set, err := e.kube.AppsV1().StatefulSets(s.EMQX.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil && set.DeletionTimestamp.IsZero() && int(ptr.Deref(set.Spec.Replicas, 1)) > a.Ordinal:
		return apierrors.NewConflict(appsv1.Resource("statefulsets"), name, errors.New("the set has this node"))
	case err != nil && !apierrors.IsNotFound(err):
		return err
	}
	options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(a.UID))}
	return ignoreGone(e.kube.CoreV1().PersistentVolumeClaims(s.EMQX.Namespace).Delete(ctx, a.Name, options))
}

// bindClaim writes the owner reference of a claim, or takes it back: nothing else is this manager's.
func (e *executor) bindClaim(ctx context.Context, s machine.Snapshot, a machine.BindClaim) error {
	claim := applycore.PersistentVolumeClaim(a.Name, s.EMQX.Namespace).WithUID(a.UID)
	if a.Bind {
		claim = claim.WithOwnerReferences(resources.ApplyDependence(s.EMQX))
	}
	applied, err := e.kube.CoreV1().PersistentVolumeClaims(s.EMQX.Namespace).Apply(ctx, claim, metav1.ApplyOptions{FieldManager: informers.ClaimManager, Force: true})
	if err == nil {
		e.wrote(s, "PersistentVolumeClaim", applied.ResourceVersion)
	}
	return ignoreGone(err)
}
