package hocon

const (
	// MaxBytes is the size of the largest text that is read: what fits a Kubernetes object.
	MaxBytes = 1 << 20
	// MaxDepth is how deep objects and arrays may nest, dotted keys included.
	MaxDepth = 128
)

type parser struct {
	text string
	pos  int
}

// Parse reads a whole configuration text and returns its root object. The error, if any, is an *Error.
func Parse(text string) (*Object, error) {
	p := &parser{text: text}
	if len(text) > MaxBytes {
		return nil, &Error{Line: 1, Column: 1, Expected: "at most 1 MiB of text", Found: "more"}
	}
	root := &Object{}
	if err := p.parseRoot(root); err != nil {
		return nil, err
	}
	return root, nil
}

// parseRoot reads members up to the end of the text, with or without braces around them.
func (p *parser) parseRoot(root *Object) *Error {
	p.skipBlank()
	if p.peek() != '{' {
		return p.parseMembers(root, 0, endOfText)
	}
	p.pos++
	if err := p.parseMembers(root, 1, '}'); err != nil {
		return err
	}
	p.skipBlank()
	if p.pos < len(p.text) {
		return p.errorAt(p.pos, "nothing after the closing brace")
	}
	return nil
}

// parseMembers reads name-value pairs and includes into object up to and including the closing character.
func (p *parser) parseMembers(object *Object, depth int, closing byte) *Error {
	for {
		p.skipBlank()
		switch p.peek() {
		case closing:
			p.pos++
			return nil
		case endOfText:
			return p.errorAt(p.pos, "a name or the closing brace")
		case ',':
			// Empty members are forgiven: the broker takes them as well.
			p.pos++
		default:
			if err := p.parseMember(object, depth); err != nil {
				return err
			}
		}
	}
}

func (p *parser) parseMember(object *Object, depth int) *Error {
	if include, ok, err := p.parseInclude(); err != nil || ok {
		if ok {
			object.includes = append(object.includes, include)
		}
		return err
	}
	path, err := p.parseKey()
	if err != nil {
		return err
	}
	if depth += len(path); depth > MaxDepth {
		return p.errorAt(p.pos, "at most 128 levels")
	}
	p.skipBlank()
	adding := false
	switch p.peek() {
	case '{':
	case '=', ':':
		p.pos++
	case '+':
		if p.pos+1 >= len(p.text) || p.text[p.pos+1] != '=' {
			return p.errorAt(p.pos, `"=", ":", "+=" or "{" after the name`)
		}
		p.pos += 2
		adding = true
	default:
		return p.errorAt(p.pos, `"=", ":", "+=" or "{" after the name`)
	}
	p.skipBlank()
	value, err := p.parseValue(depth)
	if err != nil {
		return err
	}
	assign(object, path, value, adding)
	return nil
}

// assign stores value at a dotted path, making or merging the objects on the way.
func assign(object *Object, path []string, value Value, adding bool) {
	last := len(path) - 1
	for _, name := range path[:last] {
		next, ok := object.values[name].(*Object)
		if !ok {
			next = &Object{}
			object.set(name, next)
		}
		object = next
	}
	if adding {
		object.add(path[last], value)
		return
	}
	object.set(path[last], value)
}

// parseKey reads a.b."c.d" into its parts.
func (p *parser) parseKey() ([]string, *Error) {
	var path []string
	for {
		p.skipSpace()
		name, ok, err := p.parseName()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, p.errorAt(p.pos, "a name")
		}
		path = append(path, name)
		p.skipSpace()
		if p.peek() != '.' {
			return path, nil
		}
		p.pos++
	}
}

func (p *parser) parseName() (string, bool, *Error) {
	if p.peek() == '"' {
		s, err := p.parseQuoted()
		return s, true, err
	}
	start := p.pos
	for p.pos < len(p.text) && isUnquoted(p.text[p.pos]) && p.text[p.pos] != '.' && !p.atComment() {
		p.pos++
	}
	return p.text[start:p.pos], p.pos > start, nil
}

// parseInclude reads an include statement. It reports false, at the same place, when there is none.
func (p *parser) parseInclude() (Include, bool, *Error) {
	start := p.pos
	var include Include
	if !p.take("include") || p.pos == start {
		return include, false, nil
	}
	p.skipSpace()
	open := 0
	for _, word := range []string{"required", "file", "url", "classpath"} {
		if p.take(word + "(") {
			open++
			include.Required = include.Required || word == "required"
			if word != "required" {
				include.Kind = word
			}
			p.skipSpace()
		}
	}
	if p.peek() != '"' {
		p.pos = start // A name that begins like the word: include_me = 1, or include = 1.
		return include, false, nil
	}
	target, err := p.parseQuoted()
	if err != nil {
		return include, false, err
	}
	include.Target = target
	if p.skipSpace(); open == 0 && (p.peek() == '=' || p.peek() == ':') {
		return include, false, p.errorAt(p.pos, "the end of the include statement")
	}
	for ; open > 0; open-- {
		p.skipSpace()
		if !p.take(")") {
			return include, false, p.errorAt(p.pos, `")"`)
		}
	}
	return include, true, nil
}

// parseArray reads the elements after an opening bracket.
func (p *parser) parseArray(depth int) (Array, *Error) {
	array := Array{}
	for {
		p.skipBlank()
		switch p.peek() {
		case ']':
			p.pos++
			return array, nil
		case ',':
			p.pos++
			continue
		case endOfText:
			return nil, p.errorAt(p.pos, `a value or "]"`)
		}
		value, err := p.parseValue(depth)
		if err != nil {
			return nil, err
		}
		array = append(array, value)
	}
}
