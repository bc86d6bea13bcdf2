package scenarios

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo"
	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// claims are the UIDs of the claims of a revision's nodes, by name. All are bound, and none is on its way out.
func (c *installed) claims(revision string) map[string]types.UID {
	c.t.Helper()
	found := map[string]types.UID{}
	for _, claim := range c.allClaims() {
		if claim.Labels[v2beta1.LabelPodTemplateHash] == revision {
			require.Equal(c.t, corev1.ClaimBound, claim.Status.Phase, claim.Name)
			require.True(c.t, strings.HasPrefix(claim.Name, name+"-core-data-"+name+"-core-"+revision+"-"), claim.Name)
			found[claim.Name] = claim.UID
		}
	}
	return found
}

func (c *installed) allClaims() []corev1.PersistentVolumeClaim {
	c.t.Helper()
	claims, err := c.kube.CoreV1().PersistentVolumeClaims("default").List(c.t.Context(), metav1.ListOptions{})
	require.NoError(c.t, err)
	return claims.Items
}

// onlyClaims waits until there are as many claims, and as many volumes behind them.
func (c *installed) onlyClaims(count int, reason string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		volumes, err := c.kube.CoreV1().PersistentVolumes().List(c.t.Context(), metav1.ListOptions{})
		return err == nil && len(c.allClaims()) == count && len(volumes.Items) == count
	}, localkubetest.Patience, 100*time.Millisecond, reason)
}

// TestVolumes: an upgrade of a cluster with volumes, and one back. Each set has claims of its own, those of the set before are
// kept, and what was on the first set's is not used again although its name is.
func TestVolumes(t *testing.T) {
	c := start(t)
	c.t = t
	upgrade := func(patch string) measure.Figures {
		figures, err := demo.Run(t.Context(), demo.Config{
			Dir: c.dir.Path(""), ClusterBinary: c.binary, Manifests: "../../manifests", Running: true,
			Clients: 1000, MessagesPerSecond: 100, ConnEvictRate: 1000, VolumeSize: "1Mi", Patch: patch,
		})
		require.NoError(t, err)
		require.Zero(t, figures.MessagesLost)
		require.Equal(t, figures.Clients, figures.ClientsBack)
		require.Empty(t, figures.Leftovers)
		return figures
	}
	there := upgrade(`{"spec":{"imagePullPolicy":"Never","revisionHistoryLimit":1}}`)
	blue, green := c.claims(there.From), c.claims(there.To)
	require.Len(t, blue, 3, "those of the set before are kept")
	require.Len(t, green, 3)
	c.onlyClaims(6, "and there are no others")

	back := upgrade(`{"spec":{"imagePullPolicy":null}}`)
	require.Equal(t, there.From, back.To, "it is as it was")
	for claim, uid := range c.claims(back.To) {
		require.Contains(t, blue, claim)
		require.NotEqual(t, blue[claim], uid, "%s is a new one: what was on the other was not used again", claim)
	}
	require.Equal(t, green, c.claims(there.To), "one earlier revision is kept")
	c.onlyClaims(6, "and there are no others")

	c.patch(`{"spec":{"revisionHistoryLimit":0,"coreTemplate":{"spec":{"volumeClaimRetention":"Delete"}}}}`)
	c.onlyClaims(3, "none is kept, and their volumes are gone")
	owned := func(claim corev1.PersistentVolumeClaim) bool {
		return len(claim.OwnerReferences) == 1 && claim.OwnerReferences[0].Name == name
	}
	eachOwned := func(wanted bool) func() bool {
		return func() bool {
			return !slices.ContainsFunc(c.allClaims(), func(claim corev1.PersistentVolumeClaim) bool { return owned(claim) != wanted })
		}
	}
	require.Eventually(t, eachOwned(true), localkubetest.Patience, 100*time.Millisecond)
	c.patch(`{"spec":{"coreTemplate":{"spec":{"volumeClaimRetention":"Retain"}}}}`)
	require.Eventually(t, eachOwned(false), localkubetest.Patience, 100*time.Millisecond)
	c.patch(`{"spec":{"coreTemplate":{"spec":{"volumeClaimRetention":"Delete"}}}}`)
	require.Eventually(t, eachOwned(true), localkubetest.Patience, 100*time.Millisecond)
	c.must("", "delete", "emqx", name)
	c.onlyClaims(0, "they go with the resource")
}
