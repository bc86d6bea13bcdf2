package upgrade

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// intent is what a revision is named after: what the user asked for at the level of pods, and nothing of what this
// version of the operator makes of it. A new version must hash an old resource as the old one did: fields may be added
// here only with omitempty and without a default, and none may change its name.
type intent struct {
	Image              string                            `json:"image"`
	ImagePullPolicy    corev1.PullPolicy                 `json:"imagePullPolicy,omitempty"`
	ImagePullSecrets   []corev1.LocalObjectReference     `json:"imagePullSecrets,omitempty"`
	ServiceAccountName string                            `json:"serviceAccountName,omitempty"`
	ClusterDomain      string                            `json:"clusterDomain,omitempty"`
	DashboardPorts     map[string]int32                  `json:"dashboardPorts,omitempty"`
	Labels             map[string]string                 `json:"labels,omitempty"`
	Annotations        map[string]string                 `json:"annotations,omitempty"`
	Core               v2beta1.EMQXReplicantTemplateSpec `json:"core"`
}

// revisionOf names the update revision of a resource's core nodes and returns what it is hashed from.
func revisionOf(emqx *v2beta1.EMQX, ports resources.Ports) (revision, from string, err error) {
	core := *emqx.Spec.CoreTemplate.Spec.EMQXReplicantTemplateSpec.DeepCopy()
	// How many nodes there are is no matter of what they are.
	core.Replicas, core.MinAvailable, core.MaxUnavailable = nil, nil, nil
	wanted := intent{
		Image:              emqx.Spec.Image,
		ImagePullPolicy:    emqx.Spec.ImagePullPolicy,
		ImagePullSecrets:   emqx.Spec.ImagePullSecrets,
		ServiceAccountName: emqx.Spec.ServiceAccountName,
		ClusterDomain:      emqx.Spec.ClusterDomain,
		Labels:             emqx.Spec.CoreTemplate.ObjectMeta.Labels,
		Annotations:        emqx.Spec.CoreTemplate.ObjectMeta.Annotations,
		Core:               core,
	}
	for _, port := range ports.Dashboard {
		if wanted.DashboardPorts == nil {
			wanted.DashboardPorts = map[string]int32{}
		}
		wanted.DashboardPorts[port.Name] = port.Number
	}
	data, err := json.Marshal(wanted)
	if err != nil {
		return "", "", fmt.Errorf("hash the revision of %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	revision, err = resources.Hash(json.RawMessage(data))
	return revision, string(data), err
}

// changes names what differs between two intents, as paths of the specification, with values where they are short.
func changes(from, to string) string {
	var a, b map[string]any
	if json.Unmarshal([]byte(from), &a) != nil || json.Unmarshal([]byte(to), &b) != nil {
		return ""
	}
	flatten := func(m map[string]any) map[string]any {
		flat := maps.Clone(m)
		core, _ := m["core"].(map[string]any)
		delete(flat, "core")
		for name, value := range core {
			flat["coreTemplate.spec."+name] = value
		}
		return flat
	}
	a, b = flatten(a), flatten(b)
	names := map[string]bool{}
	for name := range a {
		names[name] = true
	}
	for name := range b {
		names[name] = true
	}
	var told []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before, after := fmt.Sprint(a[name]), fmt.Sprint(b[name]); before != after {
			told = append(told, change(name, a[name], b[name]))
		}
	}
	return strings.Join(told, ", ")
}

func change(name string, before, after any) string {
	short := func(value any) (string, bool) {
		switch value := value.(type) {
		case nil:
			return "unset", true
		case string, float64, bool:
			return fmt.Sprint(value), true
		}
		return "", false
	}
	x, ok := short(before)
	y, too := short(after)
	if ok && too {
		return fmt.Sprintf("%s: %s → %s", name, x, y)
	}
	return name
}
