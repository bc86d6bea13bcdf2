package hocon

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// endOfText is what peek returns at the end; a NUL byte in the text is no valid character anywhere.
const endOfText = 0

func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return endOfText
}

func (p *parser) take(word string) bool {
	if !strings.HasPrefix(p.text[p.pos:], word) {
		return false
	}
	p.pos += len(word)
	return true
}

// skipSpace skips blanks within a line.
func (p *parser) skipSpace() {
	for p.pos < len(p.text) {
		n := blank(p.text[p.pos:])
		if n == 0 {
			return
		}
		p.pos += n
	}
}

// skipBlank skips blanks, ends of lines and comments.
func (p *parser) skipBlank() {
	for p.skipSpace(); p.pos < len(p.text); p.skipSpace() {
		switch {
		case p.text[p.pos] == '\n':
			p.pos++
		case p.atComment():
			if n := strings.IndexByte(p.text[p.pos:], '\n'); n >= 0 {
				p.pos += n
			} else {
				p.pos = len(p.text)
			}
		default:
			return
		}
	}
}

func (p *parser) atComment() bool {
	c := p.peek()
	return c == '#' || c == '/' && strings.HasPrefix(p.text[p.pos:], "//")
}

// blank returns the length of the blank at the start of s: space, tab, carriage return, byte order mark and the like.
func blank(s string) int {
	switch s[0] {
	case ' ', '\t', '\r', '\v', '\f':
		return 1
	case 0xc2, 0xe2, 0xef: // The first bytes of U+00A0, U+2028, U+2029 and U+FEFF.
		switch r, n := utf8.DecodeRuneInString(s); r {
		case '\u00a0', '\u2028', '\u2029', '\ufeff':
			return n
		}
	}
	return 0
}

// isUnquoted reports whether c may stand in text without quotes: all but what has a meaning of its own.
func isUnquoted(c byte) bool {
	switch c {
	case '{', '}', '[', ']', ',', ':', '=', '+', '"', '$', '#', '\n', ' ', '\t', '\r', '\v', '\f', endOfText:
		return false
	}
	return true
}

// unquoted reads text without quotes up to a blank, a comment or punctuation.
func (p *parser) unquoted() string {
	start := p.pos
	for p.pos < len(p.text) && !p.atComment() && blank(p.text[p.pos:]) == 0 {
		c := p.text[p.pos]
		exponent := c == '+' && p.pos > start && (p.text[p.pos-1] == 'e' || p.text[p.pos-1] == 'E')
		if !isUnquoted(c) && !exponent {
			break
		}
		p.pos++
	}
	return p.text[start:p.pos]
}

// atSignedNumber tells the plus of +5 from that of +=.
func (p *parser) atSignedNumber() bool {
	return p.peek() == '+' && p.pos+1 < len(p.text) && p.text[p.pos+1] >= '0' && p.text[p.pos+1] <= '9'
}

func isNumber(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
		default:
			return false // Also hexadecimal, infinities and underscores, which ParseFloat takes.
		}
	}
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

func (p *parser) parseSubstitution() (Substitution, *Error) {
	start := p.pos
	if !p.take("${") {
		return Substitution{}, p.errorAt(p.pos, "${name}")
	}
	optional := p.take("?")
	end := strings.IndexAny(p.text[p.pos:], "}\n")
	if end <= 0 || p.text[p.pos+end] != '}' {
		return Substitution{}, p.errorAt(start, "${name} with its closing brace")
	}
	path := strings.TrimSpace(p.text[p.pos : p.pos+end])
	p.pos += end + 1
	return Substitution{Path: path, Optional: optional}, nil
}

const quotes = `"""`

// parseQuoted reads a quoted or triple-quoted string.
func (p *parser) parseQuoted() (string, *Error) {
	if strings.HasPrefix(p.text[p.pos:], quotes) {
		return p.parseTripleQuoted()
	}
	start := p.pos
	p.pos++
	var s strings.Builder
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; c {
		case '"':
			p.pos++
			return s.String(), nil
		case '\n':
			return "", p.errorAt(p.pos, "the closing quote of the string on its line")
		case '\\':
			if err := p.parseEscape(&s); err != nil {
				return "", err
			}
		default:
			s.WriteByte(c)
			p.pos++
		}
	}
	return "", p.errorAt(start, "a string with its closing quote")
}

// parseEscape reads an escape. One that is none, as the \d of a regular expression, stays as it is: so does the broker.
func (p *parser) parseEscape(s *strings.Builder) *Error {
	if p.pos+1 >= len(p.text) {
		return p.errorAt(p.pos, "a string with its closing quote")
	}
	c := p.text[p.pos+1]
	if c == 'u' && p.pos+6 <= len(p.text) {
		if code, err := strconv.ParseUint(p.text[p.pos+2:p.pos+6], 16, 16); err == nil {
			s.WriteRune(rune(code))
			p.pos += 6
			return nil
		}
	}
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		s.WriteByte("\"\\/\b\f\n\r\t"[i])
		p.pos += 2
		return nil
	}
	s.WriteByte('\\')
	p.pos++
	return nil
}

// parseTripleQuoted reads """text""", which has no escapes and may hold line ends and quotes, and the form
//
//	"""~
//	    text
//	~"""
//
// from whose lines the common indentation is taken away.
func (p *parser) parseTripleQuoted() (string, *Error) {
	start := p.pos
	p.pos += len(quotes)
	n := strings.Index(p.text[p.pos:], quotes)
	if n < 0 {
		return "", p.errorAt(start, "a string with its three closing quotes")
	}
	end := p.pos + n
	for strings.HasPrefix(p.text[end+1:], quotes) { // Quotes before the last three belong to the text.
		end++
	}
	body := p.text[p.pos:end]
	p.pos = end + len(quotes)
	if first, rest, ok := strings.Cut(body, "\n"); ok && strings.TrimRight(first, " \t\r") == "~" {
		return unindented(rest), nil
	}
	return body, nil
}

func unindented(body string) string {
	body = strings.TrimSuffix(body, "~")
	lines := strings.Split(body, "\n")
	indent := -1
	for _, line := range lines {
		if trimmed := strings.TrimLeft(line, " "); strings.TrimSpace(trimmed) != "" {
			if n := len(line) - len(trimmed); indent < 0 || n < indent {
				indent = n
			}
		}
	}
	for i, line := range lines {
		lines[i] = line[min(max(indent, 0), len(line)-len(strings.TrimLeft(line, " "))):]
	}
	return strings.Join(lines, "\n")
}
