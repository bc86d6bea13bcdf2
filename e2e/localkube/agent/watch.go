package agent

import (
	"context"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/containerlog"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/probing"
)

// messageFileBytes is how much of a termination message is taken.
const messageFileBytes = 4096

// watch follows a run: its end, its postStart hook and its probes.
func (w *worker) watch(c *container, outcome launched) {
	run := c.run
	spec, pod := c.spec, w.pod
	if spec.StartupProbe != nil {
		run.startup = probing.Undecided
	}
	if spec.ReadinessProbe != nil {
		run.readiness = probing.Failing
	}
	w.helpers.Go(func() {
		<-run.process.Done()
		run.end()
		if err := outcome.log.Close(); err != nil {
			w.log.Warn("part of a container's output is lost", "container", spec.Name, "error", err)
		}
		message := terminationMessage(spec, w.volumes.Root(spec.Name), run.logPath, run.process.Exit().Code)
		w.mailbox.post(func() { w.exited(c, run, message) })
	})
	if spec.Lifecycle == nil || spec.Lifecycle.PostStart == nil {
		w.probe(c)
		return
	}
	run.hook = true
	w.helpers.Go(func() {
		err := w.hook(run.life, spec, spec.Lifecycle.PostStart, run)
		w.mailbox.post(func() {
			if c.run != run {
				return
			}
			run.hook = false
			if err != nil {
				w.recorder.Eventf(pod, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: %v", err)
				w.kill(c, w.terminationGrace(), "FailedPostStartHook")
				return
			}
			w.probe(c)
		})
	})
}

// exited handles the end of a run.
func (w *worker) exited(c *container, run *running, message string) {
	exit := run.process.Exit()
	reason := reasonError
	if exit.Code == 0 {
		reason = reasonCompleted
	}
	c.previous = c.terminated
	c.terminated = &corev1.ContainerStateTerminated{
		ExitCode: int32(exit.Code), Signal: int32(exit.Signal), Reason: reason, Message: message, //nolint:gosec // both are small
		StartedAt: metav1.NewTime(run.process.StartedAt), FinishedAt: metav1.NewTime(exit.At), ContainerID: containerURI(run.id),
	}
	c.ended, c.run = exit.At, nil
	w.log.Info("container has ended", "container", c.spec.Name, "exitCode", exit.Code, "signal", int(exit.Signal))
}

// terminationMessage is what the container left in its message file or, if it failed and asks for it, its last words.
func terminationMessage(spec *corev1.Container, root, logPath string, exitCode int) string {
	if spec.TerminationMessagePath != "" {
		raw, err := os.ReadFile(filepath.Join(root, spec.TerminationMessagePath))
		if err == nil && len(raw) > 0 {
			return string(raw[:min(len(raw), messageFileBytes)])
		}
	}
	if spec.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError && exitCode != 0 {
		return containerlog.Tail(context.Background(), logPath)
	}
	return ""
}

func (w *worker) target(spec *corev1.Container, run *running) probing.Target {
	return probing.Target{
		Container: spec, Address: w.loopback.String(),
		Exec: func(ctx context.Context, command []string) (string, int, error) { return w.execute(ctx, run, command) },
	}
}

// probe starts a container's probes; those for readiness and liveness wait for the startup probe.
func (w *worker) probe(c *container) {
	run, spec := c.run, c.spec
	if spec.StartupProbe != nil {
		w.startProbe(c, run, probing.Startup, spec.StartupProbe)
		return
	}
	w.probeAfterStartup(c, run)
}

func (w *worker) probeAfterStartup(c *container, run *running) {
	if c.spec.ReadinessProbe != nil {
		w.startProbe(c, run, probing.Readiness, c.spec.ReadinessProbe)
	}
	if c.spec.LivenessProbe != nil {
		w.startProbe(c, run, probing.Liveness, c.spec.LivenessProbe)
	}
}

func (w *worker) startProbe(c *container, run *running, kind probing.Kind, spec *corev1.Probe) {
	target := w.target(c.spec, run)
	w.helpers.Go(func() {
		w.prober.Run(run.life, kind, spec, target, run.process.StartedAt, func(result probing.Result) {
			w.mailbox.post(func() {
				if c.run == run {
					w.probed(c, spec, result)
				}
			})
		})
	})
}

// probed handles the result of a probe.
func (w *worker) probed(c *container, spec *corev1.Probe, result probing.Result) {
	run := c.run
	if !result.Success {
		w.recorder.Eventf(w.pod, corev1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", result.Kind, result.Message)
	}
	if result.Kind == probing.Readiness {
		run.readiness = result.Verdict
		return
	}
	// A pod that is being deleted is not restarted.
	if !result.Reached || w.pod.DeletionTimestamp != nil || w.gone {
		return
	}
	switch {
	case result.Verdict == probing.Failing:
		grace := w.terminationGrace()
		if spec.TerminationGracePeriodSeconds != nil {
			grace = time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
		}
		kind := "liveness"
		if result.Kind == probing.Startup {
			kind = "startup"
		}
		w.kill(c, grace, "Container "+c.spec.Name+" failed "+kind+" probe, will be restarted")
	case result.Kind == probing.Startup:
		run.startup = probing.Passing
		w.probeAfterStartup(c, run)
	}
}
