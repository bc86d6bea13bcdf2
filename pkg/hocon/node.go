package hocon

import "iter"

// The kinds of nodes, besides the scalar ones of tokens.
const (
	nodeObject   kind = iota + 'A' // first is its first field
	nodeArray                      // first is its first element
	nodeConcat                     // first is its first part
	nodeKey                        // first is its value, next the next field
	nodeAlias                      // first is what a substitution stands for
	nodeAbsent                     // an optional substitution that stands for nothing
	nodeUnknown                    // depends on what is not part of the text
	nodeMembers                    // an evaluated object: first of size members
	nodeElements                   // an evaluated array: first of size elements
)

// ref names a node; 0 is none.
type ref uint32

// flags say more about a node.
type flags uint8

const (
	// isBuilt tells that the text is document.built[size] and not a part of the input.
	isBuilt flags = 1 << iota
	// isShared tells that a substitution stands for the node, so that it is part of more than one value.
	isShared
	// hasFields tells that an object had fields as it was read, also if they came to nothing.
	hasFields
)

// node is a piece of the text's meaning. Nodes are small and in large blocks, as a text of a megabyte has many.
type node struct {
	kind  kind
	flags flags
	// height is how deep an evaluated node nests.
	height uint16
	// start is an offset in the input: where the node stands, and for scalars where its text begins.
	start uint32
	// size is the length of the text of a scalar or key, or the number of members or elements.
	size  uint32
	first ref
	next  ref
}

const (
	blockBits = 9
	blockSize = 1 << blockBits
)

// document is the meaning of a text, as a graph of nodes.
type document struct {
	text     string
	blocks   [][]node
	count    uint32
	built    []string
	members  []member
	elements []ref
	includes []Include
	// fields counts the members that are written in the text, so that their memory is taken once.
	fields int
	// charged counts the bytes that substitutions cost.
	charged int
}

// member is a name with its value, both nodes.
type member struct{ key, value ref }

func (d *document) node(r ref) *node { return &d.blocks[r>>blockBits][r&(blockSize-1)] }

func (d *document) add(n node) ref {
	if d.count&(blockSize-1) == 0 {
		// A short text gets a short block.
		d.blocks = append(d.blocks, make([]node, 0, min(blockSize, len(d.text)/4+8)))
	}
	block := &d.blocks[len(d.blocks)-1]
	*block = append(*block, n)
	d.count++
	return ref(d.count - 1)
}

func (d *document) addText(k kind, t token) ref {
	n := node{kind: k, start: t.start, size: t.end - t.start}
	if t.built != nil {
		n.flags, n.size = isBuilt, d.build(*t.built)
	}
	return d.add(n)
}

// grown makes room for n more. It doubles what is large, unlike append, which copies often to save little.
func grown[T any](s []T, n int) []T {
	if len(s)+n <= cap(s) {
		return s
	}
	return append(make([]T, 0, max(2*cap(s), len(s)+n)), s...)
}

func (d *document) build(s string) uint32 {
	d.built = append(grown(d.built, 1), s)
	return small(len(d.built) - 1)
}

// textOf is the text of a scalar or the name of a key.
func (d *document) textOf(r ref) string {
	n := d.node(r)
	if n.flags&isBuilt != 0 {
		return d.built[n.size]
	}
	return d.text[n.start : n.start+n.size]
}

func (d *document) errorAt(r ref, stage Stage, reason string) *Error {
	return errorAt(d.text, int(d.node(r).start), stage, reason)
}

// chain goes through a node and those that follow it.
func (d *document) chain(r ref) iter.Seq[ref] {
	return func(yield func(ref) bool) {
		for r != 0 {
			next := d.node(r).next
			if !yield(r) {
				return
			}
			r = next
		}
	}
}
