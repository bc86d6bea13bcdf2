package scenarios

import (
	"encoding/base64"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// TestResource follows one cluster through what its users do: apply, be refused, break the image, correct it, break the
// configuration, pause, ask for what is not supported, look, delete. At the end the rights that were used are held
// against those that the operator has.
func TestResource(t *testing.T) {
	c := install(t)

	t.Run("wrong input is refused with the field's path", func(t *testing.T) {
		for _, test := range []struct {
			reason, patch string
			want          []string
		}{
			{"a negative rate", `{"spec":{"updateStrategy":{"evacuationStrategy":{"connEvictRate":-1}}}}`, []string{"spec.updateStrategy.evacuationStrategy.connEvictRate", "greater than or equal to 1"}},
			{"both PDB fields", `{"spec":{"coreTemplate":{"spec":{"minAvailable":1,"maxUnavailable":1}}}}`, []string{"spec.coreTemplate.spec", "exclude each other"}},
			{"a bad image", `{"spec":{"image":"emqx emqx"}}`, []string{"spec.image", "must be an image reference"}},
			{"an unknown enum", `{"spec":{"updateStrategy":{"type":"Rolling"}}}`, []string{"spec.updateStrategy.type", "Unsupported value", "Recreate"}},
			{"a bad port", `{"spec":{"coreTemplate":{"spec":{"ports":[{"containerPort":70000}]}}}}`, []string{"spec.coreTemplate.spec.ports", "between 1 and 65535"}},
			{"a bad Service port", `{"spec":{"listenersServiceTemplate":{"spec":{"ports":[{"port":0}]}}}}`, []string{"spec.listenersServiceTemplate.spec", "between 1 and 65535"}},
			{"replicas below 0", `{"spec":{"coreTemplate":{"spec":{"replicas":-1}}}}`, []string{"spec.coreTemplate.spec.replicas", "greater than or equal to 0"}},
			{"a percentage over 100", `{"spec":{"updateStrategy":{"evacuationStrategy":{"maxUnavailableClients":"101%"}}}}`, []string{"maxUnavailableClients", "from 0% to 100%"}},
			{"no image", `{"spec":{"image":null}}`, []string{"spec.image", "Required"}},
		} {
			t.Run(test.reason, func(t *testing.T) {
				c.t = t
				c.must(sample(t), "apply", "-f", "-", "--dry-run=server")
				file := t.TempDir() + "/sample.yaml"
				require.NoError(t, writeFile(file, sample(t)))
				patched := c.must("", "patch", "-f", file, "--local", "-o", "yaml", "--type=merge", "-p", test.patch)
				output, err := c.kubectl(patched, "apply", "-f", "-", "--dry-run=server", "--validate=false")
				require.Error(t, err, output)
				for _, words := range test.want {
					require.Contains(t, output, words)
				}
			})
		}
	})
	c.t = t

	c.must(sample(t, "initialDelaySeconds: 10", "initialDelaySeconds: 1", "waitTakeover: 10", "waitTakeover: 1"), "apply", "-f", "-")
	first := c.until("the first installation", ready)
	require.Contains(t, c.must("", "get", "emqx"), "NAME      STATUS   AGE")
	require.Contains(t, c.must("", "get", "emqx", "-o", "wide"), "emqx/emqx:6.0.1")
	require.Contains(t, c.must("", "explain", "emqx.spec.updateStrategy.paused"), "Paused holds the cluster as it is")
	c.must("", "wait", "--for=condition=Ready", "emqx/"+name, "--timeout=10s")

	t.Run("a Rebalance of nodes without clients is completed at once", func(t *testing.T) {
		c.t = t
		output, err := c.kubectl(strings.Replace(rebalanceOf("even", 1, 1), `"1.1"`, `"much"`, 1), "apply", "-f", "-")
		require.Error(t, err)
		require.Contains(t, output, "spec.rebalanceStrategy.relConnThreshold")
		c.must(rebalanceOf("even", 1, 1), "apply", "-f", "-")
		c.untilRebalance("even", "Completed WithinThresholds")
		c.must("", "delete", "rebalance", "even", "--timeout=30s")
	})

	t.Run("an image that does not exist stalls the upgrade and leaves the old revision serving", func(t *testing.T) {
		c.t = t
		c.patch(`{"spec":{"image":"no-such/emqx:1","updateStrategy":{"progressDeadlineSeconds":2}}}`)
		stalled := c.until("Stalled, with the pod's reason", func(e *v2beta1.EMQX) bool {
			stalled := condition(e, v2beta1.ConditionStalled)
			return stalled.Status == metav1.ConditionTrue && strings.Contains(stalled.Message, "ImagePull")
		})
		require.Equal(t, "Stalled", stalled.Status.State)
		require.Equal(t, metav1.ConditionTrue, condition(stalled, v2beta1.ConditionAvailable).Status)
		require.Equal(t, first.Status.CoreNodesStatus.CurrentRevision, stalled.Status.CoreNodesStatus.CurrentRevision)
		c.patch(`{"spec":{"image":"emqx/emqx:6.0.2"}}`)
		c.until("the corrected upgrade", ready)
		sets, err := c.kube.AppsV1().StatefulSets("default").List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		require.Len(t, sets.Items, 1, "neither the first set nor the broken one is left")
	})

	t.Run("evictions are refused, and what is on a Kubernetes node that is drained leaves by itself, one by one", func(t *testing.T) {
		c.t = t
		byDefault := func(b *policyv1.PodDisruptionBudget) bool {
			return b.Spec.Selector.MatchLabels[v2beta1.LabelPodTemplateHash] == "" && b.Status.CurrentHealthy == 3 && b.Status.DisruptionsAllowed == 0
		}
		c.budget("of all core nodes", byDefault)
		require.True(t, apierrors.IsTooManyRequests(c.evict(name+"-core-"+c.get().Status.CoreNodesStatus.CurrentRevision+"-0")))
		before := c.podUIDs()
		c.must("", "cordon", "local")
		c.until("a pod leaves", func(e *v2beta1.EMQX) bool { return e.Status.Drain != nil && e.Status.Drain.KubernetesNode == "local" })
		c.until("it has nowhere to go", func(e *v2beta1.EMQX) bool {
			return e.Status.Drain == nil && strings.Contains(condition(e, v2beta1.ConditionReady).Message, "unschedulable")
		})
		left := slices.DeleteFunc(c.podUIDs(), func(uid types.UID) bool { return !slices.Contains(before, uid) })
		require.Len(t, left, 2, "the others stay until it is there again")
		c.must("", "uncordon", "local")
		c.until("all are there again", ready)
		require.Subset(t, c.podUIDs(), left, "nobody else had to leave")
		c.budget("of all core nodes", byDefault)
		require.Contains(t, c.must("", "events", "--for", "emqx/"+name), "NodeDrained")
	})

	t.Run("a drain is held for one node too many of those that serve, and for none that leaves, where the user says how many", func(t *testing.T) {
		c.t = t
		c.patch(`{"spec":{"coreTemplate":{"spec":{"maxUnavailable":1}}}}`)
		from := c.get().Status.CoreNodesStatus.CurrentRevision
		c.budget("of the revision that serves", func(b *policyv1.PodDisruptionBudget) bool {
			return b.Spec.Selector.MatchLabels[v2beta1.LabelPodTemplateHash] == from && b.Status.DisruptionsAllowed == 1
		})
		c.patch(`{"spec":{"coreTemplate":{"metadata":{"annotations":{"drained":"yes"}},"spec":{"minAvailable":3,"maxUnavailable":null}},"updateStrategy":{"initialDelaySeconds":600}}}`)
		to := c.until("the switch", func(e *v2beta1.EMQX) bool {
			return e.Status.Phase == v2beta1.PhaseSwitching && e.Status.CoreNodesStatus.CurrentRevision == e.Status.CoreNodesStatus.UpdateRevision
		}).Status.CoreNodesStatus.UpdateRevision
		require.NotEqual(t, from, to)
		c.budget("moved with the switch", func(b *policyv1.PodDisruptionBudget) bool {
			return b.Spec.Selector.MatchLabels[v2beta1.LabelPodTemplateHash] == to && b.Status.DisruptionsAllowed == 0 &&
				b.Status.ObservedGeneration == b.Generation && b.Spec.MaxUnavailable == nil
		})
		require.NoError(t, c.evict(name+"-core-"+from+"-0"))
		require.True(t, apierrors.IsTooManyRequests(c.evict(name+"-core-"+to+"-0")))
		c.patch(`{"spec":{"coreTemplate":{"spec":{"minAvailable":null}},"updateStrategy":{"initialDelaySeconds":1}}}`)
		c.until("the upgrade", ready)
		c.budget("as by default", func(b *policyv1.PodDisruptionBudget) bool {
			return b.Spec.MinAvailable.IntVal != 3 && b.Status.DisruptionsAllowed == 0 && b.Status.ObservedGeneration == b.Generation
		})
	})

	t.Run("a syntax error in the configuration changes nothing and says where it is", func(t *testing.T) {
		c.t = t
		c.patch(`{"spec":{"config":{"data":"license {\n  key = \n}"}}}`)
		broken := c.until("Stalled", func(e *v2beta1.EMQX) bool { return e.Status.State == "Stalled" })
		require.Contains(t, condition(broken, v2beta1.ConditionStalled).Message, "line 3, column 1")
		require.Equal(t, metav1.ConditionTrue, condition(broken, v2beta1.ConditionAvailable).Status)
		c.patch(`{"spec":{"config":{"data":"license {\n  key = \"official\"\n}\n"}}}`)
		c.until("Ready again", ready)
	})

	t.Run("a node that crashes is told with its last words", func(t *testing.T) {
		c.t = t
		c.patch(`{"spec":{"coreTemplate":{"spec":{"command":["/bin/sh","-c","echo the disk is full >&2; exit 7"]}}}}`)
		stalled := c.until("Stalled", func(e *v2beta1.EMQX) bool {
			return condition(e, v2beta1.ConditionStalled).Status == metav1.ConditionTrue
		})
		require.Eventually(t, func() bool {
			message := condition(c.get(), v2beta1.ConditionStalled).Message
			return containsAll(message, "exit code 7", "the disk is full")
		}, localkubetest.Patience, stalledPoll, condition(stalled, v2beta1.ConditionStalled).Message)
		c.patch(`{"spec":{"coreTemplate":{"spec":{"command":null}}}}`)
		c.until("back at the revision that serves", ready)
	})

	t.Run("paused holds an upgrade", func(t *testing.T) {
		c.t = t
		for range 2 {
			c.patch(`{"spec":{"updateStrategy":{"paused":true}}}`)
			c.until("Paused", func(e *v2beta1.EMQX) bool { return e.Status.State == "Paused" })
			c.patch(`{"spec":{"updateStrategy":{"paused":false}}}`)
			c.until("Ready", ready)
		}
		c.patch(`{"spec":{"imagePullPolicy":"Always","updateStrategy":{"paused":true}}}`)
		c.until("Paused", func(e *v2beta1.EMQX) bool { return e.Status.State == "Paused" })
		sets, err := c.kube.AppsV1().StatefulSets("default").List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		require.Len(t, sets.Items, 1, "nothing new is started")
		c.patch(`{"spec":{"updateStrategy":{"paused":false}}}`)
		c.until("the upgrade", ready)
	})

	t.Run("what is not supported is said, and nothing is done", func(t *testing.T) {
		c.t = t
		c.patch(`{"spec":{"replicantTemplate":{"spec":{"replicas":2}}}}`)
		refused := c.until("Stalled", func(e *v2beta1.EMQX) bool { return e.Status.State == "Stalled" })
		require.Contains(t, condition(refused, v2beta1.ConditionStalled).Message, "spec.replicantTemplate")
		c.patch(`{"spec":{"replicantTemplate":null,"config":{"mode":"Replace"}}}`)
		c.until("Ready", ready)
		require.Eventually(t, func() bool {
			return containsAll(c.must("", "get", "events"), "FieldHasNoEffect", "spec.config.mode")
		}, localkubetest.Patience, stalledPoll)
	})

	t.Run("a volume for each node, that goes with the resource, and none any more", func(t *testing.T) {
		c.t = t
		c.patch(`{"spec":{"revisionHistoryLimit":0,"coreTemplate":{"spec":{"volumeClaimRetention":"Delete",
			"volumeClaimTemplates":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Mi"}}}}}}}`)
		c.until("the upgrade", ready)
		require.Eventually(t, func() bool {
			claims := c.allClaims()
			return len(claims) == 3 && len(claims[0].OwnerReferences) == 1
		}, localkubetest.Patience, stalledPoll)
		c.patch(`{"spec":{"coreTemplate":{"spec":{"volumeClaimTemplates":null}}}}`)
		c.until("the upgrade", ready)
		require.Eventually(t, func() bool { return len(c.allClaims()) == 0 }, localkubetest.Patience, stalledPoll)
	})

	t.Run("what was deleted or edited by hand is put back", func(t *testing.T) {
		c.t = t
		keys := c.secret(name + "-bootstrap-api-key")
		c.must("", "delete", "service", name+"-listeners")
		c.must("", "delete", "secret", name+"-bootstrap-api-key")
		c.must("", "patch", "service", name+"-dashboard", "--type=merge", "-p", `{"spec":{"selector":{"apps.emqx.io/instance":"other"}}}`)
		configs := name + "-configs-" + c.until("Ready", func(*v2beta1.EMQX) bool { return true }).Status.CoreNodesStatus.CurrentRevision
		c.must("", "delete", "configmap", configs)
		require.Eventually(t, func() bool {
			output, err := c.kubectl("", "get", "service/"+name+"-listeners", "configmap/"+configs, "-o", "name")
			return err == nil && output != "" && containsAll(c.must("", "get", "service", name+"-dashboard", "-o", "jsonpath={.spec.selector}"), `"apps.emqx.io/instance":"`+name+`"`)
		}, localkubetest.Patience, stalledPoll)
		require.Eventually(t, func() bool { return c.secret(name+"-bootstrap-api-key") != nil }, localkubetest.Patience, stalledPoll)
		require.Equal(t, keys, c.secret(name+"-bootstrap-api-key"), "the nodes know these keys and no others")
		c.must("", "patch", "secret", name+"-bootstrap-api-key", "--type=merge", "-p", `{"data":null}`)
		require.Eventually(t, func() bool { return reflect.DeepEqual(keys, c.secret(name+"-bootstrap-api-key")) }, localkubetest.Patience, stalledPoll, "they were emptied")
		c.until("Ready", ready)
	})

	t.Run("what strangers do to a set and its Service is put right", func(t *testing.T) {
		c.t = t
		set := name + "-core-" + c.until("Ready", ready).Status.CoreNodesStatus.CurrentRevision
		c.must("", "patch", "service", name+"-listeners", "--type=merge", "-p", `{"spec":{"selector":{"nobody":"has"}}}`)
		c.must("", "label", "statefulset", set, v2beta1.LabelManagedBy+"-", v2beta1.LabelPodTemplateHash+"-")
		c.must("", "patch", "statefulset", set, "--type=merge", "-p", `{"metadata":{"ownerReferences":null}}`)
		c.must("", "scale", "statefulset", set, "--replicas=5")
		require.Eventually(t, func() bool {
			object, err := c.kube.AppsV1().StatefulSets("default").Get(t.Context(), set, metav1.GetOptions{})
			require.NoError(t, err)
			service, err := c.kube.CoreV1().Services("default").Get(t.Context(), name+"-listeners", metav1.GetOptions{})
			require.NoError(t, err)
			return object.Labels[v2beta1.LabelPodTemplateHash] != "" && metav1.GetControllerOf(object) != nil && *object.Spec.Replicas == 3 && service.Spec.Selector["nobody"] == ""
		}, localkubetest.Patience, stalledPoll)
		c.until("Ready", ready)
	})

	t.Run("a pod that a set left behind is removed when it has nothing", func(t *testing.T) {
		c.t = t
		c.must(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"`+name+`-core-5d8c7f6b9-0","labels":{"`+v2beta1.LabelManagedBy+`":"`+v2beta1.ManagedBy+`","`+v2beta1.LabelInstance+`":"`+name+`"}},
			"spec":{"nodeSelector":{"no":"node"},"containers":[{"name":"emqx","image":"emqx/emqx:6.0.1"}]}}`, "apply", "-f", "-")
		require.Eventually(t, func() bool {
			_, err := c.kube.CoreV1().Pods("default").Get(t.Context(), name+"-core-5d8c7f6b9-0", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}, localkubetest.Patience, stalledPoll)
		c.until("Ready", ready)
	})

	t.Run("a field of the status that somebody else wrote does not stay", func(t *testing.T) {
		c.t = t
		c.must("", "patch", "emqx", name, "--subresource=status", "--type=merge", "-p", `{"status":{"replicantNodesStatus":{"replicas":7}}}`)
		c.must("", "annotate", "emqx", name, "looked-at=again")
		c.until("only what the operator says", func(e *v2beta1.EMQX) bool { return e.Status.ReplicantNodesStatus.Replicas == 0 && ready(e) })
	})

	t.Run("a lost cookie is not made up while nodes run that have it", func(t *testing.T) {
		c.t = t
		cookie := c.secret(name + "-node-cookie")["node_cookie"]
		require.NotEmpty(t, cookie)
		c.must("", "delete", "secret", name+"-node-cookie")
		lost := c.until("Stalled", func(e *v2beta1.EMQX) bool { return e.Status.State == "Stalled" })
		require.Equal(t, "CookieLost", condition(lost, v2beta1.ConditionStalled).Reason)
		require.Equal(t, metav1.ConditionTrue, condition(lost, v2beta1.ConditionAvailable).Status)
		c.must("", "create", "secret", "generic", name+"-node-cookie", "--from-literal=node_cookie="+string(cookie))
		c.must("", "label", "secret", name+"-node-cookie", v2beta1.LabelManagedBy+"="+v2beta1.ManagedBy, v2beta1.LabelInstance+"="+name)
		c.until("Ready", ready)
	})

	t.Run("a cookie that somebody changed is named, with who did it", func(t *testing.T) {
		c.t = t
		secret := name + "-node-cookie"
		cookie := c.secret(secret)["node_cookie"]
		write := func(value []byte) {
			c.must("", "patch", "secret", secret, "--type=merge", "-p", `{"data":{"node_cookie":"`+base64.StdEncoding.EncodeToString(value)+`"}}`)
		}
		write([]byte("another"))
		changed := c.until("Stalled", func(e *v2beta1.EMQX) bool { return e.Status.State == "Stalled" })
		require.Equal(t, "CookieChanged", condition(changed, v2beta1.ConditionStalled).Reason)
		require.Contains(t, condition(changed, v2beta1.ConditionStalled).Message, "was changed by kubectl-patch at ")
		write(cookie)
		c.until("Ready", ready)
	})

	t.Run("at rest nothing is written", func(t *testing.T) {
		c.t = t
		// At rest, nodes are asked every half minute: whatever is written once each time shows within that.
		const quiet = 35 * time.Second
		count, since := -1, time.Now()
		require.Eventually(t, func() bool {
			if writes := len(c.writes()); writes != count {
				count, since = writes, time.Now()
			}
			return time.Since(since) > quiet
		}, localkubetest.Patience, time.Second, "it does not come to rest")
	})

	t.Run("more nodes, and no dashboard Service", func(t *testing.T) {
		c.t = t
		c.patch(`{"spec":{"coreTemplate":{"spec":{"replicas":4}},"dashboardServiceTemplate":{"enabled":false}}}`)
		four := c.until("four nodes", ready)
		require.Len(t, four.Status.CoreNodes, 4)
		_, err := c.kube.CoreV1().Services("default").Get(t.Context(), name+"-dashboard", metav1.GetOptions{})
		require.Error(t, err)
	})

	t.Run("a single node has no budget", func(t *testing.T) {
		c.t = t
		c.patch(`{"spec":{"coreTemplate":{"metadata":{"annotations":{"single":"yes"}},"spec":{"replicas":1}}}}`)
		c.until("a single node", func(e *v2beta1.EMQX) bool { return ready(e) && len(e.Status.CoreNodes) == 1 })
		require.Eventually(t, func() bool {
			_, err := c.kube.PolicyV1().PodDisruptionBudgets("default").Get(t.Context(), name+"-core", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}, localkubetest.Patience, stalledPoll)
	})

	t.Run("the rights are those that are used", func(t *testing.T) {
		c.t = t
		c.compareRights()
	})

	t.Run("deleted with all that it owns", func(t *testing.T) {
		c.t = t
		c.must("", "delete", "emqx", name, "--timeout=60s")
		require.Eventually(t, func() bool {
			pods, err := c.kube.CoreV1().Pods(corev1.NamespaceDefault).List(t.Context(), metav1.ListOptions{LabelSelector: v2beta1.LabelInstance})
			return err == nil && len(pods.Items) == 0
		}, localkubetest.Patience, stalledPoll)
	})
}

// budget waits until the budget of the core nodes is as wanted.
func (c *installed) budget(what string, wanted func(*policyv1.PodDisruptionBudget) bool) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		budget, err := c.kube.PolicyV1().PodDisruptionBudgets("default").Get(c.t.Context(), name+"-core", metav1.GetOptions{})
		return err == nil && wanted(budget)
	}, localkubetest.Patience, stalledPoll, "a budget "+what)
}

// evict asks whether a pod may be evicted, as a drain asks, and evicts nothing: what is on its disk would be lost.
func (c *installed) evict(pod string) error {
	c.t.Helper()
	return c.kube.PolicyV1().Evictions("default").Evict(c.t.Context(), &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: pod}, DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}},
	})
}
