package srp

// element is a number modulo the prime of a group, in whatever form its kernel
// computes with. Only the kernel that made it can read it. Kernels never keep
// an element and never change an operand, so its holder may clear it.
type element []uint

// kernel is the arithmetic modulo the prime N of one group with generator g.
// Protocol code reaches numbers through it alone, so a faster kernel for a
// group is one more implementation. Every operation takes the same instructions
// and the same addresses whatever the numbers are, exponents included. A kernel is
// immutable once made and safe for concurrent use.
type kernel interface {
	// fromBytes returns the number with the big-endian bytes b, as many as N
	// has. The number must be below N.
	fromBytes(b []byte) element
	// toBytes returns x as big-endian bytes, reduced and as many as N has.
	toBytes(x element) []byte
	// product returns x*y.
	product(x, y element) element
	// sum returns x+y.
	sum(x, y element) element
	// power returns base^e for a big-endian exponent.
	power(base element, e *[PrivateSize]byte) element
	// powerG returns g^e for a big-endian exponent.
	powerG(e *[PrivateSize]byte) element
}

// implementation is a way to make kernels.
type implementation struct {
	name string
	// supported tells whether this processor can run it, for numbers of that many bits.
	supported func(bits int) bool
	new       func(prime []byte, generator byte) kernel
}
