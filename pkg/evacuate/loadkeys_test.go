package evacuate

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// TestKeysAreLoaded: nodes are told to read their file until they know what is in it and every node had the time to get it, and are
// left alone where there is nothing to tell them.
func TestKeysAreLoaded(t *testing.T) {
	const file = "/keys"
	start := func(f *fakeAPI, d *Driver, loads func() string) {
		d.keys.read = func(context.Context) ([]emqx.Credentials, error) {
			return []emqx.Credentials{{Secret: "new"}, {Secret: "old"}}, nil
		}
		f.mu.Lock()
		f.secret, f.file = "old", loads()
		f.mu.Unlock()
	}
	pursue := func(d *Driver, file string, written time.Time) {
		g := goal(false, Serve, Serve)
		g.Keys = KeysGoal{Version: "1", Written: written, File: file}
		d.Pursue(g)
	}
	loaded := func(f *fakeAPI) int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.loads
	}
	t.Run("a kubelet that lags", func(t *testing.T) {
		drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
			start(f, d, func() string { return "old" })
			pursue(d, file, time.Now())
			pass(40 * time.Second)
			require.Equal(t, KeysObservation{Version: "1"}, d.Observation().Keys)
			require.Equal(t, 3, loaded(f))
			require.True(t, d.Observation().Nodes["a"].Known(), "meanwhile it is asked with the old key")
			f.mu.Lock()
			f.file = "new"
			f.mu.Unlock()
			pass(15 * time.Second)
			require.True(t, d.Observation().Keys.Loaded)
			taken, _ := d.Credentials()
			require.Equal(t, "new", taken.Secret)
			pass(10 * time.Minute)
			require.LessOrEqual(t, loaded(f), 9, "until every node has had the time to get the file")
			require.Greater(t, loaded(f), 4)
			require.True(t, d.Observation().Keys.Loaded)
		})
	})
	t.Run("nodes that started since", func(t *testing.T) {
		drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
			start(f, d, func() string { return "new" })
			f.mu.Lock()
			f.secret = "new"
			f.mu.Unlock()
			pursue(d, "", time.Now())
			pass(10 * time.Minute)
			require.True(t, d.Observation().Keys.Loaded)
			require.Zero(t, loaded(f))
		})
	})
	t.Run("an operator that starts", func(t *testing.T) {
		drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
			start(f, d, func() string { return "new" })
			f.mu.Lock()
			f.secret = "new"
			f.mu.Unlock()
			pursue(d, file, time.Now().Add(-time.Hour))
			pass(10 * time.Minute)
			require.True(t, d.Observation().Keys.Loaded)
			require.Zero(t, loaded(f), "they know the keys already")
		})
	})
	t.Run("pods that what is written does not come into", func(t *testing.T) {
		drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
			start(f, d, func() string { return "new" })
			pursue(d, "", time.Now())
			pass(10 * time.Minute)
			require.Equal(t, KeysObservation{Version: "1"}, d.Observation().Keys)
			require.Zero(t, loaded(f))
		})
	})
	t.Run("a frozen member", func(t *testing.T) {
		drive(t, func(t *testing.T, f *fakeAPI, d *Driver, _ func() int) {
			start(f, d, func() string { return "new" })
			pursue(d, file, time.Now())
			f.change("b", func(n *fakeNode) { n.frozen = true })
			pass(time.Minute)
			require.Zero(t, loaded(f), "EMQX would change nothing, and block what comes after")
			require.Contains(t, d.Observation().Keys.Failure, "node b does not answer")
			f.change("b", func(n *fakeNode) { n.frozen = false })
			pass(time.Minute)
			require.True(t, d.Observation().Keys.Loaded)
			require.Empty(t, d.Observation().Keys.Failure)
		})
	})
}
