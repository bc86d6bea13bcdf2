package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/containerlog"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/images"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podenv"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podstatus"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/probing"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/spawn"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

func newContainerID() string { return strings.ToLower(rand.Text()) }

// ensure starts a container that should run and does not, now or when its back-off is over.
func (w *worker) ensure(ctx context.Context, c *container) {
	if !c.atRest() {
		return
	}
	now := time.Now()
	if c.terminated != nil {
		if !podstatus.ShouldRestart(w.pod.Spec.RestartPolicy, c.init, c.terminated.ExitCode) {
			return
		}
		if w.inCrashBackOff(c) {
			return
		}
	}
	if now.Before(c.retryAt) {
		w.showImageBackOff(c)
		w.wake(c.retryAt)
		return
	}
	w.launch(ctx, c)
}

// inCrashBackOff reports whether the container has to wait before it is started again, and says so in its state.
func (w *worker) inCrashBackOff(c *container) bool {
	key := c.key(w.pod)
	if !w.crash.IsInBackOffSince(key, c.ended) {
		return false
	}
	delay := w.crash.Get(key)
	if c.waiting == nil || c.waiting.Reason != reasonCrashLoop {
		c.waiting = &corev1.ContainerStateWaiting{Reason: reasonCrashLoop, Message: fmt.Sprintf(
			"back-off %s restarting failed container=%s pod=%s_%s(%s)", delay, c.spec.Name, w.pod.Name, w.pod.Namespace, w.pod.UID)}
		w.recorder.Eventf(w.pod, corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s_%s(%s)",
			c.spec.Name, w.pod.Name, w.pod.Namespace, w.pod.UID)
	}
	w.wake(c.ended.Add(delay))
	return true
}

// showImageBackOff turns ErrImagePull, once it has been seen, into ImagePullBackOff.
func (w *worker) showImageBackOff(c *container) {
	if c.imageFailure == "" || c.waiting == nil {
		return
	}
	if shown := time.Since(c.failedAt); shown < imageErrorShown {
		w.wake(c.failedAt.Add(imageErrorShown))
		return
	}
	if c.waiting.Reason == reasonErrImagePull {
		c.waiting = &corev1.ContainerStateWaiting{Reason: reasonImagePullBackOff, Message: fmt.Sprintf(
			"Back-off pulling image %q: %s: %s", c.spec.Image, reasonErrImagePull, c.imageFailure)}
		w.recorder.Eventf(w.pod, corev1.EventTypeNormal, "BackOff", "Back-off pulling image %q", c.spec.Image)
		w.recorder.Event(w.pod, corev1.EventTypeWarning, "Failed", "Error: "+reasonImagePullBackOff)
	}
}

// imageErrorShown is how long ErrImagePull is shown before ImagePullBackOff.
const imageErrorShown = time.Second

// launched is the outcome of a start. Of run, terminated and waiting one is set.
type launched struct {
	run        *running
	log        *containerlog.Writer
	image      string
	terminated *corev1.ContainerStateTerminated
	waiting    *corev1.ContainerStateWaiting
	canceled   bool
}

func (w *worker) launch(ctx context.Context, c *container) {
	if c.terminated != nil {
		w.crash.Next(c.key(w.pod), c.ended)
	}
	start := c.restarts
	if c.launched {
		start++
	}
	ctx, cancel := context.WithCancel(ctx)
	c.launching = cancel
	l := &launcher{worker: w, pod: w.pod, spec: c.spec, start: start, addresses: w.podAddresses()}
	w.helpers.Go(func() {
		outcome := l.do(ctx)
		cancel()
		w.mailbox.post(func() { w.launchDone(c, start, outcome) })
	})
}

// launchDone handles the outcome of a start. It may come when the pod is being deleted; the next sync sees to that.
func (w *worker) launchDone(c *container, start int32, outcome launched) {
	c.launching = nil
	now := time.Now()
	switch {
	case outcome.canceled:
		return
	case outcome.waiting != nil:
		w.launchDelayed(c, outcome.waiting, now)
		return
	}
	c.waiting, c.imageFailure, c.retryAt = nil, "", time.Time{}
	w.image.DeleteEntry(c.key(w.pod))
	c.restarts, c.launched, c.image = start, true, outcome.image
	if outcome.terminated != nil {
		c.previous, c.terminated, c.ended = c.terminated, outcome.terminated, now
		w.recorder.Event(w.pod, corev1.EventTypeWarning, "Failed", "Error: "+outcome.terminated.Message)
		return
	}
	w.recorder.Eventf(w.pod, corev1.EventTypeNormal, "Started", "Container %s started", c.spec.Name)
	c.run = outcome.run
	w.watch(c, outcome)
}

// launchDelayed notes that a start has to wait for something.
func (w *worker) launchDelayed(c *container, waiting *corev1.ContainerStateWaiting, now time.Time) {
	changed := c.waiting == nil || c.waiting.Message != waiting.Message
	c.failedAt = now
	if waiting.Reason != reasonErrImagePull {
		c.waiting, c.imageFailure = waiting, ""
		c.retryAt = now.Add(configRetry)
		if changed {
			w.recorder.Event(w.pod, corev1.EventTypeWarning, "Failed", "Error: "+waiting.Message)
		}
		return
	}
	c.waiting, c.imageFailure = waiting, waiting.Message
	w.image.Next(c.key(w.pod), now)
	c.retryAt = now.Add(w.image.Get(c.key(w.pod)))
	w.recorder.Eventf(w.pod, corev1.EventTypeWarning, "Failed", "Failed to pull image %q: %s", c.spec.Image, waiting.Message)
	w.recorder.Event(w.pod, corev1.EventTypeWarning, "Failed", "Error: "+reasonErrImagePull)
}

// launcher starts a container outside of its worker's goroutine.
type launcher struct {
	*worker
	pod       *corev1.Pod
	spec      *corev1.Container
	start     int32
	addresses podenv.Addresses
}

func (l *launcher) do(ctx context.Context) launched {
	row, err := l.resolve()
	if err != nil && l.spec.ImagePullPolicy == corev1.PullNever {
		return launched{waiting: &corev1.ContainerStateWaiting{Reason: reasonErrImageNeverPull, Message: fmt.Sprintf(
			"Container image %q is not present with pull policy of Never: %s", l.spec.Image, err)}}
	}
	if err != nil {
		return launched{waiting: &corev1.ContainerStateWaiting{Reason: reasonErrImagePull, Message: err.Error()}}
	}
	env, err := l.environment(ctx)
	if err != nil {
		return delayed(ctx, err)
	}
	root, err := l.volumes.Mount(l.pod, l.spec, env)
	if err != nil {
		return delayed(ctx, err)
	}
	if err := l.addKubeconfig(env); err != nil {
		return delayed(ctx, err)
	}
	if ctx.Err() != nil {
		return launched{canceled: true}
	}
	l.recorder.Eventf(l.pod, corev1.EventTypeNormal, "Created", "Container %s created", l.spec.Name)
	return l.begin(row, env, root)
}

func delayed(ctx context.Context, err error) launched {
	if ctx.Err() != nil {
		return launched{canceled: true}
	}
	reason := reasonCreateError
	if podenv.IsConfigError(err) {
		reason = reasonConfigError
	}
	return launched{waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: err.Error()}}
}

func (l *launcher) resolve() (state.ImageRow, error) {
	rows, err := l.config.imageTable()
	if err != nil {
		return state.ImageRow{}, err
	}
	row, err := images.Resolve(rows, l.spec.Image)
	if err != nil {
		return state.ImageRow{}, err
	}
	if l.spec.ImagePullPolicy == corev1.PullAlways {
		l.recorder.Eventf(l.pod, corev1.EventTypeNormal, "Pulled", "Successfully pulled image %q (row %q of the image table)",
			l.spec.Image, row.Pattern)
	} else {
		l.recorder.Eventf(l.pod, corev1.EventTypeNormal, "Pulled", "Container image %q already present on machine (row %q of the image table)",
			l.spec.Image, row.Pattern)
	}
	return row, nil
}

// environment is what the specification says, within what the agent gives.
func (l *launcher) environment(ctx context.Context) (map[string]string, error) {
	root := l.volumes.Root(l.spec.Name)
	hostName := l.pod.Spec.Hostname
	if hostName == "" {
		hostName = l.pod.Name
	}
	proxy := "http://" + l.config.State.Endpoint(l.config.State.Ports.HTTPProxy)
	const noProxy = "127.0.0.1,localhost,127.0.0.0/8"
	env, err := podenv.Build(ctx, l.source, l.pod, l.spec, l.addresses, l.allocatable, map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": root, "TMPDIR": filepath.Join(root, "tmp"), "HOSTNAME": hostName,
		"HTTP_PROXY": proxy, "http_proxy": proxy, "HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": noProxy, "no_proxy": noProxy,
		"KUBERNETES_SERVICE_HOST": l.config.State.ControlAddress().String(),
		"KUBERNETES_SERVICE_PORT": strconv.Itoa(int(l.config.State.Ports.APIServer)),
	})
	if err != nil {
		return nil, err
	}
	maps.Copy(env, map[string]string{
		podAddressEnv:    l.loopback.String(),
		podRootEnv:       root,
		dnsAddressEnv:    l.config.State.Endpoint(l.config.State.Ports.DNS),
		state.ClusterEnv: l.config.State.ID,
		PodsEnv:          l.config.State.ID,
	})
	return env, nil
}

// addKubeconfig gives a container that mounts a token a configuration that uses it.
func (l *launcher) addKubeconfig(env map[string]string) error {
	token := l.volumes.TokenFile(l.pod, l.spec)
	if token == "" {
		return nil
	}
	path := filepath.Join(filepath.Dir(l.volumes.Root(l.spec.Name)), "kubeconfig")
	if err := writeTokenKubeconfig(path, l.config, l.pod.Namespace, token); err != nil {
		return err
	}
	env["KUBECONFIG"] = path
	return nil
}

// begin starts the process.
func (l *launcher) begin(row state.ImageRow, env map[string]string, root string) launched {
	id := newContainerID()
	image := "local://" + row.Pattern
	failed := func(err error) launched {
		now := metav1.Now()
		return launched{image: image, terminated: &corev1.ContainerStateTerminated{
			ExitCode: exitCodeStartError, Reason: reasonStartError, Message: err.Error(),
			StartedAt: now, FinishedAt: now, ContainerID: containerURI(id),
		}}
	}
	list := podenv.List(env)
	args, err := arguments(row, l.spec, env, list)
	if err != nil {
		return failed(err)
	}
	dir := filepath.Join(root, l.spec.WorkingDir)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return failed(fmt.Errorf("make the working directory: %w", err))
	}
	log, err := containerlog.Create(podLogDir(l.config.Dir, l.pod), l.spec.Name, l.start)
	if err != nil {
		return failed(err)
	}
	stdout, outErr := log.Pipe("stdout")
	stderr, errErr := log.Pipe("stderr")
	if err := errors.Join(outErr, errErr); err != nil {
		return failed(errors.Join(err, log.Close()))
	}
	process, err := l.spawner.Start(spawn.Spec{ContainerID: id, Args: args, Env: list, Dir: dir, Stdout: stdout, Stderr: stderr})
	if err != nil {
		return failed(errors.Join(err, log.Close()))
	}
	run := &running{
		process: process, id: id, root: dir, env: list, startup: probing.Passing, readiness: probing.Passing,
		logPath: containerlog.Path(podLogDir(l.config.Dir, l.pod), l.spec.Name, l.start),
	}
	run.life, run.end = context.WithCancel(context.Background())
	return launched{run: run, log: log, image: image}
}

// arguments are those of the container's own command or else of the command that stands in for its image.
func arguments(row state.ImageRow, spec *corev1.Container, env map[string]string, list []string) ([]string, error) {
	args := podenv.Expand(spec.Args, env)
	if len(spec.Command) == 0 {
		return append([]string{"/bin/sh", "-c", "exec " + row.Command + ` "$@"`, "--"}, args...), nil
	}
	command := podenv.Expand(spec.Command, env)
	program, err := lookPath(command[0], list)
	if err != nil {
		return nil, err
	}
	return append(append([]string{program}, command[1:]...), args...), nil
}

// lookPath finds a program as execvp would with the environment's PATH.
func lookPath(program string, env []string) (string, error) {
	if strings.Contains(program, "/") {
		return program, nil
	}
	for _, variable := range env {
		list, isPath := strings.CutPrefix(variable, "PATH=")
		if !isPath {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			if !filepath.IsAbs(dir) {
				continue
			}
			if found, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
				return found, nil
			}
		}
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH", program)
}
