package upgrade

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubefake "k8s.io/client-go/kubernetes/fake"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// TestBootstrapKeysFromSecrets: what comes out of a Secret is judged like what the schema sees. What only a person can mend
// is final, so that it is Stalled with its words.
func TestBootstrapKeysFromSecrets(t *testing.T) {
	for _, test := range []struct{ reason, key, secret, want string }{
		{"a good one", "robot", "secret", ""},
		{"one that an editor wrote", "robot\n", "secret\r\n", ""},
		{"the operator's own", resources.OperatorAPIKey, "secret", "the operator's own"},
		{"the operator's own, with a line break", resources.OperatorAPIKey + "\n", "secret", "the operator's own"},
		{"the operator's own behind another", "robot:x\n" + resources.OperatorAPIKey, "secret", "letters, digits"},
		{"the operator's own in the secret", "robot", "x\n" + resources.OperatorAPIKey + ":y", "one line without a colon"},
		{"nothing", "robot", "", "one line"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			kube := kubefake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keys", Namespace: "n"}, Data: map[string][]byte{"key": []byte(test.key), "secret": []byte(test.secret)}})
			e := &executor{kube: kube, writes: newWrites(), taken: func(*v2beta1.EMQX) *resources.OperatorKey { return &resources.OperatorKey{Secret: "operator"} }}
			emqx := &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n"}}
			emqx.Spec.BootstrapAPIKeys = []v2beta1.BootstrapAPIKey{{SecretRef: &v2beta1.SecretRef{
				Key: v2beta1.KeyRef{SecretName: "keys", SecretKey: "key"}, Secret: v2beta1.KeyRef{SecretName: "keys", SecretKey: "secret"},
			}}}
			err := e.writeKeysSecret(t.Context(), machine.Snapshot{EMQX: emqx})
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				require.ErrorContains(t, err, "spec.bootstrapAPIKeys[0].secretRef")
				require.True(t, final(err))
				require.NotContains(t, err.Error(), "secret:y")
				return
			}
			require.NoError(t, err)
			made, err := kube.CoreV1().Secrets("n").Get(t.Context(), emqx.BootstrapAPIKeySecretName(), metav1.GetOptions{})
			require.NoError(t, err)
			lines := strings.Split(strings.TrimSpace(made.StringData[resources.BootstrapAPIKeyKey]+string(made.Data[resources.BootstrapAPIKeyKey])), "\n")
			require.Equal(t, []string{"robot:secret", resources.OperatorAPIKey + ":operator"}, lines)
		})
	}
}
