package resources

import (
	"errors"
	"fmt"
	"strings"

	"github.com/emqx-bg/emqx-bg-operator/pkg/hocon"
)

// defaultListeners is what EMQX opens unless the configuration says otherwise.
const defaultListeners = `listeners.tcp.default.bind = 1883
listeners.ssl.default.bind = 8883
listeners.ws.default.bind = 8083
listeners.wss.default.bind = 8084
`

// ConfigText is the content of emqx.conf: EMQX's default listeners, then the user's text, which wins.
func ConfigText(data string) string {
	head, tail := splitConfig(data)
	return head + defaultListeners + tail
}

// splitConfig cuts the user's text where the default listeners go: at its start, or after the brace around it. A byte
// order mark is only allowed at the start of a file and goes away.
func splitConfig(data string) (head, tail string) {
	data = strings.TrimPrefix(data, "\ufeff")
	at, braced := hocon.OpeningBrace(data)
	if !braced {
		return "", data
	}
	return data[:at+1] + "\n", strings.TrimRight(data[at+1:], " \t\r\n")
}

// readConfig reads emqx.conf as it will be. Errors have the place in the user's text.
func readConfig(data string) (*hocon.Document, error) {
	head, tail := splitConfig(data)
	if size := len(head) + len(defaultListeners) + len(tail); size > hocon.MaxBytes {
		return nil, fmt.Errorf("the text has %d bytes with the default listeners before it, more than the %d that a ConfigMap holds",
			size, hocon.MaxBytes)
	}
	document, err := hocon.ParseOpen(head + defaultListeners + tail)
	var refused *hocon.Error
	if errors.As(err, &refused) {
		return nil, inUserText(*refused, head)
	}
	return document, err
}

// inUserText moves the place of an error from the whole text to the user's, which lacks the default listeners.
func inUserText(refused hocon.Error, head string) *hocon.Error {
	before := strings.Count(head, "\n") // Lines that the user's text has before the default listeners, one of them added.
	switch inserted := before + strings.Count(defaultListeners, "\n"); {
	case refused.Line <= before:
	case refused.Line <= inserted: // What lacks after the brace is said of the default listeners, the last words there are.
		refused.Line, refused.Column = max(before, 1), 1
	case head == "":
		refused.Line -= inserted
	default:
		refused.Line -= inserted - before + 1
		if refused.Line == before {
			refused.Column += len([]rune(head[strings.LastIndexByte(strings.TrimSuffix(head, "\n"), '\n')+1:])) - 1
		}
	}
	return &refused
}
