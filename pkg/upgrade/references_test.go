package upgrade

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubefake "k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	emqxfake "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/fake"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// knowing are caches that know one ConfigMap, one Secret and one pod that no kubelet has taken.
func knowing(t *testing.T) *informers.Caches {
	t.Helper()
	there := func(kind string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind}, ObjectMeta: metav1.ObjectMeta{Name: "there", Namespace: "n"}}
	}
	scheme := metadatafake.NewTestScheme()
	require.NoError(t, metav1.AddMetaToScheme(scheme))
	caches, err := informers.New(informers.Clients{
		Kube: kubefake.NewClientset(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "e-core-r-0", Namespace: "n", Labels: map[string]string{v2beta1.LabelManagedBy: v2beta1.ManagedBy}}}),
		EMQX: emqxfake.NewSimpleClientset(), Metadata: metadatafake.NewSimpleMetadataClient(scheme, there("ConfigMap"), there("Secret")),
	}, nil)
	require.NoError(t, err)
	require.NoError(t, caches.Handle(nil, nil))
	require.NoError(t, caches.Run(t.Context()))
	return caches
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	caches := knowing(t)
	name := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	for _, test := range []struct {
		reason, trouble string
		spec            func(*v2beta1.EMQXSpec)
		want            string
	}{
		{"nothing is named", "Unschedulable", func(*v2beta1.EMQXSpec) {}, "Unschedulable"},
		{"a variable", "CreateContainerConfigError", func(s *v2beta1.EMQXSpec) {
			s.CoreTemplate.Spec.Env = []corev1.EnvVar{{Name: "plain"}, {ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: name("gone")}}}}
		}, `spec.coreTemplate.spec.env[1].valueFrom.secretKeyRef.name: there is no Secret "gone"; CreateContainerConfigError`},
		{"all variables of one", "", func(s *v2beta1.EMQXSpec) {
			s.CoreTemplate.Spec.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: name("gone")}}}
		}, `spec.coreTemplate.spec.envFrom[0].configMapRef.name: there is no ConfigMap "gone"`},
		{"a volume", "", func(s *v2beta1.EMQXSpec) {
			s.CoreTemplate.Spec.ExtraVolumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "gone"}}}}
		}, `spec.coreTemplate.spec.extraVolumes[0].secret.secretName: there is no Secret "gone"`},
		{"a part of a volume", "", func(s *v2beta1.EMQXSpec) {
			s.CoreTemplate.Spec.ExtraVolumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: name("gone")}}},
			}}}}
		}, `spec.coreTemplate.spec.extraVolumes[0].projected.sources[0].configMap.name: there is no ConfigMap "gone"`},
		{"another container's", "", func(s *v2beta1.EMQXSpec) {
			s.CoreTemplate.Spec.InitContainers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name("gone")}}}}}
		}, `spec.coreTemplate.spec.initContainers[0].envFrom[0].secretRef.name: there is no Secret "gone"`},
		{"what is there", "", func(s *v2beta1.EMQXSpec) {
			s.CoreTemplate.Spec.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: name("there")}}, {SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name("there")}}}
		}, ""},
		{"what need not be there", "", func(s *v2beta1.EMQXSpec) {
			s.CoreTemplate.Spec.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name("gone"), Optional: ptr.To(true)}}}
		}, ""},
		{"a pull secret of an image that is pulled", "", func(s *v2beta1.EMQXSpec) { s.ImagePullSecrets = []corev1.LocalObjectReference{name("gone")} }, ""},
		{"a pull secret of one that is not", "container emqx: ImagePullBackOff", func(s *v2beta1.EMQXSpec) { s.ImagePullSecrets = []corev1.LocalObjectReference{name("gone")} },
			`spec.imagePullSecrets[0].name: there is no Secret "gone"; container emqx: ImagePullBackOff`},
		{"a node", "", func(s *v2beta1.EMQXSpec) { s.CoreTemplate.Spec.NodeName = "gone" }, `spec.coreTemplate.spec.nodeName: no kubelet of a node "gone" has taken the pod`},
	} {
		t.Run(test.reason, func(t *testing.T) {
			emqx := &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n"}}
			test.spec(&emqx.Spec)
			s := machine.Snapshot{
				EMQX: emqx, Wanted: map[machine.Role]machine.Target{machine.Core: {Revision: "r"}},
				Sets: []machine.Set{{Revision: "old", Pods: []machine.Pod{{}}}, {Revision: "r", Pods: []machine.Pod{{Name: "e-core-r-0", Trouble: test.trouble}, {Name: "e-core-r-1", ContainerRunning: true}}}},
			}
			explain(caches, &s)
			require.Equal(t, test.want, s.Sets[1].Pods[0].Trouble)
			require.Empty(t, s.Sets[0].Pods[0].Trouble, "another revision was made of another specification")
			require.Empty(t, s.Sets[1].Pods[1].Trouble, "it runs")
		})
	}
}
