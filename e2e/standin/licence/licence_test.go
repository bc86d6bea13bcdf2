package licence

import (
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"
)

// keyOf is a key in EMQX's form.
func keyOf(lines string) string {
	return base64.StdEncoding.EncodeToString([]byte(lines)) + ".MEUCIQDaVxKBRYSLNKUYXRCUTSWMbHIdeRl3JfEpe1Rr"
}

func TestTerms(t *testing.T) {
	community := keyOf("220111\n2\n11\nDeveloper\ncontact@emqx.io\nDevelopment\n20250302\n1460\n0\n")
	for _, c := range []struct {
		reason       string
		key          string
		old          bool
		kind         Kind
		clusters     bool
		sessions     int
		customerType int
		expiry       string // empty: not looked at
	}{
		{"5.8: recorded", "default", true, Trial, true, 25, 10, "2029-04-17"},
		{"since 5.9", "default", false, Community, false, 10_000_000, 11, "2029-03-01"},
		{"no key is the default", "", false, Community, false, 10_000_000, 11, "2029-03-01"},
		{"no key is the default with 5.8, too", " ", true, Trial, true, 25, 10, "2029-04-17"},
		{"since 5.9", "evaluation", false, Trial, true, 25, 10, "2029-03-01"},
		{"EMQX's own community key", community, false, Community, false, 10_000_000, 11, "2029-03-01"},
		{"5.8 does not ask whether there are others", community, true, Community, true, 10_000_000, 11, "2029-03-01"},
		{"a key says how many", keyOf("220111\n1\n2\nMe\nme@here\nhome\n20260101\n10\n100\n"), false, Official, true, 100, 2, "2026-01-11"},
		{"a trial's number is left to its kind", keyOf("220111\n0\n10\nMe\nme@here\nhome\n20260101\n10\n0"), false, Trial, true, 25, 10, "2026-01-11"},
		{"no key at all", "anything else", false, Official, true, 10_000_000, 1, ""},
		{"a key of an unknown kind", keyOf("220111\n9\n2\nMe\nme@here\nhome\n20260101\n10\n100\n"), false, Official, true, 10_000_000, 1, ""},
		{"a file", "file:///etc/licence", false, Official, true, 10_000_000, 1, ""},
	} {
		l := New(c.key, c.old)
		info := l.Info()
		require.Equal(t, c.kind, l.Kind(), c.reason)
		require.Equal(t, c.clusters, l.Clusters(), c.reason)
		require.Equal(t, !c.clusters, l.SingleNode(c.key), c.reason)
		require.Equal(t, c.sessions, l.MaxSessions(), c.reason)
		require.Equal(t, c.customerType, info.CustomerType, c.reason)
		require.Equal(t, c.old, info.MaxTPS == nil, c.reason)
		if c.expiry != "" {
			require.Equal(t, c.expiry, info.ExpiryAt, c.reason)
		}
	}
	l := New("default", false)
	l.Set("key")
	require.True(t, l.Clusters())
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
