package scenarios

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo"
)

// TestInstallUnderRestrictedPodSecurity installs the operator from its manifests. What Pod Security asks for on paper is what the
// processes really have.
func TestInstallUnderRestrictedPodSecurity(t *testing.T) {
	w := installed(t)
	_, err := w.Kubectl(t.Context(), "", "-n", operatorNamespace, "run", "unrestricted", "--image=busybox")
	require.ErrorContains(t, err, "violates PodSecurity", "admission is at work")

	operators := processes(t, "/emqx-bg-operator")
	require.Len(t, operators, 2)
	on := map[string]bool{}
	for _, pod := range w.pods(t, operatorNamespace, operatorSelector) {
		on[pod.Spec.NodeName] = true
	}
	require.Len(t, on, 2, "one on each node")
	for _, pid := range operators {
		is := status(t, pid)
		require.Equal(t, []string{"65532", "65532", "65532", "65532"}, strings.Fields(is["Uid"]))
		require.Equal(t, "0000000000000000", is["CapEff"], "no capability")
		require.Equal(t, "0000000000000000", is["CapBnd"])
		require.Equal(t, "1", is["NoNewPrivs"])
		require.Equal(t, "2", is["Seccomp"], "a filter")
		mounts, err := procfs.GetProcMounts(pid)
		require.NoError(t, err)
		root := slices.IndexFunc(mounts, func(mount *procfs.MountInfo) bool { return mount.MountPoint == "/" })
		require.GreaterOrEqual(t, root, 0)
		require.Contains(t, mounts[root].Options, "ro", "nothing can be written")
	}
}

// processes finds processes of containers by their program. The box sees those of its nodes.
func processes(t *testing.T, program string) []int {
	t.Helper()
	all, err := procfs.AllProcs()
	require.NoError(t, err)
	var found []int
	for _, process := range all {
		line, err := process.CmdLine()
		if err == nil && len(line) > 0 && line[0] == program {
			found = append(found, process.PID)
		}
	}
	return found
}

// status is /proc/PID/status by name.
func status(t *testing.T, pid int) map[string]string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	values := map[string]string{}
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(line, ":")
		values[key] = strings.TrimSpace(value)
	}
	return values
}

// TestUpgrade moves 3,000 clients, with the sample as it stands in the manifests but for its licence, through kube-proxy.
func TestUpgrade(t *testing.T) {
	w := installed(t)
	figures, err := demo.Run(t.Context(), demo.Config{
		Dir: string(w.Dir), ClusterBinary: w.State.ClusterBinary, Manifests: "../../../manifests", Running: true,
		Patch: `{"spec":{"image":"emqx/emqx:6.0.2"}}`, Out: t.Output(),
	})
	require.NoError(t, err)
	t.Logf("%.1f s from the change to Ready, floor %.1f s (%+v)", figures.Seconds(), figures.Floor.Total(), figures.Floor)
	for _, check := range figures.Checks {
		t.Logf("  %-34s %-40s %s", check.Name, check.Value, check.Limit)
	}
	// How long it takes depends on the machine, and is told.
	failed := slices.DeleteFunc(figures.Failed(), func(name string) bool { return name == "time from patch to Ready" })
	require.Empty(t, failed)
}

// processesOfPod finds the processes of a pod by their cgroup, which has the pod's UID in its name.
func processesOfPod(t *testing.T, uid string) []int {
	t.Helper()
	all, err := procfs.AllProcs()
	require.NoError(t, err)
	var found []int
	for _, process := range all {
		groups, err := process.Cgroups()
		if err == nil && slices.ContainsFunc(groups, func(group procfs.Cgroup) bool { return strings.Contains(group.Path, "pod"+uid) }) {
			found = append(found, process.PID)
		}
	}
	return found
}
