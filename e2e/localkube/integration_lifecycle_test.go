package localkube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/controlplane"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

func (f *fixture) status(t *testing.T) localkube.Status {
	t.Helper()
	var status localkube.Status
	require.NoError(t, json.Unmarshal([]byte(f.run(t, "status", "-o", "json")), &status))
	return status
}

// pid returns the process of a pod's first container, 0 when there is none.
func (f *fixture) pid(t *testing.T, namespace, name string) int {
	t.Helper()
	for _, pod := range f.status(t).Pods {
		if pod.Namespace == namespace && pod.Name == name {
			return pod.Containers[0].PID
		}
	}
	return 0
}

func TestRestartOfTheAgent(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	for _, name := range []string{"kept", "deleted"} {
		f.apply(t, namespace, shellPod(name, "sleep 1000 & exec sleep 1000"))
	}
	kept := f.pod(t, namespace, "kept", ready)
	f.pod(t, namespace, "deleted", ready)
	process, err := proc.Identify(f.pid(t, namespace, "kept"))
	require.NoError(t, err)

	s, err := f.dir.Load()
	require.NoError(t, err)
	require.NoError(t, s.Processes[controlplane.Agent].Signal(syscall.SIGKILL))
	eventually(t, "the end of the container with the agent", func() string { return unless(!process.Alive(), "it runs") })
	output, err := f.try(t, "status", "--dir", string(f.dir))
	require.Error(t, err)
	require.Contains(t, output, "node-agent: does not run; `cluster up` starts it again")
	now := int64(0)
	require.NoError(t, f.client.CoreV1().Pods(namespace).Delete(t.Context(), "deleted", metav1.DeleteOptions{GracePeriodSeconds: &now}))

	require.Contains(t, f.run(t, "up"), "is up but for node-agent")
	pod := f.pod(t, namespace, "kept", restarted(1))
	pod = f.pod(t, namespace, pod.Name, ready)
	require.Equal(t, kept.Status.PodIP, pod.Status.PodIP)
	require.Equal(t, "ContainerStatusUnknown", pod.Status.ContainerStatuses[0].LastTerminationState.Terminated.Reason)
	eventually(t, "the container's two processes, and none of its former run", func() string {
		found, err := proc.FindByEnv("LOCAL_POD_ADDRESS", loopbackOf(t, kept.Status.PodIP))
		require.NoError(t, err)
		return unless(len(found) == 2, fmt.Sprintf("%d processes", len(found)))
	})
	require.Zero(t, f.pid(t, namespace, "deleted"))
	require.Contains(t, f.run(t, "up"), "is running already")
}

func TestImageChangedInPlace(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, shellPod("changing", "exec sleep 1000"))
	f.pod(t, namespace, "changing", ready)
	f.kubectl(t, "set", "image", "-n", namespace, "pod/changing", "main=test/shell:2")
	pod := f.pod(t, namespace, "changing", restarted(1))
	require.Equal(t, "test/shell:2", pod.Status.ContainerStatuses[0].Image)
	f.event(t, namespace, "Killing", "definition changed")
}

func TestStatusNamesPodsAndTheirProcesses(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, shellPod("shown", "exec sleep 1000"))
	pod := f.pod(t, namespace, "shown", ready)
	status := f.status(t)
	require.True(t, status.Healthy)
	require.Len(t, status.Components, len(controlplane.Names()))
	eventually(t, "the pod in the status", func() string {
		for _, shown := range f.status(t).Pods {
			if shown.UID != pod.UID {
				continue
			}
			require.Equal(t, pod.Status.PodIP, shown.IP)
			require.Equal(t, loopbackOf(t, pod.Status.PodIP), shown.Address)
			require.Equal(t, corev1.PodRunning, shown.Phase)
			_, err := os.Stat("/proc/" + strconv.Itoa(shown.Containers[0].PID))
			return text(err)
		}
		return "it is not there"
	})
	require.Contains(t, f.run(t, "status"), "shown")
	_, err := f.try(t, "signal", "--dir", string(f.dir), namespace+"/nobody", "STOP")
	require.Error(t, err)
}

// Clients parse the version: without a number in it kubectl fails, and operators cannot tell what they may use.
func TestTheAPIServerTellsItsVersion(t *testing.T) {
	f := useCluster(t)
	told, err := f.client.Discovery().ServerVersion()
	require.NoError(t, err)
	require.Equal(t, "1", told.Major)
	require.Regexp(t, `^[0-9]+$`, told.Minor)
	require.Regexp(t, `^v1\.`+told.Minor+`\.[0-9]+$`, told.GitVersion)
	require.Contains(t, f.kubectl(t, "version"), "Server Version: "+told.GitVersion)
}

// TestASecondCluster runs a cluster beside the shared one. It is recovered after a simulated reboot, and leaves nothing.
func TestASecondCluster(t *testing.T) {
	first := useCluster(t)
	path := filepath.Join(shared.binDir, "two")
	f, err := start(t, path)
	require.NoError(t, err)
	t.Cleanup(func() {
		err := localkube.Down(context.Background(), localkube.DownOptions{Dir: path, Purge: true})
		require.True(t, err == nil || errors.Is(err, localkube.ErrNothingToStop), "%v", err)
	})
	one, err := first.dir.Load()
	require.NoError(t, err)
	two, err := f.dir.Load()
	require.NoError(t, err)
	require.NotEqual(t, one.Slot, two.Slot)
	require.Equal(t, string(f.dir)+"/admin.kubeconfig", f.run(t, "kubeconfig"))

	// What is left of a cluster after a reboot: its files, and no process.
	f.runSleeper(t)
	require.Positive(t, killAll(t, two))
	two.BootID = "an earlier one"
	require.NoError(t, f.dir.Save(two))
	output := f.run(t, "up", "--image", "test/shell*=/bin/sh -c")
	require.Contains(t, output, "the machine was restarted since")
	fresh, err := f.dir.Load()
	require.NoError(t, err)
	require.NotEqual(t, two.ID, fresh.ID)
	f.client, err = localkube.Client(f.dir)
	require.NoError(t, err)

	f.runSleeper(t)
	require.Contains(t, f.run(t, "down"), "its logs are kept")
	left, err := proc.FindByEnv(state.ClusterEnv, fresh.ID)
	require.NoError(t, err)
	require.Empty(t, left, "no process")
	for _, port := range []uint16{fresh.Ports.EtcdClient, fresh.Ports.APIServer, fresh.Ports.Kubelet, fresh.Ports.DNS, fresh.Ports.HTTPProxy} {
		_, err := net.DialTimeout("tcp", fresh.Endpoint(port), time.Second)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "no port")
	}
	require.NoFileExists(t, f.dir.StateFile())
	require.FileExists(t, f.dir.ComponentLog(controlplane.APIServer))
	output, err = f.try(t, "status", "--dir", path)
	require.Error(t, err)
	require.Contains(t, output, "no cluster is up in "+path)
	require.NotContains(t, output, "goroutine")
	f.run(t, "down", "--purge")
	require.NoDirExists(t, path)
	require.True(t, first.status(t).Healthy, "the other cluster is untouched")
}

// runSleeper runs a pod whose process stays.
func (f *fixture) runSleeper(t *testing.T) {
	t.Helper()
	f.apply(t, metav1.NamespaceDefault, shellPod("sleeper", "setsid sleep 1000 & exec sleep 1000"))
	f.pod(t, metav1.NamespaceDefault, "sleeper", ready)
}

// killAll ends all processes of a cluster as the end of the machine would.
func killAll(t *testing.T, s *state.State) int {
	t.Helper()
	killed, err := proc.KillByEnv(t.Context(), state.ClusterEnv, s.ID)
	require.NoError(t, err)
	return killed
}
