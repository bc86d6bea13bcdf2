package podvolume_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podenv"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podvolume"
)

// objects are Secrets and ConfigMaps by name, and the tokens that were asked for.
type objects struct {
	secrets    map[string]map[string][]byte
	configMaps map[string]map[string]string
	tokens     int
	// bound is the directory of the claim of this name.
	bound string
}

func (o *objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	data, has := o.secrets[name]
	if !has {
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
	}
	return &corev1.Secret{Data: data}, nil
}

func (o *objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	data, has := o.configMaps[name]
	if !has {
		return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), name)
	}
	return &corev1.ConfigMap{Data: data}, nil
}

func (o *objects) Token(_ context.Context, _ *corev1.Pod, audience string, seconds int64) (string, time.Time, error) {
	o.tokens++
	return fmt.Sprintf("token %d for %q", o.tokens, audience), epoch().Add(time.Duration(seconds) * time.Second), nil
}

// Directory knows one claim.
func (o *objects) Directory(_ context.Context, _ *corev1.Pod, volume *corev1.Volume) (string, error) {
	if volume.PersistentVolumeClaim == nil || volume.PersistentVolumeClaim.ClaimName != "bound" {
		return "", errors.New("no such claim")
	}
	return o.bound, nil
}

func epoch() time.Time { return time.Unix(1_000_000, 0) }

// fixture is a pod with one container and the volumes under test.
type fixture struct {
	pod     *corev1.Pod
	objects *objects
	volumes *podvolume.Volumes
	now     time.Time
}

func newFixture(t *testing.T, volumes []corev1.Volume, mounts ...corev1.VolumeMount) *fixture {
	t.Helper()
	f := &fixture{
		now: epoch(),
		objects: &objects{
			secrets:    map[string]map[string][]byte{"s": {"user": []byte("me"), "password": []byte("pw")}},
			configMaps: map[string]map[string]string{"c": {"emqx.conf": "a = 1", "other": "x"}},
		},
		pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", Labels: map[string]string{"app": "web"}},
			Spec:       corev1.PodSpec{Volumes: volumes, Containers: []corev1.Container{{Name: "main", VolumeMounts: mounts}}},
		},
	}
	f.volumes = podvolume.New(filepath.Join(t.TempDir(), "pod"), f.objects, f.objects, f.objects, nil, func() time.Time { return f.now })
	return f
}

func (f *fixture) setup(t *testing.T) time.Time {
	t.Helper()
	again, err := f.volumes.Setup(t.Context(), f.pod, podenv.Addresses{PodIP: "10.1.2.3"})
	require.NoError(t, err)
	return again
}

func (f *fixture) mount(t *testing.T) string {
	t.Helper()
	root, err := f.volumes.Mount(f.pod, &f.pod.Spec.Containers[0], map[string]string{"NAME": "expanded"})
	require.NoError(t, err)
	return root
}

func requireFile(t *testing.T, content string, path ...string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	require.Equal(t, content, string(raw))
}

func volume(name string, source corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: source}
}

func configMap(name string, items ...corev1.KeyToPath) corev1.VolumeSource {
	return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items,
	}}
}

func secret(name string, optional bool) corev1.VolumeSource {
	only := int32(0o400)
	return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, DefaultMode: &only, Optional: &optional}}
}

func TestUpdatesReachDirectoriesAndNotSubPaths(t *testing.T) {
	f := newFixture(t, []corev1.Volume{volume("conf", configMap("c"))},
		corev1.VolumeMount{Name: "conf", MountPath: "/opt/emqx/etc/emqx.conf", SubPath: "emqx.conf"},
		corev1.VolumeMount{Name: "conf", MountPath: "/all"})
	f.setup(t)
	root := f.mount(t)
	requireFile(t, "a = 1", root, "opt/emqx/etc/emqx.conf")
	requireFile(t, "a = 1", root, "all/emqx.conf")
	requireFile(t, "x", root, "all/other")

	f.objects.configMaps["c"] = map[string]string{"emqx.conf": "a = 2", "new": "n"}
	f.setup(t)
	requireFile(t, "a = 2", root, "all/emqx.conf")
	requireFile(t, "n", root, "all/new")
	require.NoFileExists(t, root+"/all/other")
	requireFile(t, "a = 1", root, "opt/emqx/etc/emqx.conf")

	root = f.mount(t)
	requireFile(t, "a = 2", root, "opt/emqx/etc/emqx.conf")
}

func TestItemsModesAndDownwardAPI(t *testing.T) {
	executable := int32(0o755)
	f := newFixture(t, []corev1.Volume{
		volume("conf", configMap("c", corev1.KeyToPath{Key: "other", Path: "deep/er/file", Mode: &executable})),
		volume("secret", secret("s", false)),
		volume("info", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
			{Path: "ip", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}},
		}}}),
	}, corev1.VolumeMount{Name: "conf", MountPath: "/conf"}, corev1.VolumeMount{Name: "secret", MountPath: "/secret"},
		corev1.VolumeMount{Name: "info", MountPath: "/info"})
	f.setup(t)
	root := f.mount(t)
	requireFile(t, "x", root, "conf/deep/er/file")
	require.NoFileExists(t, root+"/conf/emqx.conf", "items leave the other keys out")
	requireFile(t, `app="web"`, root, "info/labels")
	requireFile(t, "10.1.2.3", root, "info/ip")
	for path, mode := range map[string]os.FileMode{"conf/deep/er/file": 0o755, "secret/password": 0o400} {
		info, err := os.Stat(filepath.Join(root, path))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), path)
	}
}

func TestEmptyDirOutlivesContainersAndNothingElseDoes(t *testing.T) {
	f := newFixture(t, []corev1.Volume{volume("data", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})},
		corev1.VolumeMount{Name: "data", MountPath: "/opt/emqx/data"},
		corev1.VolumeMount{Name: "data", MountPath: "/log", SubPathExpr: "logs/$(NAME)"})
	f.setup(t)
	root := f.mount(t)
	require.NoError(t, os.WriteFile(root+"/opt/emqx/data/kept", []byte("k"), 0o600))
	require.NoError(t, os.WriteFile(root+"/log/line", []byte("l"), 0o600))
	require.NoError(t, os.WriteFile(root+"/opt/emqx/lost", []byte("x"), 0o600))
	f.setup(t)
	root = f.mount(t)
	requireFile(t, "k", root, "opt/emqx/data/kept")
	requireFile(t, "l", root, "opt/emqx/data/logs/expanded/line")
	require.NoFileExists(t, root+"/opt/emqx/lost")
	require.NoError(t, f.volumes.Remove())
	require.NoDirExists(t, root)
}

func TestAClaimOutlivesThePod(t *testing.T) {
	claim := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "bound"}}
	directory := t.TempDir()
	for _, before := range []string{"", "l"} {
		f := newFixture(t, []corev1.Volume{volume("data", claim)}, corev1.VolumeMount{Name: "data", MountPath: "/opt/emqx/data"},
			corev1.VolumeMount{Name: "data", MountPath: "/log", SubPath: "logs"})
		f.objects.bound = directory
		f.setup(t)
		f.setup(t)
		root := f.mount(t)
		if before == "" {
			require.NoFileExists(t, root+"/opt/emqx/data/logs/line")
		} else {
			requireFile(t, before, root, "opt/emqx/data/logs/line")
		}
		require.NoError(t, os.WriteFile(root+"/log/line", []byte("l"), 0o600))
		require.NoError(t, f.volumes.Remove())
		requireFile(t, "l", directory, "logs/line")
	}
}

func TestAMountWithinAMount(t *testing.T) {
	f := newFixture(t, []corev1.Volume{
		volume("outer", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), volume("inner", secret("s", false)),
	}, corev1.VolumeMount{Name: "inner", MountPath: "/outer/certs"}, corev1.VolumeMount{Name: "outer", MountPath: "/outer"})
	for range 2 {
		f.setup(t)
		root := f.mount(t)
		requireFile(t, "pw", root, "outer/certs/password")
	}
}

func TestTokensAreRenewedBeforeTheyExpire(t *testing.T) {
	seconds := int64(1000)
	f := newFixture(t, []corev1.Volume{volume("access", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "vault-token", Audience: "vault", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}},
		},
	}})}, corev1.VolumeMount{Name: "access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"})
	again := f.setup(t)
	require.Equal(t, epoch().Add(800*time.Second), again)
	root := f.mount(t)
	token := f.volumes.TokenFile(f.pod, &f.pod.Spec.Containers[0])
	require.Equal(t, root+"/var/run/secrets/kubernetes.io/serviceaccount/token", token)
	requireFile(t, `token 1 for ""`, token)
	requireFile(t, `token 2 for "vault"`, filepath.Dir(token), "vault-token")
	requireFile(t, "a = 1", filepath.Dir(token), "emqx.conf")

	f.now = again.Add(-time.Second)
	f.setup(t)
	require.Equal(t, 2, f.objects.tokens, "not before it is due")
	f.now = again
	f.setup(t)
	requireFile(t, `token 3 for ""`, token)
}

func TestSetupSaysWhichVolumeAndWhy(t *testing.T) {
	for _, c := range []struct {
		reason  string
		source  corev1.VolumeSource
		message string
		config  bool
	}{
		{reason: "no Secret", source: secret("absent", false), message: `volume "v" : secret "absent" not found`, config: true},
		{reason: "no ConfigMap", source: configMap("absent"), message: `volume "v" : configmap "absent" not found`, config: true},
		{reason: "no key", source: configMap("c", corev1.KeyToPath{Key: "absent", Path: "p"}), message: "non-existent configmap c key: absent", config: true},
		{reason: "a path out of the volume", source: configMap("c", corev1.KeyToPath{Key: "other", Path: "../../p"}), message: "leads out of the volume"},
		{reason: "no claim", source: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "x"}}, message: "no such claim"},
		{reason: "storage", source: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}, message: "no volumes of this kind"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			f := newFixture(t, []corev1.Volume{volume("v", c.source)})
			_, err := f.volumes.Setup(t.Context(), f.pod, podenv.Addresses{})
			require.ErrorContains(t, err, c.message)
			var setup *podvolume.SetupError
			require.ErrorAs(t, err, &setup)
			require.Equal(t, c.config, podenv.IsConfigError(err))
		})
	}
	f := newFixture(t, []corev1.Volume{volume("v", secret("absent", true))}, corev1.VolumeMount{Name: "v", MountPath: "/v"})
	f.setup(t)
	require.DirExists(t, filepath.Join(f.mount(t), "v")+"/", "an optional Secret that is absent is an empty volume")
}
