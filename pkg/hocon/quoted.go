package hocon

import (
	"strconv"
	"strings"
	"unicode/utf16"
)

const tripleQuote = `"""`

// quoted reads a string in quotes or in triple quotes. Without three closing quotes, three opening ones are an empty
// string and the start of another.
func (s *scanner) quoted() (token, *Error) {
	if strings.HasPrefix(s.text[s.pos:], tripleQuote) {
		if end := s.tripleEnd(s.pos + len(tripleQuote)); end > 0 {
			return s.triple(end)
		}
	}
	start := s.pos
	end, after := s.quotedEnd(start+1), 1
	if s.required > 0 {
		end, after, s.required = s.required-1, len(`")`), 0
	}
	if end < 0 {
		return token{}, s.errorAt(start, "the string lacks its closing quote on its line")
	}
	s.pos = end + after
	t := s.token(tokenString, start+1, end)
	t.at = small(start)
	var err *Error
	t.built, err = s.unescaped(start+1, end)
	return t, err
}

// quotedEnd is the offset of the closing quote, or -1. EMQX takes the longest match, and to its scanner a backslash
// before a quote may stand for itself: such a quote closes the string only where no later one of the line does.
func (s *scanner) quotedEnd(start int) int {
	found := -1
	for i := start; i < len(s.text) && lineEnd(s.text[i:]) == 0; i++ {
		if s.text[i] != '"' {
			continue
		}
		found = i
		if i == start || s.text[i-1] != '\\' {
			break
		}
	}
	return found
}

// unescaped gives the text with its escapes replaced, or nil when it has none. What is no escape stays as it is, as the
// \d of a regular expression.
func (s *scanner) unescaped(start, end int) (*string, *Error) {
	if strings.IndexByte(s.text[start:end], '\\') < 0 {
		return nil, nil
	}
	var out strings.Builder
	for i := start; i < end; i++ {
		c := s.text[i]
		if c != '\\' || i+1 >= end {
			out.WriteByte(c)
			continue
		}
		if s.text[i+1] == 'u' {
			r, n := unicodeEscape(s.text[i:end])
			if n == 0 {
				return nil, s.errorAt(i, `\u takes four hexadecimal digits, and what is above U+FFFF two of them`)
			}
			out.WriteRune(r)
			i += n - 1
			continue
		}
		if at := strings.IndexByte(`\"ntrbf`, s.text[i+1]); at >= 0 {
			out.WriteByte("\\\"\n\t\r\b\f"[at])
			i++
			continue
		}
		out.WriteByte(c)
	}
	built := out.String()
	return &built, nil
}

// unicodeEscape reads \uXXXX, or two of them that make one character. It gives the length 0 for anything else.
func unicodeEscape(s string) (rune, int) {
	const length = len(`\u0000`)
	first, ok := hex4(s)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(first) {
		return first, length
	}
	second, ok := hex4(s[length:])
	if r := utf16.DecodeRune(first, second); ok && r != '\ufffd' {
		return r, 2 * length
	}
	return 0, 0
}

func hex4(s string) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	code, err := strconv.ParseUint(s[2:6], 16, 16)
	return rune(code), err == nil && s[2] != '+'
}

// The states that EMQX's scanner may be in within triple quotes, as bits of a set.
const (
	inText = 1 << iota
	afterBackslash
	afterQuote
	afterTwoQuotes
)

// tripleEnd is the offset after the closing triple quotes, or 0. It follows all ways to read the text at once, because
// the longest match wins and a backslash may escape a quote or stand for itself.
func (s *scanner) tripleEnd(start int) int {
	found, states := 0, inText
	for i := start; i < len(s.text) && states != 0; i++ {
		next := 0
		quote := s.text[i] == '"'
		if states&inText != 0 {
			switch {
			case quote:
				next |= afterQuote
			case s.text[i] == '\\':
				next |= inText | afterBackslash
			default:
				next |= inText
			}
		}
		if states&afterBackslash != 0 && quote {
			next |= inText
		}
		if states&afterQuote != 0 {
			if quote {
				next |= afterTwoQuotes
			} else {
				next |= inText
			}
		}
		if states&afterTwoQuotes != 0 {
			if quote {
				found = i + 1
			} else {
				next |= inText
			}
		}
		states = next
	}
	return found
}

// triple reads """text""", which has no escapes and may hold line ends and quotes.
func (s *scanner) triple(end int) (token, *Error) {
	start := s.pos
	t := s.token(tokenString, start+len(tripleQuote), end-len(tripleQuote))
	t.at = small(start)
	body := s.text[t.start:t.end]
	if strings.HasSuffix(body, `\"`) {
		return token{}, s.errorAt(start, "the string ends in four quotes; use \"\"\"~ and ~\"\"\" around text that ends in a quote")
	}
	s.line += small(strings.Count(s.text[start:end], "\n"))
	s.pos = end
	for _, opening := range []string{"~\n", "~\r\n"} {
		if rest, ok := strings.CutPrefix(body, opening); ok {
			built := unindented(rest)
			t.built = &built
		}
	}
	return t, nil
}

// unindented takes the common indentation away from the lines of
//
//	"""~
//	    text
//	~"""
//
// The line of the closing quotes may be indented less than the others.
func unindented(body string) string {
	body = strings.TrimSuffix(body, "~")
	indent := commonIndent(body)
	var out strings.Builder
	out.Grow(len(body))
	for line := range strings.Lines(body) {
		out.WriteString(line[min(indent, leadingSpaces(line)):])
	}
	return out.String()
}

func commonIndent(body string) int {
	indent, last := -1, body
	if i := strings.LastIndexByte(body, '\n'); i >= 0 {
		last = body[i+1:]
		for line := range strings.SplitSeq(body[:i], "\n") {
			if spaces := leadingSpaces(line); line != "" && line != "\r" && (indent < 0 || spaces < indent) {
				indent = spaces
			}
		}
		indent = max(indent, 0)
	}
	spaces := leadingSpaces(last)
	if last == "" || last == "\r" || indent >= 0 && spaces == len(last) {
		return max(indent, 0)
	}
	if indent < 0 {
		return spaces
	}
	return min(indent, spaces)
}

func leadingSpaces(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }
