package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
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
func serve(ctx context.Context, o options, registry *prometheus.Registry, h *health) (*servers, error) {
	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	s := &servers{}
	for _, served := range []struct {
		port    int
		handler http.Handler
	}{{o.metricsPort, metrics}, {o.healthPort, h.probes()}} {
		address := net.JoinHostPort(o.bindAddress, strconv.Itoa(served.port))
		listener, err := net.Listen("tcp", address)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("serve on %s: %w", address, err)
		}
		server := &http.Server{Handler: served.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
		s.all = append(s.all, server)
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				klog.FromContext(ctx).Error(err, "Serving ended", "address", address)
			}
		}()
	}
	return s, nil
}

func (s *servers) close() {
	for _, server := range s.all {
		_ = server.Close() // The process ends.
	}
}
