package upgrade

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// metrics are what Prometheus is told. Counters and histograms are kept; gauges are computed when they are scraped, so
// that nothing is left of a cluster that has gone.
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

// gauges are computed from the caches and the last observations when they are scraped, and from what the last look would have
// written. Only the replica that works tells
// them: a sum over the replicas counts nothing twice.
type gauges struct {
	caches  *informers.Caches
	fleet   *fleet
	working atomic.Bool

	mu sync.Mutex
	// last are what the last look at each cluster showed: what is written of it is often older.
	last map[cache.ObjectName]shown

	phase, paused, stalled, undecodable, clients, total, moved, estimatedEnd       *prometheus.Desc
	nodeClients, nodeSessions, nodeConnRate, nodeSessRate, nodeUp, nodeEnd, seenAt *prometheus.Desc
}

func newGauges(caches *informers.Caches, fleet *fleet) *gauges {
	cluster := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(metricsPrefix+name, help, append([]string{"namespace", "name"}, labels...), nil)
	}
	return &gauges{
		caches: caches, fleet: fleet, last: map[cache.ObjectName]shown{},
		phase:        cluster("phase", "1 for the phase that a cluster is in, 0 for the others.", "phase"),
		paused:       cluster("paused", "1 while spec.updateStrategy.paused is set."),
		stalled:      cluster("stalled", "1 while only a person can help, with the reason.", "reason"),
		undecodable:  cluster("undecodable_objects", "1 for an EMQX resource that cannot be decoded: its cluster stays as the last specification that could be asks."),
		clients:      cluster("clients", "MQTT clients connected to a cluster."),
		total:        cluster("upgrade_clients_total", "Clients that an evacuation began with."),
		moved:        cluster("upgrade_clients_moved", "Clients connected to the target revision during an evacuation."),
		estimatedEnd: cluster("upgrade_estimated_end_timestamp_seconds", "When the last leaving node will be empty, as seconds since 1970."),
		nodeClients:  cluster("node_clients", "MQTT clients connected to a node, as it last told; on a leaving node, those still to move.", "node", "revision"),
		nodeSessions: cluster("node_sessions", "Sessions on a node, as it last told; on a leaving node, those still to move.", "node", "revision"),
		nodeConnRate: cluster("node_connection_eviction_rate", "Connections that a node evicts a second; 0 when it is not evacuated.", "node", "revision"),
		nodeSessRate: cluster("node_session_eviction_rate", "Sessions that a node moves a second; 0 when it is not evacuated.", "node", "revision"),
		nodeEnd:      cluster("node_estimated_end_timestamp_seconds", "When a node that is being evacuated will be empty at its rates, as seconds since 1970.", "node", "revision"),
		nodeUp:       cluster("node_answers", "1 when a node answered its last asking.", "node", "revision"),
		seenAt:       cluster("node_last_seen_timestamp_seconds", "When a node last answered, as seconds since 1970.", "node", "revision"),
	}
}

// shown is what is told of a cluster.
type shown struct {
	stalled   string
	clients   int64
	upgrade   *v2beta1.UpgradeStatus
	revisions map[string]string // Of its nodes, by name.
}

func shownOf(status v2beta1.EMQXStatus) shown {
	return shown{stalled: machine.StalledReason(status), clients: status.Clients, upgrade: status.Upgrade}
}

// tell notes what a look showed.
func (g *gauges) tell(s machine.Snapshot, status v2beta1.EMQXStatus) {
	look := shownOf(status)
	look.revisions = map[string]string{}
	for _, set := range s.Sets {
		for _, pod := range set.Pods {
			look.revisions[pod.Node] = set.Revision
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last[key(s.EMQX)] = look
}

func (g *gauges) forget(name cache.ObjectName) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.last, name)
}

// look is what the last look showed or, before the first, what was written last.
func (g *gauges) look(emqx *v2beta1.EMQX) shown {
	g.mu.Lock()
	defer g.mu.Unlock()
	if look, known := g.last[key(emqx)]; known {
		return look
	}
	return shownOf(emqx.Status)
}

// gauge is a value with labels that it shares with others: with many clusters, a scrape is mostly labels.
type gauge struct {
	desc   *prometheus.Desc
	value  float64
	labels []*dto.LabelPair
}

// Desc is which gauge it is.
func (g gauge) Desc() *prometheus.Desc { return g.desc }

// Write fills a metric of a scrape, which the labels are not changed by.
func (g gauge) Write(out *dto.Metric) error {
	out.Label, out.Gauge = g.labels, &dto.Gauge{Value: &g.value}
	return nil
}

// Describe names the gauges.
func (g *gauges) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		g.phase, g.paused, g.stalled, g.undecodable, g.clients, g.total, g.moved, g.estimatedEnd,
		g.nodeClients, g.nodeSessions, g.nodeConnRate, g.nodeSessRate, g.nodeUp, g.nodeEnd, g.seenAt,
	} {
		descriptions <- d
	}
}

// Collect computes the gauges.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	if !g.working.Load() {
		return
	}
	for _, emqx := range g.caches.Undecodable() {
		out <- prometheus.MustNewConstMetric(g.undecodable, prometheus.GaugeValue, 1, emqx.Namespace, emqx.Name)
	}
	for _, emqx := range g.caches.EMQXes.List() {
		look := g.look(emqx)
		g.collectCluster(out, emqx, look)
		g.collectNodes(out, emqx, look)
	}
}

func (g *gauges) collectCluster(out chan<- prometheus.Metric, emqx *v2beta1.EMQX, look shown) {
	labels := prometheus.MakeLabelPairs(g.clients, []string{emqx.Namespace, emqx.Name})
	tell := func(d *prometheus.Desc, value float64) { out <- gauge{d, value, labels} }
	for _, phase := range v2beta1.Phases() {
		out <- gauge{g.phase, truth(emqx.Status.Phase == phase), prometheus.MakeLabelPairs(g.phase, []string{emqx.Namespace, emqx.Name, string(phase)})}
	}
	if look.stalled != "" {
		out <- gauge{g.stalled, 1, prometheus.MakeLabelPairs(g.stalled, []string{emqx.Namespace, emqx.Name, look.stalled})}
	}
	tell(g.paused, truth(emqx.Spec.UpdateStrategy.Paused))
	tell(g.clients, float64(look.clients))
	if upgrade := look.upgrade; upgrade != nil && emqx.Status.Phase == v2beta1.PhaseEvacuating {
		tell(g.total, float64(upgrade.ClientsTotal))
		tell(g.moved, float64(upgrade.ClientsMoved))
		if upgrade.EstimatedEndTime != nil {
			tell(g.estimatedEnd, float64(upgrade.EstimatedEndTime.Unix()))
		}
	}
}

func (g *gauges) collectNodes(out chan<- prometheus.Metric, emqx *v2beta1.EMQX, look shown) {
	observation, ok := g.fleet.observation(key(emqx))
	if !ok {
		return
	}
	for name, node := range observation.Nodes {
		labels := prometheus.MakeLabelPairs(g.nodeUp, []string{emqx.Namespace, emqx.Name, name, look.revisions[name]})
		tell := func(d *prometheus.Desc, value float64) { out <- gauge{d, value, labels} }
		tell(g.nodeUp, truth(node.Known()))
		if node.Seen.IsZero() {
			continue // Unknown is not zero.
		}
		var connRate, sessRate int32
		if node.Evacuation != nil {
			connRate, sessRate = node.Evacuation.ConnEvictRate, node.Evacuation.SessEvictRate
			tell(g.nodeEnd, float64(time.Now().Add(remaining(emqx, node)).UnixMilli())/1000)
		}
		tell(g.seenAt, float64(node.Seen.UnixMilli())/1000)
		tell(g.nodeClients, float64(node.Info.LiveConnections.Value))
		tell(g.nodeSessions, float64(node.Info.Connections.Value))
		tell(g.nodeConnRate, float64(connRate))
		tell(g.nodeSessRate, float64(sessRate))
	}
}

// remaining is how long a node that is being evacuated will take to be empty at its own rates.
func remaining(emqx *v2beta1.EMQX, node evacuate.NodeObservation) time.Duration {
	waitTakeover := time.Duration(emqx.Spec.UpdateStrategy.EvacuationStrategy.WaitTakeover) * time.Second
	return evacuate.Remaining([]evacuate.NodeObservation{node}, evacuate.Course{
		Now: time.Now(), ConnRate: node.Evacuation.ConnEvictRate, SessRate: node.Evacuation.SessEvictRate, WaitTakeover: waitTakeover,
	})
}

func truth(value bool) float64 {
	if value {
		return 1
	}
	return 0
}
