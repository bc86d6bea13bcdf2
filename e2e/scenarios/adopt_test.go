package scenarios

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// manager is the field manager of emqx-operator 2.x, foreignRevision what it called the revision of its cluster.
const (
	manager         = "manager"
	foreignRevision = "5d8c7f6b9"
)

// TestAdoption: a cluster that emqx-operator 2.x built is taken over as it stands, with its clients connected, and then
// upgraded like any other.
func TestAdoption(t *testing.T) {
	c := start(t)
	c.must("", "apply", "-f", "../../manifests/base/crd")
	require.Eventually(t, func() bool {
		_, err := c.emqx.AppsV2beta1().EMQXes("default").List(t.Context(), metav1.ListOptions{})
		return err == nil
	}, patience, 100*time.Millisecond, "the resource to be served")
	c.buildForeign()

	address, err := localkube.Endpoint(t.Context(), c.dir, "default", name+"-listeners", "tcp-default")
	require.NoError(t, err)
	const clients = 100
	l, err := load.New(load.Config{Address: address, Clients: clients, MessagesPerSecond: 50})
	require.NoError(t, err)
	require.NoError(t, l.Connect(t.Context()))
	l.Start(t.Context())
	before := c.podUIDs()

	c.must("", "apply", "-k", "../../manifests")
	c.must("", "-n", "emqx-bg-operator-system", "rollout", "status", "deployment/emqx-bg-operator", "--timeout=120s")
	adopted := c.until("the adoption", func(e *v2beta1.EMQX) bool { return ready(e) && e.Status.Phase == v2beta1.PhaseDone })
	require.Equal(t, before, c.podUIDs(), "no pod is restarted")
	require.Zero(t, l.Stats().Disconnects, "no client is moved")
	require.Equal(t, foreignRevision, adopted.Status.CoreNodesStatus.CurrentRevision)
	var conditions []string
	for _, condition := range adopted.Status.Conditions {
		conditions = append(conditions, condition.Type)
	}
	require.ElementsMatch(t, []string{v2beta1.ConditionReady, v2beta1.ConditionAvailable, v2beta1.ConditionProgressing, v2beta1.ConditionStalled},
		conditions, "what the other operator said is not left standing")
	c.budget("that was taken over", func(b *policyv1.PodDisruptionBudget) bool {
		return b.Spec.Selector.MatchLabels[v2beta1.LabelPodTemplateHash] == foreignRevision && b.Spec.MinAvailable == nil && b.Spec.MaxUnavailable != nil
	})
	service := c.service()
	require.Equal(t, foreignRevision, service.Spec.Selector[v2beta1.LabelPodTemplateHash])
	require.False(t, slices.ContainsFunc(service.ManagedFields, func(e metav1.ManagedFieldsEntry) bool { return e.Manager == manager }))

	// A port that moves takes its name along: that of the other operator is not left standing.
	c.patch(`{"spec":{"imagePullPolicy":"Always","config":{"data":"license {\n  key = \"official\"\n}\nlisteners.ws.default.bind = 8085\n"}}}`)
	c.until("the upgrade", func(e *v2beta1.EMQX) bool {
		return ready(e) && e.Status.CoreNodesStatus.CurrentRevision != foreignRevision
	})
	require.Eventually(t, func() bool { return l.Stats().Connected == clients }, patience, 100*time.Millisecond)
	stats := l.Drain(t.Context(), patience)
	require.Zero(t, stats.Lost)
	require.LessOrEqual(t, stats.MaxDisconnects, int64(1))
	require.Zero(t, stats.SessionsLost)
	var ws []int32
	for _, port := range c.service().Spec.Ports {
		if port.Name == "ws-default" {
			ws = append(ws, port.Port)
		}
	}
	require.Equal(t, []int32{8085}, ws)
	sets, err := c.kube.AppsV1().StatefulSets("default").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, sets.Items, 1)
	require.NotContains(t, sets.Items[0].Name, foreignRevision)
}

func (c *installed) service() *corev1.Service {
	c.t.Helper()
	service, err := c.kube.CoreV1().Services("default").Get(c.t.Context(), name+"-listeners", metav1.GetOptions{})
	require.NoError(c.t, err)
	return service
}

func (c *installed) podUIDs() []types.UID {
	c.t.Helper()
	pods, err := c.kube.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{})
	require.NoError(c.t, err)
	var uids []types.UID
	for _, pod := range pods.Items {
		uids = append(uids, pod.UID)
	}
	slices.Sort(uids)
	return uids
}

// buildForeign makes what emqx-operator 2.x makes of the sample, under its field manager: Services that select all core
// nodes, a set without this operator's annotations, and a status in its words.
func (c *installed) buildForeign() {
	t, ctx := c.t, c.t.Context()
	var emqx v2beta1.EMQX
	require.NoError(t, yaml.Unmarshal([]byte(sample(t)), &emqx))
	emqx.Spec.CoreTemplate.Spec.Replicas = ptr.To(int32(2))
	emqx.Spec.UpdateStrategy.InitialDelaySeconds = 1
	emqx.Spec.UpdateStrategy.EvacuationStrategy = v2beta1.EvacuationStrategy{ConnEvictRate: 50, SessEvictRate: 50, WaitTakeover: 1}
	created, err := c.emqx.AppsV2beta1().EMQXes("default").Create(ctx, &emqx, metav1.CreateOptions{FieldManager: "kubectl-client-side-apply"})
	require.NoError(t, err)

	by := metav1.CreateOptions{FieldManager: manager}
	for _, secret := range []*corev1.Secret{
		resources.BootstrapAPIKeySecret(created, nil, "of-emqx-operator"), resources.NodeCookieSecret(created, "of-emqx-operator"),
	} {
		_, err := c.kube.CoreV1().Secrets("default").Create(ctx, secret, by)
		require.NoError(t, err)
	}
	owner := []metav1.OwnerReference{*metav1.NewControllerRef(created, v2beta1.SchemeGroupVersion.WithKind(v2beta1.Kind))}
	_, err = c.kube.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: created.ConfigMapName(), Labels: resources.Labels(created)}, // Its owner is lost.
		Data:       map[string]string{"emqx.conf": resources.ConfigText(created.Spec.Config.Data)},
	}, by)
	require.NoError(t, err)
	for service, spec := range map[string]corev1.ServiceSpec{
		created.HeadlessServiceName(): {
			ClusterIP: corev1.ClusterIPNone, PublishNotReadyAddresses: true,
			Ports: []corev1.ServicePort{servicePort("erlang-dist", 4370), servicePort("gen-rpc", 5369)},
		},
		created.DashboardServiceName(): {Ports: []corev1.ServicePort{servicePort("dashboard", 18083)}},
		created.ListenersServiceName(): {Ports: []corev1.ServicePort{
			servicePort("ssl-default", 8883), servicePort("tcp-default", 1883), servicePort("ws-default", 8083), servicePort("wss-default", 8084),
		}},
	} {
		spec.Selector = resources.CoreLabels(created)
		_, err := c.kube.CoreV1().Services("default").Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: service, Labels: resources.Labels(created), OwnerReferences: owner}, Spec: spec,
		}, by)
		require.NoError(t, err)
	}
	_, err = c.kube.PolicyV1().PodDisruptionBudgets("default").Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: created.CoreBudgetName(), Labels: resources.Labels(created), OwnerReferences: owner},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: resources.CoreLabels(created)},
		},
	}, by)
	require.NoError(t, err)
	set, err := resources.StatefulSet(created, resources.CoreSet{Revision: foreignRevision, Replicas: 2, ConfigMap: created.ConfigMapName(), Ports: resources.Ports{
		Dashboard: []resources.Port{{Name: "dashboard", Number: 18083, Protocol: corev1.ProtocolTCP}},
	}})
	require.NoError(t, err)
	set.Annotations = nil
	set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{}
	_, err = c.kube.AppsV1().StatefulSets("default").Create(ctx, set, by)
	require.NoError(t, err)

	for _, kind := range []string{"Initialized", "CoreNodesReady", "Available", "Ready"} {
		created.Status.Conditions = append(created.Status.Conditions, metav1.Condition{
			Type: kind, Status: metav1.ConditionTrue, Reason: kind, LastTransitionTime: metav1.Now(),
		})
	}
	created.Status.CoreNodesStatus = v2beta1.EMQXNodesStatus{
		Replicas: 2, ReadyReplicas: 2, CurrentRevision: foreignRevision, CurrentReplicas: 2, UpdateRevision: foreignRevision, UpdateReplicas: 2,
	}
	_, err = c.emqx.AppsV2beta1().EMQXes("default").UpdateStatus(ctx, created, metav1.UpdateOptions{FieldManager: manager})
	require.NoError(t, err)
	require.Eventually(t, c.openGates, patience, 100*time.Millisecond, "the pods of the other operator to serve")
}

func servicePort(name string, number int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(number)}
}

// openGates writes the readiness gate of pods whose containers are ready, as emqx-operator 2.x does, and reports whether
// both pods are ready.
func (c *installed) openGates() bool {
	pods, err := c.kube.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{})
	require.NoError(c.t, err)
	count := 0
	for _, pod := range pods.Items {
		is := map[corev1.PodConditionType]bool{}
		for _, condition := range pod.Status.Conditions {
			is[condition.Type] = condition.Status == corev1.ConditionTrue
		}
		switch {
		case is[corev1.PodReady]:
			count++
		case is[corev1.ContainersReady] && !is[v2beta1.ConditionOnServing]:
			_, err := c.kube.CoreV1().Pods("default").Patch(c.t.Context(), pod.Name, types.StrategicMergePatchType,
				[]byte(`{"status":{"conditions":[{"type":"apps.emqx.io/on-serving","status":"True"}]}}`), metav1.PatchOptions{FieldManager: manager}, "status")
			require.NoError(c.t, err)
		}
	}
	return count == 2
}
