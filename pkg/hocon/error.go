package hocon

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Error says where a text is no valid configuration. It never quotes values, which may be secrets.
type Error struct {
	// Line and Column count from 1; Column counts characters, not bytes.
	Line, Column int
	// Expected is what could have stood there, for a person to read.
	Expected string
	// Found names what stands there: a punctuation character in quotes, or a class such as "text" or "end of text".
	Found string
}

// Error gives one line: place, what was expected, what was found.
func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: expected %s, found %s", e.Line, e.Column, e.Expected, e.Found)
}

// errorAt makes the Error for a byte offset. Line and column are counted only here, so reading stays linear.
func (p *parser) errorAt(offset int, expected string) *Error {
	offset = min(offset, len(p.text))
	before := p.text[:offset]
	lineStart := strings.LastIndexByte(before, '\n') + 1
	return &Error{
		Line:     strings.Count(before, "\n") + 1,
		Column:   utf8.RuneCountInString(before[lineStart:]) + 1,
		Expected: expected,
		Found:    p.found(offset),
	}
}

func (p *parser) found(offset int) string {
	if offset >= len(p.text) {
		return "end of text"
	}
	switch c := p.text[offset]; c {
	case '{', '}', '[', ']', ',', ':', '=', '+', '$':
		return fmt.Sprintf("%q", string(c))
	case '"':
		return "a quoted string"
	case '\n':
		return "end of line"
	default:
		return "text"
	}
}
