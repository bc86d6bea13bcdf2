package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// preflightTimeout is how long a CRD that was just applied may take to be served.
const preflightTimeout = 30 * time.Second

// applyCRD is the remedy for what the preflight finds.
const applyCRD = "kubectl apply -k manifests/"

// server is what the preflight asks of the API server.
type server interface {
	discovery.ServerResourcesInterface
	discovery.OpenAPIV3SchemaInterface
}

// preflight waits for the API server to know EMQX resources with all their fields, and says in a sentence what is missing
// when it does not: caches would wait for the resource in vain, and what is written to a missing field is lost.
func preflight(ctx context.Context, api server) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, time.Second, preflightTimeout, true, func(context.Context) (bool, error) {
		last = checkCRD(api)
		return last == nil, nil
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case apierrors.IsNotFound(last):
		return fmt.Errorf("the API server does not know EMQX resources (%s): install the CRD with %s", v2beta1.SchemeGroupVersion, applyCRD)
	case errors.As(last, new(outdatedError)), errors.Is(last, errNoRebalances):
		return last
	case errors.As(last, new(uncheckedError)):
		// Whoever may not read the schema can still do without this check.
		klog.FromContext(ctx).Error(last, "Whether the CRD has all fields could not be checked")
		return nil
	default:
		return fmt.Errorf("ask the API server for %s: %w", v2beta1.SchemeGroupVersion, last)
	}
}

// outdatedError tells which fields the CRD does not have.
type outdatedError struct{ missing []string }

// Error says so, with the remedy.
func (e outdatedError) Error() string {
	const shown = 5
	fields := strings.Join(e.missing[:min(shown, len(e.missing))], ", ")
	if more := len(e.missing) - shown; more > 0 {
		fields += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("the CRD of EMQX resources is of another version and lacks fields that this one writes or reads: %s; apply that of this version with %s", fields, applyCRD)
}

// errNoRebalances: their cache would be waited for in vain, and nobody would know.
var errNoRebalances = errors.New("the API server does not know Rebalances of " + v2beta1.SchemeGroupVersion.String() + ": install their CRD with " + applyCRD)

// uncheckedError tells that the schema could not be read.
type uncheckedError struct{ error }

// Unwrap returns why.
func (e uncheckedError) Unwrap() error { return e.error }

func checkCRD(api server) error {
	known, err := api.ServerResourcesForGroupVersion(v2beta1.SchemeGroupVersion.String())
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(known.APIResources, func(resource metav1.APIResource) bool { return resource.Kind == v2beta1.KindRebalance }) {
		return errNoRebalances
	}
	missing, err := missingFields(api.OpenAPIV3())
	switch {
	case err != nil:
		return uncheckedError{err}
	case len(missing) > 0:
		return outdatedError{missing}
	}
	return nil
}
