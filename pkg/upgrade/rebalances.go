package upgrade

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// Of Rebalances the operator writes its own finalizer and the status.
//
// +kubebuilder:rbac:groups=apps.emqx.io,resources=rebalances;rebalances/status,verbs=patch

// gatherRebalances are the Rebalances that name a cluster, oldest first.
func gatherRebalances(caches *informers.Caches, name cache.ObjectName) ([]*v2beta1.Rebalance, error) {
	found, err := caches.RebalancesOf(name)
	if err != nil {
		return nil, fmt.Errorf("list the Rebalances of EMQX %s: %w", name, err)
	}
	all := make([]*v2beta1.Rebalance, 0, len(found))
	for _, rebalance := range found {
		all = append(all, rebalance.DeepCopy())
	}
	slices.SortFunc(all, func(a, b *v2beta1.Rebalance) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	return all, nil
}

// unattended has the Rebalances of a cluster wait that nobody looks after, and lets those go that are deleted.
func (c *Controller) unattended(ctx context.Context, name cache.ObjectName, why machine.Lack) []error {
	rebalances, err := gatherRebalances(c.config.Caches, name)
	if err != nil {
		return []error{err}
	}
	nobody := machine.Snapshot{EMQX: &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}}
	return c.executor.execute(ctx, nobody, each(machine.Unattended(time.Now(), rebalances, why)))
}

// each are actions of which none waits for another.
func each(actions []machine.Action) []machine.Group {
	var groups []machine.Group
	for _, action := range actions {
		groups = append(groups, machine.Group{action})
	}
	return groups
}

// doRebalance is do for the actions on Rebalances. They are written as a whole, to the Rebalance that the decision saw, as it saw it:
// what another operator wrote before is not left standing.
func (e *executor) doRebalance(ctx context.Context, s machine.Snapshot, action machine.Action) error {
	switch a := action.(type) { //nolint:gochecksumtype // The others are in do.
	case machine.FinalizeRebalance:
		return e.patchRebalance(ctx, s, a.RebalanceRef, resources.Put("/metadata/finalizers", a.Finalizers), a.Events)
	case machine.TellRebalance:
		return e.patchRebalance(ctx, s, a.RebalanceRef, resources.Put("/status", a.Status), a.Events, "status")
	}
	return fmt.Errorf("%T is no action on a Rebalance", action)
}

func (e *executor) patchRebalance(ctx context.Context, s machine.Snapshot, ref machine.RebalanceRef, change resources.JSONPatch, told []machine.Event, subresources ...string) error {
	patch, err := json.Marshal([]resources.JSONPatch{change, resources.Replace("/metadata/resourceVersion", ref.ResourceVersion)})
	if err != nil {
		return err
	}
	options := metav1.PatchOptions{FieldManager: FieldManager}
	written, err := e.emqx.AppsV2beta1().Rebalances(s.EMQX.Namespace).Patch(ctx, ref.Name, types.JSONPatchType, patch, options, subresources...)
	if apierrors.IsNotFound(err) {
		return nil // It has gone.
	}
	if err != nil {
		return err
	}
	e.wrote(s, v2beta1.KindRebalance, written.ResourceVersion)
	regarding := &v2beta1.Rebalance{ObjectMeta: metav1.ObjectMeta{Namespace: s.EMQX.Namespace, Name: ref.Name, UID: ref.UID, ResourceVersion: written.ResourceVersion}}
	for _, event := range told {
		e.tell(regarding, event)
	}
	return nil
}
