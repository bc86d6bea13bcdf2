package upgrade

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// gauges are computed from the caches and the last observations when they are scraped, and from what the last look would have
// written, so that nothing is left of a cluster that has gone. Only the replica that works tells them: a sum over the replicas
// counts nothing twice.
//
// They are a Gatherer and no Collector: with a thousand clusters they are tens of thousands, and a registry checks and sorts
// each of them at each scrape. Here they come in order and once each by construction.
type gauges struct {
	caches  *informers.Caches
	fleet   *fleet
	working atomic.Bool

	mu sync.Mutex
	// last are what the last look at each cluster showed: what is written of it is often older.
	last map[cache.ObjectName]shown
}

func newGauges(caches *informers.Caches, fleet *fleet) *gauges {
	return &gauges{caches: caches, fleet: fleet, last: map[cache.ObjectName]shown{}}
}

// gauge is one of those that there are, by its place in the table.
type gauge int

const (
	clientsGauge gauge = iota
	nodeAnswers
	nodeClients
	nodeConnRate
	nodeEnd
	nodeSeen
	nodeSessRate
	nodeSessions
	nodeReplicas
	pausedGauge
	phaseGauge
	rebalancesGauge
	stalledGauge
	transitionsGauge
	undecodableGauge
	upgradeMoved
	upgradeTotal
	upgradeEnd
	gaugesCount
)

// gaugeTable says what there is, by name. All have the labels namespace and name.
func gaugeTable() [gaugesCount]struct {
	name, help string
	labels     []string
} {
	node := []string{"node", "revision"}
	return [...]struct {
		name, help string
		labels     []string
	}{
		clientsGauge:     {"clients", "MQTT clients connected to a cluster.", nil},
		nodeAnswers:      {"node_answers", "1 when a node answered its last asking.", node},
		nodeClients:      {"node_clients", "MQTT clients connected to a node, as it last told; on a leaving node, those still to move.", node},
		nodeConnRate:     {"node_connection_eviction_rate", "Connections that a node evicts a second; 0 when it is not evacuated.", node},
		nodeEnd:          {"node_estimated_end_timestamp_seconds", "When a node that is being evacuated will be empty at its rates, as seconds since 1970.", node},
		nodeSeen:         {"node_last_seen_timestamp_seconds", "When a node last answered, as seconds since 1970.", node},
		nodeSessRate:     {"node_session_eviction_rate", "Sessions that a node moves a second; 0 when it is not evacuated.", node},
		nodeSessions:     {"node_sessions", "Sessions on a node, as it last told; on a leaving node, those still to move.", node},
		nodeReplicas:     {"node_shards", "Shards of durable storage that have a replica on a node, or are about to; on a leaving node, those still to move.", node},
		pausedGauge:      {"paused", "1 while spec.updateStrategy.paused is set.", nil},
		phaseGauge:       {"phase", "1 for the phase that a cluster is in, 0 for the others.", []string{"phase"}},
		rebalancesGauge:  {"rebalances", "Rebalances that name a cluster, by their phase.", []string{"phase"}},
		stalledGauge:     {"stalled", "1 while only a person can help, with the reason.", []string{"reason"}},
		transitionsGauge: {"storage_transitions", "Replicas of durable storage that are about to come or to go; EMQX tells since 6.0.", nil},
		undecodableGauge: {"undecodable_objects", "1 for an EMQX resource that cannot be decoded: its cluster stays as the last specification asks that could be.", nil},
		upgradeMoved:     {"upgrade_clients_moved", "Clients connected to the target revision during an evacuation.", nil},
		upgradeTotal:     {"upgrade_clients_total", "Clients that an evacuation began with.", nil},
		upgradeEnd:       {"upgrade_estimated_end_timestamp_seconds", "When the last leaving node will be empty, as seconds since 1970.", nil},
	}
}

// Describe names the gauges.
func (g *gauges) Describe(descriptions chan<- *prometheus.Desc) {
	for _, gauge := range gaugeTable() {
		descriptions <- prometheus.NewDesc(metricsPrefix+gauge.name, gauge.help, append([]string{"namespace", "name"}, gauge.labels...), nil)
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

// scrape is what one scrape is told.
type scrape struct {
	metrics   [gaugesCount][]*dto.Metric
	zero, one *dto.Gauge // Most gauges are one of these.
}

func newScrape() *scrape {
	return &scrape{zero: &dto.Gauge{Value: ptr.To(0.0)}, one: &dto.Gauge{Value: ptr.To(1.0)}}
}

// Gather computes the gauges. It never fails.
func (g *gauges) Gather() ([]*dto.MetricFamily, error) {
	if !g.working.Load() {
		return nil, nil
	}
	s := newScrape()
	for _, emqx := range g.caches.Undecodable() {
		s.tell(undecodableGauge, labelsOf(emqx), 1)
	}
	all := g.caches.EMQXes.List()
	slices.SortFunc(all, func(a, b *v2beta1.EMQX) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace))
	})
	for _, emqx := range all {
		look, labels := g.look(emqx), labelsOf(emqx)
		s.cluster(emqx, look, labels)
		if rebalances, err := g.caches.RebalancesOf(key(emqx)); err == nil && len(rebalances) > 0 {
			s.rebalances(rebalances, labels)
		}
		if observation, ok := g.fleet.observation(key(emqx)); ok {
			s.nodes(emqx, look, observation, labels)
		}
	}
	return s.families(), nil
}

// families are what was told, in the order of the table, which is that of their names.
func (s *scrape) families() []*dto.MetricFamily {
	var families []*dto.MetricFamily
	for i, gauge := range gaugeTable() {
		if metrics := s.metrics[i]; len(metrics) > 0 {
			families = append(families, &dto.MetricFamily{
				Name: ptr.To(metricsPrefix + gauge.name), Help: ptr.To(gauge.help), Type: dto.MetricType_GAUGE.Enum(), Metric: metrics,
			})
		}
	}
	return families
}

// tell notes a gauge. Its labels may be shared with others: nobody changes them.
func (s *scrape) tell(gauge gauge, labels []*dto.LabelPair, value float64) {
	told := s.zero
	switch value {
	case 0:
	case 1:
		told = s.one
	default:
		told = &dto.Gauge{Value: &value}
	}
	s.metrics[gauge] = append(s.metrics[gauge], &dto.Metric{Label: labels, Gauge: told})
}

// labelsOf are the labels that all gauges of a cluster have. Labels are in the order of their names.
func labelsOf(emqx *v2beta1.EMQX) []*dto.LabelPair {
	return []*dto.LabelPair{label("name", emqx.Name), label("namespace", emqx.Namespace)}
}

func with(labels []*dto.LabelPair, more ...*dto.LabelPair) []*dto.LabelPair {
	return slices.Concat(labels, more)
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

func (s *scrape) cluster(emqx *v2beta1.EMQX, look shown, labels []*dto.LabelPair) {
	for _, phase := range v2beta1.Phases() {
		s.tell(phaseGauge, with(labels, label("phase", string(phase))), truth(emqx.Status.Phase == phase))
	}
	if look.stalled != "" {
		s.tell(stalledGauge, with(labels, label("reason", look.stalled)), 1)
	}
	s.tell(pausedGauge, labels, truth(emqx.Spec.UpdateStrategy.Paused))
	s.tell(clientsGauge, labels, float64(look.clients))
	if upgrade := look.upgrade; upgrade != nil && emqx.Status.Phase == v2beta1.PhaseEvacuating {
		s.tell(upgradeTotal, labels, float64(upgrade.ClientsTotal))
		s.tell(upgradeMoved, labels, float64(upgrade.ClientsMoved))
		if upgrade.EstimatedEndTime != nil {
			s.tell(upgradeEnd, labels, float64(upgrade.EstimatedEndTime.Unix()))
		}
	}
}

func (s *scrape) rebalances(all []*v2beta1.Rebalance, labels []*dto.LabelPair) {
	counts := map[v2beta1.RebalancePhase]float64{}
	for _, rebalance := range all {
		counts[cmp.Or(rebalance.Status.Phase, v2beta1.RebalanceProcessing)]++
	}
	for _, phase := range []v2beta1.RebalancePhase{v2beta1.RebalanceCompleted, v2beta1.RebalanceFailed, v2beta1.RebalanceProcessing} {
		s.tell(rebalancesGauge, with(labels, label("phase", string(phase))), counts[phase])
	}
}

func (s *scrape) nodes(emqx *v2beta1.EMQX, look shown, observation evacuate.Observation, cluster []*dto.LabelPair) {
	storage := observation.Storage
	if storage.Enabled {
		s.tell(transitionsGauge, cluster, float64(storage.Transitions()))
	}
	for _, name := range slices.Sorted(maps.Keys(observation.Nodes)) {
		node := observation.Nodes[name]
		labels := with(cluster, label("node", name), label("revision", look.revisions[name]))
		s.tell(nodeAnswers, labels, truth(node.Known()))
		if storage.Enabled {
			s.tell(nodeReplicas, labels, float64(storage.Holds(name)))
		}
		if node.Seen.IsZero() {
			continue // Unknown is not zero.
		}
		var connRate, sessRate int32
		if node.Evacuation != nil {
			connRate, sessRate = node.Evacuation.ConnEvictRate, node.Evacuation.SessEvictRate
			s.tell(nodeEnd, labels, float64(time.Now().Add(remaining(emqx, node)).UnixMilli())/1000)
		}
		s.tell(nodeSeen, labels, float64(node.Seen.UnixMilli())/1000)
		s.tell(nodeClients, labels, float64(node.Info.LiveConnections.Value))
		s.tell(nodeSessions, labels, float64(node.Info.Connections.Value))
		s.tell(nodeConnRate, labels, float64(connRate))
		s.tell(nodeSessRate, labels, float64(sessRate))
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
