package lock

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLocksAreExclusiveAndInOrder(t *testing.T) {
	table := New()
	err := table.Acquire(context.Background(), "x", "t0", "n0")
	require.NoError(t, err)
	var mu sync.Mutex
	var order []string
	var wg sync.WaitGroup
	for i := 1; i <= 5; i++ {
		token := fmt.Sprintf("t%d", i)
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := table.Acquire(context.Background(), "x", token, "n"+token); err != nil {
				return
			}
			mu.Lock()
			order = append(order, token)
			mu.Unlock()
			table.Release("x", token)
		}()
		require.Eventually(t, func() bool {
			table.mu.Lock()
			defer table.mu.Unlock()
			return len(table.held["x"].waiters) == i
		}, 10*time.Second, time.Millisecond)
	}
	table.Release("x", "not the holder")
	require.Empty(t, order)
	table.Release("x", "t0")
	wg.Wait()
	require.Equal(t, []string{"t1", "t2", "t3", "t4", "t5"}, order)
	require.Empty(t, table.held, "nothing is left behind")
}

func TestLockWaitEnds(t *testing.T) {
	table := New()
	err := table.Acquire(context.Background(), "x", "t0", "n0")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err = table.Acquire(ctx, "x", "t1", "n1")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, table.held["x"].waiters)
	done := make(chan error, 1)
	go func() {
		err := table.Acquire(context.Background(), "x", "t2", "n2")
		done <- err
	}()
	require.Eventually(t, func() bool {
		table.mu.Lock()
		defer table.mu.Unlock()
		return len(table.held["x"].waiters) == 1
	}, 10*time.Second, time.Millisecond)
	table.ReleaseNode("n0")
	require.NoError(t, <-done, "what a dead node held is free")
	table.ReleaseNode("n2")
	require.Empty(t, table.held)
}
