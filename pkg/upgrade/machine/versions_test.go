package machine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

func TestVersionOf(t *testing.T) {
	for text, want := range map[string]string{
		"emqx/emqx:6.0.1": "6.0.1", "emqx/emqx-enterprise:5.8.9": "5.8.9", "registry.example.com:5000/emqx:e5.8.9-alpine3": "5.8.9",
		"6.0.1": "6.0.1", "e5.10.0": "5.10.0", "v5.8.0": "5.8.0", "6.3.0-beta.2": "6.3.0", "6.0.1-g1234": "6.0.1",
		"emqx/emqx:latest": "", "emqx/emqx": "", "emqx/emqx@sha256:0123": "", "registry:5000/emqx": "", "emqx/emqx:6.0": "", "": "",
		"emqx/emqx:6.0.99999999999999999999": "",
	} {
		got := versionOf(text)
		require.Equal(t, want != "", got != nil, text)
		if got != nil {
			require.Equal(t, want, fmt.Sprintf("%d.%d.%d", got.Major(), got.Minor(), got.Patch()), text)
		}
	}
}

// published is EMQX's table of supported paths: a row is where it comes from, a column where it goes. + is supported, ~ with
// limitations, - not; a blank is not in the table. Those that only concern one patch level have tests of their own.
const published = `
      5.0 5.1 5.2 5.3 5.4 5.5 5.6 5.7 5.8 5.9 5.10 6.0 6.1 6.2 6.3
5.0    +   +   +   +   +   +   +   +   +   ~   -    -   -   -   -
5.1    .   +   +   +   +   +   +   +   +   +   -    -   -   -   -
5.2    .   .   +   +   +   +   +   +   +   +   -    -   -   -   -
5.3    .   .   .   +   +   +   +   +   +   +   -    -   -   -   -
5.4    .   .   .   .   +   +   ~   +   +   +   +    +   +   +   +
5.5    .   .   .   .   .   +   ~   +   +   +   +    +   +   +   +
5.6    .   .   .   .   .   .   +   +   +   +   +    +   +   +   +
5.7    .   .   .   .   .   .   .   +   +   +   +    +   +   +   +
5.8    .   .   .   .   .   .   .   .   +   +   +    +   +   +   +
5.9    .   .   .   .   .   .   .   .   .   +   +    +   +   +   +
5.10   .   .   .   .   .   .   .   .   .   .   +    +   +   +   +
6.0    .   .   .   .   .   .   .   .   .   .   .    +   +   +   +
6.1    .   .   .   .   .   .   .   .   .   .   .    .   +   +   +
6.2    .   .   .   .   .   .   .   .   .   .   .    .   .   +   +
6.3    .   .   .   .   .   .   .   .   .   .   .    .   .   .   +`

func TestPublishedPaths(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(published), "\n")
	columns := strings.Fields(lines[0])
	cells := 0
	for _, line := range lines[1:] {
		row := strings.Fields(line)
		require.Len(t, row, len(columns)+1)
		for i, to := range columns {
			cells++
			want := map[string]path{"+": free, "~": lossy, "-": closed, ".": lossy}[row[i+1]]
			from, target := versionOf(row[0]+".2"), versionOf(to+".2")
			got, words := pathOf(from, target)
			require.Equal(t, want, got, "from %s to %s: %s", from, target, words)
			require.Equal(t, want == free, words == "")
		}
	}
	require.Equal(t, 15*15, cells)
}

func TestKnownPairs(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		want     path
	}{
		{"4.4.19", "5.8.9", closed},
		{"6.2.0", "6.3.0", closed}, {"6.2.0", "6.3.1", free}, {"6.3.0", "6.3.1", free}, {"5.10.0", "6.3.0", closed},
		{"5.8.6", "5.9.0", free}, {"5.8.7", "5.9.0", lossy}, {"5.8.9", "5.9.1", free}, {"5.8.9", "5.10.0", lossy}, {"5.8.9", "5.10.1", free},
		{"6.0.2", "6.0.1", free}, {"6.1.0", "6.0.3", lossy}, {"6.0.1", "7.0.0", free},
	} {
		got, words := pathOf(versionOf(tt.from), versionOf(tt.to))
		require.Equal(t, tt.want, got, "%s to %s: %s", tt.from, tt.to, words)
	}
}

// TestUpgradePath: it is judged before a pod is made by the image, and by what nodes tell before they take clients.
func TestUpgradePath(t *testing.T) {
	image := func(text string) func(*Snapshot) { return withSpec(func(spec *v2beta1.EMQXSpec) { spec.Image = text }) }
	blue := withSet("blue", func(set *Set) { set.Image = "emqx/emqx:5.3.2" })
	fresh := func(s *Snapshot) {
		withSet("green", func(set *Set) { set.ServingSince = time.Time{} })(s)
		for i := range s.set("green").Pods {
			s.set("green").Pods[i].OnServing = false
			withNode(s.set("green").Pods[i].Name, clients(0, 0))(s)
		}
	}
	told := func(version string) func(*Snapshot) {
		return withNode(green0, func(n *evacuate.NodeObservation) { n.Info.Version = version })
	}
	for _, tt := range []struct {
		name   string
		change []func(*Snapshot)
		want   string // A part of the message; empty for none.
	}{
		{"they may meet", []func(*Snapshot){without("green"), serving("blue"), image("emqx/emqx:5.8.9")}, ""},
		{"they must not", []func(*Snapshot){without("green"), serving("blue"), image("emqx/emqx:6.0.1")}, "from EMQX 5.3.2 to 6.0.1"},
		{"nobody knows the tag", []func(*Snapshot){without("green"), serving("blue"), image("emqx/emqx:latest")}, ""},
		{"new nodes tell what they are", []func(*Snapshot){serving("blue"), fresh, image("emqx/emqx:latest"), told("5.10.0")}, "from EMQX 5.3.2 to 5.10.0"},
		{"they serve already", []func(*Snapshot){image("emqx/emqx:6.0.1")}, ""},
		{"nobody runs yet", []func(*Snapshot){without("green"), without("blue"), image("emqx/emqx:6.0.1")}, ""},
		{"something is lost", []func(*Snapshot){without("green"), serving("blue"), image("emqx/emqx:5.2.1")}, "promotedRevision to green"},
		{"something is lost, and the user consents", []func(*Snapshot){without("green"), serving("blue"), image("emqx/emqx:5.2.1"), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.PromotedRevision = "green"
		})}, ""},
		{"the user consented to another", []func(*Snapshot){without("green"), serving("blue"), image("emqx/emqx:5.2.1"), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.PromotedRevision = "red"
		})}, "promotedRevision to green"},
		{"consent opens no closed path", []func(*Snapshot){without("green"), serving("blue"), image("emqx/emqx:6.0.1"), withSpec(func(spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.PromotedRevision = "green"
		})}, "from EMQX 5.3.2 to 6.0.1"},
		{"durable sessions are lost", []func(*Snapshot){
			withSet("blue", func(set *Set) { set.Image = "emqx/emqx:5.10.1" }), without("green"), serving("blue"), image("emqx/emqx:6.0.1"),
			withStorage(func(o *evacuate.StorageObservation) { o.Databases = []emqx.Database{{Name: "messages"}} }),
		}, "the state of durable sessions is lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := upgrading(v2beta1.PhaseProvisioning, append([]func(*Snapshot){blue}, tt.change...)...)
			decision := Decide(s)
			if tt.want == "" {
				require.Nil(t, upgradePath(s))
				return
			}
			require.NotNil(t, decision.Stalled)
			require.Equal(t, "UnsupportedUpgradePath", decision.Stalled.Reason)
			require.Contains(t, decision.Stalled.Message, tt.want)
			for _, action := range flat(decision.Groups) {
				require.False(t, strings.HasPrefix(fmt.Sprintf("%T", action), "machine.CreateSet"), "no pod is made")
			}
		})
	}
}
