package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// The lease stands in the operator's own namespace.
//
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;create;update,namespace=emqx-bg-operator-system

// lead runs work while this replica holds the lease, until ctx ends or the lease is lost, which is an error. When ctx
// ends, work is waited for before the lease is given away: nobody else begins before it has ended.
func lead(ctx context.Context, kube kubernetes.Interface, o options, h *health, work func(context.Context)) error {
	defer h.stopping.Store(true)
	if !o.leaderElect {
		work(ctx)
		return nil
	}
	identity := o.identity
	if identity == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("make up a name for the lease: %w", err)
		}
		identity = host + "_" + string(uuid.NewUUID())
	}
	leaseCtx, giveAway := context.WithCancel(context.WithoutCancel(ctx))
	defer giveAway()
	worked := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: o.leaseNamespace, Name: o.leaseName},
			Client:     kube.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		LeaseDuration: o.leaseDuration, RenewDeadline: o.leaseRenewDeadline, RetryPeriod: o.leaseRetryPeriod,
		ReleaseOnCancel: true, Name: o.leaseName, WatchDog: h.lease,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				defer close(worked)
				// The work ends with ctx, when the operator is told to end, and with leading, when the lease is lost.
				workCtx, stop := context.WithCancel(ctx)
				defer stop()
				defer context.AfterFunc(leading, stop)()
				klog.FromContext(ctx).Info("This replica leads", "identity", identity)
				work(workCtx)
				giveAway()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("set up the leader election: %w", err)
	}
	// A replica that does not lead has nothing to wait for.
	defer context.AfterFunc(ctx, func() {
		if !elector.IsLeader() {
			giveAway()
		}
	})()
	elector.Run(leaseCtx)
	if ctx.Err() != nil {
		return nil
	}
	<-worked
	return errors.New("the lease was lost")
}

// preflightTimeout is how long a CRD that was just applied may take to be served.
const preflightTimeout = 30 * time.Second

// preflight waits for the API server to know EMQX resources, and says in a sentence what is missing when it does not:
// caches would wait for it in vain.
func preflight(ctx context.Context, kube kubernetes.Interface) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, time.Second, preflightTimeout, true, func(context.Context) (bool, error) {
		_, last = kube.Discovery().ServerResourcesForGroupVersion(v2beta1.SchemeGroupVersion.String())
		return last == nil, nil
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case apierrors.IsNotFound(last):
		return fmt.Errorf("the API server does not know EMQX resources (%s): install the CRD with kubectl apply -k manifests/", v2beta1.SchemeGroupVersion)
	default:
		return fmt.Errorf("ask the API server for %s: %w", v2beta1.SchemeGroupVersion, last)
	}
}
