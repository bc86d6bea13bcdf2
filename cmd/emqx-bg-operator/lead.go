package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"
)

// The lease stands in the operator's own namespace.
//
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;create;update,namespace=emqx-bg-operator-system

// lead runs work while this replica holds the lease, until ctx ends or the lease is lost, which is an error. The lease is
// given away only when work has ended, so that nobody else begins before. When work panics it is not given away: it runs
// out, and the panic ends the process.
func lead(ctx context.Context, kube kubernetes.Interface, o options, h *health, work func(context.Context)) error {
	defer h.stopping.Store(true)
	defer context.AfterFunc(ctx, func() { h.stopping.Store(true) })()
	if !o.leaderElect {
		work(ctx)
		return nil
	}
	e, err := newElection(kube, o)
	if err != nil {
		return err
	}
	h.lease.SetLeaderElection(e.elector)
	// The lease is renewed until work has ended, also after ctx has.
	electing, stopElecting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopElecting()
	go e.run(electing)

	var held context.Context
	select {
	case held = <-e.won:
	case <-ctx.Done():
		stopElecting()
		e.giveAway(ctx)
		return nil
	}
	klog.FromContext(ctx).Info("This replica leads", "identity", e.lock.Identity())
	workWhileHeld(ctx, held, work)
	lost := held.Err() != nil
	stopElecting()
	e.giveAway(ctx)
	if lost && ctx.Err() == nil {
		return errors.New("the lease was lost")
	}
	return nil
}

// workWhileHeld runs work until ctx or held ends.
func workWhileHeld(ctx, held context.Context, work func(context.Context)) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(held, stop)()
	work(ctx)
}

// election is a candidate for the lease.
type election struct {
	lock    *resourcelock.LeaseLock
	elector *leaderelection.LeaderElector
	// won gets a context once the lease is held, which ends when it is lost.
	won chan context.Context
	// ended is closed when the lease is no longer sought or renewed.
	ended   chan struct{}
	options options
}

func newElection(kube kubernetes.Interface, o options) (*election, error) {
	identity, err := o.replica()
	if err != nil {
		return nil, err
	}
	e := &election{
		lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: o.leaseNamespace, Name: o.leaseName},
			Client:     kube.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		won: make(chan context.Context, 1), ended: make(chan struct{}), options: o,
	}
	e.elector, err = leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: e.lock, Name: o.leaseName,
		LeaseDuration: o.leaseDuration, RenewDeadline: o.leaseRenewDeadline, RetryPeriod: o.leaseRetryPeriod,
		// When it cannot renew the lease, the elector would give it away before it ends held, while the work goes on.
		ReleaseOnCancel: false,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) { e.won <- held },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("set up the leader election: %w", err)
	}
	return e, nil
}

// replica is this replica's name in the lease.
func (o *options) replica() (string, error) {
	if o.identity != "" {
		return o.identity, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("make up a name for the lease: %w", err)
	}
	return host + "_" + string(uuid.NewUUID()), nil
}

// run seeks and renews the lease until ctx ends or the lease is lost.
func (e *election) run(ctx context.Context) {
	defer close(e.ended)
	e.elector.Run(ctx)
}

// giveAway waits for the end of the election and empties the lease if it is still this replica's, so that others need
// not wait for it to run out. The work must have ended.
func (e *election) giveAway(ctx context.Context) {
	<-e.ended
	if !e.elector.IsLeader() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.options.leaseRenewDeadline)
	defer cancel()
	// A renewal that was broken off may arrive in between.
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		record, _, err := e.lock.Get(ctx)
		if err != nil || record.HolderIdentity != e.lock.Identity() {
			return err
		}
		now := metav1.Now()
		return e.lock.Update(ctx, resourcelock.LeaderElectionRecord{
			LeaderTransitions: record.LeaderTransitions, LeaseDurationSeconds: 1, RenewTime: now, AcquireTime: now,
		})
	})
	if err != nil {
		klog.FromContext(ctx).Error(err, "The lease cannot be given away, it runs out")
	}
}
