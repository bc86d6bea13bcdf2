package upgrade

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	kubefake "k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
	emqxfake "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/fake"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// newTestController returns a controller whose caches know what the API servers have. Nobody works at its keys.
func newTestController(t *testing.T, kube kubernetes.Interface, resources versioned.Interface) *Controller {
	t.Helper()
	caches, err := informers.New(informers.Clients{Kube: kube, EMQX: resources, Metadata: metadatafake.NewSimpleMetadataClient(metadataScheme())}, nil)
	require.NoError(t, err)
	c, err := New(Config{Kube: kube, EMQX: resources, Caches: caches, Registry: prometheus.NewRegistry()})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		c.fleet.shutdown()
		c.queue.ShutDown()
		cancel()
		caches.Wait()
	})
	require.NoError(t, caches.Run(ctx))
	return c
}

// TestKeyThatFailsIsSteeredInTime: while a key waits after a failure its evacuation is steered, also when nothing happens but
// that time passes.
func TestKeyThatFailsIsSteeredInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := emqxfake.NewSimpleClientset()
		require.NoError(t, client.Tracker().Create(v2beta1.SchemeGroupVersion.WithResource("emqxes"), &v2beta1.EMQX{
			ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "u"},
			Spec:       v2beta1.EMQXSpec{Image: "emqx/emqx:5.8.9", UpdateStrategy: v2beta1.UpdateStrategy{ProgressDeadlineSeconds: ptr.To[int32](30)}},
			Status:     v2beta1.EMQXStatus{Phase: v2beta1.PhaseProvisioning},
		}, "n"))
		c := newTestController(t, kubefake.NewClientset(), client)
		name := cache.ObjectName{Namespace: "n", Name: "e"}
		for backoff, want := range map[time.Duration]time.Duration{time.Minute: 30 * time.Second, time.Second: time.Second} {
			require.Equal(t, want, c.steer(name, backoff))
		}
	})
}

// TestStaleKeyIsSteered: a watch that lags puts a sync off, and not what the clients who come back ask of the evacuation.
func TestStaleKeyIsSteered(t *testing.T) {
	client := emqxfake.NewSimpleClientset()
	require.NoError(t, client.Tracker().Create(v2beta1.SchemeGroupVersion.WithResource("emqxes"), &v2beta1.EMQX{
		ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "u"},
		Spec:       v2beta1.EMQXSpec{Image: "emqx/emqx:5.8.9"},
		Status:     v2beta1.EMQXStatus{Phase: v2beta1.PhaseProvisioning},
	}, "n"))
	c := newTestController(t, kubefake.NewClientset(), client)
	name := cache.ObjectName{Namespace: "n", Name: "e"}
	c.writes.record(name, "PodDisruptionBudget", "1000000")
	result, wait, err := c.sync(t.Context(), name)
	require.NoError(t, err)
	require.Equal(t, "stale", result)
	require.Equal(t, staleDelay, wait)
	_, steered := c.fleet.observation(name)
	require.True(t, steered, "a driver was handed a goal")
}

// TestHeldPodsOfAClusterThatIsGone: a pod that waits for EMQX to forget its node is let go when there is no cluster any more, and not
// before.
func TestHeldPodsOfAClusterThatIsGone(t *testing.T) {
	pod := applycore.Pod("e-core-x-0", "n").WithLabels(map[string]string{v2beta1.LabelInstance: "e", v2beta1.LabelManagedBy: v2beta1.ManagedBy})
	kube := kubefake.NewClientset()
	_, err := kube.CoreV1().Pods("n").Apply(t.Context(), pod, metav1.ApplyOptions{FieldManager: "them"})
	require.NoError(t, err)
	_, err = kube.CoreV1().Pods("n").Apply(t.Context(), applycore.Pod("e-core-x-0", "n").WithFinalizers(v2beta1.FinalizerForgotten).
		WithLabels(map[string]string{v2beta1.LabelLetGo: "true"}), drainOptions())
	require.NoError(t, err)
	c := newTestController(t, kube, emqxfake.NewSimpleClientset())
	name := cache.ObjectName{Namespace: "n", Name: "e"}
	held, err := c.config.Caches.Held(name)
	require.NoError(t, err)
	require.Len(t, held, 1)
	require.Empty(t, c.releaseStrays(t.Context(), name, machine.Snapshot{Sets: []machine.Set{{Pods: []machine.Pod{{UID: held[0].UID}}}}}))
	finalizers := func() []string {
		pod, err := kube.CoreV1().Pods("n").Get(t.Context(), "e-core-x-0", metav1.GetOptions{})
		require.NoError(t, err)
		return pod.Finalizers
	}
	require.NotEmpty(t, finalizers(), "it is the cluster's")
	result, _, err := c.sync(t.Context(), name)
	require.NoError(t, err)
	require.Equal(t, "gone", result)
	require.Empty(t, finalizers())
}

func TestPanicInASyncIsAnErrorOfItsKey(t *testing.T) {
	registry := prometheus.NewRegistry()
	c := &Controller{metrics: newMetrics(registry)}
	result, _, err := c.guarded(func() (string, time.Duration, error) { panic("a bug") })
	require.Equal(t, "error", result)
	require.ErrorContains(t, err, "the operator has a bug: a bug")
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == metricsPrefix+"panics_total" {
			require.InDelta(t, 1, family.GetMetric()[0].GetCounter().GetValue(), 0)
			return
		}
	}
	t.Error("it was not counted")
}

// TestBackoff: an event of Kubernetes ends the wait and not the memory of failures.
func TestBackoff(t *testing.T) {
	name, now := cache.ObjectName{Namespace: "n", Name: "e"}, time.Now()
	b := newBackoff()
	wait, failed := b.left(name, now)
	require.Zero(t, wait)
	require.False(t, failed)
	require.Equal(t, minFailureDelay, b.failed(name, now))
	require.Equal(t, 2*minFailureDelay, b.failed(name, now))
	wait, failed = b.left(name, now)
	require.Equal(t, 2*minFailureDelay, wait)
	require.True(t, failed)
	b.cut(name)
	wait, failed = b.left(name, now)
	require.Zero(t, wait)
	require.True(t, failed)
	for range 20 {
		b.failed(name, now)
	}
	require.Equal(t, maxFailureDelay, b.failed(name, now), "a key is never dropped")
	b.forget(name)
	_, failed = b.left(name, now)
	require.False(t, failed)
}

// TestFailingKeysLeaveWorkers: half of the workers look at keys that failed before, at most.
func TestFailingKeysLeaveWorkers(t *testing.T) {
	var s slots
	require.True(t, s.enter(4))
	require.True(t, s.enter(4))
	require.False(t, s.enter(4))
	s.leave()
	require.True(t, s.enter(4))
	var one slots
	require.True(t, one.enter(1), "one worker works on all")
}

func TestRefusalsThatOnlyAPersonCanMend(t *testing.T) {
	services := schema.GroupResource{Resource: "services"}
	for _, test := range []struct {
		err   error
		final bool
	}{
		{apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "e", nil), true},
		{apierrors.NewForbidden(services, "e", errors.New("exceeded quota")), true},
		{fmt.Errorf("secret %q: %w", "keys", errMissingReference), true},
		{apierrors.NewConflict(services, "e", errors.New("it has changed")), false},
		{apierrors.NewInternalError(errors.New("webhook timed out")), false},
		{errors.New("connection refused"), false},
	} {
		require.Equal(t, test.final, final(fmt.Errorf("apply Service n/e: %w", test.err)), test.err)
	}
}
