package upgrade

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// tellUnknown says of a resource that cannot be decoded, and whose specification was never known, that this is so. What its
// cluster consists of stays as it is. Its status is replaced: the API server applies nothing to an object that its own schema cannot
// read either.
func (c *Controller) tellUnknown(ctx context.Context, emqx *v2beta1.EMQX) error {
	status := unknownStatus(emqx, time.Now())
	if equality.Semantic.DeepEqual(status, emqx.Status) {
		return nil
	}
	applied, err := c.replaceStatus(ctx, emqx, status)
	if apierrors.IsConflict(err) {
		return nil // It was written since, which is about to be seen.
	}
	if err != nil {
		return fmt.Errorf("write the status of EMQX %s, which cannot be decoded: %w", key(emqx), err)
	}
	c.writes.record(key(emqx), v2beta1.Kind, applied.ResourceVersion)
	c.metrics.statusWrites.Inc()
	c.metrics.eventsWritten.Inc()
	c.recorder.Eventf(emqx, nil, corev1.EventTypeWarning, machine.Undecodable, "Decode", "%s", machine.UndecodableMessage(emqx))
	return nil
}

// unknownStatus is the last status that there was, Stalled.
func unknownStatus(emqx *v2beta1.EMQX, now time.Time) v2beta1.EMQXStatus {
	status := *emqx.Status.DeepCopy()
	status.State = machine.StateStalled
	for _, condition := range []metav1.Condition{
		{Type: v2beta1.ConditionReady, Status: metav1.ConditionFalse},
		{Type: v2beta1.ConditionProgressing, Status: metav1.ConditionFalse},
		{Type: v2beta1.ConditionStalled, Status: metav1.ConditionTrue},
	} {
		condition.Reason, condition.Message = machine.Undecodable, machine.UndecodableMessage(emqx)
		condition.ObservedGeneration = emqx.Generation
		condition.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		meta.SetStatusCondition(&status.Conditions, condition)
	}
	return status
}
