// Package localkubetest has what tests need that start a local cluster.
package localkubetest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Patience is how long anything may take on a machine that is busy with other things.
const Patience = 3 * time.Minute

// ClusterBinary is the program `cluster` of a package two levels below the module, with the control plane and the operator beside
// it. A test is skipped where they are not built, or with -short.
func ClusterBinary(t *testing.T) string {
	t.Helper()
	binary, err := filepath.Abs("../../bin/cluster")
	require.NoError(t, err)
	for _, name := range []string{"cluster", "kube", "emqx-bg-operator"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(binary), name)); err != nil {
			t.Skipf("SKIPPED: bin/%s is not built; `make build` builds it", name)
		}
	}
	if testing.Short() {
		t.Skip("SKIPPED: a cluster is started only without -short")
	}
	return binary
}
