package upgrade

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// deafAPI is a broker that neither answers nor notices that nobody waits any more.
type deafAPI struct{}

func (deafAPI) Info(context.Context, emqx.Node, emqx.Credentials) (emqx.NodeInfo, error) {
	return emqx.NodeInfo{}, deaf()
}

func (deafAPI) Members(context.Context, emqx.Node, emqx.Credentials) ([]string, error) {
	return nil, deaf()
}

func (deafAPI) ListenerRunning(context.Context, emqx.Node, emqx.Credentials, string) (bool, error) {
	return false, deaf()
}

func (deafAPI) Moves(context.Context, emqx.Node, emqx.Credentials) (emqx.Moves, error) {
	return emqx.Moves{}, deaf()
}

func (deafAPI) StartRebalance(context.Context, emqx.Node, emqx.Credentials, emqx.Rebalance) error {
	return deaf()
}

func (deafAPI) StopRebalance(context.Context, emqx.Node, emqx.Credentials) error { return deaf() }

func (deafAPI) Start(context.Context, emqx.Node, emqx.Credentials, emqx.Evacuation) error {
	return deaf()
}

func (deafAPI) Stop(context.Context, emqx.Node, emqx.Credentials) error { return deaf() }

func (deafAPI) ForceLeave(context.Context, emqx.Node, emqx.Credentials, string) error { return deaf() }

func (deafAPI) Storage(context.Context, emqx.Node, emqx.Credentials) (emqx.Storage, error) {
	return emqx.Storage{}, deaf()
}

func (deafAPI) SetReplicas(context.Context, emqx.Node, emqx.Credentials, string, []string) error {
	return deaf()
}

func (deafAPI) ForgetSite(context.Context, emqx.Node, emqx.Credentials, string) error { return deaf() }

func (deafAPI) LoadKeys(context.Context, emqx.Node, emqx.Credentials, string) error { return deaf() }

func deaf() error {
	time.Sleep(time.Minute)
	return emqx.ErrSilent
}

func (deafAPI) Licence(context.Context, emqx.Node, emqx.Credentials) (emqx.Licence, error) {
	return emqx.Licence{}, deaf()
}

func (deafAPI) Delayed(context.Context, emqx.Node, emqx.Credentials) (emqx.Count, error) {
	return emqx.Count{}, deaf()
}

func (deafAPI) Available(context.Context, emqx.Node) (bool, error) {
	return false, deaf()
}

// TestNobodyWaitsForADriver: what asks a cluster that is gone may take long to end; the worker that drops it goes on.
func TestNobodyWaitsForADriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resource := &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "u"}}
		f := &fleet{
			kube: fake.NewSimpleClientset(&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: resource.BootstrapAPIKeySecretName(), Namespace: "n"},
				Data:       map[string][]byte{resources.BootstrapAPIKeyKey: []byte(resources.OperatorAPIKey + ":secret:administrator")},
			}),
			api: deafAPI{}, drivers: map[cache.ObjectName]*member{}, logger: klog.Background(),
			wake: func(cache.ObjectName) {}, panicked: func() {},
		}
		f.driver(resource).Pursue(evacuate.Goal{Nodes: []evacuate.NodeGoal{{Node: emqx.Node{Name: "a"}}}})
		synctest.Wait()
		began := time.Now()
		f.drop(key(resource))
		require.Zero(t, time.Since(began))
		f.shutdown()
	})
}
