package hocon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// plain turns a value into Go maps, slices and strings, so that tables can be written by hand.
func plain(value Value) any {
	switch v := value.(type) {
	case *Object:
		m := map[string]any{}
		for name, member := range v.values {
			m[name] = plain(member)
		}
		return m
	case Array:
		list := []any{}
		for _, element := range v {
			list = append(list, plain(element))
		}
		return list
	case Unresolved:
		list := []any{"unresolved"}
		for _, element := range v {
			list = append(list, plain(element))
		}
		return list
	default:
		return value
	}
}

type m = map[string]any

func TestParse(t *testing.T) {
	for _, test := range []struct {
		reason, text string
		want         m
	}{
		{"an empty text is an empty object", "", m{}},
		{"so are braces and comments", " { # nothing\n // here\n } ", m{}},
		{"names may be separated by = or :", "a = 1\nb : 2", m{"a": Number("1"), "b": Number("2")}},
		{"commas are optional, also several", "a = 1,, b = 2\n,c = 3,", m{"a": Number("1"), "b": Number("2"), "c": Number("3")}},
		{"members need no separator on one line", "a = 1 b = 2", m{"a": Number("1"), "b": Number("2")}},
		{"nor do objects", "a {x = 1} b {y = 2}", m{"a": m{"x": Number("1")}, "b": m{"y": Number("2")}}},
		{"a name before a brace is a name", "a = 1 b {y = 2}", m{"a": Number("1"), "b": m{"y": Number("2")}}},
		{"dotted keys nest", "a.b.c = 1", m{"a": m{"b": m{"c": Number("1")}}}},
		{"quoted keys do not", `"a.b".c = 1`, m{"a.b": m{"c": Number("1")}}},
		{"repeated objects merge", "a {x = 1, y {p = 1}}\na {y {q = 2}}\na.z = 3", m{"a": m{"x": Number("1"), "y": m{"p": Number("1"), "q": Number("2")}, "z": Number("3")}}},
		{"anything else replaces", "a {x = 1}\na = 2\nb = 1\nb = 2", m{"a": Number("2"), "b": Number("2")}},
		{"durations, sizes and percentages are strings", "a = 10s, b = 64MB, c = 80%, d = 1.5h", m{"a": String("10s"), "b": String("64MB"), "c": String("80%"), "d": String("1.5h")}},
		{"numbers keep their spelling", "a = -1, b = 1.50, c = 1e+3, d = .5, e = +7", m{"a": Number("-1"), "b": Number("1.50"), "c": Number("1e+3"), "d": Number(".5"), "e": Number("+7")}},
		{"an address is no number", "a = 0.0.0.0, b = 0x10", m{"a": String("0.0.0.0"), "b": String("0x10")}},
		{"true, false and null", "a = true, b = false, c = null, d = trueish", m{"a": Bool(true), "b": Bool(false), "c": Null{}, "d": String("trueish")}},
		{"unquoted text is joined with its blanks", "a = foo  bar # baz\nb = x", m{"a": String("foo  bar"), "b": String("x")}},
		{"quoted text is joined to it", `a = "foo " bar" x"`, m{"a": String("foo  bar x")}},
		{"escapes", `a = "\"\\\/\n\t\u00e9"`, m{"a": String("\"\\/\n\té")}},
		{"what is no escape stays, as in regular expressions", `a = "^\d+\.$"`, m{"a": String(`^\d+\.$`)}},
		{"triple quotes keep line ends and quotes", "a = \"\"\"x\n \"y\" \\n\"\"\"\"", m{"a": String("x\n \"y\" \\n\"")}},
		{"indented triple quotes lose their indentation", "a = \"\"\"~\n    x\n      y\n\n    z\n    ~\"\"\"", m{"a": String("x\n  y\n\nz\n")}},
		{"arrays with commas or lines", "a = [1, 2\n3\n# four\n]", m{"a": []any{Number("1"), Number("2"), Number("3")}}},
		{"arrays of objects", "a = [{x = 1}\n{x = 2} // end\n]", m{"a": []any{m{"x": Number("1")}, m{"x": Number("2")}}}},
		{"arrays append on one line", "a = [1] [2]", m{"a": []any{Number("1"), Number("2")}}},
		{"objects merge on one line", "a = {x = 1} {y = 2}", m{"a": m{"x": Number("1"), "y": Number("2")}}},
		{"+= appends", "a = [1]\na += 2\nb += 3", m{"a": []any{Number("1"), Number("2")}, "b": []any{Number("3")}}},
		{"+= onto text cannot be known", "a = x\na += 2", m{"a": []any{"unresolved", String("x"), []any{Number("2")}}}},
		{"substitutions stay", "a = ${x.y}, b = ${?z}", m{"a": Substitution{Path: "x.y"}, "b": Substitution{Path: "z", Optional: true}}},
		{"so do concatenations with them", `a = ${x}"/log"`, m{"a": []any{"unresolved", Substitution{Path: "x"}, String("/log")}}},
		{"and merges with them", "a = ${x}\na {y = 1}", m{"a": []any{"unresolved", Substitution{Path: "x"}, m{"y": Number("1")}}}},
		{"a quote in a comment is a comment", "a { # it's the broker's `quoted' word\n x = 1 }", m{"a": m{"x": Number("1")}}},
		{"the value may stand on the next line", "a =\n  1", m{"a": Number("1")}},
		{"a brace may too", "a\n{\n x = 1\n}", m{"a": m{"x": Number("1")}}},
		{"windows line ends and a byte order mark", "\ufeffa = 1\r\nb = x\r\n", m{"a": Number("1"), "b": String("x")}},
		{"names that begin like include", "include = 1, included = 2, include_me { x = 1 }", m{"include": Number("1"), "included": Number("2"), "include_me": m{"x": Number("1")}}},
		{"the manifest of the documentation", "license {\n  key = \"...\"\n}\n", m{"license": m{"key": String("...")}}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			got, err := Parse(test.text)
			require.NoError(t, err)
			require.Equal(t, test.want, plain(got))
		})
	}
}

func TestParseIncludes(t *testing.T) {
	root, err := Parse("include \"a.conf\"\nx { include required(file(\"b.conf\")), include url(\"c\") }\n")
	require.NoError(t, err)
	require.Equal(t, []Include{{Target: "a.conf"}}, root.Includes())
	require.Equal(t, []Include{{Kind: "file", Target: "b.conf", Required: true}, {Kind: "url", Target: "c"}}, root.Object("x").Includes())
}

func TestParseErrors(t *testing.T) {
	for _, test := range []struct {
		reason, text, want string
	}{
		{"an object that is not closed", "a {\n  b = 1\n", "line 3, column 1: expected a name or the closing brace, found end of text"},
		{"a brace too many", "a = 1\n}", `line 2, column 1: expected a name, found "}"`},
		{"a brace too many after braces", "{a = 1} }", `line 1, column 9: expected nothing after the closing brace, found "}"`},
		{"a name without a value", "a", `line 1, column 2: expected "=", ":", "+=" or "{" after the name, found end of text`},
		{"a separator without a value", "a = \n}", `line 2, column 1: expected a value, found "}"`},
		{"an address without quotes", "bind = 0.0.0.0:1883", `line 1, column 15: expected a comma, a new line or a closing bracket (quote text that has punctuation in it), found ":"`},
		{"a string that is not closed", "é = \"abc\nb = 1", "line 1, column 9: expected the closing quote of the string on its line, found end of line"},
		{"three quotes that are not closed", "a = \"\"\"abc", "line 1, column 5: expected a string with its three closing quotes, found a quoted string"},
		{"an array that is not closed", "a = [1, 2", `line 1, column 10: expected a value or "]", found end of text`},
		{"a substitution that is not closed", "a = ${x\n}", `line 1, column 5: expected ${name} with its closing brace, found "$"`},
		{"an object joined to an array", "a = [1] {x = 1}", `line 1, column 9: expected another array, a comma or a new line, found "{"`},
		{"an include that is not closed", "include file(\"x\"\n", `line 1, column 17: expected ")", found end of line`},
		{"a plus alone", "a + 1", `line 1, column 3: expected "=", ":", "+=" or "{" after the name, found "+"`},
		{"two dots", "a..b = 1", "line 1, column 3: expected a name, found text"},
		{"too deep", strings.Repeat("[", 200), "line 1, column 1: expected a name, found \"[\""},
		{"too deep in a value", "a = " + strings.Repeat("[", 200), `line 1, column 132: expected at most 128 levels, found "["`},
		{"too deep by name", strings.Repeat("a.", 200) + "a = 1", "line 1, column 403: expected at most 128 levels, found \"=\""},
		{"too long", strings.Repeat(" ", MaxBytes+1), "line 1, column 1: expected at most 1 MiB of text, found more"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			_, err := Parse(test.text)
			require.EqualError(t, err, test.want)
			var syntax *Error
			require.ErrorAs(t, err, &syntax)
		})
	}
}

func TestErrorsNeverQuoteValues(t *testing.T) {
	_, err := Parse("license { key = \"secret\" ] }")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestBrokerExamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.conf")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			root, err := Parse(string(text))
			require.NoError(t, err)
			require.NotEmpty(t, root.Keys())
		})
	}
}

func TestLookups(t *testing.T) {
	root, err := Parse("a { port = 1883, on = \"true\", off = off, list = [1] }")
	require.NoError(t, err)
	s, ok := root.Text("a", "port")
	require.True(t, ok)
	require.Equal(t, "1883", s)
	_, ok = root.Text("a", "list")
	require.False(t, ok, "an array has no text")
	_, ok = root.Get("a", "port", "deeper")
	require.False(t, ok, "a number has no members")
	require.True(t, root.Bool(false, "a", "on"))
	require.False(t, root.Bool(true, "a", "off"))
	require.True(t, root.Bool(true, "a", "missing"))
	require.Empty(t, root.Object("a", "port").Keys())
	require.Equal(t, []string{"port", "on", "off", "list"}, root.Object("a").Keys())
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
		{"substitutions by path", "a = ${x}", "a = ${x}", true},
		{"and by kind", "a = ${x}", "a = ${?x}", false},
		{"unresolved by parts", "a = ${x} y", "a = ${x} z", false},
		{"includes count", "include \"a\"", "include \"b\"", false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			a, err := Parse(test.a)
			require.NoError(t, err)
			b, err := Parse(test.b)
			require.NoError(t, err)
			require.Equal(t, test.want, Equal(a, b))
			require.Equal(t, test.want, Equal(b, a))
		})
	}
}

// TestLinear counts the bytes looked at by growing hostile texts tenfold: the allocations must grow about tenfold too.
func TestLinear(t *testing.T) {
	for _, hostile := range []string{"a.b += 1\n", "a {x = 1}\n", "\"\"\"", "a = b c d e ", "[", "{a=", "x${", "\"\\", "a=\"\"\"\"\"\"\"\n", "# '\n", "a = ${x} [1]\n"} {
		t.Run(fmt.Sprintf("%q", hostile), func(t *testing.T) {
			count := func(n int) float64 {
				text := strings.Repeat(hostile, n)
				return testing.AllocsPerRun(1, func() { _, _ = Parse(text) }) + 100
			}
			require.Less(t, count(20000)/count(2000), 15.0)
		})
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.conf")
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(string(text))
	}
	f.Add("a = ${x} {b += [1, \"\\u00e9\"]} \"\"\"~\n x ~\"\"\" include required(file(\"x\"))")
	f.Fuzz(func(t *testing.T, text string) {
		root, err := Parse(text)
		if err != nil {
			var syntax *Error
			require.ErrorAs(t, err, &syntax)
			require.Positive(t, syntax.Line)
			require.Positive(t, syntax.Column)
			require.LessOrEqual(t, syntax.Line, strings.Count(text, "\n")+1)
			return
		}
		again, err := Parse(text)
		require.NoError(t, err)
		require.True(t, Equal(root, again), "reading twice gives the same")
	})
}
