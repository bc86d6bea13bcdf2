package machine

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

func revision(t *testing.T, change func(*v2beta1.EMQX)) string {
	t.Helper()
	emqx := &v2beta1.EMQX{
		ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n"},
		Spec: v2beta1.EMQXSpec{Image: "emqx/emqx:6.0.1", ClusterDomain: "cluster.local", CoreTemplate: v2beta1.EMQXCoreTemplate{
			Spec: v2beta1.EMQXCoreTemplateSpec{EMQXReplicantTemplateSpec: v2beta1.EMQXReplicantTemplateSpec{
				Replicas: ptr.To(int32(3)), Env: []corev1.EnvVar{{Name: "A", Value: "b"}},
				InitContainers: []corev1.Container{{Name: "i", Image: "busybox"}},
			}},
		}},
	}
	change(emqx)
	config, err := resources.ConfigOf(emqx)
	require.NoError(t, err)
	got, err := TargetOf(&Snapshot{EMQX: emqx, Config: config})
	require.NoError(t, err)
	return got.Revision
}

// TestRevisionIsForEver is invariant 8: a new version of the operator names the revision of an old resource as the old
// version did, or it would upgrade every cluster. If this fails, do not change what it expects.
func TestRevisionIsForEver(t *testing.T) {
	require.Equal(t, "7667b4787f", revision(t, func(*v2beta1.EMQX) {}))
}

func TestRevision(t *testing.T) {
	base := revision(t, func(*v2beta1.EMQX) {})
	for _, test := range []struct {
		reason string
		change func(*v2beta1.EMQX)
		same   bool
	}{
		{"the number of nodes", func(e *v2beta1.EMQX) { e.Spec.CoreTemplate.Spec.Replicas = ptr.To(int32(5)) }, true},
		{"budgets", func(e *v2beta1.EMQX) {
			e.Spec.CoreTemplate.Spec.MinAvailable = ptr.To(intstr.FromInt32(1))
		}, true},
		{"the other budget", func(e *v2beta1.EMQX) {
			e.Spec.CoreTemplate.Spec.MaxUnavailable = ptr.To(intstr.FromInt32(1))
		}, true},
		{"how an upgrade is made", func(e *v2beta1.EMQX) { e.Spec.UpdateStrategy.Paused = true }, true},
		{"Services", func(e *v2beta1.EMQX) { e.Spec.ListenersServiceTemplate = &v2beta1.ServiceTemplate{} }, true},
		{"configuration", func(e *v2beta1.EMQX) { e.Spec.Config.Data = "mqtt.max_packet_size = 2MB" }, true},
		{"the resource's own labels", func(e *v2beta1.EMQX) { e.Labels = map[string]string{"a": "b"} }, true},
		{"the status", func(e *v2beta1.EMQX) { e.Status.Clients = 7 }, true},
		{"the image", func(e *v2beta1.EMQX) { e.Spec.Image = "emqx/emqx:6.0.2" }, false},
		{"the pull policy, as the documentation does", func(e *v2beta1.EMQX) { e.Spec.ImagePullPolicy = corev1.PullNever }, false},
		{"labels of the pods", func(e *v2beta1.EMQX) { e.Spec.CoreTemplate.ObjectMeta.Labels = map[string]string{"a": "b"} }, false},
		{"a port of the dashboard", func(e *v2beta1.EMQX) { e.Spec.Config.Data = "dashboard.listeners.http.bind = 80" }, false},
		{"the cluster domain", func(e *v2beta1.EMQX) { e.Spec.ClusterDomain = "k8s.local" }, false},
		{"resources", func(e *v2beta1.EMQX) {
			e.Spec.CoreTemplate.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		}, false},
		{"what becomes of claims", func(e *v2beta1.EMQX) {
			e.Spec.CoreTemplate.Spec.VolumeClaimRetention = v2beta1.VolumeClaimsDeleted
		}, true},
		{"how many earlier revisions are kept", func(e *v2beta1.EMQX) { e.Spec.RevisionHistoryLimit = ptr.To(int32(0)) }, true},
		{"a volume", func(e *v2beta1.EMQX) { e.Spec.CoreTemplate.Spec.VolumeClaimTemplates = volume("1Gi") }, false},
		{"the command", func(e *v2beta1.EMQX) { e.Spec.CoreTemplate.Spec.Command = []string{"emqx"} }, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			require.Equal(t, test.same, revision(t, test.change) == base)
		})
	}
}

// TestRevisionOfVolumes: another size or class of the volumes is another revision, and the same size in another form is not.
func TestRevisionOfVolumes(t *testing.T) {
	with := func(size string, change ...func(*corev1.PersistentVolumeClaimSpec)) *v2beta1.EMQX {
		emqx := &v2beta1.EMQX{Spec: v2beta1.EMQXSpec{Image: "emqx/emqx:6.0.1"}}
		if size != "" {
			emqx.Spec.CoreTemplate.Spec.VolumeClaimTemplates = volume(size)
		}
		for _, c := range change {
			c(&emqx.Spec.CoreTemplate.Spec.VolumeClaimTemplates)
		}
		return emqx
	}
	asked, err := IntentOf(with("1Gi"), resources.Ports{})
	require.NoError(t, err)
	sets := []Set{{Revision: "before", Intent: asked}}
	for _, test := range []struct {
		reason string
		emqx   *v2beta1.EMQX
		same   bool
	}{
		{"to the letter", with("1Gi"), true},
		{"in another form", with("1024Mi"), true},
		{"another size", with("2Gi"), false},
		{"another class", with("1Gi", func(spec *corev1.PersistentVolumeClaimSpec) { spec.StorageClassName = ptr.To("fast") }), false},
		{"none any more", with(""), false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			target, err := TargetOf(&Snapshot{EMQX: test.emqx, Sets: sets})
			require.NoError(t, err)
			require.Equal(t, test.same, target.Revision == "before")
		})
	}
	without, err := IntentOf(with(""), resources.Ports{})
	require.NoError(t, err)
	require.NotContains(t, without, "olume", "an intent without volumes is as it was before there were any")
	target, err := TargetOf(&Snapshot{EMQX: with("1Gi"), Sets: []Set{{Revision: "before", Intent: without}}})
	require.NoError(t, err)
	require.NotEqual(t, "before", target.Revision, "a set of a version that knew none has none")
	require.Equal(t, "coreTemplate.spec.volumeClaimTemplates", changes(without, asked))
}

// TestRevisionsAreComparedByMeaning is invariant 8: what was written down by another version of the operator, or with other
// types, is the same revision when it means the same.
func TestRevisionsAreComparedByMeaning(t *testing.T) {
	added := map[int][]string{2: {"core.env[].secretRef", "runtimeClass"}}
	for _, test := range []struct {
		reason string
		a, b   string
		same   bool
	}{
		{"to the letter", `{"image":"a"}`, `{"image":"a"}`, true},
		{"in another order", `{"image":"a","labels":{"x":"y"}}`, `{"labels":{"x":"y"},"image":"a"}`, true},
		{"a quantity in another form", `{"core":{"resources":{"limits":{"cpu":"1000m"}}}}`, `{"core":{"resources":{"limits":{"cpu":"1"}}}}`, true},
		{"nothing and an empty list", `{"core":{"env":[]}}`, `{"core":{}}`, true},
		{"another image", `{"image":"a"}`, `{"image":"b"}`, false},
		{"a field that the writer did not know", `{"image":"a"}`, `{"version":2,"image":"a","runtimeClass":"x"}`, true},
		{"one in a list", `{"core":{"env":[{"name":"A"}]}}`, `{"version":2,"core":{"env":[{"name":"A","secretRef":"x"}]}}`, true},
		{"a known field beside it", `{"core":{"env":[{"name":"A"}]}}`, `{"version":2,"core":{"env":[{"name":"B","secretRef":"x"}]}}`, false},
		{"what cannot be read is nothing", `{`, `{"image":"a"}`, false},
	} {
		t.Run(test.reason, func(t *testing.T) { require.Equal(t, test.same, sameIntentBut(test.a, test.b, added)) })
	}
	both := sameIntentBut(`{"version":2,"core":{"env":[{"name":"A"}]}}`, `{"version":2,"core":{"env":[{"name":"A","value":"x"}]}}`, added)
	require.False(t, both, "a field that both knew counts")
}

// TestFieldsOfIntents notices when a change of our types or of Kubernetes' adds fields to what a revision stands for.
func TestFieldsOfIntents(t *testing.T) {
	golden := filepath.Join("testdata", "intent-fields.txt")
	var paths []string
	fieldsOf(reflect.TypeFor[intent](), "", &paths)
	slices.Sort(paths)
	got := strings.Join(slices.Compact(paths), "\n") + "\n"
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "give introduced() the fields that were added, under the next version, and run with -update")
}

var update = flag.Bool("update", false, "write the golden files anew")

// fieldsOf collects the paths of a type's fields, by their JSON names.
func fieldsOf(kind reflect.Type, path string, paths *[]string) {
	switch kind.Kind() {
	case reflect.Pointer:
		fieldsOf(kind.Elem(), path, paths)
	case reflect.Slice, reflect.Array:
		if kind.Elem().Kind() != reflect.Uint8 {
			fieldsOf(kind.Elem(), path+"[]", paths)
		}
	case reflect.Struct:
		if reflect.PointerTo(kind).Implements(reflect.TypeFor[json.Marshaler]()) || kind.Implements(reflect.TypeFor[json.Marshaler]()) {
			return
		}
		for field := range kind.Fields() {
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			below := strings.TrimPrefix(path+"."+name, ".")
			switch {
			case options == "inline" || field.Anonymous && name == "":
				fieldsOf(field.Type, path, paths)
			case name != "-" && name != "":
				*paths = append(*paths, below)
				fieldsOf(field.Type, below, paths)
			}
		}
	default: // A value.
	}
}

func TestChanges(t *testing.T) {
	require.Equal(t, "coreTemplate.spec.env, image: a → b, imagePullPolicy: unset → Never",
		changes(`{"image":"a","core":{"env":[{"name":"X"}]}}`, `{"image":"b","imagePullPolicy":"Never","core":{}}`))
	require.Empty(t, changes("", "{}"), "a set of another operator tells nothing")
}
