package upgrade

import (
	"context"
	"fmt"
	"sync"
	"time"

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

// cookies keeps what tells the cookie of each cluster from another. Of Secrets only metadata is cached, which tells who wrote it and
// when: the content is read only where nodes run that are older than that. The cookie itself is not kept.
type cookies struct {
	kube kubernetes.Interface
	mu   sync.Mutex
	all  map[cache.ObjectName]knownCookie
}

// knownCookie is what was read of one version of a Secret.
type knownCookie struct {
	uid     types.UID
	version string
	digest  string
	// failed is when it could not be read; zero when it was.
	failed time.Time
}

// cookieRetry is how long a Secret that could not be read is left alone: what is not known holds nothing up.
const cookieRetry = 30 * time.Second

func newCookies(kube kubernetes.Interface) *cookies {
	return &cookies{kube: kube, all: map[cache.ObjectName]knownCookie{}}
}

// of is what is known of the cookie in a cluster's Secret. It asks nobody.
func (c *cookies) of(caches *informers.Caches, emqx *v2beta1.EMQX) machine.Cookie {
	secret, exists := caches.Secrets.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: emqx.NodeCookieSecretName()})
	if !exists {
		return machine.Cookie{}
	}
	var cookie machine.Cookie
	cookie.Writer, cookie.Written = writerOf(secret)
	if known := c.known(emqx); known.uid == secret.UID && known.version == secret.ResourceVersion {
		cookie.Digest = known.digest
	}
	return cookie
}

// read has the content of a cluster's Secret be known, once for each version of it.
func (c *cookies) read(ctx context.Context, caches *informers.Caches, emqx *v2beta1.EMQX, now time.Time) {
	secret, exists := caches.Secrets.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: emqx.NodeCookieSecretName()})
	if !exists {
		return
	}
	known := c.known(emqx)
	if known.uid == secret.UID && known.version == secret.ResourceVersion && (known.failed.IsZero() || now.Sub(known.failed) < cookieRetry) {
		return
	}
	known = knownCookie{uid: secret.UID, version: secret.ResourceVersion}
	var err error
	if known.digest, err = cookieDigest(ctx, c.kube, emqx); err != nil {
		klog.FromContext(ctx).Error(err, "The cookie cannot be compared")
		known.failed = now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[key(emqx)] = known
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

// cookieDigest reads a cluster's Secret, and tells its cookie from others.
func cookieDigest(ctx context.Context, kube kubernetes.Interface, emqx *v2beta1.EMQX) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	name := emqx.NodeCookieSecretName()
	secret, err := kube.CoreV1().Secrets(emqx.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read the cookie from Secret %s/%s: %w", emqx.Namespace, name, err)
	}
	return resources.CookieDigest(emqx, secret.Data[resources.NodeCookieKey]), nil
}

// writerOf is the field manager that wrote a Secret's content last, and when; the Secret's creation when nobody tells.
func writerOf(secret metav1.Object) (writer string, written time.Time) {
	written = secret.GetCreationTimestamp().Time
	for _, entry := range secret.GetManagedFields() {
		if entry.Time != nil && !entry.Time.Time.Before(written) && informers.WritesData(entry) {
			writer, written = entry.Manager, entry.Time.Time
		}
	}
	return writer, written
}
