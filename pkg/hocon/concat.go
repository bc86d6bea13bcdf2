package hocon

import "strings"

// part is one piece of a value; several in a row on one line are concatenated.
type part struct {
	value Value
	// plain tells unquoted text, which only gets its type when it is known to stand alone.
	plain bool
	// start is the offset of the piece, space the blanks before it.
	start int
	space string
}

// parseValue reads one value: an object, an array, a substitution, text, or several of them on one line.
func (p *parser) parseValue(depth int) (Value, *Error) {
	var parts []part
	for {
		space := p.pos
		p.skipSpace()
		start := p.pos
		if endsValue(parts, p.peek()) {
			break
		}
		piece, ok, err := p.parsePart(depth)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		piece.start, piece.space = start, p.text[space:start]
		parts = append(parts, piece)
	}
	if len(parts) == 0 {
		return nil, p.errorAt(p.pos, "a value")
	}
	if c := p.peek(); c == '=' || c == ':' || c == '+' || c == '{' {
		// Members need no separator: in `a = 1 b = 2` the b is the next name, and so in `a = 1 b {`.
		last := parts[len(parts)-1]
		if _, isText := last.value.(String); len(parts) == 1 || !isText || last.space == "" {
			return nil, p.errorAt(p.pos, "a comma, a new line or a closing bracket (quote text that has punctuation in it)")
		}
		parts = parts[:len(parts)-1]
		p.pos = last.start
	}
	return p.concatenate(parts)
}

// endsValue tells whether the next member begins right after the pieces read so far: a name after an object or array, or
// the brace of an object after text that must then be its name.
func endsValue(parts []part, next byte) bool {
	if len(parts) == 0 {
		return false
	}
	if _, isText := parts[len(parts)-1].value.(String); isText {
		return next == '{'
	}
	_, afterSubstitution := parts[len(parts)-1].value.(Substitution)
	return !afterSubstitution && (next == '"' || isUnquoted(next))
}

func (p *parser) parsePart(depth int) (part, bool, *Error) {
	if depth >= MaxDepth {
		return part{}, false, p.errorAt(p.pos, "at most 128 levels")
	}
	var err *Error
	switch c := p.peek(); {
	case c == '{':
		p.pos++
		object := &Object{}
		err = p.parseMembers(object, depth+1, '}')
		return part{value: object}, true, err
	case c == '[':
		p.pos++
		array, err := p.parseArray(depth + 1)
		return part{value: array}, true, err
	case c == '"':
		s, err := p.parseQuoted()
		return part{value: String(s)}, true, err
	case c == '$':
		substitution, err := p.parseSubstitution()
		return part{value: substitution}, true, err
	case p.atSignedNumber():
		p.pos++
		return part{value: String("+" + p.unquoted()), plain: true}, true, nil
	case isUnquoted(c) && !p.atComment():
		return part{value: String(p.unquoted()), plain: true}, true, nil
	default:
		return part{}, false, err
	}
}

// concatenate joins the pieces of a value: objects merge, arrays append, text is joined with the blanks between; with
// a substitution among them the result stays unresolved.
func (p *parser) concatenate(parts []part) (Value, *Error) {
	if len(parts) == 1 {
		if parts[0].plain {
			return typed(string(parts[0].value.(String))), nil
		}
		return parts[0].value, nil
	}
	for _, piece := range parts {
		if _, ok := piece.value.(Substitution); ok {
			unresolved := make(Unresolved, 0, len(parts))
			for _, piece := range parts {
				unresolved = append(unresolved, piece.value)
			}
			return unresolved, nil
		}
	}
	switch first := parts[0].value.(type) {
	case *Object:
		for _, piece := range parts[1:] {
			object, ok := piece.value.(*Object)
			if !ok {
				return nil, p.errorAt(piece.start, "another object, a comma or a new line")
			}
			first.merge(object)
		}
		return first, nil
	case Array:
		for _, piece := range parts[1:] {
			array, ok := piece.value.(Array)
			if !ok {
				return nil, p.errorAt(piece.start, "another array, a comma or a new line")
			}
			first = append(first, array...)
		}
		return first, nil
	default:
		return p.joinText(parts)
	}
}

func (p *parser) joinText(parts []part) (Value, *Error) {
	var joined strings.Builder
	for i, piece := range parts {
		s, ok := piece.value.(String)
		if !ok {
			return nil, p.errorAt(piece.start, "text, a comma or a new line")
		}
		if i > 0 {
			joined.WriteString(piece.space)
		}
		joined.WriteString(string(s))
	}
	return String(joined.String()), nil
}

// typed gives unquoted text its type.
func typed(s string) Value {
	switch s {
	case "true":
		return Bool(true)
	case "false":
		return Bool(false)
	case "null":
		return Null{}
	}
	if isNumber(s) {
		return Number(s)
	}
	return String(s)
}
