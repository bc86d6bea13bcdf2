package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podenv"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podstatus"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/podvolume"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/probing"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/spawn"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
)

const (
	// mountRetry is when volumes that cannot be made are tried again without an event that says why it may work now.
	mountRetry = 5 * time.Second
	// configRetry is the same for containers that refer to something absent.
	configRetry = 10 * time.Second
)

// deps is what all workers share.
type deps struct {
	config      *Config
	client      kubernetes.Interface
	recorder    record.EventRecorder
	spawner     *spawn.Spawner
	prober      *probing.Prober
	source      podenv.Source
	tokens      podvolume.Tokens
	claims      podvolume.Claims
	allocatable podenv.Allocatable
	addresses   *addressPool
	// crash and image keep the back-off of containers that end and of images that cannot be run.
	crash, image *flowcontrol.Backoff
	log          *slog.Logger
}

// worker owns one pod.
type worker struct {
	*deps
	mailbox *mailbox
	log     *slog.Logger
	// helpers are goroutines that report to the mailbox.
	helpers   sync.WaitGroup
	publisher *publisher
	info      atomic.Pointer[PodInfo]

	// What follows belongs to the goroutine of run.

	pod *corev1.Pod
	// gone is set when the pod's object does not exist any more.
	gone         bool
	inits, mains []*container
	podIP        netip.Addr
	loopback     netip.Addr
	volumes      *podvolume.Volumes
	sandbox      sandbox
	conditions   []corev1.PodCondition
	startTime    metav1.Time
	// over is set when the pod has ended without having been deleted.
	over bool
	// wakeAt is when sync is to run again without a message; zero for never.
	wakeAt time.Time
}

// sandbox is the state of what a pod needs before its containers.
type sandbox struct {
	ready     bool
	busy      bool
	stale     bool
	retryAt   time.Time
	refreshAt time.Time
}

func newWorker(d *deps, pod *corev1.Pod, now time.Time) *worker {
	w := &worker{
		deps: d, mailbox: newMailbox(), pod: pod, conditions: pod.Status.Conditions,
		log:       d.log.With("pod", pod.Namespace+"/"+pod.Name),
		publisher: newPublisher(d.client, d.log, pod),
		volumes: podvolume.New(filepath.Join(d.config.Dir.Pods(), string(pod.UID)), d.source, d.tokens, d.claims,
			d.allocatable, time.Now),
		startTime: metav1.NewTime(now),
		over:      pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed,
	}
	if pod.Status.StartTime != nil {
		w.startTime = *pod.Status.StartTime
	}
	w.inits = newContainers(pod.Spec.InitContainers, pod.Status.InitContainerStatuses, true, now)
	w.mains = newContainers(pod.Spec.Containers, pod.Status.ContainerStatuses, false, now)
	return w
}

func newContainers(specs []corev1.Container, statuses []corev1.ContainerStatus, isInit bool, now time.Time) []*container {
	containers := make([]*container, 0, len(specs))
	for i := range specs {
		c := &container{spec: &specs[i], init: isInit}
		for j := range statuses {
			if statuses[j].Name == c.spec.Name {
				c.restore(&statuses[j], now)
			}
		}
		containers = append(containers, c)
	}
	return containers
}

func (w *worker) all() []*container { return append(append([]*container{}, w.inits...), w.mains...) }

// run owns the pod until it has ended and its object is deleted, or the context ends. Then no process is left.
func (w *worker) run(ctx context.Context) {
	var publishing sync.WaitGroup
	publishing.Go(func() { w.publisher.run(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			w.abandon()
			publishing.Wait()
			return
		case <-w.mailbox.notify:
		case <-timer.C:
		}
		w.mailbox.drain()
		w.wakeAt = time.Time{}
		if w.sync(ctx) {
			w.publisher.finish()
			publishing.Wait()
			w.helpers.Wait()
			w.cleanUp()
			return
		}
		timer.Stop()
		if !w.wakeAt.IsZero() {
			timer.Reset(time.Until(w.wakeAt))
		}
	}
}

// abandon ends all processes because the agent ends.
func (w *worker) abandon() {
	for _, c := range w.all() {
		if c.run != nil {
			_ = c.run.process.SignalGroup(sigKill)
		}
	}
	w.helpers.Wait()
	// A start that was under way may have succeeded meanwhile.
	w.mailbox.drain()
	for _, c := range w.all() {
		if c.run != nil {
			_ = c.run.process.SignalGroup(sigKill)
		}
	}
	w.helpers.Wait()
}

func (w *worker) cleanUp() {
	for _, c := range w.all() {
		w.crash.DeleteEntry(c.key(w.pod))
		w.image.DeleteEntry(c.key(w.pod))
	}
	if w.podIP.IsValid() {
		w.addresses.release(w.podIP)
	}
	if err := w.volumes.Remove(); err != nil {
		w.log.Warn("cannot remove a pod's directory", "error", err)
	}
}

// wake asks for a sync at the time.
func (w *worker) wake(at time.Time) {
	if w.wakeAt.IsZero() || at.Before(w.wakeAt) {
		w.wakeAt = at
	}
}

// sync does the next thing for the pod and publishes its status. It returns true when the pod has ended and is to be
// forgotten.
func (w *worker) sync(ctx context.Context) (done bool) {
	ended := false
	switch {
	case w.pod.DeletionTimestamp != nil || w.gone:
		ended = w.syncDeletion()
	case w.over:
	default:
		w.syncSandbox(ctx)
		if w.sandbox.ready {
			w.syncContainers(ctx)
		}
	}
	status := w.status(ended)
	w.over = w.over || status.Phase == corev1.PodSucceeded || status.Phase == corev1.PodFailed
	w.info.Store(w.describe(&status))
	if !w.gone {
		w.publisher.publish(status)
	}
	return ended
}

func (w *worker) status(ended bool) corev1.PodStatus {
	in := podstatus.Input{
		Pod: w.pod, Previous: w.conditions, Sandbox: w.sandbox.ready, Ended: ended, HostIP: w.config.hostIP(),
		StartTime: w.startTime, Now: metav1.Now(),
	}
	if w.podIP.IsValid() {
		in.PodIP = w.podIP.String()
	} else {
		in.PodIP = w.pod.Status.PodIP // of a pod that ended before the agent started
	}
	initializing := false
	for _, c := range w.inits {
		in.Init = append(in.Init, c.status(false))
		initializing = initializing || !c.completed()
	}
	for _, c := range w.mains {
		in.Containers = append(in.Containers, c.status(initializing))
	}
	status := podstatus.Compute(in)
	w.conditions = status.Conditions
	return status
}

// syncContainers starts what is to run: init containers one after the other, then the others.
func (w *worker) syncContainers(ctx context.Context) {
	for _, c := range w.inits {
		if c.completed() {
			continue
		}
		if !c.finished(w.pod.Spec.RestartPolicy) {
			w.ensure(ctx, c)
		}
		return
	}
	for _, c := range w.mains {
		w.ensure(ctx, c)
	}
}

// syncSandbox gives the pod its address and makes its volumes, or brings them up to date.
func (w *worker) syncSandbox(ctx context.Context) {
	s := &w.sandbox
	now := time.Now()
	if !w.podIP.IsValid() {
		if err := w.assignAddress(); err != nil {
			w.recorder.Eventf(w.pod, corev1.EventTypeWarning, "FailedCreatePodSandBox", "%v", err)
			w.wake(now.Add(mountRetry))
			return
		}
	}
	if message := unsupported(w.pod); message != "" {
		if s.retryAt.IsZero() {
			w.recorder.Event(w.pod, corev1.EventTypeWarning, "FailedCreatePodSandBox", message)
			s.retryAt = now
		}
		return
	}
	due := !s.ready || s.stale || (!s.refreshAt.IsZero() && !now.Before(s.refreshAt))
	switch {
	case s.busy || !due:
	case now.Before(s.retryAt) && !s.stale:
		w.wake(s.retryAt)
	default:
		w.setupVolumes(ctx)
	}
	if s.ready && !s.refreshAt.IsZero() && !s.busy {
		w.wake(s.refreshAt)
	}
}

// unsupported names what the agent cannot do for a pod.
func unsupported(pod *corev1.Pod) string {
	for i := range pod.Spec.InitContainers {
		if policy := pod.Spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			return fmt.Sprintf("init container %q is a sidecar (restartPolicy Always), which the local node agent does not run",
				pod.Spec.InitContainers[i].Name)
		}
	}
	return ""
}

func (w *worker) assignAddress() error {
	address, err := w.addresses.take(w.pod.Status.PodIP)
	if err != nil {
		return err
	}
	loopback, err := network.ToLoopback(address)
	if err != nil {
		return err
	}
	w.podIP, w.loopback = address, loopback
	return nil
}

func (w *worker) setupVolumes(ctx context.Context) {
	w.sandbox.busy, w.sandbox.stale = true, false
	pod, addresses := w.pod, w.podAddresses()
	w.helpers.Go(func() {
		again, err := w.volumes.Setup(ctx, pod, addresses)
		w.mailbox.post(func() { w.volumesDone(again, err) })
	})
}

func (w *worker) volumesDone(again time.Time, err error) {
	s := &w.sandbox
	s.busy = false
	if err == nil {
		s.ready, s.refreshAt, s.retryAt = true, again, time.Time{}
		return
	}
	s.retryAt = time.Now().Add(mountRetry)
	if !again.IsZero() || s.ready {
		s.refreshAt = s.retryAt
	}
	var setup *podvolume.SetupError
	if errors.As(err, &setup) && !errors.Is(err, context.Canceled) {
		w.recorder.Event(w.pod, corev1.EventTypeWarning, "FailedMount", setup.Error())
	}
}

func (w *worker) podAddresses() podenv.Addresses {
	return podenv.Addresses{PodIP: w.podIP.String(), HostIP: w.config.hostIP()}
}
