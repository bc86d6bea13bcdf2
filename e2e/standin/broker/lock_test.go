package broker

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Homes are spread evenly, and a node that goes moves only its own clients.
func TestHomes(t *testing.T) {
	nodes := []string{"emqx@10.0.0.1", "emqx@10.0.0.2", "emqx@10.0.0.3"}
	home := func(nodes []string, id string) string {
		best := nodes[0]
		for _, node := range nodes[1:] {
			if rank(node, id) > rank(best, id) {
				best = node
			}
		}
		return best
	}
	count := map[string]int{}
	for i := range 3000 {
		id := fmt.Sprintf("client-%d", i)
		all := home(nodes, id)
		count[all]++
		if all != nodes[2] {
			require.Equal(t, all, home(nodes[:2], id))
		}
	}
	for _, node := range nodes {
		require.InDelta(t, 1000, count[node], 150, node)
	}
}

func TestRegistryKeepsTheNewest(t *testing.T) {
	r := newRegistry()
	require.True(t, r.put(row{ID: "x", Node: "a", Version: 2}))
	require.False(t, r.put(row{ID: "x", Node: "b", Version: 1}), "older news")
	require.True(t, r.put(row{ID: "x", Node: "b", Version: 2}), "of two at once one wins everywhere")
	require.False(t, r.put(row{ID: "x", Node: "a", Version: 2}))
	r.remove(row{ID: "x", Node: "a", Version: 1})
	require.Equal(t, "b", r.nodeOf("x"), "an old removal does not hit the new row")
	r.remove(row{ID: "x", Node: "b", Version: 2})
	require.False(t, r.has("x"))
	r.put(row{ID: "y", Node: "a", Version: 1})
	r.put(row{ID: "z", Node: "b", Version: 1})
	r.removeNode("a")
	require.Equal(t, 1, r.size())
}
