package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podstatus"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/probing"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/spawn"
)

// container is what a worker knows of one container. It belongs to the worker's goroutine.
type container struct {
	spec *corev1.Container
	init bool

	// run is the running process; nil when none runs.
	run *running
	// launching is set while a start is under way, and cancels it.
	launching context.CancelFunc
	// waiting says why it does not run, when that is known.
	waiting *corev1.ContainerStateWaiting
	// terminated is how its last run ended, previous the run before.
	terminated, previous *corev1.ContainerStateTerminated
	// ended is when its last run ended, with full precision.
	ended time.Time
	// restarts counts starts after the first.
	restarts int32
	// launched is set once it was started.
	launched bool
	// image is the row of the image table that it was last started by.
	image string
	// retryAt is when a start that failed before there was a process is tried again; zero for at once.
	retryAt time.Time
	// failedAt is when that start failed.
	failedAt time.Time
	// imageFailure is the reason why the image cannot be run; empty when it can.
	imageFailure string
}

// running is one run of a container.
type running struct {
	process *spawn.Process
	id      string
	root    string
	env     []string
	logPath string
	// life ends with the process.
	life context.Context //nolint:containedctx // it is the life of this very object
	end  context.CancelFunc
	// hook is set while postStart runs.
	hook bool
	// startup and readiness are verdicts of probes; Passing when there is no such probe.
	startup, readiness probing.Verdict
	kill               *killing
}

func (c *container) key(pod *corev1.Pod) string { return string(pod.UID) + "/" + c.spec.Name }

// started reports whether the container has come up as far as its startup probe and postStart hook tell.
func (c *container) started() bool {
	return c.run != nil && !c.run.hook && c.run.startup == probing.Passing
}

func (c *container) ready() bool {
	if c.init {
		return c.run == nil && c.terminated != nil && c.terminated.ExitCode == 0
	}
	return c.started() && c.run.readiness == probing.Passing
}

// completed reports whether an init container has done its work.
func (c *container) completed() bool {
	return c.run == nil && c.launching == nil && c.terminated != nil && c.terminated.ExitCode == 0
}

// atRest reports whether nothing of the container runs or is about to.
func (c *container) atRest() bool { return c.run == nil && c.launching == nil }

// finished reports whether it has ended and is not started again.
func (c *container) finished(policy corev1.RestartPolicy) bool {
	return c.atRest() && c.terminated != nil && !podstatus.ShouldRestart(policy, c.init, c.terminated.ExitCode)
}

// status is the container's status for the API. initializing says that init containers are not done yet.
func (c *container) status(initializing bool) corev1.ContainerStatus {
	isStarted := c.started()
	status := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.image, RestartCount: c.restarts,
		Ready: c.ready(), Started: &isStarted,
	}
	waiting := c.waiting
	switch {
	case c.run != nil && !c.run.hook:
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.run.process.StartedAt)}
		status.ContainerID = containerURI(c.run.id)
		status.LastTerminationState.Terminated = c.terminated
		return status
	case c.run == nil && waiting == nil && c.terminated != nil:
		status.State.Terminated = c.terminated
		status.ContainerID = c.terminated.ContainerID
		status.LastTerminationState.Terminated = c.previous
		return status
	case waiting == nil && initializing && c.run == nil && !c.init:
		waiting = &corev1.ContainerStateWaiting{Reason: reasonInitializing}
	case waiting == nil || c.run != nil:
		waiting = &corev1.ContainerStateWaiting{Reason: reasonCreating}
	}
	status.State.Waiting = waiting
	status.LastTerminationState.Terminated = c.terminated
	if c.terminated != nil {
		status.ContainerID = c.terminated.ContainerID
	}
	return status
}

func containerURI(id string) string { return "local://" + id }

// The reasons of containers that wait or have ended, as the kubelet words them.
const (
	reasonCreating                = "ContainerCreating"
	reasonInitializing            = "PodInitializing"
	reasonCrashLoop               = "CrashLoopBackOff"
	reasonErrImagePull            = "ErrImagePull"
	reasonErrImageNeverPull       = "ErrImageNeverPull"
	reasonImagePullBackOff        = "ImagePullBackOff"
	reasonConfigError             = "CreateContainerConfigError"
	reasonCreateError             = "CreateContainerError"
	reasonCompleted               = "Completed"
	reasonError                   = "Error"
	reasonStartError              = "StartError"
	reasonStatusUnknown           = "ContainerStatusUnknown"
	messageLost                   = "The node agent was restarted, and the container ended with it"
	exitCodeLost            int32 = 137
	exitCodeStartError      int32 = 128
)

// restore takes over what the API knows of a container from the agent's former life.
func (c *container) restore(status *corev1.ContainerStatus, now time.Time) {
	c.restarts = status.RestartCount
	c.image = status.ImageID
	c.terminated = status.LastTerminationState.Terminated
	switch {
	case status.State.Terminated != nil:
		c.previous, c.terminated = c.terminated, status.State.Terminated
	case status.State.Running != nil:
		c.previous = c.terminated
		c.terminated = &corev1.ContainerStateTerminated{
			ExitCode: exitCodeLost, Reason: reasonStatusUnknown, Message: messageLost,
			StartedAt: status.State.Running.StartedAt, FinishedAt: metav1.NewTime(now), ContainerID: status.ContainerID,
		}
	}
	if c.terminated != nil {
		c.launched = true
		c.ended = c.terminated.FinishedAt.Time
	}
}
