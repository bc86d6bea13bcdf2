// Package podstatus computes a pod's phase and conditions from its containers' statuses, as the kubelet does. It only
// computes: no clock, no network.
package podstatus

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Input is what a status is computed from.
type Input struct {
	// Pod gives the specification, the generation and, in its status, the conditions that others set: readiness gates.
	Pod *corev1.Pod
	// Init and Containers are the current container statuses in the order of the specification.
	Init, Containers []corev1.ContainerStatus
	// Previous are the conditions this package computed last, for the times of their transitions.
	Previous []corev1.PodCondition
	// Sandbox says that the pod has its address and volumes.
	Sandbox bool
	// Ended says that the pod has been stopped for good, because it was deleted.
	Ended bool
	// PodIP and HostIP are empty while unknown.
	PodIP, HostIP string
	// StartTime is when the node took the pod on.
	StartTime metav1.Time
	// Now is the time of transitions.
	Now metav1.Time
}

// Compute returns the status. Its conditions are those that belong to the node agent and no others.
func Compute(in Input) corev1.PodStatus {
	status := corev1.PodStatus{
		ObservedGeneration:    in.Pod.Generation,
		Phase:                 Phase(in),
		StartTime:             &in.StartTime,
		InitContainerStatuses: in.Init,
		ContainerStatuses:     in.Containers,
	}
	if in.HostIP != "" {
		status.HostIP, status.HostIPs = in.HostIP, []corev1.HostIP{{IP: in.HostIP}}
	}
	if in.PodIP != "" {
		status.PodIP, status.PodIPs = in.PodIP, []corev1.PodIP{{IP: in.PodIP}}
	}
	sandbox := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse}
	if in.Sandbox {
		sandbox.Status = corev1.ConditionTrue
	}
	containersReady := containersReadyCondition(in, status.Phase)
	for _, condition := range []corev1.PodCondition{
		sandbox, initializedCondition(in, status.Phase), containersReady, readyCondition(in, containersReady),
	} {
		status.Conditions = append(status.Conditions, withTimes(condition, in))
	}
	return status
}

func withTimes(condition corev1.PodCondition, in Input) corev1.PodCondition {
	condition.ObservedGeneration = in.Pod.Generation
	condition.LastTransitionTime = in.Now
	for i := range in.Previous {
		if in.Previous[i].Type == condition.Type && in.Previous[i].Status == condition.Status {
			condition.LastTransitionTime = in.Previous[i].LastTransitionTime
		}
	}
	return condition
}

// Phase computes the phase.
func Phase(in Input) corev1.PodPhase {
	// A pod that has ended stays so.
	if p := in.Pod.Status.Phase; p == corev1.PodSucceeded || p == corev1.PodFailed {
		return p
	}
	if in.Ended {
		return endedPhase(in)
	}
	never := in.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever
	for i := range in.Init {
		switch terminated := in.Init[i].State.Terminated; {
		case terminated == nil:
			return corev1.PodPending
		case terminated.ExitCode != 0 && never:
			return corev1.PodFailed
		case terminated.ExitCode != 0:
			return corev1.PodPending
		}
	}
	return mainPhase(in)
}

// endedPhase is that of a deleted pod whose containers are gone.
func endedPhase(in Input) corev1.PodPhase {
	for i := range in.Containers {
		terminated := in.Containers[i].State.Terminated
		if terminated == nil || terminated.ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}

func mainPhase(in Input) corev1.PodPhase {
	var waiting, running, stopped, succeeded int
	for i := range in.Containers {
		switch container := &in.Containers[i]; {
		case container.State.Running != nil:
			running++
		case container.State.Terminated != nil:
			stopped++
			if container.State.Terminated.ExitCode == 0 {
				succeeded++
			}
		case container.LastTerminationState.Terminated != nil:
			stopped++ // it waits to be started again
		default:
			waiting++
		}
	}
	switch {
	case waiting > 0:
		return corev1.PodPending
	case running > 0:
		return corev1.PodRunning
	case stopped == 0:
		return corev1.PodPending
	case in.Pod.Spec.RestartPolicy == corev1.RestartPolicyAlways:
		return corev1.PodRunning
	case stopped == succeeded:
		return corev1.PodSucceeded
	case in.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever:
		return corev1.PodFailed
	default:
		return corev1.PodRunning
	}
}

const (
	reasonPodCompleted             = "PodCompleted"
	reasonPodFailed                = "PodFailed"
	reasonContainersNotInitialized = "ContainersNotInitialized"
	reasonContainersNotReady       = "ContainersNotReady"
	reasonReadinessGatesNotReady   = "ReadinessGatesNotReady"
	messageIncomplete              = "containers with incomplete status: [%s]"
	messageUnready                 = "containers with unready status: [%s]"
	messageGateMissing             = "corresponding condition of pod readiness gate %q does not exist."
	messageGateFalse               = "the status of pod readiness gate %q is not \"True\", but %v"
)

func initializedCondition(in Input, phase corev1.PodPhase) corev1.PodCondition {
	condition := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	var incomplete []string
	for i := range in.Init {
		if terminated := in.Init[i].State.Terminated; terminated == nil || terminated.ExitCode != 0 {
			incomplete = append(incomplete, in.Init[i].Name)
		}
	}
	switch {
	case phase == corev1.PodSucceeded:
		condition.Reason = reasonPodCompleted
	case len(incomplete) > 0:
		condition.Status, condition.Reason = corev1.ConditionFalse, reasonContainersNotInitialized
		condition.Message = fmt.Sprintf(messageIncomplete, strings.Join(incomplete, " "))
	}
	return condition
}

func containersReadyCondition(in Input, phase corev1.PodPhase) corev1.PodCondition {
	condition := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}
	var unready []string
	for i := range in.Containers {
		if !in.Containers[i].Ready {
			unready = append(unready, in.Containers[i].Name)
		}
	}
	switch {
	case phase == corev1.PodSucceeded:
		condition.Reason = reasonPodCompleted
	case phase == corev1.PodFailed:
		condition.Reason = reasonPodFailed
	case len(unready) > 0:
		condition.Reason = reasonContainersNotReady
		condition.Message = fmt.Sprintf(messageUnready, strings.Join(unready, " "))
	default:
		condition.Status = corev1.ConditionTrue
	}
	return condition
}

// readyCondition is that of the containers and all readiness gates together.
func readyCondition(in Input, containersReady corev1.PodCondition) corev1.PodCondition {
	condition := containersReady
	condition.Type = corev1.PodReady
	if condition.Status != corev1.ConditionTrue {
		return condition
	}
	var messages []string
	for _, gate := range in.Pod.Spec.ReadinessGates {
		at := slices.IndexFunc(in.Pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == gate.ConditionType })
		switch {
		case at < 0:
			messages = append(messages, fmt.Sprintf(messageGateMissing, gate.ConditionType))
		case in.Pod.Status.Conditions[at].Status != corev1.ConditionTrue:
			messages = append(messages, fmt.Sprintf(messageGateFalse, gate.ConditionType, in.Pod.Status.Conditions[at].Status))
		}
	}
	if len(messages) > 0 {
		condition.Status, condition.Reason = corev1.ConditionFalse, reasonReadinessGatesNotReady
		condition.Message = strings.Join(messages, ", ")
	}
	return condition
}

// ShouldRestart says whether a container that ended with the code is started again.
func ShouldRestart(policy corev1.RestartPolicy, initContainer bool, exitCode int32) bool {
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	default:
		return !initContainer || exitCode != 0
	}
}
