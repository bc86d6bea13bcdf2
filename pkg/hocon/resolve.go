package hocon

import (
	"slices"
	"strings"
)

// variable is a substitution on its way.
type variable struct {
	node ref
	// key is the innermost name that it is a part of the value of.
	key ref
	// next is the one that waits after it for the same, plus one.
	next int32
}

// resolver replaces substitutions by what they stand for, in EMQX's order: always the first of the text that can be
// replaced. One that is optional and stands for nothing yet is taken for nothing at once, also when a later part of the
// text would have made it something.
type resolver struct {
	*document
	root ref
	// variables are the substitutions in the order of the text. All else names them by their place in it.
	variables []variable
	// queue holds the substitutions to look at, waiting those that stood for nothing, by the first part of their path: the
	// latest, plus one.
	queue   queue
	waiting map[string]int32
	// parents and pending are by node: the name around a name, and how many substitutions are open in its value.
	parents []ref
	pending []uint32
	// indices finds the fields of large objects by name.
	indices map[ref][]ref
	// found is for lookups to use again.
	found []ref
	work  int
}

// resolve replaces all substitutions below root. Those that stay open are refused, or unknown if that is allowed.
func (d *document) resolve(root ref, allowUnknown bool) *Error {
	r := &resolver{
		document: d, root: root, waiting: map[string]int32{}, indices: map[ref][]ref{},
		parents: make([]ref, d.count), pending: make([]uint32, d.count),
	}
	r.collect(root, 0)
	r.queue = make(queue, len(r.variables))
	for i := range r.queue {
		r.queue[i] = int32(i)
	}
	for len(r.queue) > 0 {
		if err := r.step(r.queue.pop()); err != nil {
			return err
		}
	}
	for _, v := range r.variables {
		switch n := r.node(v.node); {
		case n.kind != tokenVariable:
		case allowUnknown:
			n.kind = nodeUnknown
		default:
			at := int(n.start) - len("${")
			return errorAt(r.text, at, StageLoad, "the substitution ${"+r.textOf(v.node)+"} stands for nothing: EMQX looks only in this text, not in the environment")
		}
	}
	return nil
}

// collect finds the substitutions in the order of the text and counts them for the names around them.
func (r *resolver) collect(first, key ref) {
	for each := range r.chain(first) {
		switch n := r.node(each); n.kind {
		case nodeKey:
			r.parents[each] = key
			r.collect(n.first, each)
		case nodeObject, nodeArray, nodeConcat:
			r.collect(n.first, key)
		case tokenVariable, tokenOptionalVariable:
			r.variables = append(grown(r.variables, 1), variable{node: each, key: key})
			for k := key; k != 0; k = r.parents[k] {
				r.pending[k]++
			}
		default: // A scalar.
		}
	}
}

// step replaces a substitution if it can, and wakes those that may stand for something now.
func (r *resolver) step(at int32) *Error {
	v := r.variables[at]
	path := r.textOf(v.node)
	found := r.lookup(path, r.root, r.found[:0])
	r.found = found
	if r.exhausted() {
		return r.errorAt(v.node, StageLimit, "the text has too many substitutions to follow")
	}
	switch {
	case len(found) > 0:
		value, err := r.merged(v.node, found)
		if err != nil {
			return err
		}
		n := r.node(v.node)
		n.kind, n.first = nodeAlias, value
	case r.node(v.node).kind == tokenOptionalVariable:
		r.node(v.node).kind = nodeAbsent
	default:
		first, _ := cutPath(path)
		r.variables[at].next = r.waiting[first]
		r.waiting[first] = at + 1
		return nil
	}
	outermost := v.key
	for k := v.key; k != 0; k = r.parents[k] {
		r.pending[k]--
		outermost = k
	}
	name := r.textOf(outermost)
	for next := r.waiting[name]; next != 0; next = r.variables[next-1].next {
		r.queue.push(next - 1)
	}
	delete(r.waiting, name)
	return nil
}

// exhausted tells that following the substitutions takes out of all proportion to the text.
func (r *resolver) exhausted() bool { return r.work > 16*len(r.text)+MaxBytes }

// cutPath cuts the first name off a path. Empty names do not count.
func cutPath(path string) (first, rest string) {
	first, rest, _ = strings.Cut(strings.TrimLeft(path, "."), ".")
	return first, strings.Trim(rest, ".")
}

// merged is the value that several make together: one after the other.
func (r *resolver) merged(at ref, found []ref) (ref, *Error) {
	for i, value := range found {
		if n := r.node(value); n.kind == nodeAlias {
			found[i] = n.first
		}
		r.node(found[i]).flags |= isShared
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if err := r.charge(at, nodeBytes*(len(found)+1)); err != nil {
		return 0, err
	}
	var first ref
	for _, value := range slices.Backward(found) {
		first = r.add(node{kind: nodeAlias, start: r.node(value).start, first: value, next: first})
	}
	return r.add(node{kind: nodeConcat, flags: isShared, start: r.node(first).start, first: first}), nil
}

// lookup gives the values at a path below a node and those that follow it: the last one, or, of objects, all. Values with
// open substitutions do not count.
func (r *resolver) lookup(path string, first ref, found []ref) []ref {
	if r.isFields(first) {
		return r.lookupFields(path, first, found)
	}
	for each := range r.chain(first) {
		found = r.lookupIn(path, each, found)
	}
	return found
}

func (r *resolver) isFields(first ref) bool { return first != 0 && r.node(first).kind == nodeKey }

// lookupIn looks into what stands in one place of a concatenation.
func (r *resolver) lookupIn(path string, value ref, found []ref) []ref {
	if r.work++; r.exhausted() {
		return found
	}
	switch n := r.node(value); n.kind {
	case nodeConcat, nodeObject:
		return r.lookup(path, n.first, found)
	case nodeAlias:
		return r.lookupIn(path, n.first, found)
	case nodeKey:
		return r.lookupKey(path, value, found)
	default:
		return found
	}
}

func (r *resolver) lookupKey(path string, key ref, found []ref) []ref {
	first, rest := cutPath(path)
	switch value := r.node(key).first; {
	case r.textOf(key) != first:
		return found
	case rest != "":
		return r.lookupIn(rest, value, found)
	case r.pendingIn(key):
		return found
	case len(found) > 0 && r.isObject(found[0]) && r.isObject(value):
		return append(found, value)
	default:
		return append(found[:0], value)
	}
}

func (r *resolver) pendingIn(key ref) bool { return int(key) < len(r.pending) && r.pending[key] > 0 }

// few is how many fields are looked at one by one before an index is made of the others.
const few = 8

func (r *resolver) lookupFields(path string, first ref, found []ref) []ref {
	seen := 0
	for each := range r.chain(first) {
		if seen++; seen > few {
			return r.lookupIndexed(path, each, found)
		}
		r.work++
		found = r.lookupKey(path, each, found)
	}
	return found
}

func (r *resolver) lookupIndexed(path string, first ref, found []ref) []ref {
	index, ok := r.indices[first]
	if !ok {
		index = slices.Collect(r.chain(first))
		r.work += len(index)
		slices.SortStableFunc(index, func(a, b ref) int { return strings.Compare(r.textOf(a), r.textOf(b)) })
		r.indices[first] = index
	}
	name, _ := cutPath(path)
	at, _ := slices.BinarySearchFunc(index, name, func(key ref, name string) int { return strings.Compare(r.textOf(key), name) })
	for ; at < len(index) && r.textOf(index[at]) == name; at++ {
		r.work++
		found = r.lookupKey(path, index[at], found)
	}
	return found
}

// isObject tells whether a value begins with an object. One that was made by a dotted name does not, to EMQX.
func (r *resolver) isObject(value ref) bool {
	for {
		switch n := r.node(value); n.kind {
		case nodeObject:
			return true
		case nodeConcat, nodeAlias:
			value = n.first
		default:
			return false
		}
	}
}

// queue is a heap of substitutions, the first of the text on top.
type queue []int32

func (q *queue) push(at int32) {
	*q = append(*q, at)
	heap := *q
	for i := len(heap) - 1; i > 0 && heap[i] < heap[(i-1)/2]; i = (i - 1) / 2 {
		heap[i], heap[(i-1)/2] = heap[(i-1)/2], heap[i]
	}
}

func (q *queue) pop() int32 {
	heap := *q
	top, last := heap[0], len(heap)-1
	heap[0] = heap[last]
	heap = heap[:last]
	*q = heap
	for i := 0; ; {
		least := i
		for _, child := range [...]int{2*i + 1, 2*i + 2} {
			if child < last && heap[child] < heap[least] {
				least = child
			}
		}
		if least == i {
			return top
		}
		heap[i], heap[least] = heap[least], heap[i]
		i = least
	}
}
