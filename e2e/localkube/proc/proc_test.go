package proc_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
)

const patience = 20 * time.Second

// listenVariable has the test's own program listen and end its first thread.
const listenVariable = "PROC_TEST_LISTEN"

func TestMain(m *testing.M) {
	if os.Getenv(listenVariable) != "" {
		listenWithoutLeader()
	}
	os.Exit(m.Run())
}

// listenWithoutLeader prints an address that it listens at and ends the first thread of the process. The others go on.
func listenWithoutLeader() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		os.Exit(1)
	}
	_, _ = fmt.Println(listener.Addr())
	for range 100 { // More than the runtime has threads, so that one gets the first.
		go func() {
			runtime.LockOSThread()
			if syscall.Gettid() == os.Getpid() {
				_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
			}
			select {}
		}()
	}
	_, _ = listener.Accept()
}

// A process whose first thread has ended looks like one that waits for its parent, while its other threads still hold its
// ports. On a busy machine that is so for a moment whenever a process is killed.
func TestProcessIsGoneWithItsLastThread(t *testing.T) {
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), listenVariable+"="+rand.Text())
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	address, err := bufio.NewReader(output).ReadString('\n')
	require.NoError(t, err)
	id, err := proc.Identify(command.Process.Pid)
	require.NoError(t, err)
	require.Eventually(t, func() bool { state, err := id.State(); return err == nil && state == "Z" }, patience, 5*time.Millisecond)
	require.True(t, id.Alive())

	require.NoError(t, id.Signal(syscall.SIGKILL))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, id.WaitGone(ctx))
	_, err = net.DialTimeout("tcp", strings.TrimSpace(address), patience)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// start runs a shell script that is killed at the end of the test at the latest.
func start(t *testing.T, script string, env ...string) (*exec.Cmd, proc.Identity) {
	t.Helper()
	command := exec.Command("/bin/sh", "-c", script)
	command.Env = append(os.Environ(), env...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	id, err := proc.Identify(command.Process.Pid)
	require.NoError(t, err)
	return command, id
}

func TestIdentityIsOfOneProcessOnly(t *testing.T) {
	command, id := start(t, "exec sleep 1000")
	require.True(t, id.Alive())
	require.NoError(t, id.Signal(syscall.SIGSTOP))
	require.Eventually(t, func() bool { state, err := id.State(); return err == nil && state == "T" }, patience, 5*time.Millisecond)

	other := proc.Identity{PID: id.PID, StartTicks: id.StartTicks + 1}
	require.False(t, other.Alive(), "the same pid at another time is another process")
	require.ErrorIs(t, other.Signal(syscall.SIGKILL), proc.ErrGone)
	require.True(t, id.Alive(), "which is not hit")

	require.NoError(t, id.Signal(syscall.SIGKILL))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, id.WaitGone(ctx), "a process that has ended but was not waited for is gone")
	require.Error(t, command.Wait())
	require.ErrorIs(t, id.Signal(syscall.SIGKILL), proc.ErrGone)
	_, err := proc.Identify(id.PID)
	require.ErrorIs(t, err, proc.ErrGone)
}

func TestZeroIdentityIsNobody(t *testing.T) {
	require.False(t, proc.Identity{}.Alive())
	require.ErrorIs(t, proc.Identity{}.Signal(syscall.SIGKILL), proc.ErrGone)
	require.ErrorIs(t, proc.Identity{}.SignalGroup(syscall.SIGKILL), proc.ErrGone, "group 0 would be our own")
	require.ErrorIs(t, proc.Identity{PID: 1}.SignalGroup(syscall.SIGKILL), proc.ErrGone, "group -1 would be everybody")
}

func TestKillByEnvFindsWhatLeftItsGroup(t *testing.T) {
	value := rand.Text()
	// The script leaves its children behind, one of them in a session of its own.
	parent, _ := start(t, "sleep 1000 & setsid sleep 1000 & echo; exit 0", "PROC_TEST="+value)
	_ = parent.Wait()
	_, innocent := start(t, "exec sleep 1000", "PROC_TEST="+value+"x")
	require.Eventually(t, func() bool {
		found, err := proc.FindByEnv("PROC_TEST", value)
		return err == nil && len(found) == 2
	}, patience, 5*time.Millisecond)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	killed, err := proc.KillByEnv(ctx, "PROC_TEST", value)
	require.NoError(t, err)
	require.Equal(t, 2, killed)
	require.True(t, innocent.Alive(), "a value that only begins alike is another one")
	killed, err = proc.KillByEnv(ctx, "PROC_TEST", value)
	require.NoError(t, err)
	require.Zero(t, killed)
}
