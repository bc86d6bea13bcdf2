package hocon

import (
	"strings"
)

const (
	// maxHeight bounds how deep a meaning nests; substitutions nest deeper than the text does.
	maxHeight = 4 * MaxDepth
	tooDeep   = "the substitutions nest too deep"
	tooLarge  = "the substitutions make the configuration too large"
)

// evaluator turns nodes as they were read into values, in place: concatenations are joined and objects of one name merged.
type evaluator struct {
	*document
	// parts is a stack of what is being put together.
	parts []ref
}

// charge counts the bytes that are taken for copies. Substitutions can make a configuration far larger than its text.
func (d *document) charge(at ref, bytes int) *Error {
	if d.charged += bytes; d.charged > 4*len(d.text)+MaxBytes/16 {
		return d.errorAt(at, StageLimit, tooLarge)
	}
	return nil
}

const (
	memberBytes = 8
	nodeBytes   = 20
)

// evaluate gives the value of a node. Evaluated nodes are their own value.
func (e *evaluator) evaluate(r ref, depth int) (ref, *Error) {
	if depth > maxHeight {
		return 0, e.errorAt(r, StageLimit, tooDeep)
	}
	switch n := e.node(r); n.kind {
	case nodeAlias:
		return e.evaluate(n.first, depth+1)
	case nodeKey:
		return r, e.evaluateField(r, depth)
	case nodeObject:
		return r, e.evaluateObject(r, depth)
	case nodeArray:
		return r, e.evaluateArray(r, depth)
	case nodeConcat:
		return e.evaluateConcat(r, depth)
	default:
		return r, nil
	}
}

// evaluateField evaluates the value of a name. The name alone is also an object with itself as only member, as the inner
// ones of a dotted name are.
func (e *evaluator) evaluateField(key ref, depth int) *Error {
	if e.node(key).height > 0 {
		return nil
	}
	value, err := e.evaluate(e.node(key).first, depth+1)
	if err != nil {
		return err
	}
	n := e.node(key)
	n.first, n.height = value, e.node(value).height+1
	if n.height > maxHeight {
		return e.errorAt(key, StageLimit, tooDeep)
	}
	return nil
}

func (e *evaluator) evaluateObject(r ref, depth int) *Error {
	first := e.node(r).first
	for key := range e.chain(first) {
		if err := e.evaluateField(key, depth); err != nil {
			return err
		}
	}
	start := len(e.members)
	for key := range e.chain(first) {
		e.addField(key)
	}
	if first == 0 {
		return e.finish(r, start, 0)
	}
	return e.finish(r, start, hasFields)
}

// addField adds a member for a name, unless its value is an optional substitution that stands for nothing.
func (e *evaluator) addField(key ref) {
	if value := e.node(key).first; e.node(value).kind != nodeAbsent {
		e.members = append(grown(e.members, 1), member{key, value})
	}
}

// finish makes a node an object of the members collected from start on.
func (e *evaluator) finish(r ref, start int, fields flags) *Error {
	end, err := e.mergeSame(start)
	if err != nil {
		return err
	}
	height := uint16(1)
	for _, m := range e.members[start:end] {
		height = max(height, e.node(m.value).height+1)
	}
	n := e.node(r)
	*n = node{
		kind: nodeMembers, flags: n.flags&isShared | fields, height: height, start: n.start,
		first: ref(small(start)), size: small(end - start), next: n.next,
	}
	if height > maxHeight {
		return e.errorAt(r, StageLimit, tooDeep)
	}
	return nil
}

func (e *evaluator) evaluateArray(r ref, depth int) *Error {
	first, count := e.node(r).first, 0
	for element := range e.chain(first) {
		value, err := e.evaluate(element, depth+1)
		if err != nil {
			return err
		}
		// The chain is kept: the element, if it is not its own value, stands for it.
		if value != element {
			n := e.node(element)
			n.kind, n.first = nodeAlias, value
		}
		count++
	}
	start := len(e.elements)
	e.elements = grown(e.elements, count)
	for element := range e.chain(first) {
		if n := e.node(element); n.kind == nodeAlias {
			element = n.first
		}
		if e.node(element).kind != nodeAbsent {
			e.elements = append(e.elements, element)
		}
	}
	return e.finishArray(r, start)
}

func (e *evaluator) finishArray(r ref, start int) *Error {
	height := uint16(1)
	for _, element := range e.elements[start:] {
		height = max(height, e.node(element).height+1)
	}
	n := e.node(r)
	*n = node{
		kind: nodeElements, flags: n.flags & isShared, height: height, start: n.start,
		first: ref(small(start)), size: small(len(e.elements) - start), next: n.next,
	}
	if height > maxHeight {
		return e.errorAt(r, StageLimit, tooDeep)
	}
	return nil
}

// evaluateConcat joins the parts of a value. The last part says what it is to be: an object, an array or a string.
func (e *evaluator) evaluateConcat(r ref, depth int) (ref, *Error) {
	bottom, absent := len(e.parts), true
	defer func() { e.parts = e.parts[:bottom] }()
	for part := range e.chain(e.node(r).first) {
		if e.node(part).kind == nodeAbsent {
			continue
		}
		absent = false
		value, err := e.evaluate(part, depth+1)
		if err != nil {
			return 0, err
		}
		switch n := e.node(value); {
		case n.kind == nodeUnknown:
			return value, nil
		case n.kind != nodeMembers || n.flags&hasFields != 0: // An object without fields says nothing.
			e.parts = append(e.parts, value)
		}
	}
	parts := e.parts[bottom:]
	switch {
	case absent:
		e.node(r).kind = nodeAbsent
		return r, nil
	case len(parts) == 0:
		return r, e.finish(r, len(e.members), 0)
	case len(parts) == 1:
		n := e.node(r)
		n.kind, n.first = nodeAlias, parts[0]
		return parts[0], nil
	}
	class := e.class(parts[len(parts)-1])
	for _, part := range parts {
		if c := e.class(part); c != class || c == 0 {
			return 0, e.errorAt(r, StageLoad, "only strings, or arrays, or objects can be put together, nothing else and no mixture")
		}
	}
	return r, e.join(r, class, parts)
}

// class is what can be put together with its like, or 0.
func (e *evaluator) class(r ref) kind {
	switch k := e.node(r).kind; k {
	case nodeKey:
		return nodeMembers
	case tokenString, nodeMembers, nodeElements:
		return k
	default:
		return 0
	}
}

func (e *evaluator) join(r ref, class kind, parts []ref) *Error {
	switch class {
	case nodeMembers:
		start := len(e.members)
		for _, part := range parts {
			if err := e.addMembers(part); err != nil {
				return err
			}
		}
		return e.finish(r, start, hasFields)
	case nodeElements:
		start := len(e.elements)
		for _, part := range parts {
			n := e.node(part)
			if err := e.chargeShared(part, memberBytes*int(n.size)); err != nil {
				return err
			}
			e.elements = append(grown(e.elements, int(n.size)), e.elements[n.first:uint32(n.first)+n.size]...)
		}
		return e.finishArray(r, start)
	default:
		var joined strings.Builder
		for _, part := range parts {
			s := e.textOf(part)
			if err := e.chargeShared(part, len(s)); err != nil {
				return err
			}
			joined.WriteString(s)
		}
		n := e.node(r)
		n.kind, n.flags, n.size = tokenString, n.flags|isBuilt, e.build(joined.String())
		return nil
	}
}

// addMembers adds the members of an object to those being collected.
func (e *evaluator) addMembers(object ref) *Error {
	n := e.node(object)
	if n.kind == nodeKey {
		e.addField(object)
		return nil
	}
	if err := e.chargeShared(object, memberBytes*int(n.size)); err != nil {
		return err
	}
	e.members = append(grown(e.members, int(n.size)), e.members[n.first:uint32(n.first)+n.size]...)
	return nil
}

// chargeShared counts a copy of what may be copied often. All else is copied at most once a level.
func (e *evaluator) chargeShared(r ref, bytes int) *Error {
	if e.node(r).flags&isShared == 0 {
		return nil
	}
	return e.charge(r, bytes)
}

// weigh counts the nodes of a value as often as they are part of it, and refuses what is too many: a few substitutions
// of substitutions make billions, and who goes through the value would never end.
func (e *evaluator) weigh(r ref, weights []uint32) *Error {
	if weights[r] > 0 {
		return nil
	}
	weight := 1
	add := func(child ref) *Error {
		if err := e.weigh(child, weights); err != nil {
			return err
		}
		if weight += int(weights[child]); weight > 2*len(e.text)+MaxBytes/16 {
			return e.errorAt(r, StageLimit, tooLarge)
		}
		return nil
	}
	switch n := e.node(r); n.kind {
	case nodeMembers, nodeKey:
		for _, m := range e.membersOf(r) {
			if err := add(m.value); err != nil {
				return err
			}
		}
	case nodeElements:
		for _, element := range e.elements[n.first : uint32(n.first)+n.size] {
			if err := add(element); err != nil {
				return err
			}
		}
	default: // A scalar.
	}
	weights[r] = small(weight)
	return nil
}
