package upgrade

import (
	"context"
	"fmt"
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

// cookies keeps what tells the cookie of each cluster from another. The metadata of a Secret tells who wrote it and when: the content
// is read only where nodes run that are older than that. The cookie itself is not kept.
type cookies struct {
	kube    kubernetes.Interface
	digests readings[secretVersion, string]
}

func newCookies(kube kubernetes.Interface) *cookies { return &cookies{kube: kube} }

// of is what is known of the cookie in a cluster's Secret. It asks nobody.
func (c *cookies) of(caches *informers.Caches, emqx *v2beta1.EMQX) machine.Cookie {
	secret, exists := caches.Secrets.Get(cache.ObjectName{Namespace: emqx.Namespace, Name: emqx.NodeCookieSecretName()})
	if !exists {
		return machine.Cookie{}
	}
	var cookie machine.Cookie
	cookie.Writer, cookie.Written = writerOf(secret)
	if last := c.digests.last(key(emqx)); last.source == versionOf(caches, secret.Namespace, secret.Name) {
		cookie.Digest = last.value
	}
	return cookie
}

// read has the content of a cluster's Secret be known, once for each version of it.
func (c *cookies) read(ctx context.Context, caches *informers.Caches, emqx *v2beta1.EMQX, now time.Time) {
	version := versionOf(caches, emqx.Namespace, emqx.NodeCookieSecretName())
	if version.UID == "" {
		return
	}
	if err := c.digests.refresh(key(emqx), version, now, func(reading[secretVersion, string]) (string, error) {
		return cookieDigest(ctx, c.kube, emqx)
	}); err != nil {
		klog.FromContext(ctx).Error(err, "The cookie cannot be compared")
	}
}

func (c *cookies) forget(name cache.ObjectName) { c.digests.forget(name) }

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
