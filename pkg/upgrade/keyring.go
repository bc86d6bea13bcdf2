package upgrade

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// keyring keeps how the Secret of the API keys of each cluster stands to what it shall hold. The content is read once for each version
// of that Secret, and of those that the specification names.
type keyring struct {
	kube kubernetes.Interface
	// taken is the operator's API key that a cluster's nodes took last; nil when that is not known.
	taken func(*v2beta1.EMQX) *resources.OperatorKey
	// readings are by all that is compared: the versions of the Secrets, and what is asked for.
	readings readings[[sha256.Size]byte, readKeys]
}

// readKeys is what came of reading.
type readKeys struct {
	// differs tells that EMQX's file is not what it shall be, and problem why that cannot be written.
	differs bool
	problem string
	// own are the operator's keys that are there.
	own []resources.OperatorKey
}

func newKeyring(kube kubernetes.Interface, taken func(*v2beta1.EMQX) *resources.OperatorKey) *keyring {
	return &keyring{kube: kube, taken: taken}
}

// of is what is known of a cluster's keys. It asks nobody.
func (k *keyring) of(caches *informers.Caches, emqx *v2beta1.EMQX, scoped *bool) machine.Keys {
	secret, exists := caches.Secrets.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: emqx.BootstrapAPIKeySecretName()})
	if !exists {
		return machine.Keys{}
	}
	last := k.readings.last(key(emqx))
	if last.source != whatIsRead(caches, emqx, scoped) || !last.failed.IsZero() {
		return machine.Keys{}
	}
	taken := k.taken(emqx)
	unknown := taken != nil && !slices.Contains(last.value.own, *taken)
	_, written := writerOf(secret)
	return machine.Keys{
		Version: string(secret.UID) + "/" + secret.ResourceVersion, Written: written,
		Outdated: last.value.differs || unknown, Problem: last.value.problem,
	}
}

// read has the keys of a cluster be known, once for what there is to read.
func (k *keyring) read(ctx context.Context, caches *informers.Caches, emqx *v2beta1.EMQX, scoped *bool, now time.Time) {
	if err := k.readings.refresh(key(emqx), whatIsRead(caches, emqx, scoped), now, func(reading[[sha256.Size]byte, readKeys]) (readKeys, error) {
		return k.compare(ctx, emqx, scoped)
	}); err != nil {
		klog.FromContext(ctx).Error(err, "The API keys cannot be compared")
	}
}

func (k *keyring) forget(name cache.ObjectName) { k.readings.forget(name) }

// compare reads what there is, and what there shall be.
func (k *keyring) compare(ctx context.Context, emqx *v2beta1.EMQX, scoped *bool) (readKeys, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var read readKeys
	secret, err := k.kube.CoreV1().Secrets(emqx.Namespace).Get(ctx, emqx.BootstrapAPIKeySecretName(), metav1.GetOptions{})
	if err != nil {
		return read, fmt.Errorf("read Secret %s/%s: %w", emqx.Namespace, emqx.BootstrapAPIKeySecretName(), err)
	}
	own, previous := resources.OperatorKeys(secret.Data)
	read.own = previous
	if own != nil {
		read.own = append(read.own, *own)
	}
	users, err := usersKeys(ctx, k.kube, emqx)
	switch {
	case err != nil && final(err):
		read.problem = err.Error()
	case err != nil:
		return read, err
	default:
		read.differs = resources.KeysDiffer(secret.Data, users, scoped)
	}
	return read, nil
}

// whatIsRead tells all that is compared from other things: the versions of the Secrets, and what is asked for.
func whatIsRead(caches *informers.Caches, emqx *v2beta1.EMQX, scoped *bool) [sha256.Size]byte {
	what := struct {
		Secrets []secretVersion
		Keys    []v2beta1.BootstrapAPIKey
		Scoped  *bool
	}{Keys: emqx.Spec.BootstrapAPIKeys, Scoped: scoped}
	for _, name := range append([]string{emqx.BootstrapAPIKeySecretName()}, emqx.KeySecretNames()...) {
		what.Secrets = append(what.Secrets, versionOf(caches, emqx.Namespace, name))
	}
	text, _ := json.Marshal(what) // Strings can always be written.
	return sha256.Sum256(text)
}
