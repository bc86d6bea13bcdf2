package evacuate

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// TestKeysAreTriedInTurn: while a new key takes the place of an old one, what one is refused is done with the other, and the one
// that was taken last is tried first.
func TestKeysAreTriedInTurn(t *testing.T) {
	oldKey, newKey, third := emqx.Credentials{Secret: "old"}, emqx.Credentials{Secret: "new"}, emqx.Credentials{Secret: "third"}
	reads, read := 0, []emqx.Credentials{newKey, oldKey}
	k := &keys{read: func(context.Context) ([]emqx.Credentials, error) { reads++; return read, nil }}
	var tried []emqx.Credentials
	ask := func(taken ...emqx.Credentials) error {
		tried = nil
		return k.with(t.Context(), func(c emqx.Credentials) error {
			tried = append(tried, c)
			for _, good := range taken {
				if c == good {
					return nil
				}
			}
			return fmt.Errorf("node: %w", emqx.ErrUnauthorized)
		})
	}
	_, known := k.taken()
	require.False(t, known, "none was taken yet")
	require.NoError(t, ask(oldKey))
	require.Equal(t, []emqx.Credentials{newKey, oldKey}, tried, "the new one first")
	require.NoError(t, ask(oldKey))
	require.Equal(t, []emqx.Credentials{oldKey}, tried, "the one that was taken last")
	require.NoError(t, ask(newKey))
	require.Equal(t, []emqx.Credentials{oldKey, newKey}, tried, "a node has told the cluster the new one")
	require.NoError(t, ask(oldKey))
	require.Equal(t, []emqx.Credentials{newKey, oldKey}, tried, "and one that started with the old file the old one")
	require.Equal(t, 1, reads)
	taken, _ := k.taken()
	require.Equal(t, oldKey, taken)

	require.ErrorIs(t, ask(), emqx.ErrUnauthorized)
	require.Len(t, tried, 2)
	read = []emqx.Credentials{third}
	require.NoError(t, ask(oldKey))
	require.Equal(t, []emqx.Credentials{third, oldKey}, tried, "what was taken last is tried, also when the Secret does not have it any more")
	require.Equal(t, 2, reads)

	k.renew()
	require.NoError(t, ask(third))
	require.Equal(t, 3, reads)

	read = nil
	k.renew()
	k.read = func(context.Context) ([]emqx.Credentials, error) { return nil, errors.New("the Secret is empty") }
	require.NoError(t, ask(third))
	require.Equal(t, []emqx.Credentials{third}, tried, "that the Secret says nothing is no reason not to go by what was taken last")

	silent := errors.New("silent")
	require.ErrorIs(t, k.with(t.Context(), func(emqx.Credentials) error { return silent }), silent)
	taken, _ = k.taken()
	require.Equal(t, third, taken, "that a node is silent says nothing of its key")
}

// TestOrderIsGivenWithTheOtherKey: an order that was refused for its key is given again at once, with the other.
func TestOrderIsGivenWithTheOtherKey(t *testing.T) {
	drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
		d.keys.read = func(context.Context) ([]emqx.Credentials, error) {
			return []emqx.Credentials{{Key: "k", Secret: "old"}, {Key: "k", Secret: "new"}}, nil
		}
		d.Pursue(goal(true, Evacuate, Serve))
		pass(3 * d.config.BusyInterval)
		require.NotNil(t, f.get("a").evacuation)
		f.mu.Lock()
		f.secret = "old"
		f.mu.Unlock()
		d.Pursue(goal(true, Serve, Serve))
		pass(d.config.BusyInterval)
		require.Nil(t, f.get("a").evacuation, "it is stopped with the key that the cluster went back to")
		require.True(t, d.Observation().Nodes["a"].Known())
		require.Empty(t, d.Observation().Nodes["a"].OrderFailure)
	})
}
