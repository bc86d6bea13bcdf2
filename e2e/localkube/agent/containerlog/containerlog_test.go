package containerlog_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/containerlog"
)

// record writes the texts to the streams of a container's start.
func record(t *testing.T, dir string, start int32, stdout, stderr string) {
	t.Helper()
	w, err := containerlog.Create(dir, "main", start)
	require.NoError(t, err)
	for stream, text := range map[string]string{"stdout": stdout, "stderr": stderr} {
		pipe, err := w.Pipe(stream)
		require.NoError(t, err)
		_, err = pipe.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, pipe.Close())
	}
	require.NoError(t, w.Close())
}

func read(t *testing.T, dir string, start int32, options containerlog.Options) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, containerlog.Read(t.Context(), containerlog.Path(dir, "main", start), options, &out))
	return out.String()
}

func TestReadGivesBackWhatWasWritten(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("x", 100_000)
	record(t, dir, 0, "one\n\ntwo\n"+long+"\nno newline", "")
	require.Equal(t, "one\n\ntwo\n"+long+"\nno newline", read(t, dir, 0, containerlog.Options{}))
	lines, limit := int64(1), int64(3)
	require.Equal(t, "one", read(t, dir, 0, containerlog.Options{LimitBytes: &limit}))
	require.Equal(t, "no newline", read(t, dir, 0, containerlog.Options{TailLines: &lines}))
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\S+Z one\n`, read(t, dir, 0, containerlog.Options{Timestamps: true}))
	require.Empty(t, read(t, dir, 0, containerlog.Options{Since: time.Now().Add(time.Hour)}))
}

func TestStreamsCanBeReadApart(t *testing.T) {
	dir := t.TempDir()
	record(t, dir, 0, "out\n", "err\n")
	require.Equal(t, "out\n", read(t, dir, 0, containerlog.Options{Stream: "Stdout"}))
	require.Equal(t, "err\n", read(t, dir, 0, containerlog.Options{Stream: "Stderr"}))
	require.Len(t, read(t, dir, 0, containerlog.Options{Stream: "All"}), 8)
}

func TestTheLastTwoStartsAreKept(t *testing.T) {
	dir := t.TempDir()
	for start := range int32(4) {
		record(t, dir, start, fmt.Sprintf("start %d\n", start), "")
	}
	require.Equal(t, "start 3\n", read(t, dir, 3, containerlog.Options{}))
	require.Equal(t, "start 2\n", read(t, dir, 2, containerlog.Options{}))
	require.NoFileExists(t, containerlog.Path(dir, "main", 1))
	require.NoFileExists(t, containerlog.Path(dir, "main", 0))
}

func TestALogIsBounded(t *testing.T) {
	dir := t.TempDir()
	w, err := containerlog.Create(dir, "main", 0)
	require.NoError(t, err)
	pipe, err := w.Pipe("stdout")
	require.NoError(t, err)
	line := strings.Repeat("y", 8000) + "\n"
	for range 8000 { // 64 MB
		_, err := pipe.WriteString(line)
		require.NoError(t, err)
	}
	require.NoError(t, pipe.Close())
	require.NoError(t, w.Close())
	var total int64
	entries, err := os.ReadDir(filepath.Join(dir, "main"))
	require.NoError(t, err)
	for _, entry := range entries {
		info, err := entry.Info()
		require.NoError(t, err)
		total += info.Size()
	}
	require.LessOrEqual(t, total, int64(32<<20))
	require.GreaterOrEqual(t, total, int64(16<<20))
}

func TestTailIsShort(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "%d\n", i)
	}
	record(t, dir, 0, text.String()+strings.Repeat("z", 3000)+"\nlast\n", "")
	tail := containerlog.Tail(t.Context(), containerlog.Path(dir, "main", 0))
	require.Len(t, tail, 2048)
	require.True(t, strings.HasSuffix(tail, "z\nlast\n"))

	record(t, dir, 1, text.String(), "")
	require.Equal(t, 80, strings.Count(containerlog.Tail(t.Context(), containerlog.Path(dir, "main", 1)), "\n"))
}

func TestOutputOfASurvivorIsNotWaitedForForever(t *testing.T) {
	dir := t.TempDir()
	w, err := containerlog.Create(dir, "main", 0)
	require.NoError(t, err)
	pipe, err := w.Pipe("stdout")
	require.NoError(t, err)
	defer func() { _ = pipe.Close() }()
	_, err = pipe.WriteString("said\n")
	require.NoError(t, err)
	require.NoError(t, w.Close(), "although the pipe is still open")
	require.Equal(t, "said\n", read(t, dir, 0, containerlog.Options{}))
}
