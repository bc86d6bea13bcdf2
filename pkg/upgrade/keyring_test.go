package upgrade

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	emqxfake "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/fake"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// locker is a cluster whose specification takes an API key from the Secret "mine".
type locker struct {
	t       *testing.T
	emqx    *v2beta1.EMQX
	kube    *fake.Clientset
	meta    *metadatafake.FakeMetadataClient
	caches  *informers.Caches
	keyring *keyring
	taken   *resources.OperatorKey
	reads   int
	refused error
	version int
}

var secretsAsResource = corev1.SchemeGroupVersion.WithResource("secrets")

func newLocker(t *testing.T) *locker {
	t.Helper()
	ref := func(entry string) v2beta1.KeyRef { return v2beta1.KeyRef{SecretName: "mine", SecretKey: entry} }
	l := &locker{t: t, emqx: newCluster(t).emqx}
	l.emqx.Spec.BootstrapAPIKeys = []v2beta1.BootstrapAPIKey{{SecretRef: &v2beta1.SecretRef{Key: ref("key"), Secret: ref("secret")}}}
	l.kube = fake.NewSimpleClientset()
	l.kube.PrependReactor("get", "secrets", func(kubetesting.Action) (bool, runtime.Object, error) {
		l.reads++
		return l.refused != nil, nil, l.refused
	})
	l.meta = metadatafake.NewSimpleMetadataClient(metadataScheme())
	var err error
	l.caches, err = informers.New(informers.Clients{Kube: l.kube, EMQX: emqxfake.NewSimpleClientset(), Metadata: l.meta}, nil)
	require.NoError(t, err)
	require.NoError(t, l.caches.Handle(func(cache.ObjectName, string) {}, func() {}))
	require.NoError(t, l.caches.Run(t.Context()))
	l.keyring = newKeyring(l.kube, func(*v2beta1.EMQX) *resources.OperatorKey { return l.taken })
	return l
}

// put writes a Secret, and waits until that is known.
func (l *locker) put(name string, data map[string][]byte) {
	l.t.Helper()
	l.version++
	object := metav1.ObjectMeta{Name: name, Namespace: "n", UID: types.UID("of-" + name), ResourceVersion: string(rune('0' + l.version))}
	secret := &corev1.Secret{ObjectMeta: object, Data: data}
	meta := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: object}
	if _, err := l.kube.Tracker().Get(secretsAsResource, "n", name); err != nil {
		require.NoError(l.t, l.kube.Tracker().Create(secretsAsResource, secret, "n"))
		require.NoError(l.t, l.meta.Tracker().Create(secretsAsResource, meta, "n"))
	} else {
		require.NoError(l.t, l.kube.Tracker().Update(secretsAsResource, secret, "n"))
		require.NoError(l.t, l.meta.Tracker().Update(secretsAsResource, meta, "n"))
	}
	require.Eventually(l.t, func() bool {
		known, exists := l.caches.Secrets.Get(cache.ObjectName{Namespace: "n", Name: name})
		return exists && known.ResourceVersion == object.ResourceVersion
	}, time.Minute, time.Millisecond)
}

func (l *locker) look(now time.Time) machine.Keys {
	l.keyring.read(l.t.Context(), l.caches, l.emqx, nil, now)
	return l.keyring.of(l.caches, l.emqx, nil)
}

// TestKeysAreReadOnceAVersion: the content of Secrets is asked for when one was written, also one that the specification names, and
// not at every sync.
func TestKeysAreReadOnceAVersion(t *testing.T) {
	l, now := newLocker(t), time.Unix(1000, 0)
	name := l.emqx.BootstrapAPIKeySecretName()
	l.put("mine", map[string][]byte{"key": []byte("robot"), "secret": []byte("first")})
	l.put(name, map[string][]byte{resources.BootstrapAPIKeyKey: []byte("robot:first\n" + resources.OperatorAPIKey + ":p1\n")})
	require.Empty(t, l.keyring.of(l.caches, l.emqx, nil).Version, "nothing is known yet")
	keys := l.look(now)
	require.NotEmpty(t, keys.Version)
	require.False(t, keys.Outdated)
	reads := l.reads
	require.Equal(t, keys, l.look(now))
	require.Equal(t, reads, l.reads)

	l.put("mine", map[string][]byte{"key": []byte("robot"), "secret": []byte("second")})
	require.True(t, l.look(now).Outdated, "a user's key has another password")
	l.put(name, map[string][]byte{resources.BootstrapAPIKeyKey: []byte("robot:second\n" + resources.OperatorAPIKey + ":p2\n")})
	require.False(t, l.look(now).Outdated)
	l.taken = &resources.OperatorKey{Secret: "p1"}
	require.True(t, l.look(now).Outdated, "it lacks the operator's key that the nodes know")
	l.put(name, map[string][]byte{
		resources.BootstrapAPIKeyKey: []byte("robot:second\n" + resources.OperatorAPIKey + ":p2\n"), resources.PreviousKeysKey: []byte(resources.OperatorAPIKey + ":p1\n"),
	})
	require.False(t, l.look(now).Outdated)
	l.put(name, nil)
	require.True(t, l.look(now).Outdated, "it was emptied")

	l.put("mine", map[string][]byte{"key": []byte("robot")})
	keys = l.look(now)
	require.Contains(t, keys.Problem, `spec.bootstrapAPIKeys[0].secretRef.secret: read entry "secret" of Secret n/mine`)
	l.put("mine", map[string][]byte{"key": []byte("robot"), "secret": []byte("third")})
	l.refused = errors.New("refused")
	require.Empty(t, l.look(now).Version, "unknown is not another")
	reads = l.reads
	require.Empty(t, l.look(now.Add(time.Second)).Version)
	require.Equal(t, reads, l.reads, "what cannot be read is left alone for a while")
	l.refused = nil
	require.NotEmpty(t, l.look(now.Add(readingRetry)).Version)
}

// TestKeysSecretIsGivenWhatItLacks: what else is in the Secret stays, and so does the key that the nodes know.
func TestKeysSecretIsGivenWhatItLacks(t *testing.T) {
	l := newLocker(t)
	l.taken = &resources.OperatorKey{Secret: "p1"}
	name := l.emqx.BootstrapAPIKeySecretName()
	l.put("mine", map[string][]byte{"key": []byte("robot"), "secret": []byte("second")})
	l.put(name, map[string][]byte{"other": []byte("stays"), resources.BootstrapAPIKeyKey: []byte("robot:first\n" + resources.OperatorAPIKey + ":p1\n")})
	e := &executor{kube: l.kube, writes: newWrites(), taken: func(*v2beta1.EMQX) *resources.OperatorKey { return l.taken }}
	require.NoError(t, e.writeKeysSecret(t.Context(), machine.Snapshot{EMQX: l.emqx}))
	written, err := l.kube.CoreV1().Secrets("n").Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "stays", string(written.Data["other"]))
	own, previous := resources.OperatorKeys(written.Data)
	require.NotNil(t, own)
	require.NotEqual(t, "p1", own.Secret)
	require.Equal(t, []resources.OperatorKey{{Secret: "p1"}}, previous)
	require.Contains(t, string(written.Data[resources.BootstrapAPIKeyKey]), "robot:second\n")
}
