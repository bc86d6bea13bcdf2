package simulation

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// checkKeysEnd: the Secret of the API keys has what the specification asks for, and the operator's key that the nodes know.
func (w *world) checkKeysEnd(emqx *v2beta1.EMQX) {
	if !w.hasKeys() {
		w.violate("the Secret of the API keys lacks the key that the nodes know")
		return
	}
	secret, _ := get[*corev1.Secret](w.kube, secrets, w.names.BootstrapAPIKeySecretName())
	var users []string
	for _, key := range emqx.Spec.BootstrapAPIKeys {
		users = append(users, key.Key+":"+key.Secret)
	}
	var others []string
	for line := range strings.Lines(string(secret.Data[resources.BootstrapAPIKeyKey])) {
		if !strings.HasPrefix(line, resources.OperatorAPIKey) {
			others = append(others, strings.TrimSpace(line))
		}
	}
	if strings.Join(users, " ") != strings.Join(others, " ") {
		w.violate("the Secret of the API keys has other keys than the specification asks for")
	}
}
