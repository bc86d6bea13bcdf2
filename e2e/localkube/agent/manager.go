package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// manager gives every pod of the node a worker.
type manager struct {
	deps *deps
	log  *slog.Logger
	pods cache.SharedIndexInformer
	refs []cache.SharedIndexInformer

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // that of run, for workers started by handlers; nil before
	workers map[types.UID]*worker
	// forgotten are pods that have ended and whose objects the cache may still hold.
	forgotten map[types.UID]bool
	running   sync.WaitGroup
}

// newManager takes pods from one factory, which is limited to the node, and Secrets and ConfigMaps from the other.
func newManager(d *deps, nodePods, cluster informers.SharedInformerFactory) (*manager, error) {
	m := &manager{
		deps: d, log: d.log, pods: nodePods.Core().V1().Pods().Informer(),
		refs:    []cache.SharedIndexInformer{cluster.Core().V1().Secrets().Informer(), cluster.Core().V1().ConfigMaps().Informer()},
		workers: map[types.UID]*worker{}, forgotten: map[types.UID]bool{},
	}
	for _, informer := range m.refs {
		// They only wake pods up; what is in them is read when it is needed.
		if err := informer.SetTransform(withoutContent); err != nil {
			return nil, fmt.Errorf("watch Secrets and ConfigMaps: %w", err)
		}
	}
	return m, nil
}

func withoutContent(object any) (any, error) {
	switch o := object.(type) {
	case *corev1.Secret:
		o.Data, o.ManagedFields, o.Annotations = nil, nil, nil
	case *corev1.ConfigMap:
		o.Data, o.BinaryData, o.ManagedFields, o.Annotations = nil, nil, nil, nil
	}
	return object, nil
}

// run works until the context ends and returns when no process of a pod is left.
func (m *manager) run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), m.pods.HasSynced) {
		return ctx.Err()
	}
	if err := m.takeStock(); err != nil {
		return err
	}
	m.mu.Lock()
	m.ctx = ctx
	m.mu.Unlock()
	if _, err := m.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { m.changed(nil, object.(*corev1.Pod)) },
		UpdateFunc: func(old, object any) { m.changed(old.(*corev1.Pod), object.(*corev1.Pod)) },
		DeleteFunc: m.deleted,
	}); err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	for _, informer := range m.refs {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    m.referenceChanged,
			UpdateFunc: func(_, object any) { m.referenceChanged(object) },
		}); err != nil {
			return fmt.Errorf("watch Secrets and ConfigMaps: %w", err)
		}
	}
	<-ctx.Done()
	m.running.Wait()
	return nil
}

// takeStock looks, after a restart of the agent, at the pods that exist already: their addresses are not given to new
// pods, and the directories of pods that were deleted in between are removed.
func (m *manager) takeStock() error {
	known := map[string]bool{}
	for _, object := range m.pods.GetStore().List() {
		pod := object.(*corev1.Pod)
		known[string(pod.UID)] = true
		m.deps.addresses.startAfter(pod.Status.PodIP)
	}
	entries, err := os.ReadDir(m.deps.config.Dir.Pods())
	if err != nil {
		return fmt.Errorf("list the directories of pods: %w", err)
	}
	for _, entry := range entries {
		if known[entry.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(m.deps.config.Dir.Pods(), entry.Name())); err != nil {
			return fmt.Errorf("remove the directory of a pod that is gone: %w", err)
		}
	}
	return nil
}

// changed starts a worker for a new pod or tells the pod's worker what it is now.
func (m *manager) changed(old, pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil || m.forgotten[pod.UID] {
		return
	}
	if w, has := m.workers[pod.UID]; has {
		metadata := old == nil || !apiequality.Semantic.DeepEqual(old.Labels, pod.Labels) ||
			!apiequality.Semantic.DeepEqual(old.Annotations, pod.Annotations)
		w.mailbox.post(func() { w.podChanged(pod, metadata) })
		return
	}
	w := newWorker(m.deps, pod, time.Now())
	m.workers[pod.UID] = w
	ctx := m.ctx
	m.running.Go(func() {
		w.run(ctx)
		m.forget(pod)
	})
}

func (m *manager) forget(pod *corev1.Pod) {
	m.mu.Lock()
	delete(m.workers, pod.UID)
	m.forgotten[pod.UID] = true
	keep := map[string]bool{}
	for _, w := range m.workers {
		if info := w.info.Load(); info != nil {
			keep[strings.Join([]string{info.Namespace, info.Name, string(info.UID)}, "_")] = true
		}
	}
	m.mu.Unlock()
	if _, exists, err := m.pods.GetStore().GetByKey(pod.Namespace + "/" + pod.Name); err == nil && !exists {
		m.unforget(pod.UID)
	}
	if err := pruneLogs(m.deps.config.Dir, keep); err != nil {
		m.log.Warn("cannot remove old logs", "error", err)
	}
}

func (m *manager) unforget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.forgotten, uid)
}

func (m *manager) deleted(object any) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.forgotten, pod.UID)
	if w, has := m.workers[pod.UID]; has {
		w.mailbox.post(func() { w.gone = true })
	}
}

// referenceChanged wakes the pods that may use a Secret or ConfigMap.
func (m *manager) referenceChanged(object any) {
	var namespace string
	switch o := object.(type) {
	case *corev1.Secret:
		namespace = o.Namespace
	case *corev1.ConfigMap:
		namespace = o.Namespace
	default:
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.workers {
		w.mailbox.post(func() {
			if w.pod.Namespace == namespace && refersTo(w.pod, object) {
				w.referenceChanged()
			}
		})
	}
}

// find returns the worker of a pod by name. A pod whose object is already gone is found only when no other has the name.
func (m *manager) find(namespace, name string) (*worker, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found *worker
	for _, w := range m.workers {
		info := w.info.Load()
		if info == nil || info.Namespace != namespace || info.Name != name {
			continue
		}
		if found == nil || found.info.Load().Gone {
			found = w
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: no pod %s/%s is on this node", errNoPod, namespace, name)
	}
	return found, nil
}

var errNoPod = errors.New("not found")

// list describes all pods of the node.
func (m *manager) list() []PodInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]PodInfo, 0, len(m.workers))
	for _, w := range m.workers {
		if info := w.info.Load(); info != nil {
			list = append(list, *info)
		}
	}
	return list
}
