package resources

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// TestLicenceOfTheConfiguration: the environment is over the text, and what comes from elsewhere is not known.
func TestLicenceOfTheConfiguration(t *testing.T) {
	const variable = "EMQX_LICENSE__KEY"
	elsewhere := corev1.EnvVar{Name: variable, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "k"}}}
	for _, test := range []struct {
		reason, text string
		env          []corev1.EnvVar
		envFrom      bool
		want         Licence
	}{
		{"nothing", "", nil, false, LicenceUnset},
		{"null", "license.key = null", nil, false, LicenceUnset},
		{"other settings of it", "license { connection_low_watermark = \"75%\" }", nil, false, LicenceUnset},
		{"the default", "license { key = default }", nil, false, LicenceDefault},
		{"a key", `license.key = "MjIw.MEUC"`, nil, false, LicenceKey},
		{"EMQX's trial, which allows several nodes", "license.key = evaluation", nil, false, LicenceKey},
		{"the environment is over the text", "license.key = default", []corev1.EnvVar{{Name: variable, Value: "file:///etc/licence"}}, false, LicenceKey},
		{"the environment alone", "", []corev1.EnvVar{{Name: variable, Value: "default"}}, false, LicenceDefault},
		{"a Secret", "license.key = default", []corev1.EnvVar{elsewhere}, false, LicenceNotKnown},
		{"a whole ConfigMap of variables", "", nil, true, LicenceNotKnown},
		{"a file that is included", "include \"more.conf\"", nil, false, LicenceNotKnown},
	} {
		t.Run(test.reason, func(t *testing.T) {
			emqx := &v2beta1.EMQX{}
			emqx.Spec.Config.Data, emqx.Spec.CoreTemplate.Spec.Env = test.text, test.env
			if test.envFrom {
				emqx.Spec.CoreTemplate.Spec.EnvFrom = []corev1.EnvFromSource{{}}
			}
			config, err := ConfigOf(emqx)
			require.NoError(t, err)
			require.Equal(t, test.want, config.Licence)
			if len(test.env) > 0 {
				require.Empty(t, config.Unknown, "a licence opens no port")
			}
		})
	}
}
