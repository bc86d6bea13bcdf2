package simulation

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// loseLicence has some of the worlds have no licence, and so one node at most.
func (w *world) loseLicence() {
	if w.once("no licence", 8) && w.seed%5 != 0 { // The cluster of another operator has one.
		w.unlicensed = true
		w.names.Spec.CoreTemplate.Spec.Replicas = ptr.To(int32(1))
		w.happen("no licence")
	}
}

func (w *world) licence() emqx.LicenceType {
	if w.unlicensed {
		return emqx.LicenceCommunity
	}
	return "official"
}

// licensed ends a node that has joined another although its licence allows one, and reports whether it may go on.
func (w *world) licensed(b *broker) bool {
	if !w.unlicensed || b.owner != w.owner || !slices.ContainsFunc(ordered(w.brokers), func(other *broker) bool {
		return other != b && other.joined && !other.dead && w.sees(b, other) && !w.now().Before(other.frozen)
	}) {
		return true
	}
	w.note("%s ends: its licence allows one node", b.name)
	w.happen("a node that its licence ended")
	w.members[b.name] = true
	w.die(b)
	b.unlicensed = true
	return false
}

// lastWords is what Kubernetes keeps of the end of a node before.
func lastWords(b *broker) corev1.ContainerState {
	if b == nil || !b.unlicensed {
		return corev1.ContainerState{}
	}
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 1, Message: "SINGLE_NODE_LICENSE, make sure this node and peer nodes are configured with a valid license",
	}}
}

// inPlace reports whether a pod goes because its node is replaced in place, which only one without a licence is.
func (w *world) inPlace(pod *corev1.Pod) bool {
	for _, set := range all[*appsv1.StatefulSet](w.kube, statefulSets) {
		if metav1.IsControlledBy(pod, set) && w.unlicensed && pod.Annotations[v2beta1.AnnotationRevision] != set.Annotations[v2beta1.AnnotationRevision] {
			w.happen("a node replaced in place")
			return true
		}
	}
	return false
}

// buyNothing is what a person does who has no licence and asked for what cannot be had without.
func (w *world) buyNothing(spec *v2beta1.EMQXSpec) {
	spec.CoreTemplate.Spec.Replicas = ptr.To(int32(1))
	serving := w.names.CoreSetName(w.resource().Status.CoreNodesStatus.CurrentRevision)
	sets := all[*appsv1.StatefulSet](w.kube, statefulSets)
	if i := slices.IndexFunc(sets, w.takesClients); i >= 0 && !slices.ContainsFunc(sets, func(set *appsv1.StatefulSet) bool { return set.Name == serving }) {
		serving = sets[i].Name
	}
	for _, set := range sets {
		if set.Name != serving {
			continue
		}
		spec.ClusterDomain, spec.CoreTemplate.Spec.VolumeClaimTemplates = "", corev1.PersistentVolumeClaimSpec{}
		if strings.HasSuffix(set.Spec.Template.Spec.Containers[0].Env[3].Value, "other.local") {
			spec.ClusterDomain = "other.local"
		}
		if len(set.Spec.VolumeClaimTemplates) > 0 {
			spec.CoreTemplate.Spec.VolumeClaimTemplates = set.Spec.VolumeClaimTemplates[0].Spec
			spec.CoreTemplate.Spec.VolumeClaimTemplates.VolumeMode = nil
		}
	}
}

// takesClients reports whether any pod of a set has its gate open.
func (w *world) takesClients(set *appsv1.StatefulSet) bool {
	return slices.ContainsFunc(all[*corev1.Pod](w.kube, pods), func(pod *corev1.Pod) bool {
		return metav1.IsControlledBy(pod, set) && isTrue(pod, v2beta1.ConditionOnServing)
	})
}

type setsOf struct {
	restOfSets
	setsClient
}

// Patch is the JSON patch with which a set gets another template.
func (c setsOf) Patch(ctx context.Context, name string, _ types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (result *appsv1.StatefulSet, err error) {
	all, err := operations(data)
	if err != nil {
		return nil, err
	}
	err = c.server().write(ctx, c.by, "patch", statefulSets, name, "", func() error {
		existing, exists := get[*appsv1.StatefulSet](c.server(), statefulSets, name)
		if !exists {
			return apierrors.NewNotFound(statefulSets.GroupResource(), name)
		}
		result = existing.DeepCopy()
		for _, operation := range all {
			if err := setOperation(result, operation.Path, operation.Value); err != nil {
				return err
			}
		}
		if err := checkPreconditions(statefulSets, existing, result.UID, result.ResourceVersion); err != nil {
			return err
		}
		result.Generation++
		c.server().put(statefulSets, result)
		result = result.DeepCopy()
		return nil
	})
	return result, err
}

// setOperation carries out one operation on a set.
func setOperation(set *appsv1.StatefulSet, path string, value json.RawMessage) error {
	switch annotation, ok := strings.CutPrefix(path, "/metadata/annotations/"); {
	case ok:
		var text string
		err := json.Unmarshal(value, &text)
		set.Annotations[strings.ReplaceAll(annotation, "~1", "/")] = text
		return err
	case path == "/metadata/uid":
		return json.Unmarshal(value, &set.UID)
	case path == "/metadata/resourceVersion":
		return json.Unmarshal(value, &set.ResourceVersion)
	}
	set.Spec.Template = corev1.PodTemplateSpec{}
	return json.Unmarshal(value, &set.Spec.Template)
}
