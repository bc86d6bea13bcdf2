package localkube_test

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// shellPod is a pod NAME whose container runs a script.
func shellPod(name, script string, more ...string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `"},"spec":{"terminationGracePeriodSeconds":1,` +
		`"containers":[{"name":"main","image":"test/shell:1","args":["` + script + `"]` + strings.Join(more, "") + `}]}}`
}

func TestCrashBackOffKeepsTheLastWords(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, shellPod("crash", "echo first words; echo last words; exit 3", `,"terminationMessagePolicy":"FallbackToLogsOnError"`))
	pod := f.pod(t, namespace, "crash", waits("CrashLoopBackOff"))
	require.Equal(t, corev1.PodRunning, pod.Status.Phase)
	status := pod.Status.ContainerStatuses[0]
	require.Contains(t, status.State.Waiting.Message, "back-off 10s restarting failed container=main pod=crash_"+namespace)
	require.Equal(t, int32(1), status.RestartCount, "the first restart comes at once, the second after the back-off")
	last := status.LastTerminationState.Terminated
	require.Equal(t, "Error", last.Reason)
	require.Equal(t, int32(3), last.ExitCode)
	require.Equal(t, "first words\nlast words\n", last.Message)
	require.False(t, last.FinishedAt.IsZero())
	require.Equal(t, "first words\nlast words", f.kubectl(t, "logs", "-n", namespace, "crash", "--previous"))
	f.event(t, namespace, "BackOff", "Back-off restarting failed container main")

	f.apply(t, namespace, shellPod("file", "echo -n the file > dev/termination-log; exit 1"))
	pod = f.pod(t, namespace, "file", waits("CrashLoopBackOff"))
	require.Equal(t, "the file", pod.Status.ContainerStatuses[0].LastTerminationState.Terminated.Message)
}

func TestRestartPolicies(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, strings.Replace(shellPod("never", "kill -9 $$$$"), `"spec":{`, `"spec":{"restartPolicy":"Never",`, 1))
	f.apply(t, namespace, strings.Replace(shellPod("once", "exit 0"), `"spec":{`, `"spec":{"restartPolicy":"OnFailure",`, 1))
	pod := f.pod(t, namespace, "never", func(pod *corev1.Pod) string { return unless(pod.Status.Phase == corev1.PodFailed, "not failed") })
	terminated := pod.Status.ContainerStatuses[0].State.Terminated
	require.Equal(t, int32(137), terminated.ExitCode)
	require.Equal(t, int32(9), terminated.Signal)
	pod = f.pod(t, namespace, "once", func(pod *corev1.Pod) string {
		return unless(pod.Status.Phase == corev1.PodSucceeded, "not succeeded")
	})
	require.Equal(t, "Completed", pod.Status.ContainerStatuses[0].State.Terminated.Reason)
	require.Zero(t, pod.Status.ContainerStatuses[0].RestartCount)
}

func unless(ok bool, why string) string {
	if ok {
		return ""
	}
	return why
}

func TestInitContainersRunInOrderBeforeTheOthers(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"ordered"},"spec":{"terminationGracePeriodSeconds":1,
		"volumes":[{"name":"data","emptyDir":{}}],
		"initContainers":[
			{"name":"one","image":"test/shell:1","args":["sleep 0.2; echo one >> data/order"],"volumeMounts":[{"name":"data","mountPath":"/data"}]},
			{"name":"two","image":"test/shell:1","args":["test -e data/failed || { touch data/failed; exit 1; }; echo two >> data/order"],
				"volumeMounts":[{"name":"data","mountPath":"/data"}]}],
		"containers":[{"name":"main","image":"test/shell:1","args":["cat $LOCAL_POD_ROOT/data/order; exec sleep 1000"],
			"volumeMounts":[{"name":"data","mountPath":"/data"}]}]}}`)
	pod := f.pod(t, namespace, "ordered", ready)
	require.Equal(t, int32(1), pod.Status.InitContainerStatuses[1].RestartCount, "an init container that fails is tried again")
	eventually(t, "the order", func() string {
		order := f.kubectl(t, "logs", "-n", namespace, "ordered", "-c", "main")
		return unless(order == "one\ntwo", "it is "+order)
	})
}

func TestImagesThatCannotBeRun(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, strings.ReplaceAll(shellPod("unknown", ""), "test/shell:1", "nobody/knows:1"))
	pod := f.pod(t, namespace, "unknown", waits("ErrImagePull"))
	require.Contains(t, pod.Status.ContainerStatuses[0].State.Waiting.Message, `no row for image "nobody/knows:1"`)
	pod = f.pod(t, namespace, "unknown", waits("ImagePullBackOff"))
	require.Equal(t, corev1.PodPending, pod.Status.Phase)
	require.Contains(t, pod.Status.ContainerStatuses[0].State.Waiting.Message, `Back-off pulling image "nobody/knows:1"`)
	f.event(t, namespace, "Failed", "Error: ImagePullBackOff")

	// A row may be added to a running cluster; its program must be there.
	missing := filepath.Join(t.TempDir(), "program")
	f.run(t, "up", "--image", "late/comer*="+missing)
	f.apply(t, namespace, strings.ReplaceAll(shellPod("missing", "sleep 1000"), "test/shell:1", "late/comer:1"))
	pod = f.pod(t, namespace, "missing", waits("ImagePullBackOff"))
	require.Contains(t, pod.Status.ContainerStatuses[0].State.Waiting.Message, missing)
	require.NoError(t, os.WriteFile(missing, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700))
	f.pod(t, namespace, "missing", ready)

	f.apply(t, namespace, strings.Replace(shellPod("command", ""), `"args"`, `"command":["no-such-program"],"args"`, 1))
	pod = f.pod(t, namespace, "command", waits("CrashLoopBackOff"))
	require.Equal(t, "StartError", pod.Status.ContainerStatuses[0].LastTerminationState.Terminated.Reason)
}

func TestSecretsAndConfigMapsMayComeLater(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, shellPod("env", "echo $KEY; exec sleep 1000",
		`,"env":[{"name":"KEY","valueFrom":{"secretKeyRef":{"name":"late","key":"key"}}}]`))
	f.apply(t, namespace, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"mount"},"spec":{"terminationGracePeriodSeconds":1,
		"volumes":[{"name":"v","configMap":{"name":"late"}}],
		"containers":[{"name":"main","image":"test/server:1","volumeMounts":[{"name":"v","mountPath":"/conf"}]}]}}`)
	pod := f.pod(t, namespace, "env", waits("CreateContainerConfigError"))
	require.Equal(t, `secret "late" not found`, pod.Status.ContainerStatuses[0].State.Waiting.Message)
	f.event(t, namespace, "FailedMount", `configmap "late" not found`)

	f.kubectl(t, "create", "secret", "generic", "late", "-n", namespace, "--from-literal=key=secret value")
	f.kubectl(t, "create", "configmap", "late", "-n", namespace, "--from-literal=key=1")
	f.pod(t, namespace, "env", ready)
	eventually(t, "the Secret's value", func() string {
		logs := f.kubectl(t, "logs", "-n", namespace, "env")
		return unless(logs == "secret value", "the pod prints "+logs)
	})
	pod = f.pod(t, namespace, "mount", ready)
	require.Equal(t, "1", f.get(t, pod, "/file?path=conf/key"))
	f.kubectl(t, "patch", "configmap", "late", "-n", namespace, "-p", `{"data":{"key":"2"}}`)
	eventually(t, "the new value", func() string {
		value := f.get(t, pod, "/file?path=conf/key")
		return unless(value == "2", "it is "+value)
	})
}

func TestReadinessGateOfAnother(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, strings.Replace(shellPod("gated", "exec sleep 1000"), `"spec":{`,
		`"spec":{"readinessGates":[{"conditionType":"example.com/serving"}],`, 1))
	f.pod(t, namespace, "gated", func(pod *corev1.Pod) string {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Reason == "ReadinessGatesNotReady" {
				return unless(strings.Contains(condition.Message, "example.com/serving"), condition.Message)
			}
		}
		return "its gate does not keep it from being ready"
	})
	set := func(status string) {
		_, err := f.client.CoreV1().Pods(namespace).Patch(t.Context(), "gated", types.StrategicMergePatchType,
			[]byte(`{"status":{"conditions":[{"type":"example.com/serving","status":"`+status+`"}]}}`), metav1.PatchOptions{}, "status")
		require.NoError(t, err)
	}
	set("True")
	f.pod(t, namespace, "gated", ready)
	// A change of the pod's own status leaves the condition alone.
	f.run(t, "signal", namespace+"/gated", "KILL")
	pod := f.pod(t, namespace, "gated", restarted(1))
	pod = f.pod(t, namespace, pod.Name, ready)
	set("False")
	f.pod(t, namespace, pod.Name, unready)
}

func TestProbes(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"probed"},"spec":{"terminationGracePeriodSeconds":5,
		"containers":[{"name":"main","image":"test/server:1","ports":[{"name":"http","containerPort":8080}],
			"startupProbe":{"exec":{"command":["sh","-c","test -e started"]},"periodSeconds":1,"failureThreshold":1000},
			"readinessProbe":{"httpGet":{"path":"/readyz","port":"http"},"periodSeconds":1,"failureThreshold":1},
			"livenessProbe":{"httpGet":{"path":"/livez","port":8080},"periodSeconds":1,"failureThreshold":2}}]}}`)
	f.event(t, namespace, "Unhealthy", "Startup probe failed")
	pod := f.pod(t, namespace, "probed", func(pod *corev1.Pod) string { return unless(pod.Status.PodIP != "", "it has no address") })
	require.False(t, isReady(pod), "readiness waits for startup")
	require.False(t, *pod.Status.ContainerStatuses[0].Started)
	root := filepath.Join(f.dir.Pods(), string(pod.UID), "containers", "main", "root")
	require.NoError(t, os.WriteFile(filepath.Join(root, "started"), nil, 0o600))
	f.pod(t, namespace, "probed", ready)

	f.post(t, pod, "/unready")
	f.pod(t, namespace, "probed", unready)
	f.event(t, namespace, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
	f.post(t, pod, "/ready")
	f.pod(t, namespace, "probed", ready)

	f.post(t, pod, "/die")
	pod = f.pod(t, namespace, "probed", restarted(1))
	f.event(t, namespace, "Killing", "Container main failed liveness probe, will be restarted")
	require.Equal(t, int32(0), pod.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode, "it was asked to stop first")
}

func TestDeletionHonoursPreStopAndGrace(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	mark := filepath.Join(t.TempDir(), "mark")
	f.apply(t, namespace, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"graceful"},"spec":{"terminationGracePeriodSeconds":30,
		"containers":[{"name":"main","image":"test/shell:1","args":["trap 'echo term >> `+mark+`; exit 5' TERM; while :; do sleep 0.05; done"],
			"lifecycle":{"postStart":{"exec":{"command":["sh","-c","echo start >> `+mark+`"]}},
				"preStop":{"exec":{"command":["sh","-c","sleep 0.3; echo pre >> `+mark+`"]}}}}]}}`)
	f.apply(t, namespace, strings.Replace(shellPod("stubborn", "trap '' TERM; while :; do sleep 0.05; done"),
		`"terminationGracePeriodSeconds":1`, `"terminationGracePeriodSeconds":2`, 1))
	f.pod(t, namespace, "graceful", ready)
	f.pod(t, namespace, "stubborn", ready)

	require.Equal(t, int32(5), f.deleteAndSeeExit(t, namespace, "graceful"))
	content, err := os.ReadFile(mark)
	require.NoError(t, err)
	require.Equal(t, "start\npre\nterm\n", string(content))

	begun := time.Now()
	require.Equal(t, int32(137), f.deleteAndSeeExit(t, namespace, "stubborn"))
	require.GreaterOrEqual(t, time.Since(begun), 2*time.Second, "it had its grace")
}

// deleteAndSeeExit deletes a pod, waits for its end and returns the exit code that its last status showed.
func (f *fixture) deleteAndSeeExit(t *testing.T, namespace, name string) int32 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	pods := f.client.CoreV1().Pods(namespace)
	watcher, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	require.NoError(t, err)
	defer watcher.Stop()
	require.NoError(t, pods.Delete(ctx, name, metav1.DeleteOptions{}))
	for event := range watcher.ResultChan() {
		if event.Type != watch.Deleted {
			continue
		}
		terminated := event.Object.(*corev1.Pod).Status.ContainerStatuses[0].State.Terminated
		require.NotNil(t, terminated, "the object outlives the process")
		return terminated.ExitCode
	}
	require.Fail(t, "the pod was not deleted")
	return 0
}

func TestLogs(t *testing.T) {
	f := useCluster(t)
	namespace := f.namespace(t)
	f.apply(t, namespace, strings.ReplaceAll(shellPod("talker", "an argument"), "test/shell", "test/server"))
	pod := f.pod(t, namespace, "talker", ready)
	eventually(t, "the server", func() string {
		_, err := f.fetch(t, pod, http.MethodGet, "/name")
		return text(err)
	})
	seconds := int64(1000)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := f.client.CoreV1().Pods(namespace).GetLogs("talker", &corev1.PodLogOptions{Follow: true, SinceSeconds: &seconds}).Stream(ctx)
	require.NoError(t, err)
	defer func() { _ = stream.Close() }()
	lines := bufio.NewScanner(stream)
	require.True(t, lines.Scan())
	require.Equal(t, "serving at "+loopbackOf(t, pod.Status.PodIP)+":8080 [an argument]", lines.Text())
	f.post(t, pod, "/say?text=followed")
	require.True(t, lines.Scan(), "following sees new lines")
	require.Equal(t, "followed", lines.Text())
	require.Equal(t, "followed", f.kubectl(t, "logs", "-n", namespace, "talker", "--tail=1"))
	require.Regexp(t, `^20\S+Z followed$`, f.kubectl(t, "logs", "-n", namespace, "talker", "--tail=1", "--timestamps"))

	f.kubectl(t, "delete", "pod", "-n", namespace, "talker")
	require.True(t, lines.Scan())
	require.Equal(t, "asked to stop", lines.Text())
	require.False(t, lines.Scan(), "and ends with the container")
	require.Contains(t, f.run(t, "logs", namespace+"/talker"), "asked to stop", "logs outlive the pod")
}
