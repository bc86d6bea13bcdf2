package upgrade

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	emqxfake "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/fake"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// TestCookieIsReadOnceAVersion: the content of the Secret is asked for once for each version, and not at every sync.
func TestCookieIsReadOnceAVersion(t *testing.T) {
	c, now := newCluster(t), time.Unix(1000, 0)
	secret := resources.NodeCookieSecret(c.emqx, "first")
	secret.UID, secret.Data = "s", map[string][]byte{resources.NodeCookieKey: []byte("first")}
	kube := fake.NewSimpleClientset(secret)
	var refused error
	reads := 0
	kube.PrependReactor("get", "secrets", func(kubetesting.Action) (bool, runtime.Object, error) {
		reads++
		return refused != nil, nil, refused
	})
	c.cookie.UID, c.cookie.ResourceVersion = "s", "1"
	meta := metadatafake.NewSimpleMetadataClient(metadataScheme(), c.cookie)
	caches, err := informers.New(informers.Clients{Kube: kube, EMQX: emqxfake.NewSimpleClientset(c.emqx), Metadata: meta}, nil)
	require.NoError(t, err)
	woken := make(chan string, 10)
	require.NoError(t, caches.Handle(func(_ cache.ObjectName, kind string) { woken <- kind }, func() {}))
	require.NoError(t, caches.Run(t.Context()))
	for kind := range woken {
		if kind == "Secret" {
			break
		}
	}
	all := newCookies(kube)
	require.Empty(t, all.of(caches, c.emqx).Digest, "it is not read where nobody is in doubt")
	require.Zero(t, reads)
	digest := func(now time.Time) string {
		all.read(t.Context(), caches, c.emqx, now)
		return all.of(caches, c.emqx).Digest
	}
	require.Equal(t, resources.CookieDigest(c.emqx, []byte("first")), digest(now))
	require.Equal(t, resources.CookieDigest(c.emqx, []byte("first")), digest(now))
	require.Equal(t, 1, reads)

	secret.Data[resources.NodeCookieKey] = []byte("second")
	require.NoError(t, kube.Tracker().Update(corev1.SchemeGroupVersion.WithResource("secrets"), secret, "n"))
	c.cookie.ResourceVersion = "2"
	require.NoError(t, meta.Tracker().Update(corev1.SchemeGroupVersion.WithResource("secrets"), c.cookie, "n"))
	require.Equal(t, "Secret", <-woken, "a cookie that is written wakes its cluster")
	refused = errors.New("refused")
	require.Empty(t, digest(now), "unknown is not another")
	require.Empty(t, digest(now.Add(time.Second)))
	require.Equal(t, 2, reads, "one that cannot be read is left alone for a while")
	refused = nil
	require.Equal(t, resources.CookieDigest(c.emqx, []byte("second")), digest(now.Add(readingRetry)))
}

func TestWriterOfASecret(t *testing.T) {
	at := func(seconds int64) metav1.Time { return metav1.NewTime(time.Unix(seconds, 0)) }
	entry := func(manager string, seconds int64, fields string) metav1.ManagedFieldsEntry {
		time := at(seconds)
		return metav1.ManagedFieldsEntry{Manager: manager, Time: &time, FieldsV1: metav1.NewFieldsV1(fields)}
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(1)}}
	writer, written := writerOf(secret)
	require.Empty(t, writer)
	require.Equal(t, at(1).Time, written)
	secret.ManagedFields = []metav1.ManagedFieldsEntry{
		entry("kubectl-edit", 7, `{"f:data":{"f:node_cookie":{}}}`), entry(FieldManager, 1, `{"f:data":{".":{},"f:node_cookie":{}}}`),
		entry("kubectl-label", 9, `{"f:metadata":{"f:labels":{"f:a":{}}}}`),
	}
	writer, written = writerOf(secret)
	require.Equal(t, "kubectl-edit", writer, "who only set a label has written no cookie")
	require.Equal(t, at(7).Time, written)
}

// TestSetsRememberTheirCookie: a set is noted to be made with the cookie that its nodes start with.
func TestSetsRememberTheirCookie(t *testing.T) {
	c := newCluster(t)
	require.Empty(t, c.snapshot(t).Sets[0].CookieDigest)
	c.set.Annotations[resources.AnnotationCookieDigest] = "0f"
	require.Equal(t, "0f", c.snapshot(t).Sets[0].CookieDigest)
	digest := resources.CookieDigest(c.emqx, []byte("cookie"))
	require.Len(t, digest, 4, "too short to confirm a guess by")
	require.NotEqual(t, digest, resources.CookieDigest(c.emqx, []byte("another")))
	other := c.emqx.DeepCopy()
	other.Name = "other"
	require.NotEqual(t, digest, resources.CookieDigest(other, []byte("cookie")), "nobody sees that two clusters share one")
}
