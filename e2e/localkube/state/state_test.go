package state_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

const boot = "this-boot"

// claim takes a slot for a cluster in a new directory.
func claim(t *testing.T, registry state.Registry, id string) (state.Dir, *state.State, error) {
	t.Helper()
	dir := state.Dir(t.TempDir())
	s := &state.State{ID: id, BootID: boot}
	return dir, s, registry.Claim(t.Context(), dir, s, func() error { return dir.Save(s) })
}

func TestClaimsAtTheSameTimeGetDifferentSlots(t *testing.T) {
	registry := state.Registry(filepath.Join(t.TempDir(), "registry"))
	const clusters = 8
	slots := make(chan int, clusters)
	var wg sync.WaitGroup
	for i := range clusters {
		wg.Go(func() {
			_, s, err := claim(t, registry, fmt.Sprintf("cluster-%d", i))
			if err != nil {
				t.Error(err)
			}
			slots <- s.Slot
		})
	}
	wg.Wait()
	close(slots)
	seen := map[int]bool{}
	for slot := range slots {
		require.False(t, seen[slot], "slot %d was given twice", slot)
		seen[slot] = true
	}
}

func TestClaimsOfClustersThatAreGoneAreFree(t *testing.T) {
	for _, c := range []struct {
		reason string
		change func(t *testing.T, registry state.Registry, dir state.Dir, s *state.State)
	}{
		{reason: "given back", change: func(t *testing.T, registry state.Registry, _ state.Dir, s *state.State) {
			require.NoError(t, registry.Release(s))
		}},
		{reason: "its directory was removed", change: func(t *testing.T, _ state.Registry, dir state.Dir, _ *state.State) {
			require.NoError(t, os.RemoveAll(string(dir)))
		}},
		{reason: "its directory has another cluster by now", change: func(t *testing.T, _ state.Registry, dir state.Dir, _ *state.State) {
			require.NoError(t, dir.Save(&state.State{ID: "another", BootID: boot}))
		}},
	} {
		t.Run(c.reason, func(t *testing.T) {
			registry := state.Registry(filepath.Join(t.TempDir(), "registry"))
			dir, first, err := claim(t, registry, "first")
			require.NoError(t, err)
			_, second, err := claim(t, registry, "second")
			require.NoError(t, err)
			require.NotEqual(t, first.Slot, second.Slot)
			c.change(t, registry, dir, first)
			_, third, err := claim(t, registry, "third")
			require.NoError(t, err)
			require.Equal(t, first.Slot, third.Slot)
			require.NoError(t, registry.Release(first), "giving back twice does not take it from the new owner")
			_, fourth, err := claim(t, registry, "fourth")
			require.NoError(t, err)
			require.NotEqual(t, third.Slot, fourth.Slot)
		})
	}
}

func TestClaimOfAnEarlierBootIsFree(t *testing.T) {
	registry := state.Registry(filepath.Join(t.TempDir(), "registry"))
	_, first, err := claim(t, registry, "first")
	require.NoError(t, err)
	dir := state.Dir(t.TempDir())
	s := &state.State{ID: "after", BootID: "next-boot"}
	require.NoError(t, registry.Claim(t.Context(), dir, s, func() error { return dir.Save(s) }))
	require.Equal(t, first.Slot, s.Slot)
}

func TestExhaustedNetworksAreASentence(t *testing.T) {
	registry := state.Registry(filepath.Join(t.TempDir(), "registry"))
	var err error
	for i := 0; err == nil; i++ {
		require.LessOrEqual(t, i, network.Slots)
		_, _, err = claim(t, registry, fmt.Sprintf("cluster-%d", i))
	}
	require.ErrorIs(t, err, state.ErrExhausted)
	require.ErrorContains(t, err, "cluster down")
}

func TestLoad(t *testing.T) {
	dir := state.Dir(t.TempDir())
	_, err := dir.Load()
	require.ErrorIs(t, err, state.ErrNotUp)
	require.ErrorContains(t, err, "cluster up --dir "+string(dir))

	want := &state.State{ID: "x", BootID: boot, Slot: 3, Images: []state.ImageRow{{Pattern: "a*", Command: "b"}}}
	require.NoError(t, dir.Save(want))
	got, err := dir.Load()
	require.NoError(t, err)
	require.Equal(t, want.Images, got.Images)
	require.Equal(t, "127.106.0.1:6443", got.Endpoint(6443))

	for _, content := range []string{"", "{", "[]", "{}"} {
		require.NoError(t, os.WriteFile(dir.StateFile(), []byte(content), 0o600))
		_, err := dir.Load()
		require.ErrorContains(t, err, "is not the state of a local cluster", "content %q", content)
		require.NotErrorIs(t, err, state.ErrNotUp)
	}
}

func TestLockKeepsOthersOut(t *testing.T) {
	dir := state.Dir(t.TempDir())
	release, err := dir.Lock(t.Context())
	require.NoError(t, err)
	got := make(chan error)
	go func() {
		again, err := dir.Lock(t.Context())
		if err == nil {
			again()
		}
		got <- err
	}()
	select {
	case err := <-got:
		require.Fail(t, "locked twice", "%v", err)
	default:
	}
	release()
	require.NoError(t, <-got)
}
