package agent

import (
	"context"
	"fmt"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// PodInfo is what the agent knows of a pod and the API does not.
type PodInfo struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
	// IP is the pod's address in the API, Address where it listens; empty before it has one.
	IP      string `json:"ip"`
	Address string `json:"address"`
	// Phase is the pod's phase; Reason is why a container waits, if one does.
	Phase  corev1.PodPhase `json:"phase"`
	Reason string          `json:"reason,omitempty"`
	Ready  bool            `json:"ready"`
	// Gone says that the pod's object is deleted and its processes are being ended.
	Gone       bool            `json:"gone,omitempty"`
	Containers []ContainerInfo `json:"containers"`
}

// ContainerInfo is one container of a PodInfo.
type ContainerInfo struct {
	Name string `json:"name"`
	Init bool   `json:"init,omitempty"`
	// PID is the main process, which leads the container's process group; 0 when it does not run.
	PID      int   `json:"pid"`
	Restarts int32 `json:"restarts"`
}

func (w *worker) describe(status *corev1.PodStatus) *PodInfo {
	info := &PodInfo{
		Namespace: w.pod.Namespace, Name: w.pod.Name, UID: w.pod.UID, IP: status.PodIP, Phase: status.Phase, Gone: w.gone,
	}
	if w.loopback.IsValid() {
		info.Address = w.loopback.String()
	}
	for _, condition := range status.Conditions {
		if condition.Type == corev1.PodReady {
			info.Ready = condition.Status == corev1.ConditionTrue
		}
	}
	for _, c := range w.all() {
		container := ContainerInfo{Name: c.spec.Name, Init: c.init, Restarts: c.restarts}
		if c.run != nil {
			container.PID = c.run.process.ID.PID
		}
		if c.waiting != nil && info.Reason == "" {
			info.Reason = c.waiting.Reason
		}
		info.Containers = append(info.Containers, container)
	}
	return info
}

// ask runs a function in the worker's goroutine and waits for it.
func ask[T any](ctx context.Context, w *worker, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	result := make(chan answer, 1)
	w.mailbox.post(func() {
		value, err := f()
		result <- answer{value: value, err: err}
	})
	select {
	case a := <-result:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("the pod's worker does not answer: %w", ctx.Err())
	}
}

// container finds a container by name; the empty name is that of the first.
func (w *worker) container(name string) (*container, error) {
	if name == "" && len(w.mains) > 0 {
		return w.mains[0], nil
	}
	for _, c := range w.all() {
		if c.spec.Name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w: pod %s/%s has no container %q", errNoPod, w.pod.Namespace, w.pod.Name, name)
}

// signal sends a signal to the process group of a container and returns the group's id.
func (w *worker) signal(ctx context.Context, containerName string, signal syscall.Signal) (int, error) {
	return ask(ctx, w, func() (int, error) {
		c, err := w.container(containerName)
		if err != nil {
			return 0, err
		}
		if c.run == nil {
			return 0, fmt.Errorf("%w: container %s of pod %s/%s does not run", errNoPod, c.spec.Name, w.pod.Namespace, w.pod.Name)
		}
		return c.run.process.ID.PID, c.run.process.SignalGroup(signal)
	})
}
