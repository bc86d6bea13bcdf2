package spawn_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/spawn"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
)

const patience = 20 * time.Second

// crashEnv makes the test binary start a container and then wait to be killed.
const crashEnv = "SPAWN_TEST_CRASH"

func TestMain(m *testing.M) {
	if file := os.Getenv(crashEnv); file != "" {
		crashHelper(file)
	}
	os.Exit(m.Run())
}

// crashHelper writes the pid of a container to the file.
func crashHelper(file string) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		os.Exit(3)
	}
	process, err := spawn.New().Start(spawn.Spec{
		ContainerID: rand.Text(), Args: []string{"/bin/sh", "-c", "exec sleep 1000"}, Stdout: null, Stderr: null,
	})
	if err != nil || os.WriteFile(file, []byte(strconv.Itoa(process.ID.PID)), 0o600) != nil {
		os.Exit(3)
	}
	select {}
}

func newSpawner(t *testing.T) *spawn.Spawner {
	t.Helper()
	s := spawn.New()
	t.Cleanup(s.Close)
	return s
}

func start(t *testing.T, s *spawn.Spawner, script string) *spawn.Process {
	t.Helper()
	out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	process, err := s.Start(spawn.Spec{
		ContainerID: rand.Text(), Args: []string{"/bin/sh", "-c", script}, Env: os.Environ(), Dir: t.TempDir(), Stdout: out, Stderr: out,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = process.SignalGroup(syscall.SIGKILL); <-process.Done() })
	return process
}

func await(t *testing.T, process *spawn.Process) spawn.Exit {
	t.Helper()
	select {
	case <-process.Done():
	case <-time.After(patience):
		require.Fail(t, "the process does not end")
	}
	return process.Exit()
}

func TestExit(t *testing.T) {
	s := newSpawner(t)
	require.Equal(t, 0, await(t, start(t, s, "exit 0")).Code)
	require.Equal(t, 3, await(t, start(t, s, "exit 3")).Code)
	killed := start(t, s, "exec sleep 1000")
	require.NoError(t, killed.Signal(syscall.SIGTERM))
	exit := await(t, killed)
	require.Equal(t, 143, exit.Code)
	require.Equal(t, syscall.SIGTERM, exit.Signal)
	require.ErrorIs(t, killed.SignalGroup(syscall.SIGKILL), proc.ErrGone)
	require.ErrorIs(t, killed.Signal(syscall.SIGKILL), proc.ErrGone)
}

func TestTheEndOfTheMainProcessEndsTheContainer(t *testing.T) {
	s := newSpawner(t)
	value := rand.Text()
	t.Setenv("SPAWN_TEST_MARK", value)
	process := start(t, s, "sleep 1000 & setsid sleep 1000 & while ! [ -e go ]; do sleep 0.01; done; exit 7")
	require.Eventually(t, func() bool {
		found, err := proc.FindByEnv("SPAWN_TEST_MARK", value)
		return err == nil && len(found) >= 3
	}, patience, 5*time.Millisecond)
	require.NoError(t, process.SignalGroup(syscall.SIGSTOP))
	require.NoError(t, process.SignalGroup(syscall.SIGCONT))
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", process.ID.PID))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	require.Equal(t, 7, await(t, process).Code)
	found, err := proc.FindByEnv("SPAWN_TEST_MARK", value)
	require.NoError(t, err)
	require.Empty(t, found, "neither its group nor what left the group")
}

func TestStartErrorsAreThoseOfTheSystem(t *testing.T) {
	s := newSpawner(t)
	out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = s.Start(spawn.Spec{Args: []string{"/no/such/program"}, Stdout: out, Stderr: out})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestRun(t *testing.T) {
	s := newSpawner(t)
	spec := func(script string) spawn.Spec {
		return spawn.Spec{ContainerID: rand.Text(), Args: []string{"/bin/sh", "-c", script}, Env: os.Environ()}
	}
	output, code, err := s.Run(t.Context(), spec("echo out; echo err >&2; exit 4"))
	require.NoError(t, err)
	require.Equal(t, 4, code)
	require.Equal(t, "out\nerr\n", output)

	output, _, err = s.Run(t.Context(), spec("yes | head -c 1000000"))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("y\n", 5<<10), output, "the output is cut")

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _, err = s.Run(ctx, spec("sleep 1000 & sleep 1000"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestContainersEndWithTheirAgent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), crashEnv+"="+file)
	require.NoError(t, agent.Start())
	var container proc.Identity
	require.Eventually(t, func() bool {
		raw, err := os.ReadFile(file)
		if err != nil || len(raw) == 0 {
			return false
		}
		pid, err := strconv.Atoi(string(raw))
		if err != nil {
			return false
		}
		container, err = proc.Identify(pid)
		return err == nil
	}, patience, 5*time.Millisecond)
	require.True(t, container.Alive())
	require.NoError(t, agent.Process.Kill())
	require.Error(t, agent.Wait())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, container.WaitGone(ctx))
}
