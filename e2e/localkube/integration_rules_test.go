package localkube_test

import (
	"testing"

	"github.com/emqx-bg/emqx-bg-operator/e2e/podrules"
)

// TestAgentDoesAsKubelet runs the pods that the real nodes run, too, and wants the same to be told of them.
func TestAgentDoesAsKubelet(t *testing.T) {
	f := useCluster(t)
	podrules.Check(t, f.client, f.namespace(t), "test/shell:1")
}
