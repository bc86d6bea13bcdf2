package hocon

import (
	"iter"
	"slices"
	"strings"
)

// Kind is what a value is.
type Kind int

// The kinds of values.
const (
	// Absent is what there is none of; the zero Value is absent.
	Absent Kind = iota
	// Object is a set of named values.
	Object
	// Array is a list of values.
	Array
	// String is text, with and without quotes, and thus also a duration, a size or a percentage.
	String
	// Number is an integer or a float.
	Number
	// Bool is true or false.
	Bool
	// Null is null, which EMQX takes for absent in most places.
	Null
	// Unknown is what depends on a file that is not at hand.
	Unknown
)

// Value is a value of a configuration. It is small and never changes.
type Value struct {
	document *document
	ref      ref
}

// Document is a configuration that was read.
type Document struct {
	// Root is the object that the text makes.
	Root Value
	// Includes are the files that the text takes in, in its order. What they say is not known.
	Includes []Include
}

// Include is an include statement.
type Include struct {
	// Target is the name of the file.
	Target string
	// Required tells include required(...), which refuses the text when there is no such file.
	Required bool
	// Line is the line it stands on.
	Line int

	at uint32
}

// StringValue is a value of its own that is text.
func StringValue(text string) Value {
	d := &document{text: text}
	d.add(node{})
	return Value{d, d.addText(tokenString, token{end: small(len(text))})}
}

// Kind tells what the value is.
func (v Value) Kind() Kind {
	if v.document == nil {
		return Absent
	}
	switch v.document.node(v.ref).kind {
	case nodeMembers, nodeKey:
		return Object
	case nodeElements:
		return Array
	case tokenString:
		return String
	case tokenInteger, tokenFloat:
		return Number
	case tokenTrue, tokenFalse:
		return Bool
	case tokenNull:
		return Null
	case nodeUnknown:
		return Unknown
	default:
		return Absent
	}
}

// Get gives the value at a path of names, one a level; an absent one when a name is missing on the way or what stands
// there is no object. An empty path gives the value itself.
func (v Value) Get(path ...string) Value {
	for _, name := range path {
		if v.Kind() != Object {
			return Value{}
		}
		members := v.document.membersOf(v.ref)
		at, found := slices.BinarySearchFunc(members, name, func(m member, name string) int {
			return strings.Compare(v.document.textOf(m.key), name)
		})
		if !found {
			return Value{}
		}
		v.ref = members[at].value
	}
	return v
}

// Members gives the names of an object with their values, by name. It gives nothing for anything else.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if v.Kind() != Object {
			return
		}
		for _, m := range v.document.membersOf(v.ref) {
			if !yield(v.document.textOf(m.key), Value{v.document, m.value}) {
				return
			}
		}
	}
}

// Elements gives the elements of an array, in order. It gives nothing for anything else.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Kind() != Array {
			return
		}
		n := v.document.node(v.ref)
		for _, element := range v.document.elements[n.first : uint32(n.first)+n.size] {
			if !yield(Value{v.document, element}) {
				return
			}
		}
	}
}

// Len is the number of members of an object or elements of an array, and 0 for anything else.
func (v Value) Len() int {
	switch v.Kind() {
	case Object:
		return len(v.document.membersOf(v.ref))
	case Array:
		return int(v.document.node(v.ref).size)
	default:
		return 0
	}
}

// Text gives the text of a string, number or boolean; it reports false for anything else. An integer is written
// without plus sign and leading zeros, as EMQX writes it.
func (v Value) Text() (string, bool) {
	switch v.Kind() {
	case String, Bool:
		return v.document.textOf(v.ref), true
	case Number:
		return number(v.document.textOf(v.ref)), true
	default:
		return "", false
	}
}

// IsInteger tells an integer from a float.
func (v Value) IsInteger() bool {
	return v.document != nil && v.document.node(v.ref).kind == tokenInteger
}

func number(text string) string {
	if strings.Contains(text, ".") {
		return strings.TrimPrefix(text, "+")
	}
	digits, negative := strings.CutPrefix(text, "-")
	digits = strings.TrimLeft(digits, "+0")
	switch {
	case digits == "":
		return "0"
	case negative:
		return "-" + digits
	default:
		return digits
	}
}

// Equal reports whether two values say the same. The order of names in an object does not count; 1 and "1" are the
// same, as they are to EMQX, whose schema decides the type. What is unknown equals nothing.
func Equal(a, b Value) bool {
	if s, ok := a.Text(); ok {
		t, ok := b.Text()
		return ok && s == t
	}
	if a.Kind() != b.Kind() || a.Len() != b.Len() {
		return false
	}
	switch a.Kind() {
	case Object:
		ours, theirs := a.document.membersOf(a.ref), b.document.membersOf(b.ref)
		for i := range ours {
			if a.document.textOf(ours[i].key) != b.document.textOf(theirs[i].key) ||
				!Equal(Value{a.document, ours[i].value}, Value{b.document, theirs[i].value}) {
				return false
			}
		}
		return true
	case Array:
		next, stop := iter.Pull(b.Elements())
		defer stop()
		for ours := range a.Elements() {
			theirs, _ := next()
			if !Equal(ours, theirs) {
				return false
			}
		}
		return true
	case Unknown:
		return false
	default: // Null and absent.
		return true
	}
}
