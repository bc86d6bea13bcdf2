package upgrade

import (
	"context"
	"fmt"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// fleet holds the driver of every cluster.
type fleet struct {
	kube   kubernetes.Interface
	api    evacuate.API
	wake   func(cache.ObjectName)
	logger klog.Logger
	// panicked is told of a panic in a driver.
	panicked func()
	turns    *evacuate.Turns

	mu      sync.Mutex
	drivers map[cache.ObjectName]*member
	closing sync.WaitGroup
}

type member struct {
	uid    types.UID
	driver *evacuate.Driver
}

// driver returns the driver of a resource, and makes it when there is none. Another resource of the same name gets
// another driver.
func (f *fleet) driver(resource *v2beta1.EMQX) *evacuate.Driver {
	name := key(resource)
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.drivers[name]; m != nil {
		if m.uid == resource.UID {
			return m.driver
		}
		f.close(m)
	}
	secret := resource.BootstrapAPIKeySecretName()
	driver := evacuate.NewDriver(evacuate.Config{
		API: f.api,
		Credentials: func(ctx context.Context) ([]emqx.Credentials, error) {
			return f.credentials(ctx, name.Namespace, secret)
		},
		Changed: func() { f.wake(name) }, Panicked: f.panicked,
		Turns: f.turns, Name: name.String(), Logger: f.logger.WithValues("emqx", name.String()),
	})
	f.drivers[name] = &member{uid: resource.UID, driver: driver}
	return driver
}

// observation is what a resource's driver last saw, for metrics; false when there is no driver.
func (f *fleet) observation(name cache.ObjectName) (evacuate.Observation, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.drivers[name]; m != nil {
		return m.driver.Observation(), true
	}
	return evacuate.Observation{}, false
}

// taken is the operator's API key that a resource's nodes took last; nil when none was taken since this operator began.
func (f *fleet) taken(resource *v2beta1.EMQX) *resources.OperatorKey {
	f.mu.Lock()
	m := f.drivers[key(resource)]
	f.mu.Unlock()
	if m == nil || m.uid != resource.UID {
		return nil
	}
	credentials, known := m.driver.Credentials()
	if !known {
		return nil
	}
	return &resources.OperatorKey{Secret: credentials.Secret, Scoped: credentials.SystemKey != ""}
}

// drop ends the driver of a resource that is gone.
func (f *fleet) drop(name cache.ObjectName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.drivers[name]; m != nil {
		delete(f.drivers, name)
		f.close(m)
	}
}

// close ends a driver without holding the lock for as long as its requests take.
func (f *fleet) close(m *member) { f.closing.Go(m.driver.Close) }

// shutdown ends all drivers and waits for them.
func (f *fleet) shutdown() {
	f.mu.Lock()
	for name, m := range f.drivers {
		delete(f.drivers, name)
		f.close(m)
	}
	f.mu.Unlock()
	f.closing.Wait()
}

// credentials reads the operator's API keys of a cluster.
func (f *fleet) credentials(ctx context.Context, namespace, name string) ([]emqx.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	secret, err := f.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the API key from Secret %s/%s: %w", namespace, name, err)
	}
	own, previous := resources.OperatorKeys(secret.Data)
	if own != nil {
		previous = slices.Insert(previous, 0, *own)
	}
	var known []emqx.Credentials
	for _, key := range previous {
		credentials := emqx.Credentials{Key: resources.OperatorAPIKey, Secret: key.Secret}
		if key.Scoped {
			credentials.SystemKey = resources.SystemAPIKey
		}
		known = append(known, credentials)
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("read the API key from Secret %s/%s: entry %s has no line for %s",
			namespace, name, resources.BootstrapAPIKeyKey, resources.OperatorAPIKey)
	}
	return known, nil
}
