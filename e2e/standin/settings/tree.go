package settings

import (
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// Tree is a configuration: values are Tree, []any, string, int64, float64, bool and nil.
type Tree map[string]any

// Clone copies the tree. Values other than trees are shared; they are never changed.
func (t Tree) Clone() Tree {
	c := make(Tree, len(t))
	for key, value := range t {
		if sub, ok := value.(Tree); ok {
			value = sub.Clone()
		}
		c[key] = value
	}
	return c
}

// Merge lays other over the tree: trees are merged, everything else is replaced.
func (t Tree) Merge(other Tree) {
	for key, value := range other {
		mine, isTree := t[key].(Tree)
		theirs, bothTrees := value.(Tree)
		switch {
		case isTree && bothTrees:
			mine.Merge(theirs)
		case bothTrees:
			t[key] = theirs.Clone()
		default:
			t[key] = value
		}
	}
}

// Get follows a path of keys.
func (t Tree) Get(path ...string) (any, bool) {
	var value any = t
	for _, key := range path {
		tree, ok := value.(Tree)
		if !ok {
			return nil, false
		}
		if value, ok = tree[key]; !ok {
			return nil, false
		}
	}
	return value, true
}

// Text is the value at a path as text, or otherwise when there is none.
func (t Tree) Text(otherwise string, path ...string) string {
	value, ok := t.Get(path...)
	if !ok || value == nil {
		return otherwise
	}
	if s, isText := value.(string); isText {
		return s
	}
	return fmt.Sprint(value)
}

// Bool is the value at a path as a truth, or otherwise when there is none.
func (t Tree) Bool(otherwise bool, path ...string) bool {
	switch strings.ToLower(t.Text("", path...)) {
	case "true", "on":
		return true
	case "false", "off":
		return false
	default:
		return otherwise
	}
}

// Sub is the tree at a path, or an empty one.
func (t Tree) Sub(path ...string) Tree {
	value, _ := t.Get(path...)
	if sub, ok := value.(Tree); ok {
		return sub
	}
	return Tree{}
}

// Set puts a value at a path, making trees on the way.
func (t Tree) Set(value any, path ...string) {
	for _, key := range path[:len(path)-1] {
		sub, ok := t[key].(Tree)
		if !ok {
			sub = Tree{}
			t[key] = sub
		}
		t = sub
	}
	t[path[len(path)-1]] = value
}

// Keys lists the keys by name.
func (t Tree) Keys() []string {
	keys := make([]string, 0, len(t))
	for key := range t {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// Render prints the tree as EMQX prints its configuration.
func (t Tree) Render() string {
	var s strings.Builder
	t.render(&s, "")
	return s.String()
}

func (t Tree) render(s *strings.Builder, indent string) {
	for _, key := range t.Keys() {
		switch value := t[key].(type) {
		case Tree:
			fmt.Fprintf(s, "%s%s {\n", indent, renderKey(key))
			value.render(s, indent+"  ")
			fmt.Fprintf(s, "%s}\n", indent)
		default:
			fmt.Fprintf(s, "%s%s = %s\n", indent, renderKey(key), renderValue(value, indent))
		}
	}
}

const (
	bareKey  = `^[A-Za-z0-9_-]+$`
	bareText = `^[a-z_]+$`
)

func renderKey(key string) string {
	if ok, _ := regexp.MatchString(bareKey, key); ok {
		return key
	}
	return strconv.Quote(key)
}

func renderValue(value any, indent string) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case string:
		if ok, _ := regexp.MatchString(bareText, v); ok {
			return v
		}
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(v) + `"`
	case []any:
		if len(v) == 0 {
			return "[]"
		}
		items := make([]string, 0, len(v))
		for _, item := range v {
			text := renderValue(item, indent+"  ")
			if s, isText := item.(string); isText {
				text = strconv.Quote(s) // in lists EMQX quotes all texts
			}
			items = append(items, indent+"  "+text)
		}
		return "[\n" + strings.Join(items, ",\n") + "\n" + indent + "]"
	case Tree:
		return "{" + strings.ReplaceAll(strings.TrimSpace(v.Render()), "\n", ", ") + "}"
	default:
		return fmt.Sprint(v)
	}
}
