package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade"
)

// health answers the probes.
type health struct {
	caches     interface{ Synced() bool }
	controller interface{ Stuck(now time.Time) error }
	lease      *leaderelection.HealthzAdaptor
	stopping   atomic.Bool
}

// leaseGrace is how long, after a lease has run out, a leader that failed to renew it may take to end by itself.
const leaseGrace = 20 * time.Second

func newHealth(caches *informers.Caches, controller *upgrade.Controller) *health {
	return &health{caches: caches, controller: controller, lease: leaderelection.NewLeaderHealthzAdaptor(leaseGrace)}
}

// live fails when only a restart can help: a sync that does not end, or a lease that is held and not renewed.
func (h *health) live(request *http.Request) error {
	if err := h.controller.Stuck(time.Now()); err != nil {
		return err
	}
	return h.lease.Check(request)
}

// ready fails while the caches are not filled, and when the operator is about to end.
func (h *health) ready(*http.Request) error {
	switch {
	case h.stopping.Load():
		return errors.New("the operator ends")
	case !h.caches.Synced():
		return errors.New("the caches are not filled yet")
	}
	return nil
}

// probes serves both.
func (h *health) probes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /livez", answer(h.live))
	mux.Handle("GET /readyz", answer(h.ready))
	return mux
}

func answer(check func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := check(r); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprintln(w, "ok") // When this fails the prober has gone; it asks again.
	}
}

// servers are the HTTP servers of metrics and probes.
type servers struct{ all []*http.Server }

// serve listens before it returns, so that a port that is taken is an error at once.
// gauges are told beside what is in the registry.
func serve(ctx context.Context, o options, registry *prometheus.Registry, gauges prometheus.Gatherer, h *health) (*servers, error) {
	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", promhttp.HandlerFor(both(registry, gauges), promhttp.HandlerOpts{Registry: registry}))
	s := &servers{}
	err := errors.Join(
		s.add(ctx, o.onPort(o.metricsPort), &http.Server{Handler: metrics, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout}),
		s.add(ctx, o.onPort(o.healthPort), &http.Server{Handler: h.probes(), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout}),
	)
	if o.pprofAddress != "" {
		// A profile takes as long as it is asked to: the whole of it has no timeout.
		err = errors.Join(err, s.add(ctx, o.pprofAddress, &http.Server{Handler: profiles(), ReadHeaderTimeout: headerTimeout}))
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// both gathers what two tell that share no name. Unlike prometheus.Gatherers, it does not check each metric again.
func both(a, b prometheus.Gatherer) prometheus.GathererFunc {
	return func() ([]*dto.MetricFamily, error) {
		first, firstErr := a.Gather()
		second, secondErr := b.Gather()
		return slices.Concat(first, second), errors.Join(firstErr, secondErr)
	}
}

// headerTimeout, readTimeout and writeTimeout bound a request's head, all of it, and its answer.
const headerTimeout, readTimeout, writeTimeout = 5 * time.Second, 10 * time.Second, 30 * time.Second

// onPort is a port of the address that metrics and health are served on.
func (o options) onPort(port int) string { return net.JoinHostPort(o.bindAddress, strconv.Itoa(port)) }

// add has a server serve on an address.
func (s *servers) add(ctx context.Context, address string, server *http.Server) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve on %s: %w", address, err)
	}
	s.all = append(s.all, server)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			klog.FromContext(ctx).Error(err, "Serving ended", "address", address)
		}
	}()
	return nil
}

// profiles serves Go's profiles, without the command line, which may name files.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func (s *servers) close() {
	for _, server := range s.all {
		_ = server.Close() // The process ends.
	}
}
