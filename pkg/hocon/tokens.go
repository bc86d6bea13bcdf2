package hocon

// tokens prepares the scanner's tokens for the grammar, as EMQX does, with a look at the two that follow:
//
//   - A comma before a closing bracket goes away.
//   - Text before =, : or { is a name. After that = and : go away, wherever they stand.
//   - Text, substitutions and closing brackets that end a value are marked: those before a name, an include, a comma or
//     a closing bracket. All else is concatenated, whatever blanks and ends of lines are between.
//   - Objects on different lines are not concatenated: a comma comes between them.
type tokens struct {
	scanner scanner
	// raw, named and ready are one token ahead each.
	raw, named, ready token
	comma             bool
	err               *Error
}

func newTokens(text string) *tokens {
	t := &tokens{scanner: scanner{text: text, line: 1}}
	t.raw = t.scan()
	t.named = t.nextNamed()
	return t
}

// scan gives the scanner's next token, and the end of the text once it has failed.
func (t *tokens) scan() token {
	if t.err != nil {
		return token{kind: tokenEnd}
	}
	next, err := t.scanner.next()
	if err != nil {
		t.err = err
		return token{kind: tokenEnd}
	}
	return next
}

func isClosing(k kind) bool { return k == '}' || k == ']' }

// nextNamed gives the next token with names told from text.
func (t *tokens) nextNamed() token {
	for {
		current := t.raw
		t.raw = t.scan()
		switch current.kind {
		case ',':
			if isClosing(t.raw.kind) {
				continue
			}
		case '=', ':':
			continue
		case tokenString, tokenUnquoted:
			if t.raw.kind == '=' || t.raw.kind == ':' || t.raw.kind == '{' {
				quoted := current.kind == tokenString
				current.kind = tokenKey
				if quoted {
					current.kind = tokenQuotedKey
				}
			}
		default:
		}
		return current
	}
}

// next gives the next token with the ends of values marked.
func (t *tokens) next() token {
	if t.comma {
		t.comma = false
		return t.ready
	}
	current := t.named
	if current.kind == tokenEnd {
		return current
	}
	t.named = t.nextNamed()
	switch current.kind {
	case '}':
		if t.named.kind == '{' && t.named.line != current.line {
			t.comma = true
			t.ready = token{kind: ',', at: current.at, line: current.line}
			current.last = true
			return current
		}
		fallthrough
	case ']', tokenString, tokenUnquoted, tokenVariable, tokenOptionalVariable:
		switch t.named.kind {
		case tokenKey, tokenQuotedKey, tokenInclude, ',', '}', ']', tokenEnd:
			current.last = true
		default:
		}
	default:
	}
	return current
}

// drain reads the rest of the text. EMQX scans a text before it parses it, so a fault of scanning counts first,
// wherever it stands.
func (t *tokens) drain() {
	for t.err == nil && t.scan().kind != tokenEnd {
	}
}
