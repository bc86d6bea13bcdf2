package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	kubetesting "k8s.io/client-go/testing"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// hook watches and disturbs what the operator writes.
func (w *simWorld) hook() {
	disturb := func(action kubetesting.Action) (bool, runtime.Object, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		verb := action.GetVerb()
		if verb == "list" || verb == "watch" || verb == "get" || action.GetResource().Resource == "events" {
			return false, nil, nil
		}
		if w.operator.dead {
			return true, nil, errors.New("the operator is dead")
		}
		w.requests[verb+" "+action.GetResource().Resource+subresource(action)]++
		w.note("operator: %s %s%s %s", verb, action.GetResource().Resource, subresource(action), nameOf(action))
		w.checkWrite(action)
		if w.killAfter > 0 {
			if w.killAfter--; w.killAfter == 0 {
				w.note("the operator is killed right after this request")
				w.operator.dead = true
			}
		}
		if !w.calm && w.chance("write", 40) {
			w.note("… which fails")
			return true, nil, errors.New("simulated: the API server is not there")
		}
		if create, ok := action.(kubetesting.CreateAction); ok {
			w.stamp(create.GetObject())
			if _, err := w.kube.Tracker().Get(action.GetResource(), simNamespace, create.GetObject().(metav1.Object).GetName()); err != nil {
				w.mirror(action.GetResource(), create.GetObject().(metav1.Object))
			}
		}
		if deletion, ok := action.(kubetesting.DeleteActionImpl); ok {
			if err := w.checkPreconditions(deletion); err != nil {
				return true, nil, err
			}
			w.touch(action.GetResource(), deletion.GetName())
			w.unmirror(action.GetResource(), deletion.GetName())
		}
		return false, nil, nil
	}
	w.kube.PrependReactor("patch", "*", w.apply)
	w.kube.PrependReactor("*", "*", disturb)
	w.emqx.PrependReactor("patch", "emqxes", w.applyStatus)
	w.emqx.PrependReactor("*", "*", disturb)
	w.kube.PrependWatchReactor("*", copying(w.kube.Tracker()))
	w.emqx.PrependWatchReactor("*", copying(w.emqx.Tracker()))
	w.meta.PrependWatchReactor("*", copying(w.meta.Tracker()))
}

// checkPreconditions refuses a deletion of what is not as it was seen, which the fake does not.
func (w *simWorld) checkPreconditions(deletion kubetesting.DeleteActionImpl) error {
	object, err := w.kube.Tracker().Get(deletion.GetResource(), simNamespace, deletion.GetName())
	wanted := deletion.DeleteOptions.Preconditions
	if wanted == nil || err != nil {
		return nil //nolint:nilerr // What does not exist is refused by the fake itself.
	}
	existing := object.(metav1.Object)
	if wanted.UID != nil && *wanted.UID != existing.GetUID() || wanted.ResourceVersion != nil && *wanted.ResourceVersion != existing.GetResourceVersion() {
		return apierrors.NewConflict(deletion.GetResource().GroupResource(), deletion.GetName(), errors.New("it is not as it was seen"))
	}
	return nil
}

// unmirror takes a Secret or ConfigMap that is deleted out of the metadata client's world.
func (w *simWorld) unmirror(resource schema.GroupVersionResource, name string) {
	if _, err := w.meta.Tracker().Get(resource, simNamespace, name); err == nil && (resource == secretsResource || resource == configMapsResource) {
		w.must(w.meta.Tracker().Delete(resource, simNamespace, name), "unmirror metadata")
	}
}

// copying has a fake's watch hand out copies. For what was made between an informer's list and its watch it hands out
// the tracker's own objects, and the informers' transformations would strip what Kubernetes holds.
func copying(tracker kubetesting.ObjectTracker) kubetesting.WatchReactionFunc {
	return func(action kubetesting.Action) (bool, apiwatch.Interface, error) {
		var options metav1.ListOptions
		if impl, ok := action.(kubetesting.WatchActionImpl); ok {
			options = impl.ListOptions
		}
		original, err := tracker.Watch(action.GetResource(), action.GetNamespace(), options)
		if err != nil {
			return true, nil, err
		}
		events := make(chan apiwatch.Event)
		copies := apiwatch.NewProxyWatcher(events)
		go func() {
			defer original.Stop()
			for {
				select {
				case <-copies.StopChan():
					return
				case event := <-original.ResultChan():
					event.Object = event.Object.DeepCopyObject()
					select {
					case <-copies.StopChan():
						return
					case events <- event:
					}
				}
			}
		}()
		return true, copies, nil
	}
}

// apply merges what is applied into what is there: less than the API server's server-side apply, which has tests of its
// own, and a hundred times faster than the fake's.
func (w *simWorld) apply(action kubetesting.Action) (bool, runtime.Object, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	patch := action.(kubetesting.PatchAction)
	if patch.GetPatchType() != types.ApplyPatchType {
		return false, nil, nil
	}
	applied, merged := emptyOf(action), emptyOf(action)
	if err := json.Unmarshal(patch.GetPatch(), applied); err != nil {
		return true, nil, err
	}
	existing, err := w.kube.Tracker().Get(action.GetResource(), simNamespace, patch.GetName())
	uid := applied.(metav1.Object).GetUID()
	switch {
	case uid != "" && (apierrors.IsNotFound(err) || existing.(metav1.Object).GetUID() != uid):
		return true, nil, apierrors.NewConflict(action.GetResource().GroupResource(), patch.GetName(),
			fmt.Errorf("uid mismatch: the provided object specified uid %s", uid))
	case err == nil && applied.(metav1.Object).GetResourceVersion() != "" && applied.(metav1.Object).GetResourceVersion() != existing.(metav1.Object).GetResourceVersion():
		return true, nil, apierrors.NewConflict(action.GetResource().GroupResource(), patch.GetName(), errors.New("it has changed since it was seen"))
	case apierrors.IsNotFound(err):
		err := w.create(action.GetResource(), applied, simNamespace)
		w.mirror(action.GetResource(), applied.(metav1.Object))
		return true, applied, err
	}
	if service, ok := existing.DeepCopyObject().(*corev1.Service); ok {
		service.Spec.Selector, existing = nil, service // A selector is applied as a whole.
	}
	before, err := json.Marshal(existing)
	if err != nil {
		return true, nil, err
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch.GetPatch(), merged)
	if err != nil {
		return true, nil, err
	}
	if err := json.Unmarshal(after, merged); err != nil {
		return true, nil, err
	}
	err = w.update(action.GetResource(), merged, simNamespace)
	w.mirror(action.GetResource(), merged.(metav1.Object))
	return true, merged, err
}

// emptyOf is an object of the kind that an action is about.
func emptyOf(action kubetesting.Action) runtime.Object {
	switch action.GetResource().Resource {
	case "pods":
		return &corev1.Pod{}
	case "services":
		return &corev1.Service{}
	case "configmaps":
		return &corev1.ConfigMap{}
	default:
		return &appsv1.StatefulSet{}
	}
}

// applyStatus is the status subresource: the fake knows no plural of EMQX for its own, and would take the specification
// along.
func (w *simWorld) applyStatus(action kubetesting.Action) (bool, runtime.Object, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var applied v2beta1.EMQX
	patch := action.(kubetesting.PatchAction)
	emqx := w.resource().DeepCopy()
	if patch.GetPatchType() == types.JSONPatchType {
		operations := []jsonPatch{{Value: &applied.Status}, {Value: &applied.ResourceVersion}}
		if err := json.Unmarshal(patch.GetPatch(), &operations); err != nil {
			return true, nil, err
		}
		if applied.ResourceVersion != emqx.ResourceVersion {
			return true, nil, apierrors.NewConflict(action.GetResource().GroupResource(), simName, errors.New("it has changed"))
		}
	} else if err := json.Unmarshal(patch.GetPatch(), &applied); err != nil {
		return true, nil, err
	}
	emqx.Status = applied.Status
	w.stamp(emqx)
	return true, emqx, w.emqx.Tracker().Update(emqxesResource, emqx, simNamespace)
}

func subresource(action kubetesting.Action) string {
	if action.GetSubresource() == "" {
		return ""
	}
	return "/" + action.GetSubresource()
}

func nameOf(action kubetesting.Action) string {
	switch a := action.(type) {
	case kubetesting.CreateAction:
		return a.GetObject().(metav1.Object).GetName()
	case kubetesting.PatchAction:
		patch := string(a.GetPatch())
		if action.GetResource().Resource == "emqxes" {
			return a.GetName() + " " + between(patch, `"phase":"`, `"`) + ": " + between(patch, `"waitingFor":"`, `"`)
		}
		return a.GetName() + " " + between(patch, `"spec":`, "X") + between(patch, `"status":`, "X")
	case kubetesting.DeleteAction:
		return a.GetName()
	}
	return ""
}

// mirror shows a Secret or ConfigMap that was written to the metadata client, which has a world of its own.
func (w *simWorld) mirror(resource schema.GroupVersionResource, written metav1.Object) {
	kind := map[string]string{"secrets": "Secret", "configmaps": "ConfigMap"}[resource.Resource]
	if kind == "" {
		return
	}
	object := &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind},
		ObjectMeta: metav1.ObjectMeta{
			Name: written.GetName(), Namespace: simNamespace, UID: "of-" + types.UID(written.GetName()), Labels: written.GetLabels(),
			OwnerReferences: written.GetOwnerReferences(),
			ResourceVersion: written.GetResourceVersion(),
		},
	}
	if _, err := w.meta.Tracker().Get(resource, simNamespace, object.Name); err == nil {
		w.must(w.meta.Tracker().Update(resource, object, simNamespace), "mirror metadata")
		return
	}
	w.must(w.meta.Tracker().Create(resource, object, simNamespace), "mirror metadata")
}

func between(text, before, after string) string {
	_, rest, _ := strings.Cut(text, before)
	found, _, _ := strings.Cut(rest, after)
	return found
}
