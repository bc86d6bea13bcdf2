// Package secrecy looks whether a cluster tells its secrets: in the logs of pods, in events, statuses, metrics and in every other
// object but Secrets.
package secrecy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
)

// shortest is how long a value is at least that is looked for: shorter ones are words.
const shortest = 12

// Keeper knows the secrets that there ever were since it began.
type Keeper struct {
	mu     sync.Mutex
	values map[string]string // Where each was.
	stop   func()
}

// Keep begins to watch Secrets, and knows those that there are. Close, or the end of the context, ends that; what is known stays.
func Keep(ctx context.Context, kube kubernetes.Interface) (*Keeper, error) {
	ctx, cancel := context.WithCancel(ctx)
	k := &Keeper{values: map[string]string{}}
	factory := informers.NewSharedInformerFactory(kube, 0)
	k.stop = func() {
		cancel()
		factory.Shutdown()
	}
	registration, err := factory.Core().V1().Secrets().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { k.saw(object) },
		UpdateFunc: func(_, object any) { k.saw(object) },
	})
	if err != nil {
		k.stop()
		return nil, fmt.Errorf("watch Secrets: %w", err)
	}
	factory.Start(ctx.Done())
	limited, end := context.WithTimeout(ctx, time.Minute)
	defer end()
	if !cache.WaitForCacheSync(limited.Done(), registration.HasSynced) {
		k.stop()
		return nil, errors.New("watch Secrets: they were not listed within a minute")
	}
	return k, nil
}

// Close ends the watch.
func (k *Keeper) Close() { k.stop() }

func (k *Keeper) saw(object any) {
	secret, ok := object.(*corev1.Secret)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for entry, data := range secret.Data {
		if bytes.HasPrefix(data, []byte("-----BEGIN CERTIFICATE-----")) && !bytes.Contains(data, []byte("PRIVATE KEY")) {
			continue // That is for everybody to see.
		}
		for line := range strings.Lines(string(data)) {
			value := strings.TrimSpace(line)
			// API keys are KEY:SECRET:ROLE, a line each.
			if fields := strings.Split(value, ":"); len(fields) > 1 {
				value = fields[1]
			}
			if len(value) >= shortest && !strings.HasPrefix(value, "-----") {
				k.values[value] = fmt.Sprintf("entry %s of Secret %s/%s", entry, secret.Namespace, secret.Name)
			}
		}
	}
}

// Place is where a cluster is looked at.
type Place struct {
	Kube kubernetes.Interface
	EMQX versioned.Interface
	// Logs is the directory with the logs of pods.
	Logs string
	// Metrics are the addresses of metrics.
	Metrics []string
}

// Told names the secrets that are told somewhere, and where. It never returns one.
func (k *Keeper) Told(ctx context.Context, place Place) ([]string, error) {
	found := map[string]bool{}
	k.mu.Lock()
	known := maps.Clone(k.values)
	k.mu.Unlock()
	look := func(where string, text []byte) {
		for value, whose := range known {
			if bytes.Contains(text, []byte(value)) || bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString([]byte(value)))) {
				found[whose+" in "+where] = true
			}
		}
	}
	for _, read := range []func(context.Context, func(string, []byte)) error{place.logs, place.objects, place.metrics} {
		if err := read(ctx, look); err != nil {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// logs reads those of all pods.
func (p Place) logs(_ context.Context, look func(string, []byte)) error {
	logs := os.DirFS(p.Logs)
	return fs.WalkDir(logs, ".", func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := fs.ReadFile(logs, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		pod, _, _ := strings.Cut(name, "/")
		look("the log "+pod, text)
		return nil
	})
}

// objects reads those of which users see what the operator and Kubernetes write.
func (p Place) objects(ctx context.Context, look func(string, []byte)) error {
	options := metav1.ListOptions{}
	for kind, list := range map[string]func() (any, error){
		"events":       func() (any, error) { return p.Kube.EventsV1().Events("").List(ctx, options) },
		"pods":         func() (any, error) { return p.Kube.CoreV1().Pods("").List(ctx, options) },
		"ConfigMaps":   func() (any, error) { return p.Kube.CoreV1().ConfigMaps("").List(ctx, options) },
		"Services":     func() (any, error) { return p.Kube.CoreV1().Services("").List(ctx, options) },
		"StatefulSets": func() (any, error) { return p.Kube.AppsV1().StatefulSets("").List(ctx, options) },
		"Leases":       func() (any, error) { return p.Kube.CoordinationV1().Leases("").List(ctx, options) },
		"EMQXes":       func() (any, error) { return p.resources(ctx) },
	} {
		objects, err := list()
		if apierrors.IsNotFound(err) {
			continue // The operator is not installed.
		}
		if err != nil {
			return fmt.Errorf("list the %s: %w", kind, err)
		}
		text, err := json.Marshal(objects)
		if err != nil {
			return err
		}
		look("the "+kind, text)
	}
	return nil
}

// resources are the EMQX resources without what users wrote into them themselves: an API key that is given there is told there.
func (p Place) resources(ctx context.Context) (any, error) {
	list, err := p.EMQX.AppsV2beta1().EMQXes("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		list.Items[i].Spec.BootstrapAPIKeys = nil
		delete(list.Items[i].Annotations, corev1.LastAppliedConfigAnnotation)
	}
	return list, nil
}

func (p Place) metrics(ctx context.Context, look func(string, []byte)) error {
	for _, address := range p.Metrics {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			continue // The pod has gone.
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close() // It has been read, or not: the error of that counts.
		if err != nil {
			return fmt.Errorf("read metrics: %w", err)
		}
		look("the metrics", text)
	}
	return nil
}
