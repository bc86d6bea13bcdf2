package membership

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Nodes that tell each other their tables in any order agree.
func TestTablesConverge(t *testing.T) {
	a := table{"x": {Present: true, Version: 1, Seen: true}, "y": {Present: true, Version: 5}}
	b := table{"x": {Version: 2}, "y": {Present: true, Version: 5, Seen: true}, "z": {Present: true, Version: 1}}
	ab, ba := a.clone(), b.clone()
	require.True(t, ab.merge(b))
	ba.merge(a)
	require.Equal(t, ab, ba)
	require.Equal(t, []string{"y", "z"}, ab.present(), "who left stays away")
	require.True(t, ab["y"].Seen)
	require.False(t, ab.merge(ba), "nothing new")
}

func TestMembersAreRemembered(t *testing.T) {
	dir := t.TempDir()
	alone, err := loadTable(dir, "a")
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, alone.present())
	both := table{"a": {Present: true}, "b": {Present: true, Version: 3, Seen: true}, "c": {Version: 9}}
	require.NoError(t, both.save(dir))
	again, err := loadTable(dir, "a")
	require.NoError(t, err)
	require.Equal(t, both, again)
	other, err := loadTable(dir, "someone-else")
	require.NoError(t, err)
	require.Equal(t, []string{"someone-else"}, other.present(), "under another name it is another node")
	require.NoError(t, os.WriteFile(membersFile(dir), []byte("{"), 0o600))
	_, err = loadTable(dir, "a")
	require.Error(t, err)
}

func TestWhoIsJoined(t *testing.T) {
	old, young := time.Unix(1, 0), time.Unix(2, 0)
	for _, c := range []struct {
		reason string
		a, b   Info
		want   bool
	}{
		{"the older of two", Info{Node: "z", Started: old}, Info{Node: "a", Started: young}, true},
		{"a cluster before a node that is alone", Info{Node: "z", Started: young, Members: []string{"z", "y"}}, Info{Node: "a", Started: old, Members: []string{"a"}}, true},
		{"by name at the same age", Info{Node: "a", Started: old}, Info{Node: "b", Started: old}, true},
		{"not the younger", Info{Node: "a", Started: young}, Info{Node: "b", Started: old}, false},
	} {
		require.Equal(t, c.want, older(c.a, c.b), c.reason)
	}
}
