package volumes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
)

// Config is what Run needs. All fields are required.
type Config struct {
	// Client may read claims and StorageClasses, and write volumes and events.
	Client kubernetes.Interface
	// Root is the directory in which the directories of volumes are made.
	Root string
	// Log takes what fails and is tried again.
	Log *slog.Logger
}

// provisioner makes and removes volumes, one at a time.
type provisioner struct {
	client   kubernetes.Interface
	root     string
	log      *slog.Logger
	recorder record.EventRecorder
	claims   corelisters.PersistentVolumeClaimLister
	volumes  corelisters.PersistentVolumeLister
	classes  storagelisters.StorageClassLister
	// queue holds claims, and volumes as names without a namespace.
	queue workqueue.TypedRateLimitingInterface[cache.ObjectName]
}

// Run provisions claims and removes what they leave until the context ends.
func Run(ctx context.Context, config Config) error {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: config.Client.CoreV1().Events("")})
	factory := informers.NewSharedInformerFactory(config.Client, 0)
	claims, volumes := factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().PersistentVolumes()
	classes := factory.Storage().V1().StorageClasses()
	p := &provisioner{
		client: config.Client, root: config.Root, log: config.Log,
		recorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: Provisioner}),
		claims:   claims.Lister(), volumes: volumes.Lister(), classes: classes.Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()),
	}
	synced := []cache.InformerSynced{classes.Informer().HasSynced}
	for _, informer := range []cache.SharedIndexInformer{claims.Informer(), volumes.Informer()} {
		registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: p.enqueue, UpdateFunc: func(_, object any) { p.enqueue(object) },
		})
		if err != nil {
			return fmt.Errorf("watch claims and volumes: %w", err)
		}
		synced = append(synced, registration.HasSynced)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	return p.work(ctx, synced)
}

func (p *provisioner) enqueue(object any) {
	name, err := cache.ObjectToName(object)
	if err != nil {
		p.log.Error("a claim or volume without a name", "error", err)
		return
	}
	p.queue.Add(name)
}

// work goes on until the context has ended and the last claim or volume is done.
func (p *provisioner) work(ctx context.Context, synced []cache.InformerSynced) error {
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		p.queue.ShutDown()
		return nil // The context has ended.
	}
	var worker sync.WaitGroup
	worker.Go(func() {
		for p.next(ctx) {
		}
	})
	<-ctx.Done()
	p.queue.ShutDown()
	worker.Wait()
	return nil
}

// next does what the queue has next; false when there is nothing any more.
func (p *provisioner) next(ctx context.Context) bool {
	name, shutdown := p.queue.Get()
	if shutdown {
		return false
	}
	defer p.queue.Done(name)
	var err error
	if name.Namespace == "" {
		err = p.syncVolume(ctx, name.Name)
	} else {
		err = p.syncClaim(ctx, name)
	}
	if err == nil {
		p.queue.Forget(name)
		return true
	}
	if !errors.Is(err, context.Canceled) {
		p.log.Warn("cannot provision or remove a volume; it is tried again", "object", name.String(), "error", err)
	}
	p.queue.AddRateLimited(name)
	return true
}
