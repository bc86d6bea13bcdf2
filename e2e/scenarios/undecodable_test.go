package scenarios

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
)

// TestUndecodable stores a resource that Go cannot decode, as an older CRD took it, before the operator is installed with the CRD of
// this version, which would refuse it. The cluster beside it is built all the same, also by an operator that starts anew; the broken
// one is told.
func TestUndecodable(t *testing.T) {
	c := start(t)
	t.Cleanup(func() { c.tellWhy(t) })
	c.must("", "apply", "-f", "../../manifests/base/crd")
	const metadata = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/listenersServiceTemplate/properties/metadata/properties"
	c.must("", "patch", "crd", "emqxes.apps.emqx.io", "--type=json", "-p", `[{"op":"remove","path":"`+metadata+`"}]`)
	broken := strings.NewReplacer("name: "+name+"\n", "name: broken\n").Replace(sample(t))
	broken = strings.Replace(broken, "\nspec:\n", "\nspec:\n  listenersServiceTemplate:\n    metadata:\n      annotations:\n        internal: true\n", 1)
	require.Contains(t, broken, "internal: true")
	c.eventually("the API server takes what the older CRD took", func() bool {
		_, err := c.kubectl(broken, "apply", "--validate=false", "-f", "-")
		return err == nil && strings.Contains(c.must("", "get", "emqx", "broken", "-o", "yaml"), "internal: true")
	})
	c.must("", "apply", "-k", "../../manifests")
	c.must("", "-n", "emqx-bg-operator-system", "rollout", "status", "deployment/emqx-bg-operator", "--timeout=120s")
	c.eventually("the CRD of this version refuses it", func() bool {
		output, err := c.kubectl(strings.Replace(broken, "name: broken", "name: another", 1), "apply", "--validate=false", "--dry-run=server", "-f", "-")
		return err != nil && strings.Contains(output, "spec.listenersServiceTemplate.metadata.annotations.internal")
	})

	c.must(sample(t), "apply", "-f", "-")
	c.until("the cluster beside it", ready)
	c.eventually("the broken one is told", func() bool { return c.undecodable() })
	require.Contains(t, c.must("", "events", "--for", "emqx/broken"), "Undecodable")

	c.must("", "-n", "emqx-bg-operator-system", "rollout", "restart", "deployment/emqx-bg-operator")
	c.must("", "-n", "emqx-bg-operator-system", "rollout", "status", "deployment/emqx-bg-operator", "--timeout=120s")
	c.patch(`{"spec":{"coreTemplate":{"metadata":{"labels":{"a":"b"}}}}}`)
	c.until("an upgrade after a restart", ready)
	require.True(t, c.undecodable())

	c.must("", "patch", "emqx", "broken", "--type=merge", "-p", `{"spec":{"listenersServiceTemplate":null,"updateStrategy":{"paused":true}}}`)
	c.eventually("it is mended", func() bool {
		stalled := c.must("", "get", "emqx", "broken", "-o", `jsonpath={.status.conditions[?(@.type=="Stalled")].status}`)
		return stalled == string(metav1.ConditionFalse)
	})
}

func (c *installed) eventually(what string, seen func() bool) {
	c.t.Helper()
	require.Eventually(c.t, seen, localkubetest.Patience, 200*time.Millisecond, what)
}

// undecodable reports whether the broken resource says that it is Stalled, and why.
func (c *installed) undecodable() bool {
	stalled := c.must("", "get", "emqx", "broken", "-o", `jsonpath={.status.state} {.status.conditions[?(@.type=="Stalled")].message}`)
	return strings.HasPrefix(stalled, "Stalled ") && strings.Contains(stalled, "annotations")
}
