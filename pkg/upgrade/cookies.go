package upgrade

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// cookies keeps what tells the cookie of each cluster from another, and who wrote it. Of Secrets only metadata is cached: the
// content is read when the version of the Secret changes, and not at every sync. The cookie itself is not kept.
type cookies struct {
	kube kubernetes.Interface
	mu   sync.Mutex
	all  map[cache.ObjectName]knownCookie
}

// knownCookie is what was read of one version of a Secret.
type knownCookie struct {
	uid     types.UID
	version string
	cookie  machine.Cookie
	// failed is when it could not be read; zero when it was.
	failed time.Time
}

// cookieRetry is how long a Secret that could not be read is left alone: what is not known holds nothing up.
const cookieRetry = 30 * time.Second

func newCookies(kube kubernetes.Interface) *cookies {
	return &cookies{kube: kube, all: map[cache.ObjectName]knownCookie{}}
}

// of is what is known of the cookie in a cluster's Secret, which is read if it has changed. It is zero when it is not known.
func (c *cookies) of(ctx context.Context, caches *informers.Caches, emqx *v2beta1.EMQX, now time.Time) machine.Cookie {
	secret, exists := caches.Secrets.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: emqx.NodeCookieSecretName()})
	if !exists {
		return machine.Cookie{}
	}
	known := c.known(emqx)
	if known.uid == secret.UID && known.version == secret.ResourceVersion && (known.failed.IsZero() || now.Sub(known.failed) < cookieRetry) {
		return known.cookie
	}
	known = knownCookie{uid: secret.UID, version: secret.ResourceVersion}
	read, err := readCookie(ctx, c.kube, emqx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "The cookie cannot be compared")
		known.failed = now
	} else {
		known.cookie = read
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[key(emqx)] = known
	return known.cookie
}

func (c *cookies) known(emqx *v2beta1.EMQX) knownCookie {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[key(emqx)]
}

func (c *cookies) forget(name cache.ObjectName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, name)
}

// readCookie reads a cluster's Secret.
func readCookie(ctx context.Context, kube kubernetes.Interface, emqx *v2beta1.EMQX) (machine.Cookie, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	name := emqx.NodeCookieSecretName()
	secret, err := kube.CoreV1().Secrets(emqx.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return machine.Cookie{}, fmt.Errorf("read the cookie from Secret %s/%s: %w", emqx.Namespace, name, err)
	}
	cookie := machine.Cookie{Digest: resources.CookieDigest(emqx, secret.Data[resources.NodeCookieKey])}
	cookie.Writer, cookie.Written = writerOf(secret)
	return cookie, nil
}

// writerOf is the field manager that wrote a Secret's content last, and when; the Secret's creation when nobody tells.
func writerOf(secret *corev1.Secret) (writer string, written time.Time) {
	written = secret.CreationTimestamp.Time
	for _, entry := range secret.ManagedFields {
		if entry.Time == nil || entry.FieldsV1 == nil || entry.Time.Time.Before(written) || !strings.Contains(entry.FieldsV1.GetRawString(), `"f:data"`) {
			continue
		}
		writer, written = entry.Manager, entry.Time.Time
	}
	return writer, written
}
