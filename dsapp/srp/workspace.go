package srp

import (
	"hash"
	"slices"
)

// workspace is the memory that one call of a Profile or Client computes in. Later calls use
// it again, so that they only allocate their results. It is cleared in between.
type workspace struct {
	calculator
	g       *group
	x, y, z element
	// secret is a, b or x; u is the public exponent.
	secret, u [PrivateSize]byte
	// number has the size of N.
	number []byte
	// K, M1, M2, and the inner hash of a formula.
	key, m1, m2, inner []byte
	// text is the result of concat.
	text []byte
	hash hash.Hash
}

// newWorkspace returns a workspace for a group whose prime has size bytes, and a hash.
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

// acquireWorkspace returns a workspace that the caller must release.
func (p *Profile) acquireWorkspace() *workspace { return p.group().workspaces.Get().(*workspace) }

// release clears the workspace and makes it available to the next call.
func (w *workspace) release() {
	w.wipe()
	for _, x := range []element{w.x, w.y, w.z} {
		clear(x)
	}
	for _, b := range [][]byte{w.secret[:], w.u[:], w.number, w.key, w.m1, w.m2, w.inner, w.text[:cap(w.text)]} {
		clear(b)
	}
	// Reset does not clear the buffer for incomplete blocks. Writing a block in two pieces
	// overwrites it.
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

// hashToExponent sets e to the hash of the parts, one after the other.
func (w *workspace) hashToExponent(e *[PrivateSize]byte, parts ...[]byte) {
	clear(e[:])
	w.digest(e[PrivateSize-w.hash.Size():], parts...)
}

// concat returns the concatenated parts. The next call overwrites the result.
func (w *workspace) concat(parts ...string) []byte {
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
