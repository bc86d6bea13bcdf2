package hocon

import (
	"fmt"
	"strings"
)

const (
	// MaxBytes is the size of the largest text that is read: what fits a Kubernetes object.
	MaxBytes = 1 << 20
	// MaxDepth is how deep objects and arrays may nest, dotted keys included.
	MaxDepth = 256
)

// parser follows EMQX's grammar. Where it refuses a text, no text could begin like the part before that place.
type parser struct {
	document
	tokens *tokens
	token  token
	// end is the offset of the last token, to which EMQX ascribes what is missing at the end of a text.
	end uint32
	// variables tells that there are substitutions.
	variables bool
}

func (p *parser) advance() {
	p.end = p.token.at
	p.token = p.tokens.next()
}

// refuse says that something else was expected at the current token. A fault of scanning further on comes first.
func (p *parser) refuse(expected string) *Error {
	p.tokens.drain()
	if p.tokens.err != nil {
		return p.tokens.err
	}
	at := p.token.at
	if p.token.kind == tokenEnd {
		at = p.end
	}
	return errorAt(p.text, int(at), StageParse, "expected "+expected+", found "+found(p.token))
}

// limit refuses what EMQX would take.
func (p *parser) limit(reason string) *Error {
	p.tokens.drain()
	if p.tokens.err != nil {
		return p.tokens.err
	}
	return errorAt(p.text, int(p.token.at), StageLimit, reason)
}

func found(t token) string {
	switch t.kind {
	case tokenEnd:
		return "the end of the text"
	case tokenString:
		return "a string"
	case tokenUnquoted:
		return "text"
	case tokenInteger, tokenFloat:
		return "a number"
	case tokenTrue, tokenFalse:
		return "a boolean"
	case tokenNull:
		return "null"
	case tokenVariable, tokenOptionalVariable:
		return "a substitution"
	case tokenInclude, tokenRequired:
		return "an include"
	case tokenKey, tokenQuotedKey:
		return "a name"
	default:
		return fmt.Sprintf("%q", string(rune(t.kind)))
	}
}

// parseRoot reads the whole text, with or without braces around it, and gives its first field.
func (p *parser) parseRoot() (ref, *Error) {
	p.advance()
	if p.token.kind == tokenEnd {
		return 0, p.tokens.err
	}
	braced := p.token.kind == '{'
	if braced {
		p.advance()
		if p.token.kind == '}' && p.token.last {
			return 0, p.parseEnd()
		}
	}
	first, err := p.parseFields(0)
	if err != nil {
		return 0, err
	}
	if !braced {
		if p.token.kind != tokenEnd {
			return 0, p.refuse(`a comma or a name (quote text that has signs in it)`)
		}
		return first, p.tokens.err
	}
	if p.token.kind != '}' || !p.token.last {
		return 0, p.refuse(`a name or "}" at the end`)
	}
	return first, p.parseEnd()
}

func (p *parser) parseEnd() *Error {
	p.advance()
	if p.token.kind != tokenEnd {
		return p.refuse("nothing after the closing brace")
	}
	return p.tokens.err
}

// parseFields reads names with their values and includes, at least one, and gives the first.
func (p *parser) parseFields(depth int) (ref, *Error) {
	var first, last ref
	for {
		field, err := p.parseField(depth)
		if err != nil {
			return 0, err
		}
		if field != 0 {
			if first == 0 {
				first = field
			} else {
				p.node(last).next = field
			}
			last = field
		}
		switch p.token.kind {
		case ',':
			p.advance()
		case tokenKey, tokenQuotedKey, tokenInclude:
		default:
			return first, nil
		}
	}
}

// parseField reads a name with its value, or an include, of which no field is made.
func (p *parser) parseField(depth int) (ref, *Error) {
	switch p.token.kind {
	case tokenInclude:
		return 0, p.parseInclude()
	case tokenKey, tokenQuotedKey:
	default:
		return 0, p.refuse("a name followed by =, : or {")
	}
	name := p.token
	p.advance()
	first, inner, nested := p.addKeys(name)
	if depth += nested; depth > MaxDepth {
		return 0, p.limit(fmt.Sprintf("nested deeper than %d levels", MaxDepth))
	}
	value, err := p.parseValue(depth)
	if err != nil {
		return 0, err
	}
	p.node(inner).first = value
	p.fields++
	return first, nil
}

// addKeys makes a key of each part of a dotted name. It gives the outermost, the innermost and how many there are.
func (p *parser) addKeys(name token) (first, inner ref, nested int) {
	if name.kind == tokenQuotedKey {
		first = p.addText(nodeKey, name)
		return first, first, 1
	}
	offset := name.start
	for part := range strings.SplitSeq(p.text[name.start:name.end], ".") {
		if part != "" {
			key := p.add(node{kind: nodeKey, start: offset, size: small(len(part))})
			if nested++; first == 0 {
				first = key
			} else {
				p.node(inner).first = key
			}
			inner = key
		}
		offset += small(len(part)) + 1
	}
	return first, inner, nested
}

func (p *parser) parseInclude() *Error {
	include := Include{Line: int(p.token.line)}
	at := p.token.at
	p.advance()
	if p.token.kind == tokenRequired {
		include.Required = true
		p.advance()
	}
	if p.token.kind != tokenString && p.token.kind != tokenUnquoted {
		return p.refuse(`the name of a file, as in include "x.conf" or include required("x.conf")`)
	}
	include.Target, include.at = p.text[p.token.start:p.token.end], at
	if p.token.built != nil {
		include.Target = *p.token.built
	}
	p.includes = append(p.includes, include)
	p.advance()
	return nil
}

// parseValue reads one value: a scalar, or what is concatenated.
func (p *parser) parseValue(depth int) (ref, *Error) {
	switch k := p.token.kind; k {
	case tokenInteger, tokenFloat, tokenTrue, tokenFalse, tokenNull:
		value := p.addText(k, p.token)
		p.advance()
		return value, nil
	default: // Something that may be put together with what follows.
	}
	start := p.token.at
	first, end, err := p.parsePart(depth)
	if err != nil || end {
		return first, err
	}
	last := first
	for !end {
		var part ref
		if part, end, err = p.parsePart(depth); err != nil {
			return 0, err
		}
		p.node(last).next = part
		last = part
	}
	return p.add(node{kind: nodeConcat, start: start, first: first}), nil
}

// parsePart reads a piece of a value and tells whether it is the last.
func (p *parser) parsePart(depth int) (ref, bool, *Error) {
	t := p.token
	switch t.kind {
	case tokenString, tokenUnquoted:
		p.advance()
		return p.addText(tokenString, t), t.last, nil
	case tokenVariable, tokenOptionalVariable:
		p.variables = true
		p.advance()
		return p.addText(t.kind, t), t.last, nil
	case '{', '[':
	default:
		return 0, false, p.refuse("a value (quote text that has signs in it)")
	}
	if depth++; depth > MaxDepth {
		return 0, false, p.limit(fmt.Sprintf("nested deeper than %d levels", MaxDepth))
	}
	p.advance()
	k, closing, parse := nodeObject, kind('}'), p.parseFields
	if t.kind == '[' {
		k, closing, parse = nodeArray, ']', p.parseElements
	}
	var first ref
	if p.token.kind != closing {
		var err *Error
		if first, err = parse(depth); err != nil {
			return 0, false, err
		}
	}
	if p.token.kind != closing {
		return 0, false, p.refuse(fmt.Sprintf("a comma or %q (quote text that has signs in it)", string(rune(closing))))
	}
	last := p.token.last
	p.advance()
	return p.add(node{kind: k, start: t.at, first: first}), last, nil
}

// parseElements reads the elements of an array, at least one, and gives the first.
func (p *parser) parseElements(depth int) (ref, *Error) {
	var first, last ref
	for {
		element, err := p.parseValue(depth)
		if err != nil {
			return 0, err
		}
		if first == 0 {
			first = element
		} else {
			p.node(last).next = element
		}
		last = element
		switch p.token.kind {
		case ',':
			p.advance()
		case ']', '}', tokenEnd, tokenKey, tokenQuotedKey, tokenInclude, tokenRequired:
			return first, nil
		default: // Another element: commas need not be.
		}
	}
}
