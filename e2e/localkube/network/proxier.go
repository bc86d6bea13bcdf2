package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// backendDialTimeout is how long a backend may take to accept a connection.
const backendDialTimeout = 10 * time.Second

// Proxier keeps a TCP listener for every Service port that has ready endpoints and forwards connections to them.
type Proxier struct {
	directory *Directory
	log       *slog.Logger
	queue     workqueue.TypedRateLimitingInterface[cache.ObjectName]
	handlers  []cache.InformerSynced
	relay     *relay

	// listeners by Service; touched by the one worker only.
	listeners map[cache.ObjectName]map[netip.AddrPort]*serviceListener
	// noted are the ports that the log has named as not served.
	noted map[cache.ObjectName]string
	wg    sync.WaitGroup
}

// NewProxier registers its handlers with the factory's informers; Run does the work.
func NewProxier(factory informers.SharedInformerFactory, directory *Directory, log *slog.Logger) (*Proxier, error) {
	p := &Proxier{
		directory: directory,
		log:       log,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](50*time.Millisecond, 10*time.Second)),
		relay:     newRelay(),
		listeners: map[cache.ObjectName]map[netip.AddrPort]*serviceListener{},
		noted:     map[cache.ObjectName]string{},
	}
	enqueue := func(object any) {
		if key, ok := serviceOf(object); ok {
			p.queue.Add(key)
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
		DeleteFunc: enqueue,
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Services().Informer(), factory.Discovery().V1().EndpointSlices().Informer(),
	} {
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return nil, fmt.Errorf("watch Services: %w", err)
		}
		p.handlers = append(p.handlers, registration.HasSynced)
	}
	return p, nil
}

// serviceOf names the Service that an object of a watch is, or belongs to.
func serviceOf(object any) (cache.ObjectName, bool) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	switch o := object.(type) {
	case *corev1.Service:
		return cache.NewObjectName(o.Namespace, o.Name), true
	case *discoveryv1.EndpointSlice:
		name := o.Labels[discoveryv1.LabelServiceName]
		return cache.NewObjectName(o.Namespace, name), name != ""
	}
	return cache.ObjectName{}, false
}

// Run forwards until the context ends, and then closes all listeners and connections.
func (p *Proxier) Run(ctx context.Context) {
	defer p.wg.Wait()
	defer p.closeAll()
	if !cache.WaitForCacheSync(ctx.Done(), p.handlers...) {
		p.queue.ShutDown()
		return
	}
	stop := context.AfterFunc(ctx, p.queue.ShutDown)
	defer stop()
	for {
		key, shutdown := p.queue.Get()
		if shutdown {
			return
		}
		if err := p.sync(ctx, key); err != nil {
			p.log.Warn("cannot serve a Service", "service", key.String(), "error", err)
			p.queue.AddRateLimited(key)
		} else {
			p.queue.Forget(key)
		}
		p.queue.Done(key)
	}
}

func (p *Proxier) closeAll() {
	for _, listeners := range p.listeners {
		for _, listener := range listeners {
			listener.close()
		}
	}
}

// sync makes the listeners of one Service what its ports and endpoints ask for.
func (p *Proxier) sync(ctx context.Context, key cache.ObjectName) error {
	service, endpointSlices, err := p.directory.Service(key.Namespace, key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	wanted := map[netip.AddrPort][]netip.AddrPort{}
	if err != nil {
		delete(p.noted, key)
	} else {
		forwards, skipped := Forwards(service, endpointSlices)
		p.note(key, skipped)
		for _, forward := range forwards {
			// Without a backend nothing listens, so that a client is refused, as kube-proxy refuses it.
			if len(forward.Backends) > 0 {
				wanted[forward.Listen] = forward.Backends
			}
		}
	}
	return p.reconcile(ctx, key, wanted)
}

// note says once which ports of a Service are not served.
func (p *Proxier) note(key cache.ObjectName, skipped []string) {
	text := strings.Join(skipped, " ")
	if text != "" && p.noted[key] != text {
		p.log.Info("only TCP is forwarded; these ports of the Service are not served", "service", key.String(), "ports", text)
	}
	p.noted[key] = text
}

func (p *Proxier) reconcile(ctx context.Context, key cache.ObjectName, wanted map[netip.AddrPort][]netip.AddrPort) error {
	current := p.listeners[key]
	if current == nil {
		current = map[netip.AddrPort]*serviceListener{}
		p.listeners[key] = current
	}
	for address, listener := range current {
		if _, keep := wanted[address]; !keep {
			listener.close()
			delete(current, address)
		}
	}
	var problems []error
	for address, backends := range wanted {
		if listener, exists := current[address]; exists {
			listener.setBackends(backends)
			continue
		}
		listener, err := p.listen(ctx, address, backends)
		switch {
		case errors.Is(err, syscall.EACCES):
			// A retry would change nothing.
			p.log.Warn("this user may not listen at a port this low; the Service port is not served",
				"service", key.String(), "address", address.String())
		case err != nil:
			problems = append(problems, err)
		default:
			current[address] = listener
		}
	}
	if len(current) == 0 {
		delete(p.listeners, key)
	}
	return errors.Join(problems...)
}

// noKeepAlive saves four system calls a connection: the kernel knows at once when the other end of a loopback connection
// has gone.
const noKeepAlive = -1

// serviceListener is one Service port.
type serviceListener struct {
	listener net.Listener
	backends atomic.Pointer[[]netip.AddrPort]
}

func (l *serviceListener) setBackends(backends []netip.AddrPort) {
	copied := slices.Clone(backends)
	l.backends.Store(&copied)
}

// close ends the listening; connections that were accepted go on.
func (l *serviceListener) close() { _ = l.listener.Close() }

func (p *Proxier) listen(ctx context.Context, address netip.AddrPort, backends []netip.AddrPort) (*serviceListener, error) {
	config := net.ListenConfig{KeepAlive: noKeepAlive}
	listener, err := config.Listen(ctx, "tcp4", address.String())
	if err != nil {
		return nil, err
	}
	l := &serviceListener{listener: listener}
	l.setBackends(backends)
	p.wg.Go(func() { p.accept(ctx, l) })
	return l, nil
}

func (p *Proxier) accept(ctx context.Context, l *serviceListener) {
	for {
		connection, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Most likely out of file descriptors: connections that end make room.
			p.log.Warn("cannot accept a connection to a Service", "address", l.listener.Addr().String(), "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		client := connection.(*net.TCPConn)
		backends := *l.backends.Load()
		backend := backends[rand.IntN(len(backends))] //nolint:gosec // no secret is drawn
		p.wg.Go(func() { p.forward(ctx, client, backend) })
	}
}

func (p *Proxier) forward(ctx context.Context, client *net.TCPConn, backend netip.AddrPort) {
	dialer := net.Dialer{Timeout: backendDialTimeout, KeepAlive: noKeepAlive}
	connection, err := dialer.DialContext(ctx, "tcp4", backend.String())
	if err != nil {
		// The client is refused by a reset, as it would be if it had reached the backend itself.
		reset(client)
		return
	}
	server := connection.(*net.TCPConn)
	p.relay.join(ctx, client, server)
}
