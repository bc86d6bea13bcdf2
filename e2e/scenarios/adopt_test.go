package scenarios

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	emqxapi "github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// manager is the field manager of emqx-operator 2.x, foreignRevision what it called the revision of its cluster.
const (
	manager         = "manager"
	foreignRevision = "5d8c7f6b9"
)

// TestAdoption: a cluster that emqx-operator 2.x built is taken over as it stands, with its clients connected, by the commands of the
// guide, and then upgraded like any other.
func TestAdoption(t *testing.T) {
	c, l := startForeign(t, func(*v2beta1.EMQX) {})
	before := c.podUIDs()
	c.installForeign()

	work := c.desk()
	for _, command := range commandsOf(t, "docs/adoption.md") {
		output, err := paste(t, work, command)
		require.NoError(t, err, "%s\n%s", command, output)
	}
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
		_, ofOneRevision := b.Spec.Selector.MatchLabels[v2beta1.LabelPodTemplateHash]
		return !ofOneRevision && b.Spec.MaxUnavailable == nil && b.Spec.MinAvailable != nil && b.Spec.MinAvailable.IntVal == resources.RefuseAll
	})
	service := c.service()
	require.Equal(t, foreignRevision, service.Spec.Selector[v2beta1.LabelPodTemplateHash])
	require.False(t, slices.ContainsFunc(service.ManagedFields, func(e metav1.ManagedFieldsEntry) bool { return e.Manager == manager }))

	c.eventually("the Rebalance that failed to be let go", func() bool { return len(c.rebalance("former").Finalizers) == 0 })
	require.Equal(t, v2beta1.RebalanceFailed, c.rebalance("former").Status.Phase)

	// A port that moves takes its name along: that of the other operator is not left standing.
	c.patch(`{"spec":{"imagePullPolicy":"Always","config":{"data":"license {\n  key = \"official\"\n}\nlisteners.ws.default.bind = 8085\n"}}}`)
	c.until("the upgrade", func(e *v2beta1.EMQX) bool {
		return ready(e) && e.Status.CoreNodesStatus.CurrentRevision != foreignRevision
	})
	require.Eventually(t, func() bool { return l.Stats().Connected == foreignClients }, localkubetest.Patience, 100*time.Millisecond)
	stats := l.Drain(t.Context(), localkubetest.Patience)
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

// TestAdoptionInMidUpgrade: an upgrade that emqx-operator 2.x has begun, of a cluster with volumes, is taken over with its evacuations
// under way, and brought to its end.
func TestAdoptionInMidUpgrade(t *testing.T) {
	c, l := startForeign(t, func(emqx *v2beta1.EMQX) {
		emqx.Spec.CoreTemplate.Spec.VolumeClaimTemplates = corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}},
		}
	})

	const next = "6b7d8c9f5"
	c.patch(`{"spec":{"image":"emqx/emqx:6.0.2"}}`)
	emqx := c.get()
	c.foreignSet(emqx, next)
	require.Eventually(t, func() bool { return c.openGates(4) }, localkubetest.Patience, 100*time.Millisecond, "the new pods of the other operator to serve")
	emqx.Status.CoreNodesStatus = v2beta1.EMQXNodesStatus{Replicas: 2, ReadyReplicas: 4, CurrentRevision: foreignRevision, UpdateRevision: next}
	emqx.Status.Conditions = []metav1.Condition{{Type: "CoreNodesProgressing", Status: metav1.ConditionTrue, Reason: "CoreNodesProgressing", LastTransitionTime: metav1.Now()}}
	emqx.Status.DSReplication = &v2beta1.DSReplicationStatus{DBs: []v2beta1.DSDBReplicationStatus{{Name: "mq_state", NumShards: 16}}}
	_, err := c.emqx.AppsV2beta1().EMQXes("default").UpdateStatus(t.Context(), emqx, metav1.UpdateOptions{FieldManager: manager})
	require.NoError(t, err)
	c.evacuateForeign(foreignRevision, next)

	c.must("", "apply", "-k", "../../manifests")
	done := c.until("the end of the upgrade", func(e *v2beta1.EMQX) bool {
		return ready(e) && e.Status.Phase == v2beta1.PhaseDone && e.Status.CoreNodesStatus.CurrentRevision == next
	})
	require.Len(t, done.Status.CoreNodes, 2)
	require.Empty(t, done.Status.NodeEvacuationsStatus)
	require.Eventually(t, func() bool { return l.Stats().Connected == foreignClients }, localkubetest.Patience, 100*time.Millisecond)
	stats := l.Drain(t.Context(), localkubetest.Patience)
	require.Zero(t, stats.Lost)
	require.Zero(t, stats.SessionsLost)
	sets, err := c.kube.AppsV1().StatefulSets("default").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, sets.Items, 1, "the set before is gone")
	require.Equal(t, name+"-core-"+next, sets.Items[0].Name)
	require.Len(t, c.claims(foreignRevision), 2, "what was on its volumes is kept")
	require.Len(t, c.claims(next), 2)
}

// evacuateForeign starts evacuations as emqx-operator 2.x does.
func (c *installed) evacuateForeign(from, to string) {
	running, err := c.dir.Load()
	require.NoError(c.t, err)
	client := emqxapi.NewClient(nil)
	defer client.Close()
	nodeOf := func(revision string, ordinal int) string {
		return fmt.Sprintf("emqx@%s-core-%s-%d.%s-headless.default.svc.cluster.local", name, revision, ordinal, name)
	}
	for ordinal := range 2 {
		pod, err := c.kube.CoreV1().Pods("default").Get(c.t.Context(), fmt.Sprintf("%s-core-%s-%d", name, from, ordinal), metav1.GetOptions{})
		require.NoError(c.t, err)
		ip, err := running.Reach(pod.Status.PodIP)
		require.NoError(c.t, err)
		require.NoError(c.t, client.Start(c.t.Context(), emqxapi.Node{Name: nodeOf(from, ordinal), URL: "http://" + ip.String() + ":18083"},
			emqxapi.Credentials{Key: resources.OperatorAPIKey, Secret: "of-emqx-operator"},
			emqxapi.Evacuation{ConnEvictRate: 5, SessEvictRate: 5, WaitTakeover: time.Second, Recipients: []string{nodeOf(to, 0), nodeOf(to, 1)}}))
	}
}

// foreignClients are connected to the cluster of startForeign.
const foreignClients = 100

// startForeign is a cluster that emqx-operator 2.x built, with this operator's CRD, and clients connected to it.
func startForeign(t *testing.T, change func(*v2beta1.EMQX)) (*installed, *load.Load) {
	t.Helper()
	c := start(t)
	c.must("", "apply", "-f", "../../manifests/base/crd")
	require.Eventually(t, func() bool {
		_, err := c.emqx.AppsV2beta1().EMQXes("default").List(t.Context(), metav1.ListOptions{})
		return err == nil
	}, localkubetest.Patience, 100*time.Millisecond, "the resource to be served")
	c.buildForeign(change)
	address, err := localkube.Endpoint(t.Context(), c.dir, "default", name+"-listeners", "tcp-default")
	require.NoError(t, err)
	l, err := load.New(load.Config{Address: address, Clients: foreignClients, MessagesPerSecond: 50})
	require.NoError(t, err)
	require.NoError(t, l.Connect(t.Context()))
	l.Start(t.Context())
	return c, l
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

// installForeign leaves what the guide takes away of an installation of emqx-operator 2.x: its Deployment, a webhook that refuses every
// edit, CRDs with versions that were stored once, and a Rebalance that had failed.
func (c *installed) installForeign() {
	c.t.Helper()
	c.must("", "create", "namespace", "emqx-operator-system")
	c.must("", "-n", "emqx-operator-system", "create", "deployment", "emqx-operator-controller-manager", "--image=emqx/emqx-operator-controller:2.2.29", "--replicas=0")
	for crd, version := range map[string]string{"emqxes.apps.emqx.io": "v2alpha1", "rebalances.apps.emqx.io": "v1beta4"} {
		c.must("", "patch", "crd", crd, "--type=json", "-p", `[{"op":"add","path":"/spec/versions/-","value":{"name":"`+version+`","served":true,"storage":false,`+
			`"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}]`)
		c.must("", "patch", "crd", crd, "--subresource=status", "--type=merge", "-p", `{"status":{"storedVersions":["`+version+`","v2beta1"]}}`)
	}
	c.must(strings.Replace(rebalanceOf("former", 1, 1), "{name: former}", "{name: former, finalizers: [apps.emqx.io/finalizer]}", 1), "apply", "-f", "-")
	c.must("", "patch", "rebalance", "former", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Failed","conditions":[{"type":"Failed","status":"True","reason":"Failed",`+
		`"message":"EMQX emqx-ee is not ready","lastUpdateTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`)
	c.must(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: emqx-operator-validating-webhook-configuration}
webhooks:
- name: validator.apps.emqx.io
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {namespace: emqx-operator-system, name: emqx-operator-webhook-service}}
  rules: [{apiGroups: [apps.emqx.io], apiVersions: [v2beta1], operations: [UPDATE], resources: [emqxes]}]
`, "apply", "-f", "-")
	_, err := c.kubectl("", "annotate", "emqx", name, "edited=yes")
	require.Error(c.t, err, "the webhook refuses edits")
}

// buildForeign makes what emqx-operator 2.x makes of the sample, under its field manager: Services that select all core
// nodes, a set without this operator's annotations, and a status in its words.
func (c *installed) buildForeign(change func(*v2beta1.EMQX)) {
	t, ctx := c.t, c.t.Context()
	var emqx v2beta1.EMQX
	require.NoError(t, yaml.Unmarshal([]byte(sample(t)), &emqx))
	emqx.Spec.CoreTemplate.Spec.Replicas = ptr.To(int32(2))
	emqx.Spec.UpdateStrategy.InitialDelaySeconds = 1
	emqx.Spec.UpdateStrategy.EvacuationStrategy = v2beta1.EvacuationStrategy{ConnEvictRate: 50, SessEvictRate: 50, WaitTakeover: 1}
	change(&emqx)
	created, err := c.emqx.AppsV2beta1().EMQXes("default").Create(ctx, &emqx, metav1.CreateOptions{FieldManager: "kubectl-client-side-apply"})
	require.NoError(t, err)

	by := metav1.CreateOptions{FieldManager: manager}
	for _, secret := range []*corev1.Secret{
		resources.BootstrapAPIKeySecret(created, resources.KeysData{Own: resources.OperatorKey{Secret: "of-emqx-operator"}}), resources.NodeCookieSecret(created, "of-emqx-operator"),
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
	c.foreignSet(created, foreignRevision)

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
	require.Eventually(t, func() bool { return c.openGates(2) }, localkubetest.Patience, 100*time.Millisecond, "the pods of the other operator to serve")
}

// foreignSet makes a set of two nodes, of what the specification asks for.
func (c *installed) foreignSet(emqx *v2beta1.EMQX, revision string) {
	set, err := resources.StatefulSet(emqx, resources.CoreSet{Revision: revision, Replicas: 2, ConfigMap: emqx.ConfigMapName(), Ports: resources.Ports{
		Dashboard: []resources.Port{{Name: "dashboard", Number: 18083, Protocol: corev1.ProtocolTCP}},
	}})
	require.NoError(c.t, err)
	set.Annotations = nil
	set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{}
	_, err = c.kube.AppsV1().StatefulSets("default").Create(c.t.Context(), set, metav1.CreateOptions{FieldManager: manager})
	require.NoError(c.t, err)
}

func servicePort(name string, number int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(number)}
}

// openGates writes the readiness gate of pods whose containers are ready, as emqx-operator 2.x does, and reports whether
// so many pods are ready.
func (c *installed) openGates(wanted int) bool {
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
	return count == wanted
}
