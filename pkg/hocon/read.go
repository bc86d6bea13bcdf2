package hocon

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Parse reads a configuration as EMQX does where none of the files is there that it includes. The error, if any, is an
// *Error.
func Parse(text string) (*Document, error) { return parse(text, false) }

// ParseOpen reads a configuration whose included files may be there or not. What depends on them is Unknown and not
// refused: a required include, and a substitution that stands for nothing in a text with includes.
func ParseOpen(text string) (*Document, error) { return parse(text, true) }

const byteOrderMark = "\ufeff"

func parse(text string, open bool) (*Document, error) {
	if len(text) > MaxBytes {
		return nil, &Error{
			Stage: StageLimit, Line: 1, Column: 1,
			Reason: fmt.Sprintf("the configuration has %d bytes, more than the %d that fit a ConfigMap", len(text), MaxBytes),
		}
	}
	text = strings.TrimPrefix(text, byteOrderMark)
	if !utf8.ValidString(text) {
		return nil, errorAt(text, invalidUTF8(text), StageScan, "the text is no valid UTF-8 here")
	}
	p := &parser{document: document{text: text}, tokens: newTokens(text)}
	p.add(node{}) // So that 0 is no node.
	root, err := p.read(open)
	if err != nil {
		return nil, err
	}
	return &Document{Root: Value{&p.document, root}, Includes: p.includes}, nil
}

// read goes through EMQX's stages. It is apart from parse so that a nil *Error never becomes an error.
func (p *parser) read(open bool) (ref, *Error) {
	first, err := p.parseRoot()
	if err != nil {
		return 0, err
	}
	p.tokens = nil
	for _, include := range p.includes {
		if include.Required && !open {
			return 0, errorAt(p.text, int(include.at), StageLoad, "the included file is required and cannot be read")
		}
	}
	if p.variables {
		if err := p.resolve(first, open && len(p.includes) > 0); err != nil {
			return 0, err
		}
	}
	root := p.add(node{kind: nodeObject, first: first})
	p.members = make([]member, 0, p.fields)
	e := &evaluator{document: &p.document}
	if root, err = e.evaluate(root, 0); err == nil && p.variables {
		err = e.weigh(root, make([]uint32, p.count))
	}
	return root, err
}

func invalidUTF8(text string) int {
	for i, r := range text {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(text[i:]); n == 1 {
				return i
			}
		}
	}
	return len(text)
}

// OpeningBrace gives the offset of the brace around the whole text. It reports false for a text without such a brace.
func OpeningBrace(text string) (int, bool) {
	s := scanner{text: text}
	s.skipIgnored()
	return s.pos, s.pos < len(text) && text[s.pos] == '{'
}
