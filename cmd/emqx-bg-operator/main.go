// Command emqx-bg-operator upgrades EMQX clusters on Kubernetes by blue-green: see the README and package upgrade.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade"
	"github.com/emqx-bg/emqx-bg-operator/pkg/version"
)

// gcPercent is by how much the heap may grow before it is collected, unless GOGC says otherwise.
const gcPercent = 50

func main() {
	if len(os.Args) > 1 && os.Args[1] == "version" {
		fmt.Println(version.Get())
		return
	}
	options, err := parseOptions(os.Args[1:], os.LookupEnv, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "emqx-bg-operator:", err)
		os.Exit(2)
	}
	if _, asked := os.LookupEnv("GOGC"); !asked {
		// What is live are caches, and little is made beside them: the heap need not grow to twice that.
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	logger := newLogger(options)
	if err := run(klog.NewContext(ctx, logger), options); err != nil && ctx.Err() == nil {
		logger.Error(err, "The operator ends")
		os.Exit(1) //nolint:gocritic // What is deferred only ends the watch for signals.
	}
	logger.Info("The operator ends")
}

// run builds the whole operator, and works until ctx ends: first the workers stop, then the lease is given away, then
// the caches end.
func run(ctx context.Context, options options) error {
	klog.FromContext(ctx).Info("The operator starts", "version", version.Get().String(), "namespaces", options.namespaces)
	registry := newRegistry()
	config, err := options.restConfig()
	if err != nil {
		return err
	}
	clients, err := newClients(config)
	if err != nil {
		return err
	}
	if err := preflight(ctx, clients.Kube.Discovery()); err != nil {
		return err
	}
	caches, err := informers.New(clients, options.namespaces)
	if err != nil {
		return err
	}
	if err := watchNodes(ctx, clients.Kube, caches); err != nil {
		return err
	}
	controller, err := upgrade.New(upgrade.Config{
		Kube: clients.Kube, EMQX: clients.EMQX, Caches: caches, Registry: registry, Workers: options.workers,
		MaxConcurrentUpgrades: options.maxUpgrades,
	})
	if err != nil {
		return err
	}
	// The caches outlive ctx: the workers finish what they have begun.
	cachesCtx, stopCaches := context.WithCancel(context.WithoutCancel(ctx))
	defer caches.Wait()
	defer stopCaches()

	health := newHealth(caches, controller)
	server, err := serve(ctx, options, registry, controller, health)
	if err != nil {
		return err
	}
	defer server.close()
	if err := fill(ctx, cachesCtx, caches); err != nil {
		return err
	}
	return lead(ctx, clients.Kube, options, health, controller.Run)
}

// The operator asks what it may do.
//
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=selfsubjectaccessreviews,verbs=create

// watchNodes has Nodes watched where that is allowed: whoever works in one namespace may have no right that goes beyond it. Pods
// are not moved off Kubernetes nodes that are drained then.
func watchNodes(ctx context.Context, kube kubernetes.Interface, caches *informers.Caches) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, verb := range []string{"list", "watch"} {
		review, err := kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Resource: "nodes"}},
		}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("ask whether Nodes may be watched: %w", err)
		}
		if !review.Status.Allowed {
			klog.FromContext(ctx).Info("Nodes may not be watched: EMQX pods are not moved off Kubernetes nodes that are drained", "verb", verb, "why", review.Status.Reason)
			return nil
		}
	}
	return caches.WatchNodes(kube)
}

// askTimeout is how long the API server may take to answer a question before the work begins.
const askTimeout = 10 * time.Second

// fill runs the caches and waits until they are filled or ctx ends.
func fill(ctx, cachesCtx context.Context, caches *informers.Caches) error {
	filled := make(chan error, 1)
	go func() { filled <- caches.Run(cachesCtx) }()
	select {
	case err := <-filled:
		return err
	case <-ctx.Done():
		return nil
	}
}

func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := version.Get()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "emqx_bg_operator_build_info", Help: "1, with the build in the labels.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "go_version": build.Go},
	})
	info.Set(1)
	registry.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerClientMetrics(registry)
	return registry
}

func newClients(config *rest.Config) (informers.Clients, error) {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return informers.Clients{}, fmt.Errorf("make the Kubernetes client: %w", err)
	}
	emqx, err := informers.NewEMQXClient(config)
	if err != nil {
		return informers.Clients{}, fmt.Errorf("make the client of EMQX resources: %w", err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return informers.Clients{}, fmt.Errorf("make the metadata client: %w", err)
	}
	return informers.Clients{Kube: kube, EMQX: emqx, Metadata: meta}, nil
}
