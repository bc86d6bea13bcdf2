package settings

import (
	"errors"
	"strconv"

	"github.com/emqx-bg/emqx-bg-operator/pkg/hocon"
)

// SyntaxError says where a text is no HOCON.
type SyntaxError struct {
	Line, Column int
	Text         string
}

// Error gives place and reason.
func (e *SyntaxError) Error() string { return e.Text }

// Parse reads HOCON into a tree. The error is a *SyntaxError.
func Parse(text string) (Tree, error) {
	document, err := hocon.Parse(text)
	if err != nil {
		syntax := &SyntaxError{Line: 1, Text: err.Error()}
		var he *hocon.Error
		if errors.As(err, &he) {
			syntax.Line, syntax.Column = he.Line, he.Column
		}
		return nil, syntax
	}
	return treeOf(document.Root), nil
}

// parseValue reads the value of an environment variable: HOCON where it is such, plain text otherwise.
func parseValue(text string) any {
	tree, err := Parse("v = " + text)
	if err != nil {
		return text
	}
	v, ok := tree["v"]
	if !ok || len(tree) > 1 {
		return text
	}
	return v
}

func treeOf(object hocon.Value) Tree {
	tree := Tree{}
	for key, value := range object.Members() {
		tree[key] = fromValue(value)
	}
	return tree
}

func fromValue(value hocon.Value) any {
	text, _ := value.Text()
	switch value.Kind() {
	case hocon.Object:
		return treeOf(value)
	case hocon.Array:
		list := make([]any, 0, value.Len())
		for item := range value.Elements() {
			list = append(list, fromValue(item))
		}
		return list
	case hocon.Bool:
		return text == "true"
	case hocon.Number:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
		return text
	case hocon.String:
		return text
	default:
		return nil
	}
}
