package upgrade

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// metrics are the counters and histograms that Prometheus is told. They are kept; gauges are computed when they are scraped.
type metrics struct {
	syncs         *prometheus.CounterVec
	syncSeconds   prometheus.Histogram
	stale         *prometheus.CounterVec
	actions       *prometheus.CounterVec
	transitions   *prometheus.CounterVec
	phaseSeconds  *prometheus.HistogramVec
	wakes         *prometheus.CounterVec
	emqxRequests  *prometheus.CounterVec
	emqxSeconds   *prometheus.HistogramVec
	panics        *prometheus.CounterVec
	statusWrites  prometheus.Counter
	eventsWritten prometheus.Counter
}

const metricsPrefix = "emqx_bg_operator_"

func newMetrics(registry prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: metricsPrefix + name, Help: help}, labels)
	}
	m := &metrics{
		// result: ok, error, stale, gone, steered, undecodable
		syncs: counter("syncs_total", "Syncs of EMQX resources, by result.", "result"),
		syncSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: metricsPrefix + "sync_duration_seconds", Help: "How long syncs of EMQX resources took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		// kind: the kind whose cache had not seen the operator's last write
		stale: counter("stale_cache_skips_total", "Syncs put off because a cache had not seen the operator's own last write, by kind.", "kind"),
		// action: the kind of the action; result: ok, error
		actions: counter("actions_total", "Actions on Kubernetes objects, by kind and result.", "action", "result"),
		// from, to: phases
		transitions: counter("phase_transitions_total", "Transitions between phases.", "namespace", "name", "from", "to"),
		phaseSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricsPrefix + "phase_duration_seconds", Help: "How long phases lasted, when they ended.", Buckets: prometheus.ExponentialBuckets(0.25, 2, 16),
		}, []string{"phase"}),
		// kind: the kind of the object whose event woke a key, or EMQX observation
		wakes: counter("wakes_total", "Events that woke a key, by kind.", "kind"),
		// operation: the question or order; status: HTTP status, 0 for no answer
		emqxRequests: counter("emqx_requests_total", "Requests to EMQX nodes, by operation and HTTP status (0 without an answer).", "operation", "status"),
		emqxSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricsPrefix + "emqx_request_duration_seconds", Help: "How long requests to EMQX nodes took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"operation"}),
		// where: sync, driver, handler
		panics:        counter("panics_total", "Panics that were taken for errors of one cluster, by where they were.", "where"),
		statusWrites:  prometheus.NewCounter(prometheus.CounterOpts{Name: metricsPrefix + "status_writes_total", Help: "Writes of the status of EMQX resources."}),
		eventsWritten: prometheus.NewCounter(prometheus.CounterOpts{Name: metricsPrefix + "events_total", Help: "Events told about EMQX resources."}),
	}
	registry.MustRegister(m.syncs, m.syncSeconds, m.stale, m.actions, m.transitions, m.phaseSeconds, m.wakes, m.emqxRequests,
		m.emqxSeconds, m.panics, m.statusWrites, m.eventsWritten)
	return m
}

func (m *metrics) action(name string, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.actions.WithLabelValues(name, result).Inc()
}

func (m *metrics) emqxRequest(operation string, status int, took time.Duration) {
	m.emqxRequests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
	m.emqxSeconds.WithLabelValues(operation).Observe(took.Seconds())
}

// transition counts a change of phase and how long the last one took.
func (m *metrics) transition(before *v2beta1.EMQX, to v2beta1.Phase, now time.Time) {
	from := before.Status.Phase
	if from == to {
		return
	}
	m.transitions.WithLabelValues(before.Namespace, before.Name, string(from), string(to)).Inc()
	if upgrade := before.Status.Upgrade; from != "" && upgrade != nil && upgrade.PhaseStartedTime != nil {
		m.phaseSeconds.WithLabelValues(string(from)).Observe(now.Sub(upgrade.PhaseStartedTime.Time).Seconds())
	}
}

// forget drops the series of a cluster that has gone.
func (m *metrics) forget(name cache.ObjectName) {
	m.transitions.DeletePartialMatch(prometheus.Labels{"namespace": name.Namespace, "name": name.Name})
}
