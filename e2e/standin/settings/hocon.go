package settings

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

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
	object, err := hocon.Parse(text)
	if err != nil {
		syntax := &SyntaxError{Line: 1, Text: err.Error()}
		var he *hocon.Error
		if errors.As(err, &he) {
			syntax.Line, syntax.Column = he.Line, he.Column
		}
		return nil, syntax
	}
	return fromObject(object), nil
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

func fromObject(object *hocon.Object) Tree {
	tree := Tree{}
	for _, key := range object.Keys() {
		value, _ := object.Get(key)
		tree[key] = fromValue(value)
	}
	return tree
}

func fromValue(value hocon.Value) any {
	switch v := value.(type) {
	case *hocon.Object:
		return fromObject(v)
	case hocon.Array:
		list := make([]any, 0, len(v))
		for _, item := range v {
			list = append(list, fromValue(item))
		}
		return list
	case hocon.Bool:
		return bool(v)
	case hocon.Number:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(string(v), 64); err == nil {
			return f
		}
		return string(v)
	case hocon.String:
		return string(v)
	case hocon.Null, nil:
		return nil
	case hocon.Substitution:
		return "${" + v.Path + "}"
	case hocon.Unresolved:
		parts := make([]string, 0, len(v))
		for _, part := range v {
			parts = append(parts, fmt.Sprint(fromValue(part)))
		}
		return strings.Join(parts, "")
	default:
		return fmt.Sprint(v)
	}
}
