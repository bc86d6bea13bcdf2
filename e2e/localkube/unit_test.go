package localkube

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

func TestMergeImages(t *testing.T) {
	row := func(pattern, command string) state.ImageRow {
		return state.ImageRow{Pattern: pattern, Command: command}
	}
	old := []state.ImageRow{row("a", "1"), row("b", "2")}
	for _, c := range []struct {
		reason      string
		added, want []state.ImageRow
		changed     bool
	}{
		{reason: "nothing new", want: old},
		{reason: "the same again", added: []state.ImageRow{row("b", "2")}, want: old},
		{reason: "a new row comes first", added: []state.ImageRow{row("c", "3")}, changed: true,
			want: []state.ImageRow{row("c", "3"), row("a", "1"), row("b", "2")}},
		{reason: "a known pattern keeps its place", added: []state.ImageRow{row("b", "9")}, changed: true,
			want: []state.ImageRow{row("a", "1"), row("b", "9")}},
	} {
		t.Run(c.reason, func(t *testing.T) {
			rows, changed := mergeImages(old, c.added)
			require.Equal(t, c.want, rows)
			require.Equal(t, c.changed, changed)
		})
	}
	require.Equal(t, []state.ImageRow{row("a", "1"), row("b", "2")}, old, "the old rows are left alone")
}

func TestCheckUse(t *testing.T) {
	for _, c := range []struct {
		reason  string
		files   []string
		content string
		failure string
	}{
		{reason: "empty"},
		{reason: "what `down` leaves", files: []string{".lock", "audit.log", "audit-2026-01-01T00-00-00.000.log", "logs/x"}},
		{reason: "what a killed `up` leaves", files: []string{"pki/ca.key", "cluster.json.tmp123"}},
		{reason: "a cluster", files: []string{"cluster.json"}, content: `{"id":"x"}`},
		{reason: "a file of the same name", files: []string{"cluster.json"}, content: `{"name":"mine"}`, failure: "is not the state of a local cluster"},
		{reason: "somebody's work", files: []string{"main.go"}, failure: "in use by something else (it holds main.go)"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range c.files {
				path := filepath.Join(dir, file)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
				require.NoError(t, os.WriteFile(path, []byte(c.content), 0o600))
			}
			err := directory{state.Dir(dir)}.checkUse()
			if c.failure == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.failure)
		})
	}
	require.NoError(t, directory{state.Dir(filepath.Join(t.TempDir(), "new"))}.checkUse())
}

func TestUpSaysThatTheControlPlaneIsNotBuilt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	err := Up(t.Context(), UpOptions{Dir: dir, ClusterBinary: filepath.Join(t.TempDir(), "cluster")})
	require.ErrorContains(t, err, "make build")
	require.NoDirExists(t, dir, "and leaves nothing behind")
}

func TestDownAfterARebootSignalsNobody(t *testing.T) {
	dir := state.Dir(t.TempDir())
	registry := state.Registry(filepath.Join(t.TempDir(), "registry"))
	require.NoError(t, os.Mkdir(string(registry), 0o700))
	self, err := proc.Identify(os.Getpid())
	require.NoError(t, err)
	// The pids are those of an earlier boot: one of them is now this very test.
	require.NoError(t, dir.Save(&state.State{ID: "x", BootID: "an earlier one", Processes: map[string]proc.Identity{"etcd": self}}))
	require.NoError(t, os.MkdirAll(dir.Path("etcd", "member"), 0o700))
	require.NoError(t, Down(t.Context(), DownOptions{Dir: string(dir), Registry: registry}))
	require.NoDirExists(t, dir.Path("etcd"))
	require.ErrorIs(t, Down(t.Context(), DownOptions{Dir: string(dir), Registry: registry}), ErrNothingToStop)
}
