package main

import (
	"context"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/metrics"
	"k8s.io/client-go/util/workqueue"
)

// registerClientMetrics registers the metrics of client-go's workqueues and REST clients, under the names that other
// controllers use.
func registerClientMetrics(registry prometheus.Registerer) {
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "rest_client_request_duration_seconds", Help: "How long requests to the API server took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	}, []string{"verb"})
	results := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rest_client_requests_total", Help: "Requests to the API server, by HTTP status and method.",
	}, []string{"code", "method"})
	registry.MustRegister(latency, results)
	metrics.Register(metrics.RegisterOpts{RequestLatency: latencyAdapter{latency}, RequestResult: resultAdapter{results}})
	workqueue.SetProvider(newQueueMetrics(registry))
}

type latencyAdapter struct{ histogram *prometheus.HistogramVec }

func (a latencyAdapter) Observe(_ context.Context, verb string, _ url.URL, latency time.Duration) {
	a.histogram.WithLabelValues(verb).Observe(latency.Seconds())
}

type resultAdapter struct{ counter *prometheus.CounterVec }

func (a resultAdapter) Increment(_ context.Context, code, method, _ string) {
	a.counter.WithLabelValues(code, method).Inc()
}

// queueMetrics are those of all workqueues, by the name of the queue.
type queueMetrics struct {
	depth, unfinished, longest *prometheus.GaugeVec
	adds, retries              *prometheus.CounterVec
	latency, work              *prometheus.HistogramVec
}

func newQueueMetrics(registry prometheus.Registerer) *queueMetrics {
	label := []string{"name"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "workqueue_" + name, Help: help}, label)
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_" + name, Help: help}, label)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "workqueue_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(1e-5, 4, 12)}, label)
	}
	m := &queueMetrics{
		depth:      gauge("depth", "Keys in the queue."),
		unfinished: gauge("unfinished_work_seconds", "Seconds of work under way."),
		longest:    gauge("longest_running_processor_seconds", "Seconds that the longest sync under way has taken."),
		adds:       counter("adds_total", "Keys added."),
		retries:    counter("retries_total", "Keys added again after a failure."),
		latency:    histogram("queue_duration_seconds", "How long keys waited in the queue."),
		work:       histogram("work_duration_seconds", "How long syncs took."),
	}
	registry.MustRegister(m.depth, m.unfinished, m.longest, m.adds, m.retries, m.latency, m.work)
	return m
}

func (m *queueMetrics) NewDepthMetric(name string) workqueue.GaugeMetric {
	return m.depth.WithLabelValues(name)
}

func (m *queueMetrics) NewAddsMetric(name string) workqueue.CounterMetric {
	return m.adds.WithLabelValues(name)
}

func (m *queueMetrics) NewLatencyMetric(name string) workqueue.HistogramMetric {
	return m.latency.WithLabelValues(name)
}

func (m *queueMetrics) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	return m.work.WithLabelValues(name)
}

func (m *queueMetrics) NewUnfinishedWorkSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.unfinished.WithLabelValues(name)
}

func (m *queueMetrics) NewLongestRunningProcessorSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.longest.WithLabelValues(name)
}

func (m *queueMetrics) NewRetriesMetric(name string) workqueue.CounterMetric {
	return m.retries.WithLabelValues(name)
}
