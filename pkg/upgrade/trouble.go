package upgrade

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// trouble is why a pod's containers do not run, in Kubernetes' words and, after a crash, in the last words of the
// container; empty when there is nothing to say.
func trouble(pod *corev1.Pod) string {
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if words := containerTrouble(status); words != "" {
			return "container " + status.Name + ": " + words
		}
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return condition.Reason + ": " + condition.Message
		}
	}
	return ""
}

// saysOneNode reports whether EMQX ended in a pod with the words for a licence that allows one node (emqx_license.erl).
func saysOneNode(pod *corev1.Pod) bool {
	for _, status := range pod.Status.ContainerStatuses {
		for _, state := range []corev1.ContainerState{status.State, status.LastTerminationState} {
			if status.Name == resources.EMQXContainer && state.Terminated != nil && strings.Contains(state.Terminated.Message, "SINGLE_NODE_LICENSE") {
				return true
			}
		}
	}
	return false
}

func containerTrouble(status corev1.ContainerStatus) string {
	waiting, ended := status.State.Waiting, status.State.Terminated
	var words []string
	if waiting != nil && waiting.Reason != "ContainerCreating" && waiting.Reason != "PodInitializing" {
		words = append(words, waiting.Reason, waiting.Message)
	}
	if waiting != nil && ended == nil {
		ended = status.LastTerminationState.Terminated
	}
	if ended != nil && ended.ExitCode != 0 {
		words = append(words, fmt.Sprintf("exit code %d", ended.ExitCode), lastLine(ended.Message))
	}
	return strings.Join(slices.DeleteFunc(words, func(word string) bool { return word == "" }), ": ")
}

const maxLastLine = 300

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	return line[:min(len(line), maxLastLine)]
}
