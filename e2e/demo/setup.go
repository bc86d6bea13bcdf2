package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
)

const (
	// installLimit bounds the installation, readyLimit a cluster's way to Ready, both far beyond what is usual.
	installLimit = 2 * time.Minute
	readyLimit   = 5 * time.Minute
	// licenceKey is anything but communityKey, which allows one node.
	licenceKey   = "official-licence-key"
	communityKey = "default"
	listenerPort = "tcp-default"
	pollInterval = 50 * time.Millisecond
)

// setUp starts the cluster, installs the operator and waits until the sample is Ready.
func (r *run) setUp(ctx context.Context) error {
	var err error
	if r.target.Dir, err = state.OpenDir(r.config.Dir); err != nil {
		return err
	}
	if !r.config.Running {
		err = localkube.Up(ctx, localkube.UpOptions{
			Dir: r.config.Dir, Images: r.config.Images, ClusterBinary: r.config.ClusterBinary, Registry: r.config.Registry,
			Progress: func(sentence string) { r.say("%s", sentence) },
		})
		if err != nil {
			return err
		}
	}
	if r.target.State, err = r.target.Dir.Load(); err != nil {
		return err
	}
	if r.target.Kube, err = localkube.Client(r.target.Dir); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.target.Dir.AdminKubeconfig())
	if err != nil {
		return fmt.Errorf("read the admin's kubeconfig: %w", err)
	}
	if r.target.EMQX, err = versioned.NewForConfig(config); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := r.install(ctx); err != nil {
		return err
	}
	return r.applySample(ctx)
}

// install installs the operator as its documentation says and waits until its pods are ready.
func (r *run) install(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, installLimit, fmt.Errorf("the operator was not installed within %s", installLimit))
	defer cancel()
	r.say("$ kubectl apply -k %s", shown(r.config.Manifests))
	if _, err := r.kubectl(ctx, "", "apply", "-k", r.config.Manifests); err != nil {
		return err
	}
	// kubectl knows a new kind only once kube-apiserver lists it.
	var last error
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(context.Context) (bool, error) {
		var list *metav1.APIResourceList
		list, last = r.target.Kube.Discovery().ServerResourcesForGroupVersion(v2beta1.SchemeGroupVersion.String())
		return last == nil && slices.ContainsFunc(list.APIResources, func(resource metav1.APIResource) bool { return resource.Kind == v2beta1.Kind }), nil
	})
	if err != nil {
		return fmt.Errorf("wait for the kind %s: %w", v2beta1.Kind, errors.Join(context.Cause(ctx), last))
	}
	if _, err := r.kubectl(ctx, "", "rollout", "status", "deployment/emqx-bg-operator", "-n", measure.OperatorNamespace); err != nil {
		return err
	}
	r.say("the operator is running")
	return nil
}

// applySample applies the sample with the changes asked for and waits until it is Ready.
func (r *run) applySample(ctx context.Context) error {
	path := filepath.Join(r.config.Manifests, sampleFile)
	sample, err := r.config.sample(path)
	if err != nil {
		return err
	}
	if r.target.Namespace = sample.GetNamespace(); r.target.Namespace == "" {
		r.target.Namespace = metav1.NamespaceDefault
	}
	text, err := yaml.Marshal(sample.Object)
	if err != nil {
		return fmt.Errorf("write the sample: %w", err)
	}
	r.say("$ kubectl apply -f %s", shown(path))
	if _, err := r.kubectl(ctx, string(text), "apply", "-n", r.target.Namespace, "-f", "-"); err != nil {
		return err
	}
	r.target.Name = sample.GetName()
	object, err := r.target.EMQX.AppsV2beta1().EMQXes(r.target.Namespace).Get(ctx, r.target.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the resource that was applied: %w", err)
	}
	if r.observer, err = measure.Observe(ctx, r.target); err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, readyLimit, fmt.Errorf("it did not become Ready within %s", readyLimit))
	defer cancel()
	if err := r.observer.Ready(limited, object.Generation); err != nil {
		latest := r.observer.Latest()
		r.observer.Close()
		return fmt.Errorf("install %s (%s): %w", r.target.Name, latest.Status.State, err)
	}
	r.say("%s is Ready, with %d nodes", r.target.Name, r.observer.Latest().Status.CoreNodesStatus.ReadyReplicas)
	return nil
}

// sample reads the sample and changes it as the configuration asks.
func (c *Config) sample(path string) (*unstructured.Unstructured, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the sample: %w", err)
	}
	var sample unstructured.Unstructured
	if err := yaml.Unmarshal(text, &sample.Object); err != nil {
		return nil, fmt.Errorf("read the sample %s: %w", path, err)
	}
	configuration, _, err := unstructured.NestedString(sample.Object, "spec", "config", "data")
	if err != nil {
		return nil, fmt.Errorf("read the sample %s: %w", path, err)
	}
	key := licenceKey
	if c.NoLicence {
		key = communityKey
	}
	changes := []struct {
		value any
		path  []string
	}{
		{strings.ReplaceAll(configuration, `"..."`, `"`+key+`"`), []string{"spec", "config", "data"}},
		{number(&c.Replicas, true), []string{"spec", "coreTemplate", "spec", "replicas"}},
		{number(&c.ConnEvictRate, true), []string{"spec", "updateStrategy", "evacuationStrategy", "connEvictRate"}},
		{number(&c.SessEvictRate, true), []string{"spec", "updateStrategy", "evacuationStrategy", "sessEvictRate"}},
		{number(c.WaitTakeoverSeconds, false), []string{"spec", "updateStrategy", "evacuationStrategy", "waitTakeover"}},
		{number(c.InitialDelaySeconds, false), []string{"spec", "updateStrategy", "initialDelaySeconds"}},
		{[]any{map[string]any{"name": "EMQX_STANDIN_STORAGE_SCALE", "value": fmt.Sprint(c.ReplicaSeconds / measure.JoinSeconds)}}, []string{"spec", "coreTemplate", "spec", "env"}},
	}
	if c.VolumeSize != "" {
		changes = append(changes, struct {
			value any
			path  []string
		}{map[string]any{
			"accessModes": []any{"ReadWriteOnce"}, "resources": map[string]any{"requests": map[string]any{"storage": c.VolumeSize}},
		}, []string{"spec", "coreTemplate", "spec", "volumeClaimTemplates"}})
	}
	for _, change := range changes {
		if change.value == nil {
			continue
		}
		if err := unstructured.SetNestedField(sample.Object, change.value, change.path...); err != nil {
			return nil, fmt.Errorf("change the sample %s: %w", path, err)
		}
	}
	return &sample, nil
}

// number is a value for a manifest; nil when it is not to be changed.
func number(value *int32, zeroIsNone bool) any {
	if value == nil || (zeroIsNone && *value == 0) {
		return nil
	}
	return int64(*value)
}

// connect connects the clients and starts the messages. They live until ctx ends.
func (r *run) connect(ctx context.Context) error {
	address, err := localkube.Endpoint(ctx, r.target.Dir, r.target.Namespace, r.observer.Latest().ListenersServiceName(), listenerPort)
	if err != nil {
		return err
	}
	r.load, err = load.New(load.Config{Address: address, Clients: r.config.Clients, MessagesPerSecond: r.config.MessagesPerSecond, ReturnDelay: r.config.ReturnDelay})
	if err != nil {
		return err
	}
	r.say("connecting %s MQTT clients through the listeners Service at %s", measure.Count(r.config.Clients), address)
	limited, cancel := context.WithTimeoutCause(ctx, readyLimit, fmt.Errorf("not all clients were connected within %s", readyLimit))
	defer cancel()
	// Clients live as long as the context that they were connected with, so it has no limit: the limit is watched here.
	connected := make(chan error, 1)
	go func() { connected <- r.load.Connect(ctx) }()
	select {
	case err := <-connected:
		if err != nil {
			return fmt.Errorf("connect the clients: %w", err)
		}
	case <-limited.Done():
		return fmt.Errorf("connect the clients: %w", context.Cause(limited))
	}
	r.load.Start(ctx)
	return nil
}

// shown is a path as a person would type it.
func shown(path string) string {
	working, err := os.Getwd()
	if err != nil {
		return path
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if relative, err := filepath.Rel(working, absolute); err == nil && !strings.HasPrefix(relative, "..") {
		return relative
	}
	return path
}
