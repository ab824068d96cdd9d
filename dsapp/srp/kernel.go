package srp

import "github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"

// element is a number modulo the prime of a group, in the form that its kernel computes
// with. Only the kernel that made it can read it.
type element []uint

// kernel is an implementation of the arithmetic modulo the prime N of one group with
// generator g. It holds what depends on N and g only, such as a table of powers of g. It is
// immutable and safe for concurrent use. All other code computes with numbers only
// through this interface.
type kernel interface {
	// words returns the length of an element.
	words() int
	// radixBits returns r if the element of a number x is x*2^r mod N, or that plus a
	// multiple of N.
	radixBits() int
	// calculator returns a new calculator of the kernel.
	calculator() calculator
}

// calculator has the operations of a kernel, and memory that they use again in each call
// instead of allocating it. It is not safe for concurrent use.
//
// A destination may also be an operand; other operands are not changed. Every operation
// executes the same instructions and accesses the same addresses whatever the numbers
// and exponents are.
type calculator interface {
	// fromBytes sets z to the number with the big-endian bytes b. They must be as many as
	// N has, and the number below N.
	fromBytes(z element, b []byte)
	// toBytes sets b, which has as many bytes as N, to the reduced x in big-endian order.
	toBytes(b []byte, x element)
	// product sets z to x*y.
	product(z, x, y element)
	// sum sets z to x+y.
	sum(z, x, y element)
	// power sets z to base^e for a big-endian exponent.
	power(z, base element, e *[PrivateSize]byte)
	// powerG sets z to g^e for a big-endian exponent.
	powerG(z element, e *[PrivateSize]byte)
	// wipe clears the memory of the operations and, if the kernel can, the registers that
	// they used. Call it after the last operation on secrets.
	wipe()
}

// newElements returns n new elements of the kernel.
//
// If the size of an element is a multiple of 64 bytes, so is its address: the allocator of
// Go aligns all such sizes.
func newElements(k kernel, n int) []element {
	size := k.words()
	room := make([]uint, n*size)
	elements := make([]element, n)
	for i := range elements {
		elements[i] = room[i*size : (i+1)*size : (i+1)*size]
	}
	return elements
}

// implementation makes kernels of one kind. The variable implementations lists all but
// the portable one, the fastest first.
type implementation struct {
	name string
	// supported reports whether this processor can run the kernel, and whether it is to be
	// used, for primes of that many bits.
	supported func(bits int) bool
	// new returns the kernel for a prime with the given big-endian bytes.
	new func(prime []byte, generator byte) kernel
}

// selectKernel selects the first kernel that supports the group and passes its self-test. If
// there is none it selects the portable kernel, as for all groups larger than those that the
// others are tested for.
func (f *field) selectKernel(from []implementation) (s selection) {
	for _, i := range from {
		if 8*f.Size() > variant.FastBits || !i.supported(8*f.Size()) {
			continue
		}
		if k := f.newTestedKernel(i); k != nil {
			return selection{k, i.name, s.failed}
		}
		s.failed = append(s.failed, i.name)
	}
	return selection{newPortable(f.prime, f.generator), "portable", s.failed}
}
