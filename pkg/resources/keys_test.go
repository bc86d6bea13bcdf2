package resources

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRenewed: what becomes of the operator's own key when the Secret of the API keys is written.
func TestRenewed(t *testing.T) {
	const own, scopes, system = OperatorAPIKey, ":administrator:cluster_operations,license\n", SystemAPIKey + ":random:administrator:system\n"
	yes, no := true, false
	taken := func(secret string) *OperatorKey { return &OperatorKey{Secret: secret} }
	for _, test := range []struct {
		reason         string
		file, previous string
		taken          *OperatorKey
		want, wantOld  string
		scoped         *bool
	}{
		{"nothing is there yet", "", "", nil, "u:s\n" + own + ":random\n", "", nil},
		{"it was lost, and nodes know a key", "", "", taken("p1"), "u:s\n" + own + ":p1\n", "", nil},
		{"its line was lost", "u:s\n", own + ":p0\n", taken("p1"), "u:s\n" + own + ":p1\n", own + ":p0\n", nil},
		{"its line was lost, and nobody has been asked since", "u:s\n", own + ":p0\n", nil, "u:s\n" + own + ":p0\n", "", nil},
		{"all is there, as emqx-operator 2.x wrote it", "u:s\n" + own + ":p1", "", nil, "u:s\n" + own + ":p1\n", "", nil},
		{"nodes know a key that is not there", "u:s\n" + own + ":p2\n", "", taken("p1"), "u:s\n" + own + ":p2\n", own + ":p1\n", nil},
		{"a user's key changed", "u:old\n" + own + ":p1\n", "", taken("p1"), "u:s\n" + own + ":random\n", own + ":p1\n", nil},
		{"it changed, and nobody has been asked yet", "u:old\n" + own + ":p2\n", own + ":p1\n", nil, "u:s\n" + own + ":random\n", own + ":p2\n" + own + ":p1\n", nil},
		{"it changed again before nodes know", "u:old\n" + own + ":p2\n", own + ":p1\n", taken("p1"), "u:s\n" + own + ":random\n", own + ":p1\n" + own + ":p2\n", nil},
		{"and again and again", "u:old\n" + own + ":p5\n", own + ":p1\n" + own + ":p4\n" + own + ":p3\n", taken("p1"), "u:s\n" + own + ":random\n", own + ":p1\n" + own + ":p5\n" + own + ":p4\n", nil},
		{"a line that nobody asked for", "u:s\nx:y\n" + own + ":p1\n", "", taken("p1"), "u:s\n" + own + ":random\n", own + ":p1\n", nil},
		{"EMQX knows scopes", "u:s\n" + own + ":p1\n", "", taken("p1"), "u:s\n" + system + own + ":random" + scopes, own + ":p1\n", &yes},
		{"it has them", "u:s\n" + system + own + ":random" + scopes, "", taken("p1"), "u:s\n" + system + own + ":random" + scopes, own + ":p1\n", &yes},
		{"nobody can tell whether EMQX knows scopes", "u:s\n" + system + own + ":random" + scopes, own + ":p1\n", nil, "u:s\n" + system + own + ":random" + scopes, own + ":p1\n", nil},
		{"nodes do not know scopes any more", "u:s\n" + system + own + ":p1" + scopes, "", nil, "u:s\n" + own + ":random\n", SystemAPIKey + ":p1:administrator:system\n" + own + ":p1" + scopes, &no},
	} {
		t.Run(test.reason, func(t *testing.T) {
			entries := map[string][]byte{BootstrapAPIKeyKey: []byte(test.file), PreviousKeysKey: []byte(test.previous)}
			renewed := Renewed(entries, []APIKey{{"u", "s"}}, test.scoped, test.taken, func() string { return "random" })
			got := renewed.Entries()
			require.Equal(t, test.want, string(got[BootstrapAPIKeyKey]))
			require.Equal(t, test.wantOld, string(got[PreviousKeysKey]))
			require.NotContains(t, fmt.Sprintf("%v %+v %#v", renewed.Own, renewed.Own, renewed.Own), renewed.Own.Secret)
			require.True(t, sameLines(got[BootstrapAPIKeyKey], Renewed(got, []APIKey{{"u", "s"}}, test.scoped, test.taken, nil).Entries()[BootstrapAPIKeyKey]), "what was written stays")
		})
	}
}
