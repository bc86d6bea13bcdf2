package main

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// preflightTimeout is how long a CRD that was just applied may take to be served.
const preflightTimeout = 30 * time.Second

// preflight waits for the API server to know EMQX resources, and says what is missing when it does not. Without it the
// caches would wait for ever and say nothing.
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
