package broker

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLocksAreExclusiveAndInOrder(t *testing.T) {
	table := newLockTable()
	err := table.acquire(context.Background(), "x", "t0", "n0")
	require.NoError(t, err)
	var mu sync.Mutex
	var order []string
	var wg sync.WaitGroup
	for i := 1; i <= 5; i++ {
		token := fmt.Sprintf("t%d", i)
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := table.acquire(context.Background(), "x", token, "n"+token); err != nil {
				return
			}
			mu.Lock()
			order = append(order, token)
			mu.Unlock()
			table.release("x", token)
		}()
		require.Eventually(t, func() bool {
			table.mu.Lock()
			defer table.mu.Unlock()
			return len(table.held["x"].waiters) == i
		}, 10*time.Second, time.Millisecond)
	}
	table.release("x", "not the holder")
	require.Empty(t, order)
	table.release("x", "t0")
	wg.Wait()
	require.Equal(t, []string{"t1", "t2", "t3", "t4", "t5"}, order)
	require.Empty(t, table.held, "nothing is left behind")
}

func TestLockWaitEnds(t *testing.T) {
	table := newLockTable()
	err := table.acquire(context.Background(), "x", "t0", "n0")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err = table.acquire(ctx, "x", "t1", "n1")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, table.held["x"].waiters)
	done := make(chan error, 1)
	go func() {
		err := table.acquire(context.Background(), "x", "t2", "n2")
		done <- err
	}()
	require.Eventually(t, func() bool {
		table.mu.Lock()
		defer table.mu.Unlock()
		return len(table.held["x"].waiters) == 1
	}, 10*time.Second, time.Millisecond)
	table.releaseNode("n0")
	require.NoError(t, <-done, "what a dead node held is free")
	table.releaseNode("n2")
	require.Empty(t, table.held)
}

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
