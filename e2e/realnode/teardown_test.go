package realnode_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode/box"
)

const (
	// upLimit bounds a cluster's start with a pod, goneLimit its end.
	upLimit, goneLimit = 4 * time.Minute, 40 * time.Second
	poll               = 20 * time.Millisecond
	// aPod is run in each cluster: it has mounts, an address and cgroups.
	aPod = `kube kubectl run one --image=` + realnode.BusyboxImage + ` --restart=Never -- 'exec sleep 1000' &&
kube kubectl wait --for=condition=Ready pod/one --timeout=120s && `
)

func itoa(number int) string { return strconv.Itoa(number) }

// binary is the program `cluster`.
func binary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: a cluster is started only without -short")
	}
	path, err := filepath.Abs("../../bin/cluster")
	require.NoError(t, err)
	if lacking := realnode.Lacking(filepath.Dir(path)); len(lacking) > 0 {
		t.Skipf("SKIPPED: real nodes need what this machine lacks: %s", strings.Join(lacking, ", "))
	}
	return path
}

// entered is a cluster with one node and a pod, started from outside.
type entered struct {
	command *exec.Cmd
	input   io.Closer
	id      proc.Identity
	cgroup  string
	keeper  proc.Identity
	crowd   crowd
	before  traces
	dir     string
}

// enter starts a cluster that runs the script once its pod is ready. The script says "up" when it has got so far.
func enter(t *testing.T, script string) *entered {
	t.Helper()
	program := binary(t)
	e := &entered{dir: filepath.Join(t.TempDir(), "cluster"), before: look(t)}
	e.command = exec.CommandContext(t.Context(), program, "nodes", "--nodes", "1", "--dir", e.dir, "--", "sh", "-c", aPod+script)
	output, err := e.command.StdoutPipe()
	require.NoError(t, err)
	e.input, err = e.command.StdinPipe()
	require.NoError(t, err)
	e.command.Stderr = t.Output()
	require.NoError(t, e.command.Start())
	t.Cleanup(func() { _ = e.command.Process.Kill() })
	e.id, err = proc.Identify(e.command.Process.Pid)
	require.NoError(t, err)
	e.cgroup = clusterCgroup + itoa(e.id.PID) + "-" + strconv.FormatUint(e.id.StartTicks, 10)
	up := make(chan bool, 1)
	go func() {
		defer close(up)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			if lines.Text() == "up" {
				up <- true
			}
		}
		_, _ = io.Copy(io.Discard, output)
	}()
	select {
	case is := <-up:
		require.True(t, is, "it ended before its pod was ready")
	case <-time.After(upLimit):
		t.Fatalf("its pod was not ready within %s", upLimit)
	}
	e.crowd = crowdOf(t, e.cgroup)
	require.Greater(t, len(e.crowd.ids), 10, "control plane, node and pod run, and are found")
	require.NotEmpty(t, e.changed(t), "cgroups are there, and are found")
	e.keeper = e.findKeeper(t)
	return e
}

func (e *entered) findKeeper(t *testing.T) proc.Identity {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", e.id.PID))
	require.NoError(t, err)
	var children []byte
	for _, thread := range threads {
		more, err := os.ReadFile(thread)
		require.NoError(t, err)
		children = append(append(children, ' '), more...)
	}
	for _, field := range strings.Fields(string(children)) {
		line, err := os.ReadFile("/proc/" + field + "/cmdline")
		require.NoError(t, err)
		if strings.Contains(string(line), realnode.KeepCommand) {
			pid, err := strconv.Atoi(field)
			require.NoError(t, err)
			id, err := proc.Identify(pid)
			require.NoError(t, err)
			return id
		}
	}
	t.Fatal("the keeper is not found")
	return proc.Identity{}
}

// changed is what is there and was not before, or is not any more, but for the cgroups of clusters that other tests run meanwhile.
func (e *entered) changed(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(look(t).since(e.before), func(trace string) bool {
		return strings.HasPrefix(trace, "cgroup ") && strings.Contains(trace, clusterCgroup) &&
			!strings.Contains(trace, e.cgroup) && !strings.Contains(trace, clusterCgroup+itoa(os.Getpid())+"-")
	})
}

// clusterCgroup begins the name of the cgroup of a cluster; the ID of its process follows.
const clusterCgroup = "emqx-bg-nodes-"

// nothingLeft waits until no process is left, and then wants everything to be as before, within a moment.
func (e *entered) nothingLeft(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return len(e.crowd.left(t)) == 0 && !e.keeper.Alive() && !e.id.Alive() }, goneLimit, poll, "all processes end")
	require.Empty(t, e.changed(t), "and nothing is left")
	entries, err := os.ReadDir(e.dir)
	require.NoError(t, err)
	for _, entry := range entries {
		require.True(t, entry.Name() == "logs" || strings.HasPrefix(entry.Name(), "audit"), "only logs are kept, and not %s", entry.Name())
	}
}

func (e *entered) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, e.command.Process.Kill())
	_ = e.command.Wait() // It was killed.
}

func TestNothingIsLeftOfAClusterThatEnds(t *testing.T) {
	e := enter(t, "echo up; read line; exit 7")
	require.NoError(t, e.input.Close())
	err := e.command.Wait()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 7, exit.ExitCode(), "the code of the program that ran beside it")
	e.nothingLeft(t)
}

// TestNothingIsLeftAfterAKill kills the cluster's process while its node is frozen, and frozen processes do not die.
func TestNothingIsLeftAfterAKill(t *testing.T) {
	e := enter(t, "echo FROZEN > /sys/fs/cgroup/freezer/node-1/freezer.state && echo up && exec sleep 1000")
	e.kill(t)
	e.nothingLeft(t)
}

// TestNothingIsLeftAfterAnInterrupt interrupts it as a terminal does.
func TestNothingIsLeftAfterAnInterrupt(t *testing.T) {
	e := enter(t, "echo up && exec sleep 1000")
	require.NoError(t, e.command.Process.Signal(syscall.SIGTERM))
	require.Error(t, e.command.Wait())
	e.nothingLeft(t)
}

// TestNextClusterSweeps kills the keeper, too: the cgroups that stay are removed by the next cluster.
func TestNextClusterSweeps(t *testing.T) {
	e := enter(t, "echo up && exec sleep 1000")
	require.NoError(t, e.keeper.Signal(syscall.SIGKILL))
	e.kill(t)
	require.Eventually(t, func() bool { return len(e.crowd.left(t)) == 0 }, goneLimit, poll, "the kernel ends all processes")
	left := e.changed(t)
	require.NotEmpty(t, left)
	for _, trace := range left {
		require.True(t, strings.HasPrefix(trace, "cgroup "), "nothing but cgroups is left, and not %s", trace)
	}
	code, err := realnode.Enter(t.Context(), realnode.Outside{
		Helper: binary(t), Dir: filepath.Join(t.TempDir(), "next"), Command: []string{"true"}, Streams: box.Streams{Out: t.Output(), Err: t.Output()},
	})
	require.NoError(t, err)
	require.Zero(t, code)
	require.Empty(t, e.changed(t))
}
