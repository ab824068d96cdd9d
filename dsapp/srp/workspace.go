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
	// secret is a, b or x; u is the public exponent. high has what does not fit into them.
	secret, u, secretHigh, uHigh [PrivateSize]byte
	// number has the size of N.
	number []byte
	// K, M1, M2, the inner hash of x, the hashes of I and P, and the last hash that became an
	// exponent or a part of K.
	key, m1, m2, inner, identityHash, passwordHash, digested []byte
	// form is a value in the form of a template, half every second byte of a number.
	form, half []byte
	// text has identity and password.
	text []byte
	hash hash.Hash
	// members has the values for templates that are not constants of the group.
	members members
}

// newWorkspace returns a workspace for a group.
func newWorkspace(g *group) *workspace {
	p := g.p
	elements := newElements(g.kernel, 3)
	w := &workspace{
		calculator: g.calculator(),
		g:          g,
		x:          elements[0],
		y:          elements[1],
		z:          elements[2],
		number:     make([]byte, p.Size()),
		key:        make([]byte, p.keySize()),
		form:       make([]byte, p.formSize()),
		half:       make([]byte, p.formSize()),
		hash:       p.hash(),
	}
	for _, b := range []*[]byte{&w.m1, &w.m2, &w.inner, &w.identityHash, &w.passwordHash, &w.digested} {
		*b = make([]byte, w.hash.Size())
	}
	return w
}

// acquireWorkspace returns a workspace that the caller must release.
func (p *Profile) acquireWorkspace() *workspace { return p.group().workspaces.Get().(*workspace) }

// release clears the workspace and makes it available to the next call.
func (w *workspace) release() {
	w.wipe()
	for _, x := range []element{w.x, w.y, w.z} {
		clear(x)
	}
	for _, b := range [][]byte{
		w.secret[:], w.u[:], w.secretHigh[:], w.uHigh[:], w.number, w.key, w.m1, w.m2, w.inner, w.identityHash, w.passwordHash, w.digested, w.form, w.half, w.text,
	} {
		clear(b[:cap(b)])
	}
	w.members = members{}
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

// setTexts sets the members I and P, which are copied into the memory of the workspace.
func (w *workspace) setTexts(identity, password string) {
	clear(w.text)
	w.text = slices.Grow(w.text[:0], len(identity)+len(password))
	w.text = append(append(w.text, identity...), password...)
	w.members[memberIdentity], w.members[memberPassword] = w.text[:len(identity)], w.text[len(identity):]
}

// hashTexts sets the members H(I) and H(P) if a formula needs them.
func (w *workspace) hashTexts() {
	if w.g.p.hashesIdentity {
		w.digest(w.identityHash, w.members[memberIdentity])
		w.members[memberIdentityHash] = w.identityHash
	}
	if w.g.p.hashesPassword {
		w.digest(w.passwordHash, w.members[memberPassword])
		w.members[memberPasswordHash] = w.passwordHash
	}
}
