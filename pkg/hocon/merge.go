package hocon

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// mergeSame sorts the members from start to the end by name and makes one of those of the same name. It gives the new end.
func (e *evaluator) mergeSame(start int) (int, *Error) {
	byName := func(a, b member) int { return strings.Compare(e.textOf(a.key), e.textOf(b.key)) }
	fields := e.members[start:]
	if !slices.IsSortedFunc(fields, byName) {
		slices.SortStableFunc(fields, byName)
	}
	end, kept := len(e.members), start
	for at := start; at < end; {
		next := at + 1
		for next < end && e.textOf(e.members[next].key) == e.textOf(e.members[at].key) {
			next++
		}
		one := e.members[at]
		if next > at+1 {
			value, err := e.merge(at, next)
			if err != nil {
				return 0, err
			}
			one.value = value
		}
		e.members[kept] = one
		kept++
		at = next
	}
	return kept, nil
}

func (e *evaluator) isObject(r ref) bool {
	k := e.node(r).kind
	return k == nodeMembers || k == nodeKey
}

// merge gives what the values of a name make together. Objects merge; anything else replaces what was before, except that
// an object whose names are all numbers changes the elements of an array.
func (e *evaluator) merge(start, end int) (ref, *Error) {
	var base ref
	for at := start; at < end; at++ {
		value := e.members[at].value
		if e.isObject(value) {
			continue
		}
		if base != 0 { // Also what is replaced must be valid.
			if _, err := e.mergeOnto(base, start, at); err != nil {
				return 0, err
			}
		}
		base, start = value, at+1
	}
	return e.mergeOnto(base, start, end)
}

// mergeOnto merges objects onto a base that is none.
func (e *evaluator) mergeOnto(base ref, start, end int) (ref, *Error) {
	if start == end {
		return base, nil
	}
	if base != 0 && e.node(base).kind == nodeElements {
		indexed := start
		for indexed < end && e.isIndexed(e.members[indexed].value) {
			indexed++
		}
		array, err := e.mergeElements(base, start, indexed)
		if err != nil || indexed == end {
			return array, err
		}
		start = indexed
	}
	if end-start == 1 {
		return e.members[start].value, nil
	}
	object := e.add(node{start: e.node(e.members[start].key).start})
	collected := len(e.members)
	for at := start; at < end; at++ {
		if err := e.addMembers(e.members[at].value); err != nil {
			return 0, err
		}
	}
	return object, e.finish(object, collected, hasFields)
}

// membersOf gives the members of an object.
func (e *document) membersOf(object ref) []member {
	n := e.node(object)
	switch {
	case n.kind == nodeMembers:
		return e.members[n.first : uint32(n.first)+n.size]
	case n.kind == nodeKey && e.node(n.first).kind != nodeAbsent:
		return []member{{object, n.first}}
	default:
		return nil
	}
}

// isIndexed tells whether all names of an object are numbers.
func (e *evaluator) isIndexed(object ref) bool {
	return !slices.ContainsFunc(e.membersOf(object), func(m member) bool {
		_, ok := index(e.textOf(m.key))
		return !ok
	})
}

// index reads a name as an index. What is too large is as good as any that no array has.
func index(name string) (int, bool) {
	n, err := strconv.ParseInt(name, 10, 32)
	if err == nil {
		return int(n), true
	}
	digits := strings.TrimLeft(strings.TrimPrefix(strings.TrimPrefix(name, "+"), "-"), "0123456789")
	return -1, digits == "" && strings.ContainsAny(name, "0123456789") && len(name) < maxHeight
}

// mergeElements changes elements of an array by objects whose names are indices, which count from 1. One after the last
// adds an element.
func (e *evaluator) mergeElements(array ref, start, end int) (ref, *Error) {
	if start == end {
		return array, nil
	}
	n := e.node(array)
	if err := e.chargeShared(array, memberBytes*int(n.size)); err != nil {
		return 0, err
	}
	elements := slices.Clone(e.elements[n.first : uint32(n.first)+n.size])
	changes := map[int][]ref{}
	for at := start; at < end; at++ {
		members := slices.Clone(e.membersOf(e.members[at].value))
		slices.SortStableFunc(members, func(a, b member) int {
			i, _ := index(e.textOf(a.key))
			j, _ := index(e.textOf(b.key))
			return i - j
		})
		for _, m := range members {
			i, _ := index(e.textOf(m.key))
			if i < 1 || i > len(elements)+1 {
				return 0, e.errorAt(m.key, StageLoad, fmt.Sprintf("an index of this array is a number from 1 to %d", len(elements)+1))
			}
			if i > len(elements) {
				elements = append(elements, m.value)
				continue
			}
			changes[i-1] = append(changes[i-1], m.value)
		}
	}
	for i, values := range changes {
		collected := len(e.members)
		for _, value := range slices.Insert(values, 0, elements[i]) {
			e.members = append(grown(e.members, 1), member{value, value})
		}
		merged, err := e.merge(collected, len(e.members))
		if err != nil {
			return 0, err
		}
		elements[i] = merged
	}
	changed := e.add(node{start: e.node(array).start})
	from := len(e.elements)
	e.elements = append(grown(e.elements, len(elements)), elements...)
	return changed, e.finishArray(changed, from)
}
