package hocon

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// kind is what a token or a node is.
type kind uint8

// The kinds of tokens that the scanner makes. A sign is its own byte.
const (
	tokenEnd kind = iota
	tokenString
	tokenUnquoted
	tokenInteger
	tokenFloat
	tokenTrue
	tokenFalse
	tokenNull
	tokenVariable
	tokenOptionalVariable
	tokenInclude
	tokenRequired
	// The grammar is only regular enough with these: see tokens.
	tokenKey
	tokenQuotedKey
)

// token is a word or a sign of the text.
type token struct {
	kind kind
	// last tells that the value this token is a part of ends with it.
	last bool
	// start and end are the offsets of what counts: without quotes, without the braces of a substitution.
	start, end uint32
	// at is the offset where the token begins, line the line of it.
	at, line uint32
	// built is the text when it is not what stands there, because of escapes or indentation.
	built *string
}

// scanner cuts the text into tokens as EMQX's scanner does: the longest match wins, and among equal ones the first rule.
type scanner struct {
	text string
	pos  int
	line uint32
	// required is where the parenthesis closes of the required("name") that is being read.
	required int
}

func (s *scanner) errorAt(offset int, reason string) *Error {
	return errorAt(s.text, offset, StageScan, reason)
}

// next gives the next token. After the last one it gives tokenEnd for ever.
func (s *scanner) next() (token, *Error) {
	s.skipIgnored()
	if s.pos >= len(s.text) {
		return token{kind: tokenEnd, at: small(len(s.text)), line: s.line}, nil
	}
	switch c := s.text[s.pos]; {
	case strings.IndexByte("{}[],:=", c) >= 0:
		s.pos++
		return s.token(kind(c), s.pos-1, s.pos), nil
	case isLetter(c):
		return s.word(), nil
	case isDigit(c), c == '+', c == '-', c == '.':
		return s.number()
	case c == '"':
		return s.quoted()
	case c == '$':
		return s.variable()
	}
	return token{}, s.illegal()
}

// token makes a token of the text from start to the place reached, with what counts of it ending at end.
func (s *scanner) token(k kind, start, end int) token {
	return token{kind: k, start: small(start), end: small(end), at: small(start), line: s.line}
}

func (s *scanner) illegal() *Error {
	r, _ := utf8.DecodeRuneInString(s.text[s.pos:])
	shown := fmt.Sprintf("%q", string(r))
	if unicode.IsLetter(r) || !unicode.IsPrint(r) {
		shown = fmt.Sprintf("the character %U", r)
	}
	return s.errorAt(s.pos, shown+" cannot stand here without quotes around the text")
}

// skipIgnored skips blanks, ends of lines and comments.
func (s *scanner) skipIgnored() {
	for s.pos < len(s.text) {
		if n := lineEnd(s.text[s.pos:]); n > 0 {
			if s.text[s.pos] == '\n' {
				s.line++
			}
			s.pos += n
			continue
		}
		switch c := s.text[s.pos]; {
		case c == ' ', c == '\t', c == '\v', c == '\f':
			s.pos++
		case strings.HasPrefix(s.text[s.pos:], "\u00a0"):
			s.pos += len("\u00a0")
		case c == '#', strings.HasPrefix(s.text[s.pos:], "//"):
			s.pos += toLineEnd(s.text[s.pos:])
		default:
			return
		}
	}
}

// lineEnd is the length of the end of a line at the start of s. Only \n counts as a new line in messages.
func lineEnd(s string) int {
	switch s[0] {
	case '\n', '\r':
		return 1
	case 0xe2:
		if strings.HasPrefix(s, "\u2028") || strings.HasPrefix(s, "\u2029") {
			return len("\u2028")
		}
	}
	return 0
}

// toLineEnd is how far it is to the end of the line.
func toLineEnd(s string) int {
	for i := range len(s) {
		if lineEnd(s[i:]) > 0 {
			return i
		}
	}
	return len(s)
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// unquotedEnd is where the text without quotes ends that begins at start with a letter; start itself if none does.
func (s *scanner) unquotedEnd(start int) int {
	end := start
	for end < len(s.text) {
		c := s.text[end]
		if !isLetter(c) && (end == start || !isDigit(c) && strings.IndexByte("_.@%-|", c) < 0) {
			break
		}
		end++
	}
	return end
}

// word reads text without quotes, which may be a word with a meaning.
func (s *scanner) word() token {
	start := s.pos
	s.pos = s.unquotedEnd(start)
	t := s.token(tokenUnquoted, start, s.pos)
	switch s.text[start:s.pos] {
	case "true":
		t.kind = tokenTrue
	case "false":
		t.kind = tokenFalse
	case "null":
		t.kind = tokenNull
	case "include":
		t.kind = tokenInclude
	case "required":
		if end := s.requiredEnd(); end > 0 {
			t.kind = tokenRequired
			s.required = end
			s.pos++ // The name in quotes is the next token; the closing parenthesis is skipped with it.
		}
	}
	return t
}

// requiredEnd is the offset of the closing parenthesis of required("name"), or 0 if this is none.
func (s *scanner) requiredEnd() int {
	if !strings.HasPrefix(s.text[s.pos:], `("`) {
		return 0
	}
	found := 0
	for i := s.pos + 2; i < len(s.text) && lineEnd(s.text[i:]) == 0; i++ {
		if s.text[i] != '"' {
			continue
		}
		if strings.HasPrefix(s.text[i+1:], ")") {
			found = i + 1
		}
		if i == s.pos+2 || s.text[i-1] != '\\' {
			break
		}
	}
	return found
}

// number reads an integer, a float, or digits with a unit, which are text to EMQX: 10s, 64MB, 80%.
func (s *scanner) number() (token, *Error) {
	start, rest := s.pos, s.text[s.pos:]
	sign := 0
	if rest[0] == '+' || rest[0] == '-' {
		sign = 1
	}
	whole := sign + digits(rest[sign:])
	fraction := whole
	if n := fractionLength(rest[whole:]); n > 0 && (whole > sign || sign == 0) {
		fraction += n
	}
	switch {
	case fraction > whole && whole > sign:
		s.pos += fraction + exponentLength(rest[fraction:])
		return s.float(start)
	case fraction > whole:
		s.pos += fraction
		return s.float(start)
	case whole == sign:
		return token{}, s.illegal()
	}
	if n := unitLength(rest[whole:]); n > 0 && sign == 0 {
		s.pos += whole + n
		return s.token(tokenString, start, s.pos), nil
	}
	s.pos += whole
	return s.token(tokenInteger, start, s.pos), nil
}

// float refuses what is too large for a float: EMQX crashes on it.
func (s *scanner) float(start int) (token, *Error) {
	f, _ := strconv.ParseFloat(s.text[start:s.pos], 64)
	if math.IsInf(f, 0) {
		return token{}, s.errorAt(start, "the number is too large")
	}
	return s.token(tokenFloat, start, s.pos), nil
}

func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

func fractionLength(s string) int {
	if s == "" || s[0] != '.' {
		return 0
	}
	if n := digits(s[1:]); n > 0 {
		return 1 + n
	}
	return 0
}

func exponentLength(s string) int {
	if s == "" || s[0] != 'e' && s[0] != 'E' {
		return 0
	}
	sign := 0
	if len(s) > 1 && (s[1] == '+' || s[1] == '-') {
		sign = 1
	}
	if n := digits(s[1+sign:]); n > 0 {
		return 1 + sign + n
	}
	return 0
}

// unitLength is the length of a unit at the start of s. Kb, us and w are none to EMQX.
func unitLength(s string) int {
	for _, unit := range [...]string{"kb", "KB", "mb", "MB", "gb", "GB", "ms", "MS"} {
		if strings.HasPrefix(s, unit) {
			return len(unit)
		}
	}
	if s != "" && strings.IndexByte("%dDhHmMsS", s[0]) >= 0 {
		return 1
	}
	return 0
}

// variable reads ${name} or ${?name}.
func (s *scanner) variable() (token, *Error) {
	start := s.pos
	name, k := start+len("${"), tokenVariable
	if strings.HasPrefix(s.text[start:], "${?") {
		name, k = name+1, tokenOptionalVariable
	}
	end := name
	if strings.HasPrefix(s.text[start:], "${") {
		end = s.unquotedEnd(name)
	}
	if end == name || end >= len(s.text) || s.text[end] != '}' {
		return token{}, s.errorAt(start, "a substitution is ${name} or ${?name}, without blanks and quotes in it")
	}
	s.pos = end + 1
	t := s.token(k, name, end)
	t.at = small(start)
	return t, nil
}

// small makes an offset or a length small. MaxBytes bounds the text, and with it all else.
func small(n int) uint32 { return uint32(n) } //nolint:gosec // See above.
