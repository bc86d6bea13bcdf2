package standin_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func (h *harness) startRebalance(coordinator int, body map[string]any) answer {
	return h.post(1, "/api/v5/load_rebalance/"+h.name(coordinator)+"/start", body)
}

// live is how many clients a node has.
func (h *harness) live(i int) int {
	return int(h.get(i, "/api/v5/nodes/"+h.name(i)).object()["live_connections"].(float64))
}

// TestRebalance has what EMQX's own suites demand of a rebalance: nothing to do within the thresholds; clients are let in before the
// health check is over and refused after; the donor ends within the threshold, by itself, and takes clients again.
func TestRebalance(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2)
	for i := range 20 {
		h.mustConnect(1, fmt.Sprintf("c-%d", i), nil)
	}
	require.Contains(t, string(h.startRebalance(1, map[string]any{"abs_conn_threshold": 20}).body), "nothing_to_balance")

	require.Equal(t, http.StatusOK, h.startRebalance(1, map[string]any{"abs_conn_threshold": 5, "conn_evict_rate": 5, "wait_health_check": 2, "wait_takeover": 0}).status)
	require.Equal(t, "wait_health_check", h.rebalance(1)["state"])
	require.Equal(t, []any{h.name(2)}, h.rebalance(1)["recipients"])
	require.Equal(t, http.StatusServiceUnavailable, h.get(1, "/api/v5/load_rebalance/availability_check").status)
	h.mustConnect(1, "before the health check is over", nil)
	h.eventually("it evicts", func() bool { return h.rebalance(1)["state"] == "evicting_conns" })
	_, err := h.connect(1, "after it", nil)
	require.Error(t, err)
	h.eventually("it is over", func() bool { return h.rebalance(1)["status"] == "disabled" })
	require.LessOrEqual(t, h.live(1), 5)
	require.Equal(t, http.StatusOK, h.get(1, "/api/v5/load_rebalance/availability_check").status)
	h.mustConnect(1, "afterwards", nil)
}

// TestRebalanceEndsWithAParticipant: a recipient that dies ends it for all.
func TestRebalanceEndsWithAParticipant(t *testing.T) {
	h := newHarness(t, nil)
	h.start(1, 2, 3)
	for i := range 30 {
		h.mustConnect(1, fmt.Sprintf("c-%d", i), nil)
	}
	require.Equal(t, http.StatusOK, h.startRebalance(1, map[string]any{"abs_conn_threshold": 1, "conn_evict_rate": 1, "wait_health_check": 0}).status)
	h.eventually("it evicts", func() bool { return h.rebalance(1)["state"] == "evicting_conns" })
	h.stop(3)
	h.eventually("the donor is free", func() bool { return h.rebalance(1)["status"] == "disabled" })
	require.Greater(t, h.live(1), 10, "it had not come far")
}
