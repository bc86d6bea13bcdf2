package settings

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// What EMQX refuses at boot is told apart here by what was recorded of it and by a few rules of its own, and not by the
// reader that the operator uses: where that is wrong, a node of the stand-in must still exit as one of EMQX does.

//go:embed testdata/verdicts.jsonl
var recordedVerdicts string

//go:embed testdata/ports.jsonl
var recordedPorts string

// recorded gives what EMQX's reader said of each text, and of each configuration whether EMQX starts with it.
var recorded = sync.OnceValue(func() map[string]*SyntaxError {
	verdicts := map[string]*SyntaxError{}
	for line := range strings.Lines(recordedVerdicts) {
		var v struct {
			Text, Stage string
			Loads       bool
			Line        int
		}
		if json.Unmarshal([]byte(line), &v) != nil || v.Text == "" {
			continue // Not text: base64 is not kept in a ConfigMap's data.
		}
		verdicts[v.Text] = nil
		if !v.Loads {
			verdicts[v.Text] = &SyntaxError{Line: max(v.Line, 1), Text: fmt.Sprintf("%s_error in line %d", v.Stage, v.Line)}
		}
	}
	for line := range strings.Lines(recordedPorts) {
		var v struct{ Config, Note, EMQX string }
		if json.Unmarshal([]byte(line), &v) == nil && v.EMQX == "refuse" {
			verdicts[v.Config] = &SyntaxError{Line: 1, Text: "failed_to_check_schema: " + v.Note}
		}
	}
	return verdicts
})

// operatorsLines are what the operator puts before the user's text. A verdict is of that text alone.
const operatorsLines = `listeners.tcp.default.bind = 1883
listeners.ssl.default.bind = 8883
listeners.ws.default.bind = 8083
listeners.wss.default.bind = 8084
`

func usersText(text string) string {
	before, after, found := strings.Cut(text, operatorsLines)
	if !found {
		return text
	}
	return strings.TrimSuffix(before, "\n") + after
}

// refusal says why EMQX does not start with a text, or nil.
func refusal(text string) *SyntaxError {
	users := usersText(text)
	if verdict, known := recorded()[users]; known {
		if strings.HasPrefix(strings.TrimSpace(users), ",") && users != text {
			return nil // The comma follows what the operator put before it.
		}
		return verdict
	}
	return refusedBySigns(text)
}

// plainSigns are those that may stand outside of quotes, besides letters and digits.
const plainSigns = " \t\r\n\v\f{}[],:=_.@%-|+"

// refusedBySigns finds signs that EMQX's scanner does not know outside of quotes and comments, and a comma too many.
func refusedBySigns(text string) *SyntaxError {
	line, comma := 1, false
	refuse := func(reason string) *SyntaxError {
		return &SyntaxError{Line: line, Text: fmt.Sprintf("line %d: %s", line, reason)}
	}
	text = strings.TrimPrefix(text, "\ufeff")
	for text != "" {
		n := 1
		switch c := text[0]; {
		case strings.HasPrefix(text, `"""`):
			end := strings.Index(text[3:], `"""`)
			if end < 0 {
				return refuse("illegal characters: three quotes are not closed")
			}
			n = end + 6
		case c == '"':
			if n = quotedLength(text); n == 0 {
				return refuse("illegal characters: a quote is not closed on its line")
			}
		case c == '#', strings.HasPrefix(text, "//"):
			n = len(text)
			if end := strings.IndexByte(text, '\n'); end >= 0 {
				n = end
			}
			text = text[n:]
			continue
		case strings.HasPrefix(text, "${"):
			if n = strings.IndexByte(text, '}') + 1; n == 0 {
				return refuse("illegal characters: ${")
			}
		case strings.HasPrefix(text, `required("`):
			n = len("required(")
		case c == ')':
		case c == 0xc2 && strings.HasPrefix(text, "\u00a0"), strings.HasPrefix(text, "\u2028"), strings.HasPrefix(text, "\u2029"):
			_, n = utf8.DecodeRuneInString(text)
		case !letterOrDigit(c) && strings.IndexByte(plainSigns, c) < 0:
			return refuse(fmt.Sprintf("illegal characters %q", text[:1]))
		}
		if blank := strings.TrimSpace(text[:n]) == ""; !blank {
			if comma && text[0] == ',' {
				return refuse("syntax error before: ','")
			}
			comma = text[0] == ','
		}
		line += strings.Count(text[:n], "\n")
		text = text[n:]
	}
	if comma {
		return refuse("syntax error before: end of file")
	}
	return nil
}

func letterOrDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// quotedLength is the length of a string in quotes, or 0 when its line ends before. A quote after a backslash may close it
// where no other does.
func quotedLength(text string) int {
	line, _, _ := strings.Cut(text, "\n")
	closing := 0
	for i := 1; i < len(line); i++ {
		if line[i] == '"' {
			closing = i + 1
			if line[i-1] != '\\' || i == 1 {
				return closing
			}
		}
	}
	return closing
}

// refusedListener says which listener EMQX does not start with.
func refusedListener(tree Tree) error {
	listeners := tree.Sub("listeners")
	for _, kind := range listeners.Keys() {
		if listeners[kind] == nil {
			continue
		}
		if !slices.Contains(listenerTypes(), kind) {
			return fmt.Errorf("unknown_fields: listeners.%s", kind)
		}
	}
	return refusedBind(tree)
}

// refusedBind says which listener's address EMQX does not start with.
func refusedBind(tree Tree) error {
	for _, kind := range listenerTypes() {
		names := tree.Sub("listeners", kind)
		for _, name := range names.Keys() {
			if reason := badBind(names.Sub(name)["bind"]); reason != "" {
				return fmt.Errorf("validation_error: listeners.%s.%s.bind: %s", kind, name, reason)
			}
		}
	}
	return nil
}

func badBind(bind any) string {
	switch bind.(type) {
	case nil:
		return ""
	case int64, string:
	default:
		return "bad_ip_port"
	}
	text := strings.ReplaceAll(fmt.Sprint(bind), " ", "")
	address, port := "", text
	if colon := strings.LastIndex(text, ":"); colon >= 0 {
		address, port = text[:colon], text[colon+1:]
	}
	switch n, err := strconv.Atoi(port); {
	case err != nil:
		return "bad_port_number"
	case n < 0:
		return "port_number_must_be_positive"
	case n > 65535:
		return "port_number_too_large"
	}
	if address == "" {
		return ""
	}
	if _, err := netip.ParseAddr(strings.Trim(address, "[]")); err != nil {
		return "bad_ip_port"
	}
	return ""
}
