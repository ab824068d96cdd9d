package srp

//go:generate go -C _asm/adx run main.go -out ../../adx_amd64.s -stubs ../../adx_stubs_amd64.go -pkg srp
//go:generate go -C _asm/ifma run main.go -out ../../ifma_amd64.s -stubs ../../ifma_stubs_amd64.go -pkg srp

// element is a number modulo the prime of a group, in whatever form its kernel
// computes with, in as many words as the kernel says. Only the kernel that made
// it can read it.
type element []uint

// kernel is the arithmetic modulo the prime N of one group with generator g: what
// depends on these alone, such as the table of powers of g. It is immutable once
// made and safe for concurrent use. Protocol code reaches numbers through it
// alone, so a faster kernel for a group is one more implementation.
type kernel interface {
	// words returns the length of an element.
	words() int
	// radix returns r where the element of x is x*2^r mod N, or that plus a multiple
	// of N.
	radix() int
	// calculator returns what computes with the kernel.
	calculator() calculator
}

// calculator are the operations of a kernel, with memory that they keep from call
// to call, so that none of them needs any more. It serves one goroutine at a time.
//
// A destination may be an operand too. Operands are not changed otherwise. Every
// operation takes the same instructions and the same addresses whatever the
// numbers are, exponents included.
type calculator interface {
	// fromBytes sets z to the number with the big-endian bytes b, as many as N
	// has. The number must be below N.
	fromBytes(z element, b []byte)
	// toBytes sets b, as many bytes as N has, to x in big-endian order, reduced.
	toBytes(b []byte, x element)
	// product sets z to x*y.
	product(z, x, y element)
	// sum sets z to x+y.
	sum(z, x, y element)
	// power sets z to base^e for a big-endian exponent.
	power(z, base element, e *[PrivateSize]byte)
	// powerG sets z to g^e for a big-endian exponent.
	powerG(z element, e *[PrivateSize]byte)
	// wipe clears what the operations have left in their memory and, where the kernel
	// can, in registers of this thread. It belongs after the last operation on
	// secrets.
	wipe()
}

// newElements returns n elements, with room of their own.
//
// Where the elements of a kernel are multiples of 64 bytes long, they begin at such
// multiples too: the allocator of Go has no size of that kind that it would place
// elsewhere.
func newElements(k kernel, n int) []element {
	size := k.words()
	room := make([]uint, n*size)
	elements := make([]element, n)
	for i := range elements {
		elements[i] = room[i*size : (i+1)*size : (i+1)*size]
	}
	return elements
}

// implementation is a way to make kernels.
type implementation struct {
	name string
	// supported tells whether this processor can run it, for numbers of that many bits.
	supported func(bits int) bool
	new       func(prime []byte, generator byte) kernel
}
