package upgrade

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// keyName is what the schema takes for the name of a key that is given in the specification itself.
var keyName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// apiKey is a key out of a Secret, which no schema has seen. In EMQX's file a key is a line, with a colon between its name
// and its password; a second key of the operator's name would shut the operator out. A line break at the end is what
// editors leave.
func apiKey(name, secret string) (resources.APIKey, error) {
	key := resources.APIKey{Key: strings.TrimRight(name, "\r\n"), Secret: strings.TrimRight(secret, "\r\n")}
	switch {
	case key.Key == resources.OperatorAPIKey || key.Key == resources.SystemAPIKey:
		return key, fmt.Errorf("key %q is the operator's own: %w", key.Key, errInvalidReference)
	case !keyName.MatchString(key.Key):
		return key, fmt.Errorf("the name of the key must have letters, digits, - and _ only: %w", errInvalidReference)
	case key.Secret == "" || strings.ContainsAny(key.Secret, ":\r\n"):
		return key, fmt.Errorf("the secret of key %q must be one line without a colon: %w", key.Key, errInvalidReference)
	}
	return key, nil
}

// writeKeysSecret makes the Secret of the API keys, or gives it what it lacks. One that was written since it was read stays as it is.
func (e *executor) writeKeysSecret(ctx context.Context, s machine.Snapshot) error {
	users, err := usersKeys(ctx, e.kube, s.EMQX)
	if err != nil {
		return err
	}
	secrets := e.kube.CoreV1().Secrets(s.EMQX.Namespace)
	existing, err := secrets.Get(ctx, s.EMQX.BootstrapAPIKeySecretName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return e.createSecret(ctx, s, resources.BootstrapAPIKeySecret(s.EMQX, resources.Renewed(nil, users, s.KeyScopes(), e.taken(s.EMQX), randomText)))
	}
	if err != nil {
		return err
	}
	entries := resources.Renewed(existing.Data, users, s.KeyScopes(), e.taken(s.EMQX), randomText).Entries()
	if existing.Data == nil {
		existing.Data = map[string][]byte{}
	}
	delete(existing.Data, resources.PreviousKeysKey)
	maps.Copy(existing.Data, entries)
	updated, err := secrets.Update(ctx, existing, metav1.UpdateOptions{FieldManager: FieldManager})
	if err == nil {
		e.wrote(s, "Secret", updated.ResourceVersion)
	}
	return err
}

// usersKeys are the API keys that the specification asks for, read from Secrets where it says so.
func usersKeys(ctx context.Context, kube kubernetes.Interface, emqx *v2beta1.EMQX) ([]resources.APIKey, error) {
	var keys []resources.APIKey
	for i, bootstrap := range emqx.Spec.BootstrapAPIKeys {
		if bootstrap.SecretRef == nil {
			keys = append(keys, resources.APIKey{Key: bootstrap.Key, Secret: bootstrap.Secret})
			continue
		}
		name, err := secretValue(ctx, kube, emqx.Namespace, bootstrap.SecretRef.Key)
		if err != nil {
			return nil, fmt.Errorf("spec.bootstrapAPIKeys[%d].secretRef.key: %w", i, err)
		}
		secret, err := secretValue(ctx, kube, emqx.Namespace, bootstrap.SecretRef.Secret)
		if err != nil {
			return nil, fmt.Errorf("spec.bootstrapAPIKeys[%d].secretRef.secret: %w", i, err)
		}
		key, err := apiKey(name, secret)
		if err != nil {
			return nil, fmt.Errorf("spec.bootstrapAPIKeys[%d].secretRef: %w", i, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func secretValue(ctx context.Context, kube kubernetes.Interface, namespace string, ref v2beta1.KeyRef) (string, error) {
	secret, err := kube.CoreV1().Secrets(namespace).Get(ctx, ref.SecretName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("read Secret %s/%s: %w", namespace, ref.SecretName, errMissingReference)
	}
	if err != nil {
		return "", fmt.Errorf("read Secret %s/%s: %w", namespace, ref.SecretName, err)
	}
	value, ok := secret.Data[ref.SecretKey]
	if !ok {
		return "", fmt.Errorf("read entry %q of Secret %s/%s: %w", ref.SecretKey, namespace, ref.SecretName, errMissingReference)
	}
	return string(value), nil
}
