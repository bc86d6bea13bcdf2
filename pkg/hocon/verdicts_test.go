package hocon

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// verdict is what EMQX's own reader makes of a text.
type verdict struct {
	Text   string
	Base64 string
	Loads  bool
	Value  any
	Stage  Stage
	Line   int
}

func verdicts(t testing.TB) []verdict {
	t.Helper()
	data, err := os.ReadFile("testdata/verdicts.jsonl")
	require.NoError(t, err)
	var all []verdict
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, len(data)+1)
	for lines.Scan() {
		var v verdict
		decoder := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		decoder.UseNumber()
		require.NoError(t, decoder.Decode(&v))
		if v.Base64 != "" {
			raw, err := base64.StdEncoding.DecodeString(v.Base64)
			require.NoError(t, err)
			v.Text = string(raw)
		}
		all = append(all, v)
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, all)
	return all
}

// plain turns a value into Go maps, slices and scalars.
func plain(v Value) any {
	switch v.Kind() {
	case Object:
		m := map[string]any{}
		for name, member := range v.Members() {
			m[name] = plain(member)
		}
		return m
	case Array:
		list := []any{}
		for element := range v.Elements() {
			list = append(list, plain(element))
		}
		return list
	case Number:
		text, _ := v.Text()
		return canonical(text)
	case Bool:
		text, _ := v.Text()
		return text == "true"
	case String:
		text, _ := v.Text()
		return text
	case Unknown:
		return "unknown"
	default:
		return nil
	}
}

// canonical writes a number so that 1500.0 and 1.5e3 are the same.
func canonical(number string) string {
	f, _, err := big.ParseFloat(number, 10, 200, big.ToNearestEven)
	if err != nil {
		return "no number: " + number
	}
	return "number " + f.Text('g', 40)
}

// expected turns what JSON gave into what plain gives.
func expected(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = expected(v[name])
		}
	case []any:
		for i := range v {
			v[i] = expected(v[i])
		}
	case json.Number:
		return canonical(v.String())
	}
	return v
}

// TestAgreesWithEMQX compares with the recorded verdicts of EMQX's reader. Where its versions differ the newest counts,
// which reads the \u of JSON; older ones, also those of EMQX 5.8 to 6.3, leave it as it is, in all but the text alike.
func TestAgreesWithEMQX(t *testing.T) {
	for _, v := range verdicts(t) {
		t.Run(v.Text, func(t *testing.T) {
			document, err := Parse(v.Text)
			if v.Loads {
				require.NoError(t, err)
				require.Equal(t, expected(v.Value), plain(document.Root))
				return
			}
			var refused *Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, v.Stage, refused.Stage, refused)
			require.GreaterOrEqual(t, refused.Line, 1)
			require.LessOrEqual(t, refused.Line, strings.Count(v.Text, "\n")+1)
			if v.Line > 0 {
				require.InDelta(t, v.Line, refused.Line, 1, refused)
			}
		})
	}
}
