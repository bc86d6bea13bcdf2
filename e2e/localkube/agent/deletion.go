package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/spawn"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
)

const (
	sigKill = syscall.SIGKILL
	// leastGrace is what a process has between SIGTERM and SIGKILL when its preStop hook used the grace period up.
	leastGrace = 2 * time.Second
	// forcedGrace is the grace of a pod whose object is gone already.
	forcedGrace = time.Second
)

// killing is the ending of a container that is under way.
type killing struct {
	once sync.Once
	now  chan struct{}
	// deadline is when the container will be killed at the latest.
	deadline time.Time
}

// hurry brings the deadline forward; it never moves it back.
func (k *killing) hurry(grace time.Duration) {
	deadline := time.Now().Add(grace)
	if !deadline.Before(k.deadline) {
		return
	}
	k.deadline = deadline
	time.AfterFunc(grace, func() { k.once.Do(func() { close(k.now) }) })
}

// syncDeletion ends all containers of a pod that is deleted and returns true when none is left.
func (w *worker) syncDeletion() (ended bool) {
	grace := w.deletionGrace()
	rest := w.sandbox.busy
	for _, c := range w.all() {
		if c.launching != nil {
			c.launching()
		}
		if !c.atRest() {
			rest = true
		}
		if c.run != nil {
			w.kill(c, grace, "Stopping container "+c.spec.Name)
		}
	}
	return !rest
}

func (w *worker) deletionGrace() time.Duration {
	if w.gone {
		return forcedGrace
	}
	grace := forcedGrace
	if seconds := w.pod.DeletionGracePeriodSeconds; seconds != nil {
		grace = max(grace, time.Duration(*seconds)*time.Second)
	}
	return grace
}

func (w *worker) terminationGrace() time.Duration {
	if seconds := w.pod.Spec.TerminationGracePeriodSeconds; seconds != nil {
		return max(forcedGrace, time.Duration(*seconds)*time.Second)
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// kill ends a container: preStop, SIGTERM to its main process, and SIGKILL to the group when the grace is over. Called
// again, it only shortens the grace.
func (w *worker) kill(c *container, grace time.Duration, message string) {
	run := c.run
	if run.kill != nil {
		run.kill.hurry(grace)
		return
	}
	w.recorder.Event(w.pod, corev1.EventTypeNormal, "Killing", message)
	k := &killing{now: make(chan struct{}), deadline: time.Now().Add(grace)}
	run.kill = k
	pod, spec := w.pod, c.spec
	w.helpers.Go(func() {
		begun := time.Now()
		hook := spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil
		if hook {
			w.preStop(pod, spec, run, k, grace)
			grace = max(grace-time.Since(begun), leastGrace)
		}
		if err := run.process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, proc.ErrGone) {
			w.log.Warn("cannot ask a container to stop", "container", spec.Name, "error", err)
		}
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-run.process.Done():
			return
		case <-timer.C:
		case <-k.now:
		}
		if err := run.process.SignalGroup(sigKill); err != nil && !errors.Is(err, proc.ErrGone) {
			w.log.Warn("cannot kill a container", "container", spec.Name, "error", err)
		}
	})
}

// preStop runs the hook until it is done, the grace is over or the container has ended.
func (w *worker) preStop(pod *corev1.Pod, spec *corev1.Container, run *running, k *killing, grace time.Duration) {
	ctx, cancel := context.WithTimeout(run.life, grace)
	defer cancel()
	go func() {
		select {
		case <-k.now:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := w.hook(ctx, spec, spec.Lifecycle.PreStop, run); err != nil && run.life.Err() == nil {
		w.recorder.Eventf(pod, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %v", err)
	}
}

// hook runs a lifecycle handler.
func (w *worker) hook(ctx context.Context, spec *corev1.Container, handler *corev1.LifecycleHandler, run *running) error {
	switch {
	case handler.Exec != nil:
		output, code, err := w.execute(ctx, run, handler.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("command %q exited with %d: %s", handler.Exec.Command, code, output)
		}
		return err
	case handler.HTTPGet != nil:
		deadline, ok := ctx.Deadline()
		timeout := time.Minute
		if ok {
			timeout = time.Until(deadline)
		}
		return w.prober.HTTPGet(ctx, handler.HTTPGet, w.target(spec, run), timeout)
	case handler.Sleep != nil:
		select {
		case <-time.After(time.Duration(handler.Sleep.Seconds) * time.Second):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// execute runs a command as part of a container.
func (w *worker) execute(ctx context.Context, run *running, command []string) (output string, code int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(run.life, cancel)
	defer stop()
	program, err := lookPath(command[0], run.env)
	if err != nil {
		return "", 0, err
	}
	return w.spawner.Run(ctx, spawn.Spec{
		ContainerID: newContainerID(), Args: append([]string{program}, command[1:]...), Env: run.env, Dir: run.root,
	})
}
