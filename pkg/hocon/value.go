package hocon

import (
	"slices"
	"strings"
)

// Value is one of *Object, Array, String, Number, Bool, Null, Substitution and Unresolved.
type Value interface{ isValue() }

// Array is a list of values, in order.
type Array []Value

// String is text: quoted, triple-quoted or unquoted, and thus also durations, sizes and percentages.
type String string

// Number is a number as it was written, such as 1883 or 1.5e3.
type Number string

// Bool is true or false.
type Bool bool

// Null is the value null.
type Null struct{}

// Substitution is ${path} or ${?path}, kept as it is.
type Substitution struct {
	// Path is the text between the braces, without the question mark.
	Path string
	// Optional tells ${?path} from ${path}.
	Optional bool
}

// Unresolved is a concatenation or merge with a substitution in it, so that its value cannot be known here. The parts
// stand in the order of the text.
type Unresolved []Value

func (*Object) isValue()      {}
func (Array) isValue()        {}
func (String) isValue()       {}
func (Number) isValue()       {}
func (Bool) isValue()         {}
func (Null) isValue()         {}
func (Substitution) isValue() {}
func (Unresolved) isValue()   {}

// Object is a set of named values in the order in which their names first appear. The zero value is empty and ready.
type Object struct {
	keys     []string
	values   map[string]Value
	includes []Include
}

// Include is an include statement, which is noted and not followed.
type Include struct {
	// Kind is "file", "url", "classpath", or empty where only a name was given.
	Kind string
	// Target is the name of what is to be included.
	Target string
	// Required tells include required(...) from include.
	Required bool
}

// Keys returns the names in the order of first appearance.
func (o *Object) Keys() []string { return slices.Clone(o.keys) }

// Includes returns the include statements that stand directly in the object.
func (o *Object) Includes() []Include { return slices.Clone(o.includes) }

// Get returns the value at a path of names, one a level. It reports false when a name is missing on the way or what
// stands there is no object. An empty path gives the object itself.
func (o *Object) Get(path ...string) (Value, bool) {
	var value Value = o
	for _, name := range path {
		object, ok := value.(*Object)
		if !ok {
			return nil, false
		}
		if value, ok = object.values[name]; !ok {
			return nil, false
		}
	}
	return value, true
}

// Object returns the object at a path, or an empty one when there is none.
func (o *Object) Object(path ...string) *Object {
	value, _ := o.Get(path...)
	if object, ok := value.(*Object); ok {
		return object
	}
	return &Object{}
}

// Text returns the text of the String, Number or Bool at a path; it reports false for anything else.
func (o *Object) Text(path ...string) (string, bool) {
	value, _ := o.Get(path...)
	return text(value)
}

// Bool returns the truth at a path, also when written as a string, and otherwise the given default.
func (o *Object) Bool(otherwise bool, path ...string) bool {
	switch s, _ := o.Text(path...); strings.ToLower(s) {
	case "true", "on":
		return true
	case "false", "off":
		return false
	default:
		return otherwise
	}
}

func text(value Value) (string, bool) {
	switch v := value.(type) {
	case String:
		return string(v), true
	case Number:
		return string(v), true
	case Bool:
		if v {
			return "true", true
		}
		return "false", true
	default:
		return "", false
	}
}

// Equal reports whether two values say the same. The order of names in an object does not count; 1 and "1" are the
// same, as they are to EMQX, whose schema decides the type.
func Equal(a, b Value) bool {
	if s, ok := text(a); ok {
		t, ok := text(b)
		return ok && s == t
	}
	switch a := a.(type) {
	case *Object:
		b, ok := b.(*Object)
		return ok && a.equal(b)
	case Array:
		b, ok := b.(Array)
		return ok && slices.EqualFunc(a, b, Equal)
	case Unresolved:
		b, ok := b.(Unresolved)
		return ok && slices.EqualFunc(a, b, Equal)
	default: // Null, Substitution and nil are comparable.
		return a == b
	}
}

func (o *Object) equal(other *Object) bool {
	if len(o.keys) != len(other.keys) || !slices.Equal(o.includes, other.includes) {
		return false
	}
	for name, value := range o.values {
		theirs, ok := other.values[name]
		if !ok || !Equal(value, theirs) {
			return false
		}
	}
	return true
}

// set stores value under name, merging objects as HOCON does: object onto object adds and overrides, anything else
// replaces, and what may depend on a substitution is kept in both parts.
func (o *Object) set(name string, value Value) {
	old, exists := o.values[name]
	if !exists {
		if o.values == nil {
			o.values = map[string]Value{}
		}
		o.keys = append(o.keys, name)
		o.values[name] = value
		return
	}
	o.values[name] = merged(old, value)
}

func merged(old, value Value) Value {
	object, isObject := value.(*Object)
	switch old := old.(type) {
	case *Object:
		if isObject {
			old.merge(object)
			return old
		}
	case Substitution:
		if isObject {
			return Unresolved{old, object}
		}
	case Unresolved:
		if isObject {
			return append(old, object)
		}
	}
	return value
}

func (o *Object) merge(other *Object) {
	for _, name := range other.keys {
		o.set(name, other.values[name])
	}
	o.includes = append(o.includes, other.includes...)
}

// add is name += value: it appends to the array under name, or starts one.
func (o *Object) add(name string, value Value) {
	switch old := o.values[name].(type) {
	case nil:
		o.set(name, Array{value})
	case Array:
		o.values[name] = append(old, value)
	case Unresolved:
		o.values[name] = append(old, Array{value})
	default:
		o.values[name] = Unresolved{old, Array{value}}
	}
}
