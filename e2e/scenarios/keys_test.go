package scenarios

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

const scopedVersion = "6.0.3"

// withKeys is the sample with a version that knows scopes, and with two API keys of the user's.
const withKeys = `
  bootstrapAPIKeys:
    - key: literal
      secret: password-of-literal
    - secretRef:
        key: {secretName: robot-key, secretKey: key}
        secret: {secretName: robot-key, secretKey: secret}
`

// TestKeys: API keys from the specification and from Secrets, changed while nodes run; Secrets that are deleted, emptied, or
// overwritten while nobody looks; and no more scopes than needed.
func TestKeys(t *testing.T) {
	c := install(t)
	c.writeSecret("robot-key", map[string]string{"key": "robot", "secret": "first-of-the-robot"})
	// Without queues: all replicas of these may be on the one node that is deleted at the end, and then time goes by with giving them up.
	manifest := sample(t, "data: |", "data: |\n      mq.enable = false", "replicas: 3", "env: [{name: EMQX_STANDIN_VERSION, value: "+scopedVersion+"}]\n      replicas: 2", "emqx/emqx:6.0.1", "emqx/emqx:"+scopedVersion)
	c.must(manifest+strings.TrimLeft(withKeys, "\n"), "apply", "-f", "-")
	first := c.until("the cluster", ready)
	require.True(t, c.takes("literal", "password-of-literal") && c.takes("robot", "first-of-the-robot"))
	keys := first.BootstrapAPIKeySecretName()
	own, _ := resources.OperatorKeys(c.secret(keys))
	require.NotNil(t, own)
	require.True(t, own.Scoped, "the version knows scopes")
	require.True(t, c.takes(resources.OperatorAPIKey, own.Secret))
	require.False(t, c.takes(resources.SystemAPIKey, own.Secret), "it may not ask for members")

	// A Secret that the specification names.
	c.must("", "delete", "secret", "robot-key")
	lost := c.until("the lost reference", func(e *v2beta1.EMQX) bool { return machine.StalledReason(e.Status) == "InvalidAPIKeys" })
	require.Contains(t, messageOf(lost, v2beta1.ConditionStalled), "spec.bootstrapAPIKeys[1].secretRef.key: read Secret default/robot-key: it does not exist")
	require.True(t, c.takes("robot", "first-of-the-robot"), "the keys stay as they were")
	c.writeSecret("robot-key", map[string]string{"key": "robot", "secret": "second-of-the-robot"})
	c.until("the reference to be back", ready)
	c.eventually("nodes that run to take the new password", func() bool { return c.takes("robot", "second-of-the-robot") })
	require.False(t, c.takes("robot", "first-of-the-robot"))
	rotated, previous := resources.OperatorKeys(c.secret(keys))
	require.NotEqual(t, own, rotated, "the operator has another key, too")
	require.Contains(t, previous, *own)
	require.False(t, c.takes(resources.OperatorAPIKey, own.Secret))

	// The Secret with all keys.
	c.must("", "delete", "secret", keys)
	c.eventually("the keys to be back", func() bool {
		back, _ := resources.OperatorKeys(c.secret(keys))
		return back != nil && c.takes(resources.OperatorAPIKey, back.Secret)
	})
	c.must("", "patch", "secret", keys, "--type=merge", "-p", `{"data":{"bootstrap_api_key":""}}`)
	c.eventually("what was emptied to be back", func() bool {
		return strings.Contains(string(c.secret(keys)[resources.BootstrapAPIKeyKey]), "robot:second-of-the-robot")
	})
	c.until("the cluster", ready)
	require.Equal(t, first.Status.CoreNodesStatus.CurrentRevision, c.get().Status.CoreNodesStatus.CurrentRevision)
	require.Equal(t, podsOf(first), podsOf(c.get()), "no pod was made anew")
	c.lockOut(keys)
}

// lockOut has the Secret overwritten while no operator runs: the next one does not know the key of the nodes. It says what helps, and
// that helps.
func (c *installed) lockOut(keys string) {
	c.t.Helper()
	c.must("", "-n", "emqx-bg-operator-system", "scale", "deployment/emqx-bg-operator", "--replicas=0")
	c.must("", "-n", "emqx-bg-operator-system", "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=emqx-bg-operator", "--timeout=120s")
	c.must("", "delete", "secret", keys)
	c.must("", "-n", "emqx-bg-operator-system", "scale", "deployment/emqx-bg-operator", "--replicas=1")
	told := c.until("the remedy", func(e *v2beta1.EMQX) bool {
		return strings.Contains(messageOf(e, v2beta1.ConditionReady), "does not know the operator's API key")
	})
	require.Contains(c.t, messageOf(told, v2beta1.ConditionReady), "delete one pod")
	require.Equal(c.t, metav1.ConditionTrue, condition(told, v2beta1.ConditionReady).Status, "a healthy cluster is not called broken")
	c.must("", "delete", "pod", told.Status.CoreNodes[0].PodName)
	c.until("a node to tell the others", func(e *v2beta1.EMQX) bool {
		return ready(e) && !strings.Contains(messageOf(e, v2beta1.ConditionReady), "API key")
	})
}

// takes asks a node that runs for its members with a key.
func (c *installed) takes(key, secret string) bool {
	c.t.Helper()
	state, err := c.dir.Load()
	require.NoError(c.t, err)
	pods, err := c.kube.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{LabelSelector: v2beta1.LabelInstance + "=" + name})
	require.NoError(c.t, err)
	require.NotEmpty(c.t, pods.Items)
	address, err := state.Reach(pods.Items[0].Status.PodIP)
	require.NoError(c.t, err)
	client := emqx.NewClient(nil)
	defer client.Close()
	_, err = client.Members(c.t.Context(), emqx.Node{Name: pods.Items[0].Name, URL: fmt.Sprintf("http://%s:18083", address)}, emqx.Credentials{Key: key, Secret: secret})
	return err == nil
}

func podsOf(emqx *v2beta1.EMQX) map[types.UID]string {
	pods := map[types.UID]string{}
	for _, node := range emqx.Status.CoreNodes {
		pods[node.PodUID] = node.Node
	}
	return pods
}

func (c *installed) writeSecret(name string, data map[string]string) {
	c.t.Helper()
	_, err := c.kube.CoreV1().Secrets("default").Create(c.t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}, metav1.CreateOptions{})
	require.NoError(c.t, err)
}

// secureOnly is the sample with a dashboard that is open for HTTPS only, with a certificate of the user's.
const secureOnly = `
apiVersion: apps.emqx.io/v2beta1
kind: EMQX
metadata:
  name: emqx-ee
spec:
  image: emqx/emqx:6.0.1
  config:
    data: |
      license.key = "official"
      dashboard.listeners {
        http.bind = 0
        https { bind = 18084, ssl_options { certfile = "/mnt/tls/tls.crt", keyfile = "/mnt/tls/tls.key" } }
      }
  coreTemplate:
    spec:
      replicas: 2
      livenessProbe: {httpGet: {path: /status, port: dashboard-https, scheme: HTTPS}, initialDelaySeconds: 60}
      readinessProbe: {httpGet: {path: /status, port: dashboard-https, scheme: HTTPS}, periodSeconds: 1}
      extraVolumes: [{name: tls, secret: {secretName: emqx-tls}}]
      extraVolumeMounts: [{name: tls, mountPath: /mnt/tls, readOnly: true}]
  updateStrategy:
    initialDelaySeconds: 1
    evacuationStrategy: {waitTakeover: 1}
`

// TestHTTPSDashboard: a dashboard that is open for HTTPS only is asked when its certificate is trusted, by the user's CA or because he
// declares it insecure, and an upgrade goes that way.
func TestHTTPSDashboard(t *testing.T) {
	c := install(t)
	certificate, key := certificateFor(t, name+"-dashboard.default.svc")
	c.writeSecret("emqx-tls", map[string]string{"tls.crt": certificate, "tls.key": key})
	c.must(secureOnly, "apply", "-f", "-")
	held := c.until("the refusal", func(e *v2beta1.EMQX) bool {
		return strings.Contains(messageOf(e, v2beta1.ConditionReady), "the certificate of the node's API is not trusted")
	})
	require.Contains(t, messageOf(held, v2beta1.ConditionReady), "spec.apiTLS says whom the operator trusts")

	c.patch(`{"spec":{"apiTLS":{"caSecretName":"emqx-ca"}}}`)
	c.until("the missing CA to be named", func(e *v2beta1.EMQX) bool {
		return strings.Contains(messageOf(e, v2beta1.ConditionReady), "spec.apiTLS.caSecretName: read Secret default/emqx-ca")
	})
	c.writeSecret("emqx-ca", map[string]string{"ca.crt": certificate})
	first := c.until("the cluster", ready)
	c.patch(`{"spec":{"imagePullPolicy":"Never"}}`)
	c.until("the upgrade", func(e *v2beta1.EMQX) bool {
		return ready(e) && e.Status.CoreNodesStatus.CurrentRevision != first.Status.CoreNodesStatus.CurrentRevision
	})
	c.patch(`{"spec":{"apiTLS":{"caSecretName":null,"insecureSkipVerify":true}}}`)
	c.until("anybody to be trusted", func(e *v2beta1.EMQX) bool {
		return ready(e) && !strings.Contains(messageOf(e, v2beta1.ConditionReady), "trusted")
	})
}

// certificateFor makes a certificate for a name that is its own authority, and its key, in PEM.
func certificateFor(t *testing.T, name string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	encoded, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	block := func(kind string, bytes []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
	}
	return block("CERTIFICATE", der), block("EC PRIVATE KEY", encoded)
}
