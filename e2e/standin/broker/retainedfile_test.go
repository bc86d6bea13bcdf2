package broker

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/session"
)

func reopen(t *testing.T, path string, fresh bool) *retained {
	t.Helper()
	r := newRetained(slog.New(slog.DiscardHandler))
	require.NoError(t, r.keep(path, fresh))
	t.Cleanup(func() { require.NoError(t, r.close()) })
	return r
}

func TestRetainedMessagesOutliveAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mnesia", "retained")
	r := reopen(t, path, false)
	most := 3*compactAfter + 10
	for i := range most {
		r.store(&session.Message{Topic: "a", Payload: fmt.Append(nil, i), Version: int64(i + 1)})
	}
	r.store(&session.Message{Topic: "b", Payload: []byte("b"), Version: 1})
	r.store(&session.Message{Topic: "b", Version: 2})
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Less(t, bytes.Count(data, []byte("\n")), compactAfter+10, "old messages are thrown away")
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteString(`{"topic":"half`)
	require.NoError(t, err)
	require.NoError(t, file.Close())

	r = reopen(t, path, false)
	require.Equal(t, 1, r.size())
	require.Equal(t, fmt.Append(nil, most-1), r.match("#")[0].Payload)
	r.store(&session.Message{Topic: "b", Payload: []byte("late"), Version: 1})
	require.Empty(t, r.match("b"), "what was removed does not come back")

	require.Zero(t, reopen(t, path, true).size(), "who joins others begins without")
	require.Zero(t, reopen(t, path, false).size())
	require.NoError(t, os.WriteFile(path, []byte("{\n"), 0o600))
	require.Error(t, newRetained(slog.New(slog.DiscardHandler)).keep(path, false))
}
