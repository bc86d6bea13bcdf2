package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	applyv2beta1 "github.com/emqx-bg/emqx-bg-operator/pkg/generated/applyconfiguration/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// applyStatus is the apply configuration of a status.
func applyStatus(emqx *v2beta1.EMQX, status v2beta1.EMQXStatus) (*applyv2beta1.EMQXApplyConfiguration, error) {
	data, err := json.Marshal(status)
	if err != nil {
		return nil, fmt.Errorf("write the status of EMQX %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	apply := applyv2beta1.EMQXStatus()
	if err := json.Unmarshal(data, apply); err != nil {
		return nil, fmt.Errorf("write the status of EMQX %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	return applyv2beta1.EMQX(emqx.Name, emqx.Namespace).WithUID(emqx.UID).WithStatus(apply), nil
}

// tellStatus has metrics tell the status of the moment, and writes it when it is worth that. It returns when it is to be looked
// at again if it is not yet; zero for never.
func (c *Controller) tellStatus(ctx context.Context, s machine.Snapshot, decision machine.Decision, failures []machine.Failure) (time.Duration, error) {
	status := machine.StatusOf(s, decision, failures...)
	c.gauges.tell(s, status)
	now, in := machine.Worth(s.EMQX.Status, status, s.Now.Sub(c.told.of(key(s.EMQX))))
	if !now {
		return in, nil
	}
	return 0, c.writeStatus(ctx, s, decision, status)
}

// writeStatus writes the status, and then tells of what changed.
func (c *Controller) writeStatus(ctx context.Context, s machine.Snapshot, decision machine.Decision, status v2beta1.EMQXStatus) error {
	apply, err := applyStatus(s.EMQX, status)
	if err != nil {
		return err
	}
	// Whatever the actions took: what came of them is told.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	if err := c.renewStatus(ctx, s.EMQX); err != nil {
		return err
	}
	var applied *v2beta1.EMQX
	if s.EMQX.Undecodable() == "" {
		applied, err = c.config.EMQX.AppsV2beta1().EMQXes(s.EMQX.Namespace).ApplyStatus(ctx, apply, force(true))
	} else {
		applied, err = c.replaceStatus(ctx, s.EMQX, status) // To what its schema cannot read, the API server applies nothing.
	}
	if err == nil && !equality.Semantic.DeepEqual(applied.Status, status) {
		// Of what another manager wrote, applying leaves standing what it does not name.
		applied, err = c.replaceStatus(ctx, applied, status)
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // The resource has gone, or another took its name.
	}
	if err != nil {
		return fmt.Errorf("write the status of EMQX %s: %w", key(s.EMQX), err)
	}
	c.writes.recordResource(key(s.EMQX), applied)
	if cached, exists := c.config.Caches.EMQXes.Get(key(s.EMQX)); exists {
		c.writes.seen(cached) // Its event may have come before this answer.
	}
	c.told.note(key(s.EMQX), s.Now)
	c.metrics.statusWrites.Inc()
	c.metrics.transition(s.EMQX, decision.Phase, s.Now)
	told := machine.EventsOf(s.EMQX, decision, status)
	for _, event := range told {
		c.tell(s.EMQX, event)
	}
	if s.EMQX.Status.Phase != decision.Phase {
		klog.FromContext(ctx).Info("Entered a phase", "from", s.EMQX.Status.Phase, "to", decision.Phase, "why", decision.Why)
	}
	return nil
}

// renewStatus begins a status anew that another operator wrote.
func (c *Controller) renewStatus(ctx context.Context, emqx *v2beta1.EMQX) error {
	patch, err := renewal(emqx)
	if err == nil && patch != nil {
		options := metav1.PatchOptions{FieldManager: FieldManager}
		_, err = c.config.EMQX.AppsV2beta1().EMQXes(emqx.Namespace).Patch(ctx, emqx.Name, types.JSONPatchType, patch, options, "status")
	}
	if err != nil {
		return fmt.Errorf("begin the status of EMQX %s anew: %w", key(emqx), err)
	}
	return nil
}

// replaceStatus writes a status as a whole.
func (c *Controller) replaceStatus(ctx context.Context, current *v2beta1.EMQX, status v2beta1.EMQXStatus) (*v2beta1.EMQX, error) {
	patch, err := replacement(current, status)
	if err != nil {
		return nil, err
	}
	options := metav1.PatchOptions{FieldManager: FieldManager}
	return c.config.EMQX.AppsV2beta1().EMQXes(current.Namespace).Patch(ctx, current.Name, types.JSONPatchType, patch, options, "status")
}
