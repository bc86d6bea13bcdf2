package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// apiServer is an API server that replicas share.
type apiServer struct{ tracker k8stesting.ObjectTracker }

func newAPIServer() *apiServer {
	return &apiServer{tracker: k8stesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())}
}

// replica is one replica of the operator, with the defaults of the flags.
type replica struct {
	options options
	health  *health
	kube    *fake.Clientset
	// cut has its requests fail.
	cut atomic.Bool
	// linger is how long its work takes to end.
	linger time.Duration
	// sigterm tells it to end.
	sigterm context.CancelFunc

	mu           sync.Mutex
	begun, ended time.Time // When its work did; zero before.
	returned     time.Time // When lead returned.
	result       error     // What lead returned.
}

func (s *apiServer) replica(t *testing.T, name string) *replica {
	t.Helper()
	o, err := parseOptions([]string{"--leader-election-namespace=system", "--leader-election-identity=" + name}, noEnv, t.Output())
	require.NoError(t, err)
	r := &replica{options: o, health: &health{lease: leaderelection.NewLeaderHealthzAdaptor(leaseGrace)}, kube: &fake.Clientset{}}
	r.kube.AddReactor("*", "*", func(k8stesting.Action) (bool, runtime.Object, error) {
		return r.cut.Load(), nil, errors.New("connection refused")
	})
	r.kube.AddReactor("*", "*", k8stesting.ObjectReaction(s.tracker))
	return r
}

// start has it seek the lease. At the end of the test it is told to end, and waited for.
func (r *replica) start(t *testing.T) *replica {
	t.Helper()
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	r.sigterm = cancel
	var running sync.WaitGroup
	running.Go(func() {
		err := lead(ctx, r.kube, r.options, r.health, r.work)
		r.note(func() { r.result, r.returned = err, time.Now() })
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return r
}

func (r *replica) work(ctx context.Context) {
	r.note(func() { r.begun = time.Now() })
	<-ctx.Done()
	time.Sleep(r.linger)
	r.note(func() { r.ended = time.Now() })
}

func (r *replica) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *replica) beganAt() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun
}

func (r *replica) endedAt() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

// end returns when lead returned, zero before, and what.
func (r *replica) end() (time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.returned, r.result
}

// holder is who holds the lease; empty when nobody does.
func (s *apiServer) holder(t *testing.T) string {
	t.Helper()
	kube := &fake.Clientset{}
	kube.AddReactor("*", "*", k8stesting.ObjectReaction(s.tracker))
	lease, err := kube.CoordinationV1().Leases("system").Get(context.Background(), "emqx-bg-operator", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ""
	}
	require.NoError(t, err)
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

// after lets time pass, until everything that happens in it has happened.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestLeaseIsGivenAwayWhenTheWorkHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer()
		first := api.replica(t, "first")
		first.linger = 40 * time.Second // Longer than the lease, which is renewed until then.
		first.start(t)
		after(time.Second)
		second := api.replica(t, "second").start(t)
		after(time.Minute)
		require.Equal(t, "first", api.holder(t))
		require.Zero(t, second.beganAt(), "one leads at a time")

		first.sigterm()
		after(39 * time.Second)
		require.Equal(t, "first", api.holder(t))
		require.True(t, first.health.stopping.Load(), "it is not ready any more")
		require.Zero(t, second.beganAt(), "the work of the first has not ended")

		after(4 * time.Second)
		returned, err := first.end()
		require.NoError(t, err)
		require.Equal(t, first.endedAt(), returned)
		require.Equal(t, "second", api.holder(t))
		require.False(t, second.beganAt().Before(first.endedAt()))
	})
}

func TestLostLeaseEndsTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer()
		first := api.replica(t, "first")
		first.linger = 5 * time.Second
		first.start(t)
		after(time.Minute)
		first.cut.Store(true)
		after(first.options.leaseRenewDeadline + first.options.leaseRetryPeriod)
		require.Zero(t, first.endedAt(), "what is under way is finished")
		after(first.linger)
		require.NotZero(t, first.endedAt())
		returned, err := first.end()
		require.NotZero(t, returned)
		require.EqualError(t, err, "the lease was lost")
		require.True(t, first.health.stopping.Load())
		require.Equal(t, "first", api.holder(t), "the API server does not hear that it was given away")
	})
}

// The API server comes back when the lease has just been lost. If the lease were given away then, another replica would
// begin while the work of this one has not ended.
func TestLostLeaseIsNotGivenAwayBesideTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer()
		first := api.replica(t, "first")
		first.linger = 2 * time.Second
		renewalsFail := atomic.Bool{}
		first.kube.PrependReactor("update", "leases", func(action k8stesting.Action) (bool, runtime.Object, error) {
			lease := action.(k8stesting.UpdateAction).GetObject().(*coordinationv1.Lease)
			return renewalsFail.Load() && ptr.Deref(lease.Spec.HolderIdentity, "") != "", nil, errors.New("etcd has no leader")
		})
		first.start(t)
		after(time.Minute)
		renewalsFail.Store(true)
		for range 20 {
			after(time.Second)
			if first.endedAt().IsZero() {
				require.Equal(t, "first", api.holder(t), "the work has not ended")
			}
		}
		require.NotZero(t, first.endedAt())
		require.Empty(t, api.holder(t), "now others need not wait")
		_, err := first.end()
		require.EqualError(t, err, "the lease was lost")
	})
}

func TestReplicaThatNeverLedEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer()
		api.replica(t, "first").start(t)
		after(time.Second)
		second := api.replica(t, "second").start(t)
		after(10 * time.Second)
		told := time.Now()
		second.sigterm()
		after(time.Second)
		returned, err := second.end()
		require.NoError(t, err)
		require.Equal(t, told, returned)
		require.Zero(t, second.beganAt())
		require.Equal(t, "first", api.holder(t))
	})
}

// A container that is started again finds its own name in the lease. That does not make it the leader yet.
func TestReplicaThatNeverLedEndsAlsoUnderAKnownName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer()
		before := api.replica(t, "pod").start(t)
		after(time.Second)
		before.cut.Store(true) // It is killed.
		again := api.replica(t, "pod")
		again.kube.PrependReactor("update", "leases", func(k8stesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("etcd has no space")
		})
		again.start(t)
		after(10 * time.Second)
		again.sigterm()
		after(again.options.leaseRenewDeadline)
		returned, err := again.end()
		require.NotZero(t, returned, "it ends")
		require.NoError(t, err)
		require.Zero(t, again.beganAt())
	})
}

func TestLeaseThatIsLostWhileTheWorkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer()
		first := api.replica(t, "first")
		first.linger = 40 * time.Second
		first.start(t)
		after(time.Second)
		first.sigterm()
		first.cut.Store(true)
		after(39 * time.Second)
		returned, _ := first.end()
		require.Zero(t, returned, "the work is waited for")
		after(time.Second + first.options.leaseRenewDeadline)
		returned, err := first.end()
		require.NotZero(t, returned)
		require.NoError(t, err, "it was told to end")
	})
}

func TestPanicDoesNotGiveTheLeaseAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer()
		r := api.replica(t, "first")
		ctx := klog.NewContext(context.Background(), logr.Discard())
		require.PanicsWithValue(t, "out of range", func() {
			_ = lead(ctx, r.kube, r.options, r.health, func(context.Context) { panic("out of range") })
		})
		after(time.Second)
		require.Equal(t, "first", api.holder(t), "the next one begins when the lease has run out, not before")
	})
}

// TestNextLeaderActsWithinTwentySeconds kills the leader at many moments between two renewals. The next waits for the
// lease to run out, counted from when it saw the last renewal.
func TestNextLeaderActsWithinTwentySeconds(t *testing.T) {
	const atMost = 18 * time.Second // Two seconds are left to look and to act.
	slowest := time.Duration(0)
	for i := range 300 {
		synctest.Test(t, func(t *testing.T) {
			api := newAPIServer()
			first := api.replica(t, "first").start(t)
			after(time.Second)
			second := api.replica(t, "second").start(t)
			after(30*time.Second + time.Duration(i)*10*time.Millisecond)
			killed := time.Now()
			first.cut.Store(true)
			after(30 * time.Second)
			require.NotZero(t, second.beganAt())
			slowest = max(slowest, second.beganAt().Sub(killed))
		})
	}
	t.Logf("the slowest of 300 began %s after the leader was killed", slowest)
	require.Less(t, slowest, atMost)

	o, err := parseOptions([]string{"--leader-elect=false"}, noEnv, t.Output())
	require.NoError(t, err)
	longestPause := time.Duration((1 + leaderelection.JitterFactor) * float64(o.leaseRetryPeriod))
	require.Less(t, longestPause+o.leaseDuration+longestPause, atMost, "it sees the last renewal late, and the end of the lease late")
}

func TestWithoutElectionTheWorkJustRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer()
		r := api.replica(t, "only")
		r.options.leaderElect = false
		r.start(t)
		after(time.Second)
		require.NotZero(t, r.beganAt())
		r.sigterm()
		after(time.Second)
		returned, err := r.end()
		require.NoError(t, err)
		require.Equal(t, r.endedAt(), returned)
		require.Empty(t, api.holder(t))
	})
}

// The liveness probe tells of a leader that can neither renew its lease nor end.
func TestLivenessKnowsALeaderThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer()
		r := api.replica(t, "first")
		r.linger = time.Hour
		r.start(t)
		after(time.Minute)
		require.NoError(t, r.health.lease.Check(nil))
		r.cut.Store(true)
		after(r.options.leaseDuration + leaseGrace + time.Second)
		require.Error(t, r.health.lease.Check(nil))
	})
}
