package licence

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		key      string
		old      bool
		want     Kind
		clusters bool
	}{
		{"default", false, Community, false},
		{"", false, Community, false},
		{"default", true, Trial, true},
		{"evaluation", false, Trial, true},
		{"anything else", false, Official, true},
	} {
		l := New(c.key, c.old)
		require.Equal(t, c.want, l.Kind(), "%v", c)
		require.Equal(t, c.clusters, l.Clusters(), "%v", c)
	}
	l := New("default", false)
	l.Set("key")
	require.True(t, l.Clusters())
	require.True(t, l.CommunityKey("default"))
	require.NotNil(t, l.Info().MaxTPS)
	require.Equal(t, 25, New("evaluation", false).MaxSessions())
}

func TestAccepts(t *testing.T) {
	key := "MjIwMTExCjAKMTAKRXZhbHVhdGlvbg==.MEUCIQDaVxKBRYSLNKUYXRCUTSWMbHIdeRl3JfEpe1Rr"
	for _, c := range []struct {
		key  string
		old  bool
		want bool
	}{
		{"default", true, true}, {"evaluation", true, false}, {"evaluation", false, true}, {"abc", true, false}, {"", true, false},
		{key, true, true}, {key + "!", true, false}, {"official-licence-key", false, true}, {"what it started with", true, true},
		{"file:///etc/licence", false, true},
	} {
		require.Equal(t, c.want, New("what it started with", c.old).Accepts(c.key), "%v", c)
	}
}
