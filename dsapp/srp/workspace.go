package srp

import (
	"hash"
	"slices"
)

// workspace is the memory that one call computes in. It goes from call to call, so
// that they need none but for their results, and between them it holds nothing
// that was computed: see end.
type workspace struct {
	calculator
	g *group
	// x, y and z are elements.
	x, y, z element
	// secret is an exponent, u the public one.
	secret, u [PrivateSize]byte
	// number has room for the bytes of an element. key, m1, m2 and inner have it
	// for hashes.
	number             []byte
	key, m1, m2, inner []byte
	// text is for what has to be hashed and is no slice of bytes.
	text []byte
	hash hash.Hash
}

// newWorkspace returns a workspace for a group and a hash. The numbers of the group
// have that many bytes.
func newWorkspace(g *group, h hash.Hash, size int) *workspace {
	elements := newElements(g.kernel, 3)
	n := h.Size()
	hashes := make([]byte, 4*n)
	return &workspace{
		calculator: g.calculator(),
		g:          g,
		x:          elements[0],
		y:          elements[1],
		z:          elements[2],
		number:     make([]byte, size),
		key:        hashes[:n],
		m1:         hashes[n : 2*n],
		m2:         hashes[2*n : 3*n],
		inner:      hashes[3*n:],
		hash:       h,
	}
}

// begin returns a workspace for one call, which must end it.
func (p *Profile) begin() *workspace { return p.group().workspaces.Get().(*workspace) }

// end clears the workspace and leaves it to the next call.
func (w *workspace) end() {
	w.wipe()
	for _, x := range []element{w.x, w.y, w.z} {
		clear(x)
	}
	for _, b := range [][]byte{w.secret[:], w.u[:], w.number, w.key, w.m1, w.m2, w.inner, w.text[:cap(w.text)]} {
		clear(b)
	}
	// Reset forgets how much of the last block was filled, but not with what. A
	// block in two pieces goes through the same place.
	w.hash.Reset()
	zeros := w.number[:w.hash.BlockSize()]
	w.hash.Write(zeros[:1])
	w.hash.Write(zeros[1:])
	w.hash.Reset()
	w.g.workspaces.Put(w)
}

// digest sets b to the hash of the parts, one after the other.
func (w *workspace) digest(b []byte, parts ...[]byte) {
	w.hash.Reset()
	for _, part := range parts {
		w.hash.Write(part)
	}
	w.hash.Sum(b[:0])
}

// exponent sets e to the hash of the parts.
func (w *workspace) exponent(e *[PrivateSize]byte, parts ...[]byte) {
	clear(e[:])
	w.digest(e[PrivateSize-w.hash.Size():], parts...)
}

// textOf returns the bytes of the parts until the next call of it.
func (w *workspace) textOf(parts ...string) []byte {
	clear(w.text)
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	w.text = slices.Grow(w.text[:0], size)
	for _, part := range parts {
		w.text = append(w.text, part...)
	}
	return w.text
}
