package localkube_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/volumes"
)

// claimOf is a claim; more are further fields of its specification.
func claimOf(name, more string) string {
	return `{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"` + name + `"},"spec":{` + more +
		`"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Mi"}}}}`
}

// volumePod is a pod NAME that adds its name to a file in the volume, which it mounts at /data, and is ready then.
func volumePod(name, volume string) string {
	return strings.Replace(shellPod(name, "echo "+name+" >> data/names; touch done; exec sleep 1000",
		`,"readinessProbe":{"exec":{"command":["cat","done"]},"periodSeconds":1}`,
		`,"volumeMounts":[{"name":"data","mountPath":"/data"}]`),
		`"spec":{`, `"spec":{"volumes":[{"name":"data",`+volume+`}],`, 1)
}

func namedClaim(name string) string { return `"persistentVolumeClaim":{"claimName":"` + name + `"}` }

func (f *fixture) claim(t *testing.T, namespace, name string) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim, err := f.client.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	return claim
}

// volumeOf waits until the claim is bound and returns the name of its volume.
func (f *fixture) volumeOf(t *testing.T, namespace, name string) string {
	t.Helper()
	eventually(t, "claim "+name+" is bound", func() string {
		return unless(f.claim(t, namespace, name).Status.Phase == corev1.ClaimBound, "it is not")
	})
	return f.claim(t, namespace, name).Spec.VolumeName
}

func (f *fixture) requireNames(t *testing.T, volume, names string) {
	t.Helper()
	written, err := os.ReadFile(filepath.Join(f.dir.Volumes(), volume, "names"))
	require.NoError(t, err)
	require.Equal(t, names, string(written))
}

// removed waits until neither the volume nor its directory is left.
func (f *fixture) removed(t *testing.T, volume string) {
	t.Helper()
	eventually(t, "volume "+volume+" is removed", func() string {
		if _, err := f.client.CoreV1().PersistentVolumes().Get(t.Context(), volume, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Sprintf("its object is there (%v)", err)
		}
		_, err := os.Stat(filepath.Join(f.dir.Volumes(), volume))
		return unless(os.IsNotExist(err), "its directory is there")
	})
}

func TestAClaimOutlivesItsPodsAndItsVolumeDoesNotOutliveIt(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, claimOf("data", ""))
	f.event(t, namespace, "WaitForFirstConsumer", "waiting for first consumer")
	f.apply(t, namespace, volumePod("one", namedClaim("data")))
	f.pod(t, namespace, "one", ready)
	volume := f.volumeOf(t, namespace, "data")
	require.Equal(t, volumes.ClassName, *f.claim(t, namespace, "data").Spec.StorageClassName, "it is the default")
	f.event(t, namespace, "ProvisioningSucceeded", volume)
	_, err := f.try(t, "kubectl", "--dir", string(f.dir), "--", "patch", "pvc", "-n", namespace, "data", "-p",
		`{"spec":{"resources":{"requests":{"storage":"2Mi"}}}}`)
	require.Error(t, err, "the StorageClass does not let a claim grow")

	f.kubectl(t, "delete", "pvc", "-n", namespace, "data", "--wait=false")
	f.kubectl(t, "delete", "pod", "-n", namespace, "one")
	f.removed(t, volume)

	f.apply(t, namespace, claimOf("data", `"storageClassName":"`+volumes.ClassName+`",`))
	f.apply(t, namespace, volumePod("one", namedClaim("data")))
	f.pod(t, namespace, "one", ready)
	volume = f.volumeOf(t, namespace, "data")
	f.kubectl(t, "delete", "pod", "-n", namespace, "one")
	f.apply(t, namespace, volumePod("two", namedClaim("data")))
	f.pod(t, namespace, "two", ready)
	require.Equal(t, volume, f.volumeOf(t, namespace, "data"))
	f.requireNames(t, volume, "one\ntwo\n")
	f.kubectl(t, "delete", "pod", "-n", namespace, "two")
	f.kubectl(t, "delete", "pvc", "-n", namespace, "data")
	f.removed(t, volume)
}

func TestAVolumeThatIsRetained(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	class := "kept-" + namespace
	f.apply(t, namespace, `{"apiVersion":"storage.k8s.io/v1","kind":"StorageClass","metadata":{"name":"`+class+`"},
		"provisioner":"`+volumes.Provisioner+`","reclaimPolicy":"Retain","volumeBindingMode":"Immediate"}`)
	f.apply(t, namespace, claimOf("data", `"storageClassName":"`+class+`",`))
	volume := f.volumeOf(t, namespace, "data")
	f.kubectl(t, "delete", "pvc", "-n", namespace, "data")
	eventually(t, "the volume is released", func() string {
		found, err := f.client.CoreV1().PersistentVolumes().Get(t.Context(), volume, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		return unless(found.Status.Phase == corev1.VolumeReleased, "it is "+string(found.Status.Phase))
	})
	f.kubectl(t, "delete", "pv", volume)
	directory := filepath.Join(f.dir.Volumes(), volume)
	require.DirExists(t, directory, "whoever deletes the volume keeps the data")
	require.NoError(t, os.RemoveAll(directory))
	f.kubectl(t, "delete", "storageclass", class)
}

func TestClaimsOfAStatefulSet(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"keeps"},"spec":{"serviceName":"keeps","replicas":2,
		"podManagementPolicy":"Parallel","persistentVolumeClaimRetentionPolicy":{"whenScaled":"Delete","whenDeleted":"Delete"},
		"selector":{"matchLabels":{"app":"keeps"}},"template":{"metadata":{"labels":{"app":"keeps"}},"spec":{"terminationGracePeriodSeconds":1,
			"securityContext":{"fsGroup":1000},
			"containers":[{"name":"main","image":"test/shell:1","args":["echo $HOSTNAME >> data/names; touch done; exec sleep 1000"],
				"readinessProbe":{"exec":{"command":["cat","done"]},"periodSeconds":1},"volumeMounts":[{"name":"data","mountPath":"/data"}]}]}},
		"volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Mi"}}}}]}}`)
	uid := f.pod(t, namespace, "keeps-0", ready).UID
	f.pod(t, namespace, "keeps-1", ready)
	zero, one := f.volumeOf(t, namespace, "data-keeps-0"), f.volumeOf(t, namespace, "data-keeps-1")
	require.NotEqual(t, zero, one)
	f.kubectl(t, "delete", "pod", "-n", namespace, "keeps-0")
	f.pod(t, namespace, "keeps-0", func(pod *corev1.Pod) string {
		return unless(pod.UID != uid && isReady(pod), "it is not made again and ready")
	})
	f.requireNames(t, zero, strings.Repeat("keeps-0\n", 2))
	f.kubectl(t, "scale", "statefulset", "-n", namespace, "keeps", "--replicas=1")
	f.removed(t, one)
	f.requireNames(t, zero, strings.Repeat("keeps-0\n", 2))
	f.kubectl(t, "delete", "statefulset", "-n", namespace, "keeps")
	f.removed(t, zero)
}

func TestAnEphemeralVolumeGoesWithItsPod(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, volumePod("one",
		`"ephemeral":{"volumeClaimTemplate":{"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Mi"}}}}}`))
	f.pod(t, namespace, "one", ready)
	volume := f.volumeOf(t, namespace, "one-data")
	f.requireNames(t, volume, "one\n")
	f.kubectl(t, "delete", "pod", "-n", namespace, "one")
	f.removed(t, volume)
}

func TestClaimsThatAreNotProvisioned(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, claimOf("block", `"volumeMode":"Block",`))
	f.apply(t, namespace, volumePod("block", namedClaim("block")))
	f.event(t, namespace, "ProvisioningFailed", "there are no block volumes here")
	f.apply(t, namespace, volumePod("absent", namedClaim("absent")))
	f.event(t, namespace, "FailedScheduling", `persistentvolumeclaim "absent" not found`)
}

// ask sends a request to the API of a stand-in's pod and returns what it says; the body may be empty.
func (f *fixture) ask(t *testing.T, pod *corev1.Pod, method, path, body string) (string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method,
		"http://"+loopbackOf(t, pod.Status.PodIP)+":18083/api/v5"+path, strings.NewReader(body))
	require.NoError(t, err)
	request.SetBasicAuth("key", "secret")
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	return string(answer), err
}

// standIn is a StatefulSet with one node of the stand-in, whose keys are those of the ConfigMap of the same name. Its
// volume "data" is among the volumes of the pod or the claims.
func standIn(name, volumes, claims string) string {
	return `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"` + name + `"},"spec":{"serviceName":"none",
		"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Delete"},"selector":{"matchLabels":{"app":"` + name + `"}},
		"template":{"metadata":{"labels":{"app":"` + name + `"}},"spec":{"terminationGracePeriodSeconds":5,
			"volumes":[` + volumes + `{"name":"keys","configMap":{"name":"` + name + `"}}],
			"containers":[{"name":"emqx","image":"emqx/emqx:6.0.1",
				"env":[{"name":"EMQX_NODE__NAME","value":"emqx@` + name + `"},{"name":"EMQX_API_KEY__BOOTSTRAP_FILE","value":"/keys/keys"}],
				"volumeMounts":[{"name":"data","mountPath":"/opt/emqx/data"},{"name":"keys","mountPath":"/keys"}],
				"readinessProbe":{"httpGet":{"path":"/status","port":18083},"periodSeconds":1}}]}}` + claims + `}}`
}

func keysOf(name, keys string) string {
	return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `"},"data":{"keys":"` + keys + `"}}`
}

// A node of the stand-in on a volume is the same node in the next pod: its evacuation goes on, and it knows its keys
// although nobody names them any more. On a volume that lives as long as its pod it is a new one.
func TestAStandInOnAVolume(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, keysOf("kept", "key:secret"))
	f.apply(t, namespace, keysOf("lost", "key:secret"))
	f.apply(t, namespace, standIn("kept", "", `,"volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":["ReadWriteOnce"],
		"resources":{"requests":{"storage":"1Mi"}}}}]`))
	f.apply(t, namespace, standIn("lost", `{"name":"data","emptyDir":{}},`, ""))
	for _, name := range []string{"kept", "lost"} {
		pod := f.pod(t, namespace, name+"-0", ready)
		_, err := f.ask(t, pod, http.MethodPost, "/load_rebalance/emqx@"+name+"/evacuation/start", `{"wait_health_check":"0s"}`)
		require.NoError(t, err)
		f.apply(t, namespace, keysOf(name, "other:secret"))
		f.kubectl(t, "delete", "pod", "-n", namespace, pod.Name)
		f.pod(t, namespace, pod.Name, func(next *corev1.Pod) string {
			return unless(next.UID != pod.UID && isReady(next), "it is not made again and ready")
		})
	}
	status, err := f.ask(t, f.pod(t, namespace, "kept-0", ready), http.MethodGet, "/load_rebalance/status", "")
	require.NoError(t, err)
	require.Contains(t, status, `"status":"enabled"`)
	_, err = f.ask(t, f.pod(t, namespace, "lost-0", ready), http.MethodGet, "/load_rebalance/status", "")
	require.ErrorContains(t, err, "BAD_API_KEY_OR_SECRET")
	volume := f.volumeOf(t, namespace, "data-kept-0")
	require.FileExists(t, filepath.Join(f.dir.Volumes(), volume, ".evacuation"))
	f.kubectl(t, "delete", "statefulset", "-n", namespace, "kept", "lost")
	f.removed(t, volume)
}
