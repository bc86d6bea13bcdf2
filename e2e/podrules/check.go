package podrules

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// limit bounds the time until the API tells what is expected. A back-off of ten seconds is part of it.
const limit = 2 * time.Minute

// Check runs the pods in the namespace, side by side, and compares what the API tells of them with what kubelet does. Shell is an
// image that gives its arguments to a shell.
func Check(t *testing.T, client kubernetes.Interface, namespace, shell string) {
	t.Helper()
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			r.check(ctx, t, client, namespace, shell)
		})
	}
}

func (r *rule) check(ctx context.Context, t *testing.T, client kubernetes.Interface, namespace, shell string) {
	t.Helper()
	pods := client.CoreV1().Pods(namespace)
	watcher, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + r.name})
	require.NoError(t, err)
	defer watcher.Stop()
	var pod corev1.Pod
	require.NoError(t, json.Unmarshal([]byte(strings.ReplaceAll(r.manifest, "SHELL", shell)), &pod), r.manifest)
	pod.Name = r.name
	_, err = pods.Create(ctx, &pod, metav1.CreateOptions{})
	require.NoError(t, err)
	var told []string
	for deleting := false; ; {
		select {
		case <-ctx.Done():
			require.Failf(t, "it is not told in time", "want %q, and last was told %q", r.want, told)
		case event, open := <-watcher.ResultChan():
			require.True(t, open, "the watch ends")
			seen, is := event.Object.(*corev1.Pod)
			require.True(t, is, "%v", event)
			if told = append(told, r.told(seen)); r.is(told) && !r.deleted {
				return
			}
			switch {
			case r.deleted && event.Type == watch.Deleted:
				require.Equal(t, r.want, r.told(seen))
				return
			case r.deleted && !deleting && readiness(seen) == "ready, restarts 0 and before it":
				deleting = true
				require.NoError(t, pods.Delete(ctx, r.name, metav1.DeleteOptions{}))
			}
		}
	}
}

// is reports whether what was told ends as wanted. Two parts of it come one after the other.
func (r *rule) is(told []string) bool {
	first, then, two := strings.Cut(r.want, ", then ")
	if !two {
		return told[len(told)-1] == r.want
	}
	for _, earlier := range told {
		if strings.HasPrefix(earlier, first) {
			return told[len(told)-1] == then
		}
	}
	return false
}

func mainOf(pod *corev1.Pod) corev1.ContainerStatus {
	if len(pod.Status.ContainerStatuses) == 0 {
		return corev1.ContainerStatus{}
	}
	return pod.Status.ContainerStatuses[0]
}

func ended(state *corev1.ContainerStateTerminated) string {
	if state == nil {
		return "nothing"
	}
	return strings.TrimSpace(fmt.Sprintf("%s %d", state.Reason, state.ExitCode))
}

func waitingOf(pod *corev1.Pod) string {
	waiting := mainOf(pod).State.Waiting
	if waiting == nil {
		return ""
	}
	return fmt.Sprintf("%s, phase %s", waiting.Reason, pod.Status.Phase)
}

func waitingWords(pod *corev1.Pod) string {
	waiting := mainOf(pod).State.Waiting
	if waiting == nil {
		return ""
	}
	return waiting.Reason + ": " + waiting.Message
}

func waitingAndLast(pod *corev1.Pod) string {
	status := mainOf(pod)
	last := status.LastTerminationState.Terminated
	if status.State.Waiting == nil || last == nil {
		return ""
	}
	words := ""
	if last.Reason != "StartError" && last.Message != "" { // Its message is the runtime's.
		words = " " + last.Message
	}
	return fmt.Sprintf("%s after %s%s, phase %s", status.State.Waiting.Reason, ended(last), words, pod.Status.Phase)
}

func endOf(pod *corev1.Pod) string {
	return fmt.Sprintf("%s: %s, restarts %d", pod.Status.Phase, ended(mainOf(pod).State.Terminated), mainOf(pod).RestartCount)
}

func phaseAndInit(pod *corev1.Pod) string {
	if len(pod.Status.InitContainerStatuses) == 0 {
		return ""
	}
	return fmt.Sprintf("%s, %s", pod.Status.Phase, ended(pod.Status.InitContainerStatuses[0].State.Terminated))
}

func lastOf(pod *corev1.Pod) string { return ended(mainOf(pod).State.Terminated) }

// readiness is told once the container runs.
func readiness(pod *corev1.Pod) string {
	if mainOf(pod).State.Running == nil {
		return "not running"
	}
	said := "not ready"
	for _, condition := range pod.Status.Conditions {
		switch {
		case condition.Type != corev1.PodReady:
		case condition.Status == corev1.ConditionTrue:
			said = "ready"
		default:
			said = "not ready: " + condition.Reason
		}
	}
	before := ""
	if restarts := make([]string, len(pod.Status.InitContainerStatuses)); len(restarts) > 0 {
		for i, status := range pod.Status.InitContainerStatuses {
			restarts[i] = strconv.Itoa(int(status.RestartCount))
		}
		before = " " + strings.Join(restarts, " ")
	}
	return fmt.Sprintf("%s, restarts %d and before it%s", said, mainOf(pod).RestartCount, before)
}

func restarted(pod *corev1.Pod) string {
	said, _, _ := strings.Cut(readiness(pod), ",")
	return fmt.Sprintf("%s, last %s, restarts %d", said, ended(mainOf(pod).LastTerminationState.Terminated), mainOf(pod).RestartCount)
}
