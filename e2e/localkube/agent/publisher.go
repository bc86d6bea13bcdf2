package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	fieldManager       = "local-node-agent"
	publishTimeout     = 10 * time.Second
	publishRetryFirst  = 100 * time.Millisecond
	publishRetryAtMost = 5 * time.Second
)

// publisher writes one pod's status to the API, the latest only, and deletes the pod's object at the end.
type publisher struct {
	client kubernetes.Interface
	log    *slog.Logger
	pod    types.NamespacedName
	uid    types.UID

	mu      sync.Mutex
	pending *corev1.PodStatus
	last    *corev1.PodStatus
	final   bool
	notify  chan struct{}
}

func newPublisher(client kubernetes.Interface, log *slog.Logger, pod *corev1.Pod) *publisher {
	return &publisher{
		client: client, log: log, uid: pod.UID, notify: make(chan struct{}, 1),
		pod: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name},
	}
}

// publish hands over a status; an equal one is not written again.
func (p *publisher) publish(status corev1.PodStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last != nil && apiequality.Semantic.DeepEqual(*p.last, status) {
		return
	}
	p.last, p.pending = status.DeepCopy(), status.DeepCopy()
	p.wake()
}

// finish makes run delete the object after the last status and return.
func (p *publisher) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.final = true
	p.wake()
}

func (p *publisher) wake() {
	select {
	case p.notify <- struct{}{}:
	default:
	}
}

func (p *publisher) take() (status *corev1.PodStatus, final bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	status, p.pending = p.pending, nil
	return status, p.final
}

// putBack keeps a status that could not be written, unless there is a newer one.
func (p *publisher) putBack(status *corev1.PodStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending == nil {
		p.pending = status
	}
}

// run writes until finish or the context ends.
func (p *publisher) run(ctx context.Context) {
	delay := publishRetryFirst
	for {
		status, final := p.take()
		err := p.write(ctx, status, final)
		switch {
		case err == nil && final:
			return
		case err == nil:
			delay = publishRetryFirst
			select {
			case <-ctx.Done():
				return
			case <-p.notify:
			}
			continue
		}
		if status != nil {
			p.putBack(status)
		}
		p.log.Warn("cannot write a pod's status", "pod", p.pod.String(), "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = min(2*delay, publishRetryAtMost)
	}
}

func (p *publisher) write(ctx context.Context, status *corev1.PodStatus, final bool) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if status != nil {
		// A pod that is gone, or another of the same name, needs no status from here.
		if err := p.apply(ctx, status); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	if !final {
		return nil
	}
	none := int64(0)
	err := p.client.CoreV1().Pods(p.pod.Namespace).Delete(ctx, p.pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &none, Preconditions: metav1.NewUIDPreconditions(string(p.uid)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete the object of a pod that has ended: %w", err)
	}
	return nil
}

// apply writes the status by server-side apply: conditions that others set stay.
func (p *publisher) apply(ctx context.Context, status *corev1.PodStatus) error {
	patch, err := json.Marshal(map[string]any{
		"apiVersion": "v1",
		"kind":       "Pod",
		"metadata":   map[string]any{"name": p.pod.Name, "namespace": p.pod.Namespace, "uid": p.uid},
		"status":     status,
	})
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	force := true
	_, err = p.client.CoreV1().Pods(p.pod.Namespace).Patch(ctx, p.pod.Name, types.ApplyPatchType, patch,
		metav1.PatchOptions{FieldManager: fieldManager, Force: &force}, "status")
	return err
}
