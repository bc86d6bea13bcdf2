package secrecy

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubefake "k8s.io/client-go/kubernetes/fake"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	emqxfake "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/fake"
)

const cookie, key = "a-cookie-of-the-nodes", "the-secret-of-a-key"

const certificate = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIBATAKBggqhkjOPQQDAjA\n-----END CERTIFICATE-----\n"

// TestTold: each place is looked at, also for what was a secret before, and for what was only encoded.
func TestTold(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "n", Name: "x"}
	secret := &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"cookie": []byte(cookie), "keys": []byte("operator:" + key + ":administrator\nshort:x:y\n"), "ca.crt": []byte(certificate)}}
	for _, test := range []struct {
		reason string
		tells  func(t *testing.T, kube *kubefake.Clientset, emqx *emqxfake.Clientset, place *Place)
		want   []string
	}{
		{"a certificate is no secret", func(t *testing.T, kube *kubefake.Clientset, _ *emqxfake.Clientset, _ *Place) {
			require.NoError(t, kube.Tracker().Add(&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"ca": certificate}}))
		}, nil},
		{"what a user wrote into the resource himself", func(t *testing.T, _ *kubefake.Clientset, emqx *emqxfake.Clientset, _ *Place) {
			told := &v2beta1.EMQX{ObjectMeta: meta, Spec: v2beta1.EMQXSpec{BootstrapAPIKeys: []v2beta1.BootstrapAPIKey{{Key: "operator", Secret: key}}}}
			require.NoError(t, emqx.Tracker().Create(v2beta1.SchemeGroupVersion.WithResource("emqxes"), told, "n"))
		}, nil},
		{"nobody tells", func(*testing.T, *kubefake.Clientset, *emqxfake.Clientset, *Place) {}, nil},
		{"a log", func(t *testing.T, _ *kubefake.Clientset, _ *emqxfake.Clientset, place *Place) {
			path := filepath.Join(place.Logs, "n_pod_uid", "c", "0.log")
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
			require.NoError(t, os.WriteFile(path, []byte("started with "+cookie+"\n"), 0o600))
		}, []string{"entry cookie of Secret n/x in the log n_pod_uid"}},
		{"an event", func(t *testing.T, kube *kubefake.Clientset, _ *emqxfake.Clientset, _ *Place) {
			require.NoError(t, kube.Tracker().Add(&eventsv1.Event{ObjectMeta: meta, Note: "the key is " + key}))
		}, []string{"entry keys of Secret n/x in the events"}},
		{"a status", func(t *testing.T, _ *kubefake.Clientset, emqx *emqxfake.Clientset, _ *Place) {
			require.NoError(t, emqx.Tracker().Create(v2beta1.SchemeGroupVersion.WithResource("emqxes"), &v2beta1.EMQX{ObjectMeta: meta, Status: v2beta1.EMQXStatus{State: key}}, "n"))
		}, []string{"entry keys of Secret n/x in the EMQXes"}},
		{"an environment, encoded", func(t *testing.T, kube *kubefake.Clientset, _ *emqxfake.Clientset, _ *Place) {
			require.NoError(t, kube.Tracker().Add(&corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{Containers: []corev1.Container{
				{Env: []corev1.EnvVar{{Name: "A", Value: base64.StdEncoding.EncodeToString([]byte(cookie))}}},
			}}}))
		}, []string{"entry cookie of Secret n/x in the pods"}},
		{"metrics", func(t *testing.T, _ *kubefake.Clientset, _ *emqxfake.Clientset, place *Place) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`a{key="` + key + `"} 1`)) }))
			t.Cleanup(server.Close)
			place.Metrics = []string{server.URL}
		}, []string{"entry keys of Secret n/x in the metrics"}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			kube, emqx := kubefake.NewClientset(secret.DeepCopy()), emqxfake.NewSimpleClientset()
			k, err := Keep(t.Context(), kube)
			require.NoError(t, err)
			defer k.Close()
			require.NoError(t, kube.CoreV1().Secrets("n").Delete(t.Context(), "x", metav1.DeleteOptions{}), "it is not forgotten with its Secret")
			place := Place{Kube: kube, EMQX: emqx, Logs: t.TempDir()}
			test.tells(t, kube, emqx, &place)
			told, err := k.Told(t.Context(), place)
			require.NoError(t, err)
			require.Equal(t, test.want, told)
		})
	}
}

// TestSecretsOfLater: those made after the beginning are known, too.
func TestSecretsOfLater(t *testing.T) {
	kube := kubefake.NewClientset()
	k, err := Keep(t.Context(), kube)
	require.NoError(t, err)
	defer k.Close()
	_, err = kube.CoreV1().Secrets("n").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "y"}, Data: map[string][]byte{"a": []byte(cookie)}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.values[cookie] != ""
	}, 10*time.Second, time.Millisecond)
}
