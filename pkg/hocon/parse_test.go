package hocon

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type m = map[string]any

func TestSubstitutionsInEMQXsOrder(t *testing.T) {
	one, two := canonical("1"), canonical("2")
	for _, test := range []struct {
		reason, text string
		want         m
	}{
		{"what is required waits for what comes later", "a = ${b}, b = ${c}, c = 1", m{"a": one, "b": one, "c": one}},
		{"what is optional does not", "a = ${?b}, b = ${c}, c = 1", m{"b": one, "c": one}},
		{"into what another stands for", "b {x = 1}\na = ${b}\nc = ${a.x}", m{"a": m{"x": one}, "b": m{"x": one}, "c": one}},
		{"objects of one name come merged, also from later in the text", "a {x = 1}\nb = ${a}\na {y = 2}", m{"a": m{"x": one, "y": two}, "b": m{"x": one, "y": two}}},
		{"those of dotted names do not", "a.x = 1, a.y = 2, b = ${a}", m{"a": m{"x": one, "y": two}, "b": m{"y": two}}},
		{"the previous value of the same name", "a = x, a = ${a}y", m{"a": "xy"}},
		{"nothing in an array", "a = [${?b}, 1]", m{"a": []any{one}}},
		{"nothing at all", "a = ${?b}${?c}", m{}},
		{"in an array into an array", "b = [1], a = [${b}, 2]", m{"a": []any{[]any{one}, two}, "b": []any{one}}},
		{"an index changes an array that comes from elsewhere, and only here", "b = [1, 1], a = ${b}, a.2 = 2", m{"a": []any{one, two}, "b": []any{one, one}}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			document, err := Parse(test.text)
			require.NoError(t, err)
			require.Equal(t, test.want, plain(document.Root))
		})
	}
}

func TestMerging(t *testing.T) {
	one, two := canonical("1"), canonical("2")
	for _, test := range []struct {
		reason, text string
		want         m
	}{
		{"dotted and braced names are the same", "x.y.z = 1\nx {y {w = 2}}", m{"x": m{"y": m{"z": one, "w": two}}}},
		{"a quoted dot is none", `"a.b" = 1`, m{"a.b": one}},
		{"several indices change one element", "a = [{x = 1}]\na.1.y = 1\na.1.z = 2", m{"a": []any{m{"x": one, "y": one, "z": two}}}},
		{"indices count in their own order", `a = [1], a {"3" = 2, "2" = 1}`, m{"a": []any{one, one, two}}},
		{"an object of nothing changes no array", "a = [1], a {}", m{"a": []any{one}}},
		{"an object of nothing adds nothing to text", `a = {} "x"`, m{"a": "x"}},
		{"a separator more is skipped, and does not part what is put together", "a = [1] = [2]", m{"a": []any{one, two}}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			document, err := Parse(test.text)
			require.NoError(t, err)
			require.Equal(t, test.want, plain(document.Root))
		})
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		reason, text, want string
	}{
		{"an object that is not closed", "a {\n  b = 1\n", `line 2, column 7: expected a comma or "}" (quote text that has signs in it), found the end of the text`},
		{"a brace too many", "a = 1\n}", `line 2, column 1: expected a comma or a name (quote text that has signs in it), found "}"`},
		{"a separator without a value", "a = \n}", `line 2, column 1: expected a value (quote text that has signs in it), found "}"`},
		{"an address without quotes", "bind = 0.0.0.0:1883", `line 1, column 11: expected a comma or a name (quote text that has signs in it), found a number`},
		{"a string that is not closed", "é = 1", "line 1, column 1: the character U+00E9 cannot stand here without quotes around the text"},
		{"three quotes that are not closed", "a = \"\"\"abc", "line 1, column 7: the string lacks its closing quote on its line"},
		{"a substitution that is not closed", "a = ${x\n}", "line 1, column 5: a substitution is ${name} or ${?name}, without blanks and quotes in it"},
		{"an object joined to an array", "a = [1] {x = 1}", "line 1, column 5: only strings, or arrays, or objects can be put together, nothing else and no mixture"},
		{"what is replaced must be valid, too", "a = [1], a.5 = 2, a = 3", "line 1, column 12: an index of this array is a number from 1 to 2"},
		{"a fault of scanning comes first, wherever it stands", "a = ]\nb = /x", `line 2, column 5: "/" cannot stand here without quotes around the text`},
		{"bytes that are no text", "a = 1\nb = \xc3\x28", "line 2, column 5: the text is no valid UTF-8 here"},
		{"a number that is none", "a = 1.0e400", "line 1, column 5: the number is too large"},
		{"too deep in brackets", "a = " + strings.Repeat("[", 300), "line 1, column 260: nested deeper than 256 levels"},
		{"too deep by name", strings.Repeat("a.", 300) + "a = 1", "line 1, column 605: nested deeper than 256 levels"},
		{"too long", strings.Repeat(" ", MaxBytes+1), "line 1, column 1: the configuration has 1048577 bytes, more than the 1048576 that fit a ConfigMap"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			_, err := Parse(test.text)
			require.EqualError(t, err, test.want)
		})
	}
}

func TestErrorsNeverQuoteValues(t *testing.T) {
	for _, text := range []string{`license { key = "secret" ] }`, "license { key = secret/x }", `a = "secret" [1]`} {
		_, err := Parse(text)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestWhatIncludesMayChangeIsUnknown(t *testing.T) {
	text := "include \"x.conf\"\na = ${b}\nc = 1\nd { include required(\"y.conf\"), e = 1 }"
	_, err := Parse(text)
	require.Error(t, err, "EMQX refuses it when there are no such files")
	document, err := ParseOpen(text)
	require.NoError(t, err)
	require.Equal(t, Unknown, document.Root.Get("a").Kind())
	require.Equal(t, Number, document.Root.Get("c").Kind())
	require.False(t, Equal(document.Root.Get("a"), document.Root.Get("a")), "who knows")
	require.Len(t, document.Includes, 2)
	require.Equal(t, "x.conf", document.Includes[0].Target)
	require.True(t, document.Includes[1].Required)
	require.Equal(t, 4, document.Includes[1].Line)
	_, err = ParseOpen("a = ${b}")
	require.Error(t, err, "without includes nothing can come from elsewhere: EMQX does not look into the environment")
}

func TestBrokerExamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.conf")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			document, err := Parse(string(text))
			require.NoError(t, err)
			require.NotZero(t, document.Root.Len())
		})
	}
}

func TestLookups(t *testing.T) {
	document, err := Parse("a { port = 1883, plus = +7, zeros = 007, none = -0, list = [1], t = true }")
	require.NoError(t, err)
	for name, want := range map[string]string{"port": "1883", "plus": "7", "zeros": "7", "none": "0", "t": "true"} {
		s, ok := document.Root.Get("a", name).Text()
		require.True(t, ok)
		require.Equal(t, want, s)
	}
	_, ok := document.Root.Get("a", "list").Text()
	require.False(t, ok, "an array has no text")
	require.Equal(t, Absent, document.Root.Get("a", "port", "deeper").Kind(), "a number has no members")
	require.Equal(t, Absent, Value{}.Get("a").Kind())
	require.Equal(t, 6, document.Root.Get("a").Len())
	s, _ := StringValue("x").Text()
	require.Equal(t, "x", s)
}

func TestEqual(t *testing.T) {
	for _, test := range []struct {
		reason, a, b string
		want         bool
	}{
		{"the order of names does not count", "a = 1, b { c = 2, d = 3 }", "b.d = 3\nb.c = 2\na = \"1\"", true},
		{"comments do not count", "a = 1 # one", "a : 1", true},
		{"the order of elements counts", "a = [1, 2]", "a = [2, 1]", false},
		{"a name more", "a = 1", "a = 1, b = 1", false},
		{"another name", "a = 1", "b = 1", false},
		{"null is not text", "a = null", "a = \"null\"", false},
		{"true is not an object", "a = true", "a {}", false},
		{"substitutions by what they stand for", "b = 1, a = ${b}", "b = 1, a = 1", true},
	} {
		t.Run(test.reason, func(t *testing.T) {
			a, err := Parse(test.a)
			require.NoError(t, err)
			b, err := Parse(test.b)
			require.NoError(t, err)
			require.Equal(t, test.want, Equal(a.Root, b.Root))
			require.Equal(t, test.want, Equal(b.Root, a.Root))
		})
	}
}

// hostile are texts that grow in one direction; %d is replaced by a number that counts.
func hostile() []string {
	return []string{
		"a.b = [1]\n", "a {x = 1}\n", `"""`, "a = b c d e ", "[", "{a=", "${", `"\`, `a=""""""` + "\n", "# '\n", "[1]", "a = ${x} [1]\n",
		"x%d=1\n", "a.x%d = 1\n", "a = [1,2]\na.1.x%d = 1\n", "a%d = ${?b%d}\n", "a%d = ${z}\n", "b%d = ${b}\nb = 1\n", `a = "\"\"` + "\n",
		"a = x, a = ${a}x\n", "a = {x%d = 1}, b = ${a} {y = 1}\n", "a = ${a%d} x\n", "include required(\"x\")\n", "a {b {c%d = {}}}\n", "a = {},", "a=[{}],",
		"a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a=1\n", "\n", "{", "}", ",", "=", `"`, `"""~` + "\n", " ~\"\"\"\n", "a=1 ", "1,", "a", "é", "\\", "/",
	}
}

func repeated(pattern string, size int) string {
	var text strings.Builder
	switch pattern {
	case "[1]", "1,":
		text.WriteString("a = [")
		defer text.WriteString("]")
	}
	for i := 0; text.Len() < size; i++ {
		text.WriteString(strings.ReplaceAll(pattern, "%d", itoa(i)))
	}
	return text.String()
}

func itoa(i int) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	s := ""
	for ; i > 0 || s == ""; i /= len(digits) {
		s = string(digits[i%len(digits)]) + s
	}
	return s
}

// allocated is how many bytes reading a text takes in all, kept or not.
func allocated(text string) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = ParseOpen(text)
	runtime.ReadMemStats(&after)
	return float64(after.TotalAlloc - before.TotalAlloc)
}

// TestMemoryIsLinear counts what reading allocates. The bound is that of all garbage together, not of what is kept.
func TestMemoryIsLinear(t *testing.T) {
	for _, pattern := range hostile() {
		t.Run(pattern, func(t *testing.T) {
			n := allocated(repeated(pattern, 100_000))
			twice := allocated(repeated(pattern, 200_000))
			t.Logf("%.1f and %.1f bytes for each byte", n/100_000, twice/200_000)
			require.Less(t, twice, 2.5*n+1e5)
			require.Less(t, twice, 20.*200_000)
		})
	}
}

// TestWorkIsLinear bounds the work of following substitutions, which is the only part that could be more than linear.
func TestWorkIsLinear(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("a.x = 1\n", 20_000) + strings.Repeat("b = ${a.x}\n", 20_000),
		"a = xxxxxxxxxxxxxxxx\n" + strings.Repeat("a = ${a}${a}\n", 60),
		"a = {x = 1}\n" + strings.Repeat("a = {b = ${a}}\n", 2000),
		"a = {x = 1}\n" + strings.Repeat("a = {p = ${a}, q = ${a}}\n", 40),
		"a = {x = 1}\n" + strings.Repeat("a = ${a}${a}\n", 60) + "b = ${a.y}",
	} {
		_, err := Parse(text)
		var refused *Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, StageLimit, refused.Stage)
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.conf")
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(string(text))
	}
	for _, v := range verdicts(f) {
		f.Add(v.Text)
	}
	f.Add("a = ${x} {b = [1, \"\\u00e9\"]} \"\"\"~\n x ~\"\"\" include required(\"x\")")
	f.Fuzz(func(t *testing.T, text string) {
		for _, read := range []func(string) (*Document, error){Parse, ParseOpen} {
			document, err := read(text)
			if err != nil {
				var refused *Error
				require.ErrorAs(t, err, &refused)
				require.NotEmpty(t, refused.Stage)
				require.Positive(t, refused.Column)
				require.GreaterOrEqual(t, refused.Line, 1)
				require.LessOrEqual(t, refused.Line, strings.Count(text, "\n")+1)
				continue
			}
			again, err := read(text)
			require.NoError(t, err)
			require.Equal(t, plain(document.Root), plain(again.Root), "reading twice gives the same")
		}
	})
}
