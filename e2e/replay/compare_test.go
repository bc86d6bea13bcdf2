package replay

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func parse(t *testing.T, text string) any {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal([]byte(text), &v))
	return v
}

// Every difference that counts is found, and none that does not.
func TestComparer(t *testing.T) {
	for _, c := range []struct{ reason, want, got, difference string }{
		{"the same", `{"a":1,"b":["x"]}`, `{"b":["x"],"a":1}`, ""},
		{"another text", `{"state":"x"}`, `{"state":"y"}`, `$.state: recorded "x", got "y"`},
		{"another number", `{"n":1}`, `{"n":2}`, `$.n: recorded 1, got 2`},
		{"another truth", `{"b":true}`, `{"b":false}`, `$.b`},
		{"another type", `{"a":1}`, `{"a":"1"}`, "recorded number 1, got text"},
		{"null is a type", `{"a":null}`, `{"a":0}`, "recorded null"},
		{"a key is missing", `{"a":1,"b":2}`, `{"a":1}`, `no key "b"`},
		{"a key too many", `{"a":1}`, `{"a":1,"b":2}`, `key "b" that was not recorded`},
		{"a client may have more keys", `{"clientid":"x"}`, `{"clientid":"x","proto_ver":5}`, ""},
		{"a list of another length", `["a"]`, `["a","b"]`, "1 items recorded, got 2"},
		{"the order of a list counts", `["a","b"]`, `["b","a"]`, `$[0]`},
		{"but not of a set", `[{"node":"a","x":1},{"node":"b","x":2}]`, `[{"node":"b","x":2},{"node":"a","x":1}]`, ""},
		{"whose items are compared", `[{"node":"a","x":1}]`, `[{"node":"a","x":2}]`, `$[a].x`},
		{"and must be the same", `[{"node":"a"}]`, `[{"node":"b"}]`, "no item with node a"},
		{"numbers of a machine", `{"uptime":1,"load1":0.5,"connections.max":3}`, `{"uptime":2,"load1":9,"connections.max":4}`, ""},
		{"have a type", `{"uptime":1}`, `{"uptime":"1"}`, "$.uptime"},
		{"texts of a machine", `{"memory_used":"1G"}`, `{"memory_used":"2G"}`, ""},
		{"a stack is left out", `{"message":"error, badarg, [{m,f,[{file,\"a\"},{line,1}]}]"}`, `{"message":"error, badarg, [{x,y,[{file,\"b\"},{line,2}]}]"}`, ""},
		{"what is before it is not", `{"message":"error, badarg, [{m,f,[{line,1}]}]"}`, `{"message":"error, other, [{m,f,[{line,1}]}]"}`, "$.message"},
	} {
		d := comparer{file: "999-x"}.differ("$", "", parse(t, c.want), parse(t, c.got))
		if c.difference == "" {
			require.Empty(t, d, c.reason)
		} else {
			require.Contains(t, d, c.difference, c.reason)
		}
	}
	release := comparer{file: "x", otherRelease: true}
	require.Empty(t, release.differ("$", "", parse(t, `{"version":"5.8.9"}`), parse(t, `{"version":"6.0.1","description":""}`)), "another release")
	require.NotEmpty(t, comparer{file: "x"}.differ("$", "", parse(t, `{"version":"5.8.9"}`), parse(t, `{"version":"6.0.1"}`)), "the same release")
	require.NotEmpty(t, release.differ("$", "", parse(t, `{"state":"a"}`), parse(t, `{"state":"b"}`)), "states are the same in all")
	require.Empty(t, comparer{file: "183-x"}.differ("$", "", parse(t, `{"connections":1}`), parse(t, `{"connections":2}`)), "chance, in this file")
	require.NotEmpty(t, comparer{file: "055-x"}.differ("$", "", parse(t, `{"connections":1}`), parse(t, `{"connections":2}`)), "not in that one")
}

// Addresses are mapped in order, also where the target is another recorded address.
func TestTranslate(t *testing.T) {
	tr := newTranslate([]string{"127.0.0.11", "127.0.0.12"}, []string{"127.0.0.12", "127.0.0.11"})
	require.Equal(t, "emqx@127.0.0.12 127.0.0.11:1883", tr.text("emqx@127.0.0.11 127.0.0.12:1883"))
	require.Equal(t, map[string]any{"k": []any{"127.0.0.12", 1.0}}, tr.value(map[string]any{"k": []any{"127.0.0.11", 1.0}}))
}

func TestReplies(t *testing.T) {
	r := &Runner{}
	want := &recordedResponse{Status: 401, Headers: map[string]string{"content-type": "application/json", "www-authenticate": "Basic"}, Body: map[string]any{}}
	good := reply{status: 401, header: http.Header{"Content-Type": {"application/json"}, "Www-Authenticate": {"Basic"}}, body: map[string]any{}}
	require.Empty(t, r.compareReply("x", want, good))
	other := good
	other.status = 403
	require.Contains(t, r.compareReply("x", want, other), "status")
	other = good
	other.header = http.Header{"Content-Type": {"application/json"}}
	require.Contains(t, r.compareReply("x", want, other), "www-authenticate")
	other.header = http.Header{"Content-Type": {"application/json; charset=utf-8"}, "Www-Authenticate": {"Basic"}}
	require.Contains(t, r.compareReply("x", want, other), "content-type")
}

func TestTimelineComparison(t *testing.T) {
	r := &Runner{}
	want := []map[string]any{{"t": 0.0, "state": "a"}, {"t": 1.0, "state": "b"}, {"t": 5.0, "state": "c"}}
	at := time.Unix(100, 0)
	rows := func(states string, seconds ...float64) []row {
		var list []row
		for i, state := range strings.Split(states, "") {
			list = append(list, row{at.Add(time.Duration(seconds[i] * float64(time.Second))), map[string]any{"state": state, "more": 1}})
		}
		return list
	}
	require.Empty(t, r.compareTimeline("x", want, rows("abc", 3, 4.3, 8), false))
	require.Contains(t, r.compareTimeline("x", want, rows("ab", 0, 1), false), "row 2: nothing")
	require.Contains(t, r.compareTimeline("x", want, rows("abd", 0, 1, 5), false), "row 2.state")
	require.Contains(t, r.compareTimeline("x", want, rows("abcd", 0, 1, 5, 6), false), "nothing was recorded")
	require.Contains(t, r.compareTimeline("x", want, rows("abc", 0, 1, 9), false), "recorded 4s")
	require.Contains(t, r.compareTimeline("x", want, rows("abc", 0, 1, 2), false), "recorded 4s")
}

func TestBootComparison(t *testing.T) {
	want := []bootRow{{0, "a", "down"}, {1, "a", "up"}, {2, "b", "up"}}
	require.Empty(t, compareBoot(want, []bootRow{{0, "a", "down"}, {3, "a", "up"}, {9, "b", "up"}}))
	require.Contains(t, compareBoot(want, []bootRow{{0, "a", "down"}, {3, "a", "up"}, {1, "b", "up"}}), "came before")
	require.Contains(t, compareBoot(want, []bootRow{{0, "a", "down"}, {3, "b", "up"}}), "a: nothing after")
	require.Contains(t, compareBoot(want, []bootRow{{0, "a", "down"}, {1, "a", "odd"}, {1, "a", "up"}, {2, "b", "up"}}), "a: answer 1")
}
