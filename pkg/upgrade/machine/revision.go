package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// intent is what a revision stands for and is named after: what the user asked for at the level of pods, and nothing of
// what this version of the operator makes of it. Two are compared by meaning, see sameIntent, so that no new version of
// the operator, and none of the types that it is built with, upgrades a cluster.
type intent struct {
	// Version says which fields were known when it was written; see introduced. Zero means 1.
	Version            int                               `json:"version,omitempty"`
	Image              string                            `json:"image"`
	ImagePullPolicy    corev1.PullPolicy                 `json:"imagePullPolicy,omitempty"`
	ImagePullSecrets   []corev1.LocalObjectReference     `json:"imagePullSecrets,omitempty"`
	ServiceAccountName string                            `json:"serviceAccountName,omitempty"`
	ClusterDomain      string                            `json:"clusterDomain,omitempty"`
	DashboardPorts     map[string]int32                  `json:"dashboardPorts,omitempty"`
	Labels             map[string]string                 `json:"labels,omitempty"`
	Annotations        map[string]string                 `json:"annotations,omitempty"`
	Core               v2beta1.EMQXReplicantTemplateSpec `json:"core"`
	// VolumeClaim is nil for data that lives as long as its pod. So it was for all sets of versions that did not know it: it
	// is no field of which an intent may say nothing.
	VolumeClaim *corev1.PersistentVolumeClaimSpec `json:"volumeClaim,omitempty"`
}

// introduced are the fields that each version added, as paths of JSON names with [] for the items of a list. An intent of
// an earlier version says nothing of them. A test compares the fields that there are with those that were there, and says
// so when a change of our types, or of Kubernetes', adds some.
func introduced() map[int][]string { return map[int][]string{} }

// intentVersion is the version of the intents that are written.
func intentVersion() int {
	version := 0
	for later := range introduced() {
		version = max(version, later)
	}
	return version
}

// IntentOf is what a resource asks for its core nodes to be, as JSON.
func IntentOf(emqx *v2beta1.EMQX, ports resources.Ports) (string, error) {
	core := *emqx.Spec.CoreTemplate.Spec.EMQXReplicantTemplateSpec.DeepCopy()
	// How many nodes there are is no matter of what they are.
	core.Replicas, core.MinAvailable, core.MaxUnavailable = nil, nil, nil
	wanted := intent{
		Version:            intentVersion(),
		Image:              emqx.Spec.Image,
		ImagePullPolicy:    emqx.Spec.ImagePullPolicy,
		ImagePullSecrets:   emqx.Spec.ImagePullSecrets,
		ServiceAccountName: emqx.Spec.ServiceAccountName,
		ClusterDomain:      emqx.Spec.ClusterDomain,
		Labels:             emqx.Spec.CoreTemplate.ObjectMeta.Labels,
		Annotations:        emqx.Spec.CoreTemplate.ObjectMeta.Annotations,
		Core:               core,
		VolumeClaim:        resources.VolumeClaimOf(emqx),
	}
	for _, port := range ports.Dashboard {
		if wanted.DashboardPorts == nil {
			wanted.DashboardPorts = map[string]int32{}
		}
		wanted.DashboardPorts[port.Name] = port.Number
	}
	data, err := json.Marshal(wanted)
	if err != nil {
		return "", fmt.Errorf("write down the intent of %s/%s: %w", emqx.Namespace, emqx.Name, err)
	}
	return string(data), nil
}

// TargetOf is the target that a resource asks for its core nodes: a set that stands for the same, whatever its name; or else
// a new revision that is named by the hash of its intent, or the set that serves when its node is to be replaced in place. It
// reads of the Snapshot all but what is wanted.
func TargetOf(s *Snapshot) (Target, error) {
	asked, err := IntentOf(s.EMQX, s.Config.Ports)
	if err != nil {
		return Target{}, err
	}
	target := Target{Intent: asked, Replicas: wantedReplicas(s.EMQX)}
	made, replaced := realized(s.EMQX, s.Sets, asked), s.replacedInPlace(asked)
	switch {
	case made != nil && (replaced == nil || replaced.UID == made.UID || s.served(*made)):
		target.Revision = made.Revision
	case replaced != nil:
		target.Revision = replaced.Revision
		target.Replacement, err = resources.Hash(json.RawMessage(asked))
	default:
		target.Revision, err = s.newName(asked)
	}
	return target, err
}

// newName is the name of a revision of which there is no set: the hash of its intent or, while that is the name of a set which
// stands for another, of the intent and a number.
func (s *Snapshot) newName(asked string) (string, error) {
	name, err := resources.Hash(json.RawMessage(asked))
	for collisions := 1; err == nil && s.standsForAnother(name); collisions++ {
		name, err = resources.Hash(struct {
			Intent     json.RawMessage
			Collisions int
		}{json.RawMessage(asked), collisions})
	}
	return name, err
}

// standsForAnother reports whether there is a set of a revision's name that stands for something else by now: its node was
// replaced in place.
func (s *Snapshot) standsForAnother(revision string) bool {
	set := s.set(revision)
	return set != nil && !set.foreign() && set.Template != "" && set.Template != revision
}

func wantedReplicas(emqx *v2beta1.EMQX) int32 {
	if replicas := emqx.Spec.CoreTemplate.Spec.Replicas; replicas != nil {
		return *replicas
	}
	return 1
}

// sameClaim reports whether two intents ask for the same volume.
func sameClaim(a, b intent) bool { return equality.Semantic.DeepEqual(a.VolumeClaim, b.VolumeClaim) }

// sameIntent reports whether two intents mean the same: decoded with today's types, and but for fields that the version
// which wrote one of them did not know.
func sameIntent(a, b string) bool { return sameIntentBut(a, b, introduced()) }

func sameIntentBut(a, b string, introduced map[int][]string) bool {
	if a == b {
		return true
	}
	first, err := decodeIntent(a, nil)
	if err != nil {
		return false
	}
	second, err := decodeIntent(b, nil)
	if err != nil {
		return false
	}
	if unsaid := introducedAfter(min(first.version(), second.version()), introduced); len(unsaid) > 0 {
		if first, err = decodeIntent(a, unsaid); err != nil {
			return false
		}
		if second, err = decodeIntent(b, unsaid); err != nil {
			return false
		}
	}
	first.Version, second.Version = 0, 0
	return equality.Semantic.DeepEqual(first, second)
}

func (i intent) version() int { return max(1, i.Version) }

// introducedAfter are the fields that an intent of a version says nothing of.
func introducedAfter(version int, introduced map[int][]string) []string {
	var paths []string
	for later, added := range introduced {
		if later > version {
			paths = append(paths, added...)
		}
	}
	return paths
}

// readIntents are those that were read last: what a text says never changes.
var readIntents = resources.NewDecoded[intent](256) //nolint:gochecknoglobals // It changes no decision, only what one costs.

// decodeIntent reads an intent but for some fields.
func decodeIntent(text string, without []string) (intent, error) {
	if len(without) == 0 {
		return readIntents.Of(text)
	}
	fields := map[string]any{}
	err := json.Unmarshal([]byte(text), &fields)
	for _, path := range without {
		remove(fields, strings.Split(path, "."))
	}
	if err != nil {
		return intent{}, err
	}
	data, err := json.Marshal(fields)
	if err != nil {
		return intent{}, err
	}
	return readIntents.Of(string(data))
}

// remove takes the field at a path out of a value.
func remove(value any, path []string) {
	object, ok := value.(map[string]any)
	if !ok {
		return
	}
	name, list := strings.CutSuffix(path[0], "[]")
	switch {
	case len(path) == 1:
		delete(object, name)
	case list:
		items, _ := object[name].([]any)
		for _, item := range items {
			remove(item, path[1:])
		}
	default:
		remove(object[name], path[1:])
	}
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
		if claim, ok := flat["volumeClaim"]; ok {
			delete(flat, "volumeClaim")
			flat["coreTemplate.spec.volumeClaimTemplates"] = claim
		}
		return flat
	}
	a, b = flatten(a), flatten(b)
	delete(a, "version")
	delete(b, "version")
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
