package nodes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/nodes"
)

// moving is a cluster of fakes with clients.
type moving struct {
	*pair
	fleet   *nodes.Fleet
	cluster *nodes.Cluster
	nodes   []*nodes.Node
}

func newMoving(t *testing.T, config nodes.Config, count int) *moving {
	t.Helper()
	m := &moving{pair: &pair{t: t}}
	var err error
	m.fleet, err = nodes.NewFleet(config)
	require.NoError(t, err)
	t.Cleanup(m.fleet.Close)
	m.cluster = m.fleet.Cluster("a")
	network := freeNetwork(t)
	for i := range count {
		m.fake = append(m.fake, fmt.Sprintf("%s.%d", network, 20+i))
		m.names = append(m.names, "emqx@"+m.fake[i])
		node, err := m.cluster.Start(m.names[i], m.fake[i], "6.0.1", map[string]string{"opkey": "opsecret"})
		require.NoError(t, err)
		m.nodes = append(m.nodes, node)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { m.fleet.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

// counts are the clients and sessions of a node, as it tells.
func (m *moving) counts(i int) (live, sessions int) {
	m.t.Helper()
	var info struct {
		Live     int `json:"live_connections"`
		Sessions int `json:"connections"`
	}
	require.NoError(m.t, json.Unmarshal(m.ask(m.fake[i], question{path: "/api/v5/nodes/" + m.names[i]}).body, &info))
	return info.Live, info.Sessions
}

func (m *moving) eventually(what string, holds func() bool) {
	m.t.Helper()
	require.Eventually(m.t, holds, patience, 10*time.Millisecond, what)
}

// TestEvacuationMovesClients has one node's clients move to the others at the rate asked for, with their sessions.
func TestEvacuationMovesClients(t *testing.T) {
	m := newMoving(t, nodes.Config{Clients: 20, Return: 200 * time.Millisecond, Still: true}, 3)
	m.cluster.Lead(m.names[:1])
	m.eventually("clients come where the Service leads", func() bool { live, _ := m.counts(0); return live == 20 })

	m.cluster.Lead(m.names[1:])
	began := time.Now()
	started := m.ask(m.fake[0], question{
		method: http.MethodPost, path: "/api/v5/load_rebalance/" + m.names[0] + "/evacuation/start",
		body: fmt.Sprintf(`{"wait_health_check":0,"wait_takeover":0,"conn_evict_rate":10,"sess_evict_rate":10,"migrate_to":[%q,%q]}`, m.names[1], m.names[2]),
	})
	require.Equal(t, http.StatusOK, started.status, string(started.body))
	m.eventually("half of them go", func() bool { live, _ := m.counts(0); return live == 10 })
	m.eventually("nobody and nothing is left", func() bool {
		live, sessions := m.counts(0)
		_, away := m.cluster.Clients()
		return live == 0 && sessions == 0 && away == 0
	})
	require.GreaterOrEqual(t, time.Since(began), time.Second, "two rounds of ten, a second apart")
	total := 0
	for i := 1; i < 3; i++ {
		live, sessions := m.counts(i)
		require.Positive(t, live)
		require.Equal(t, live, sessions, "no session is counted twice")
		total += live
	}
	require.Equal(t, 20, total)
	m.eventually("it takes nobody any more", func() bool {
		return m.ask(m.fake[0], question{path: "/api/v5/load_rebalance/availability_check"}).status == http.StatusServiceUnavailable
	})
}

// TestClientsOfAStoppedNodeComeBack has clients lose their node.
func TestClientsOfAStoppedNodeComeBack(t *testing.T) {
	m := newMoving(t, nodes.Config{Clients: 9, Return: time.Millisecond, Still: true}, 2)
	m.cluster.Lead(m.names)
	m.eventually("clients come", func() bool { live, away := m.cluster.Clients(); return live == 9 && away == 0 })
	m.nodes[0].Stop()
	m.eventually("they come back", func() bool { live, sessions := m.counts(1); return live == 9 && sessions == 9 })
	require.Zero(t, m.ask(m.fake[0], question{path: "/status"}).status, "nobody listens there any more")
	require.Equal(t, 1, m.fleet.Running())
	require.Equal(t, http.StatusNotFound, m.ask(m.fake[1], question{path: "/api/v5/nodes/" + m.names[0]}).status)
	left := question{method: http.MethodDelete, path: "/api/v5/cluster/" + m.names[0] + "/force_leave"}
	require.Equal(t, http.StatusNoContent, m.ask(m.fake[1], left).status)
	require.Equal(t, http.StatusBadRequest, m.ask(m.fake[1], left).status, "it is no member any more")
}

// TestClientsComeAndGo has the numbers of clients change, by a little.
func TestClientsComeAndGo(t *testing.T) {
	m := newMoving(t, nodes.Config{Clients: 100, Return: time.Millisecond}, 2)
	m.cluster.Lead(m.names)
	m.eventually("clients come", func() bool { live, _ := m.cluster.Clients(); return live >= 90 })
	seen := map[int]bool{}
	m.eventually("their number changes", func() bool {
		live, _ := m.cluster.Clients()
		require.InDelta(t, 100, live, 10)
		seen[live] = true
		return len(seen) >= 3
	})
}

func TestSeen(t *testing.T) {
	m := newMoving(t, nodes.Config{Still: true}, 2)
	m.fleet.Mark()
	asked := m.fleet.Requests()
	m.ask(m.fake[0], question{path: "/status"})
	m.ask(m.fake[0], question{path: "/api/v5/cluster"})
	m.ask(m.fake[0], question{path: "/api/v5/nodes/" + m.names[0], key: "none"})
	count, _ := m.fleet.Seen()
	require.Zero(t, count, "nobody was told about a node")
	m.ask(m.fake[0], question{path: "/api/v5/nodes/" + m.names[0]})
	m.ask(m.fake[0], question{path: "/api/v5/nodes/" + m.names[0]})
	count, at := m.fleet.Seen()
	require.Equal(t, 1, count)
	require.False(t, at.IsZero())
	m.ask(m.fake[1], question{path: "/api/v5/nodes"})
	count, _ = m.fleet.Seen()
	require.Equal(t, 2, count)
	m.fleet.Mark()
	count, _ = m.fleet.Seen()
	require.Zero(t, count)
	require.EqualValues(t, 6, m.fleet.Requests()-asked)
	require.EqualValues(t, 3, m.fleet.Operations()["node"])
}
