package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/probing"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/spawn"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/network"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/volumes"
)

const (
	// backOffFirst and backOffMost are the kubelet's; the back-off starts over after twice the longest.
	backOffFirst = 10 * time.Second
	backOffMost  = 300 * time.Second
	// orphanTimeout bounds the killing of what a former agent left behind.
	orphanTimeout = 20 * time.Second
	// shutdownTimeout bounds the end of requests that are under way.
	shutdownTimeout = 2 * time.Second
)

// Run is the node agent: it returns when the context has ended and no process of a pod is left.
func Run(ctx context.Context, config Config) error {
	client, err := newClient(config.Dir)
	if err != nil {
		return err
	}
	if err := killOrphans(ctx, &config); err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	spawner := spawn.New()
	defer spawner.Close()
	d := &deps{
		config: &config, client: client, spawner: spawner, prober: probing.New(), source: apiSource{client}, tokens: apiTokens{client},
		claims:      apiClaims{client},
		recorder:    broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "local-node-agent", Host: state.NodeName}),
		allocatable: allocatable(), addresses: newAddressPool(config.plan().PodPrefix()),
		crash: flowcontrol.NewBackOff(backOffFirst, backOffMost), image: flowcontrol.NewBackOff(backOffFirst, backOffMost),
		log: config.Log,
	}
	return runParts(ctx, d)
}

func newClient(dir state.Dir) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", dir.AgentKubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the agent's kubeconfig: %w", err)
	}
	config.QPS = -1 // the machine is the limit
	config.UserAgent = "local-node-agent"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make the agent's client: %w", err)
	}
	return client, nil
}

// killOrphans ends what containers of a former agent of this cluster left behind.
func killOrphans(ctx context.Context, config *Config) error {
	ctx, cancel := context.WithTimeout(ctx, orphanTimeout)
	defer cancel()
	killed, err := proc.KillByEnv(ctx, PodsEnv, config.State.ID)
	if err != nil {
		return fmt.Errorf("kill the containers of a former agent: %w", err)
	}
	if killed > 0 {
		config.Log.Info("killed what a former agent left running", "processes", killed)
	}
	return nil
}

// runParts runs pods, volumes, network, node and server; the end of one is the end of all.
func runParts(ctx context.Context, d *deps) error {
	group, ctx := errgroup.WithContext(ctx)
	cluster := informers.NewSharedInformerFactory(d.client, 0)
	nodePods := informers.NewSharedInformerFactoryWithOptions(d.client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", state.NodeName).String()
	}))
	// Before the node is ready, so that what a pod claims has a StorageClass.
	if err := volumes.EnsureClass(ctx, d.client); err != nil {
		return err
	}
	m, err := newManager(d, nodePods, cluster)
	if err != nil {
		return err
	}
	if err := startNetwork(ctx, group, d, cluster); err != nil {
		return err
	}
	server, listener, err := newServer(ctx, d.config, m)
	if err != nil {
		return err
	}
	cluster.Start(ctx.Done())
	nodePods.Start(ctx.Done())
	defer cluster.Shutdown()
	defer nodePods.Shutdown()
	group.Go(func() error { return m.run(ctx) })
	group.Go(func() error { return runNode(ctx, d.config, d.client) })
	group.Go(func() error { return serve(ctx, server, func() error { return server.ServeTLS(listener, "", "") }) })
	group.Go(func() error {
		return volumes.Run(ctx, volumes.Config{Client: d.client, Root: d.config.Dir.Volumes(), Log: d.log})
	})
	group.Go(func() error { collectBackOff(ctx, d); return nil })
	d.log.Info("node agent is up", "node", state.NodeName, "address", d.config.hostIP())
	return group.Wait()
}

// collectBackOff forgets, once in a while, the back-off of containers that have run well for long.
func collectBackOff(ctx context.Context, d *deps) {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			d.crash.GC()
			d.image.GC()
		}
	}
}

// startNetwork starts the Service listeners, the DNS server and the HTTP proxy.
func startNetwork(ctx context.Context, group *errgroup.Group, d *deps, factory informers.SharedInformerFactory) error {
	directory := network.NewDirectory(factory)
	proxier, err := network.NewProxier(factory, directory, d.log)
	if err != nil {
		return err
	}
	resolver := network.NewResolver(directory)
	ports := d.config.State.Ports
	dns, err := network.ListenDNS(ctx, d.config.State.Endpoint(ports.DNS), resolver, d.log)
	if err != nil {
		return err
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp4", d.config.State.Endpoint(ports.HTTPProxy))
	if err != nil {
		return fmt.Errorf("open the HTTP proxy's port: %w", err)
	}
	proxy := network.NewHTTPProxy(d.config.plan(), resolver, d.log)
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: 30 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	group.Go(func() error { proxier.Run(ctx); return nil })
	group.Go(func() error { dns.Run(ctx); return nil })
	group.Go(func() error {
		defer proxy.Close()
		return serve(ctx, server, func() error { return server.Serve(listener) })
	})
	return nil
}

// serve runs an HTTP server until the context ends.
func serve(ctx context.Context, server *http.Server, run func() error) error {
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		err := server.Shutdown(timeout)
		if err != nil {
			err = server.Close()
		}
		stopped <- err
	})
	err := run()
	if !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serve at %s: %w", server.Addr, err)
	}
	return <-stopped
}
