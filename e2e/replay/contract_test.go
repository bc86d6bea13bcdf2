package replay_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/command"
)

const (
	// standInVariable makes this test binary a stand-in node instead.
	standInVariable = "REPLAY_STANDIN_NODE"
	recordings      = "testdata/emqx-5.8.9"
	// scale makes the timeouts of frozen nodes bearable: 30 s are 3.
	scale = 0.1
)

func TestMain(m *testing.M) {
	if os.Getenv(standInVariable) == "" {
		flag.Parse()
		if err := flag.Set("test.parallel", "4"); err != nil { // they wait most of the time
			panic(err)
		}
		os.Exit(m.Run())
	}
	os.Exit(runStandIn())
}

func runStandIn() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := command.New().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// freeNetwork finds three addresses whose ports nobody uses.
func freeNetwork(t *testing.T) []string {
	t.Helper()
	for range 50 {
		network := fmt.Sprintf("127.%d.%d", 20+rand.IntN(70), 1+rand.IntN(250))
		ln, err := net.Listen("tcp", network+".11:18083")
		if err == nil {
			require.NoError(t, ln.Close())
			return []string{network + ".11", network + ".12", network + ".13"}
		}
	}
	t.Fatal("no free loopback network")
	return nil
}

// testLog writes lines to a test's log while the test runs.
type testLog struct {
	t    *testing.T
	mu   sync.Mutex
	over bool
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.t.Log(strings.TrimRight(string(p), "\n"))
	}
	return len(p), nil
}

func (l *testLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

// The stand-in answers everything that was recorded of a real EMQX 5.8.9 as it did. Each part of the scenario has
// nodes of its own.
func TestStandInAnswersAsRecorded(t *testing.T) {
	covered := sync.Map{}
	t.Run("groups", func(t *testing.T) {
		for _, part := range replay.Groups() {
			t.Run(part, func(t *testing.T) {
				t.Parallel()
				for _, result := range replayGroup(t, part) {
					covered.Store(result.File, result.Status)
					if result.Status == replay.Differs {
						t.Errorf("%s: %s", result.File, result.Detail)
					}
				}
			})
		}
	})
	compared, skipped := 0, 0
	for _, name := range names(t) {
		status, ok := covered.Load(name)
		switch {
		case !ok:
			reason := replay.SkipReason(name)
			require.NotEmpty(t, reason, "recording %s belongs to no part of the scenario", name)
			t.Logf("skipped %s: %s", name, reason)
			skipped++
		case status == replay.Skipped:
			skipped++
		default:
			compared++
		}
	}
	t.Logf("%d recordings compared, %d skipped", compared, skipped)
}

// names lists the recordings.
func names(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(recordings, "*.json"))
	require.NoError(t, err)
	for i, file := range files {
		files[i] = strings.TrimSuffix(filepath.Base(file), ".json")
	}
	return files
}

// Every recording can be replayed by itself: `go test ./replay -run TestContract/552` makes the situation that it needs and
// compares nothing else. Without a name only some are, one of each kind; all are compared above.
func TestContract(t *testing.T) {
	named := strings.Contains(flag.Lookup("test.run").Value.String(), "TestContract/")
	for _, name := range names(t) {
		t.Run(name, func(t *testing.T) {
			if !named && !slices.Contains(someOfAll(), name[:3]) {
				t.Skip("compared with all others in TestStandInAnswersAsRecorded; name it to replay it by itself")
			}
			if reason := replay.SkipReason(name); reason != "" {
				t.Skip(reason)
			}
			t.Parallel()
			results := replayGroup(t, name)
			require.Len(t, results, 1, "nothing else is compared")
			require.Equal(t, name, results[0].File)
			require.Equal(t, replay.OK, results[0].Status, results[0].Detail)
		})
	}
}

// someOfAll is an exchange in the middle of changes, one that needs a stopped node, one with a frozen one, one of a
// listener, and a timeline.
func someOfAll() []string { return []string{"483", "508", "590", "568", "502", "000"} }

// A directory may hold a few recordings only: the others are done from those that the project keeps.
func TestDirectoryOfOne(t *testing.T) {
	dir := t.TempDir()
	data, err := os.ReadFile(filepath.Join(recordings, "568-listener-tcp-option-with-bind.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "568-alone.json"), data, 0o600))
	require.Equal(t, []replay.Result{{File: "568-alone", Status: replay.OK}}, replayFrom(t, dir, ""))
}

func replayGroup(t *testing.T, part string) []replay.Result {
	t.Helper()
	return replayFrom(t, recordings, part)
}

func replayFrom(t *testing.T, dir, part string) []replay.Result {
	t.Helper()
	addresses := freeNetwork(t)
	log := &testLog{t: t}
	defer log.end()
	extra := []string{"--timeout-scale", fmt.Sprint(scale), "--join-retry-seconds", "1", "--log-level", "warn"}
	makeCommand := replay.StandIn(addresses, extra, os.Args[0])
	nodes := &replay.Processes{Dir: t.TempDir(), Log: log, Command: replay.WithEnvironment(makeCommand, standInVariable+"=1")}
	defer func() { require.NoError(t, nodes.Close()) }()
	runner, err := replay.New(replay.Config{
		Dir: dir, Recorded: replay.RecordedAddresses(), Targets: addresses, Control: nodes, Scale: scale, Only: part, Out: io.Discard,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	results, err := runner.Run(ctx)
	if err != nil {
		require.ErrorIs(t, err, replay.ErrDiffers)
	}
	return results
}
