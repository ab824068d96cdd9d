package srp

import "math/bits"

// radix64 is a kernel with Montgomery products of numbers in words of 64 bits. The element
// of x is x*R mod N or that plus N, least significant word first. R is the smallest power
// of two above N, and elements are below R.
//
// The products are computed by wordOps, in Go or in assembly.
type radix64 struct {
	ops     wordOps
	prime   []uint
	one     element // R
	radix2  element // R^2; the product with it converts a number to an element
	windows [windowCount]window
}

// wordOps has the operations on the words of elements. Their time depends on the number of
// words only. A destination may also be an operand. scratch has twice as many words as an
// element; secrets remain in it.
type wordOps interface {
	// multiply sets z to x*y/R modulo the prime.
	multiply(z, x, y, scratch []uint)
	// square sets z to x*x/R modulo the prime.
	square(z, x, scratch []uint)
	// read sets z to entry j of w.
	read(z []uint, w window, j uint)
}

// newRadix64 returns the kernel radix64 in Go.
func newRadix64(prime []byte, generator byte) kernel {
	n := wordsOf(prime)
	return newRadix64With(n, generator, &goWords{prime: n, inverse: minusInverse(n[0])})
}

// supportsRadix64 reports whether radix64 in Go is faster than the portable kernel. It is
// not for 2048 bits, for which bigmod has assembly, and not with words of 32 bits.
func supportsRadix64(size int) bool {
	return bits.UintSize == 64 && (size == 3072 || size == 4096)
}

// newRadix64With returns the kernel for an odd prime whose highest bit is set, with w for the
// products. It computes the table of powers of the generator.
func newRadix64With(prime []uint, generator byte, w wordOps) *radix64 {
	n := len(prime)
	if prime[n-1]>>(bits.UintSize-1) == 0 || prime[0]&1 == 0 {
		panic("srp: prime is even or does not fill its words")
	}
	k := &radix64{ops: w, prime: prime, one: make(element, n)}
	scratch := make([]uint, 2*n)

	// R mod N is R-N, since R is below 2N.
	subtract(k.one, k.one, prime, ^uint(0))
	// n doublings give 2^n*R. Each Montgomery square doubles that exponent, up to the
	// number of bits of R.
	k.radix2 = append(element(nil), k.one...)
	for range n {
		k.add(k.radix2, k.radix2, k.radix2)
	}
	for i := 1; i < bits.UintSize; i *= 2 {
		w.square(k.radix2, k.radix2, scratch)
	}

	base := make(element, n)
	base[0] = uint(generator)
	w.multiply(base, base, k.radix2, scratch)
	next := make(element, n)
	rows := make(window, windowCount*n)
	for i := range k.windows {
		k.windows[i] = rows[i*n : (i+1)*n]
		// base^16 is the base of the next window.
		k.fill(next, k.windows[i], base, scratch)
		base, next = next, base
	}
	return k
}

// fill sets w to base^0 to base^15 and z to base^16.
func (k *radix64) fill(z element, w window, base element, scratch []uint) {
	copy(z, k.one)
	for j := range windowSize {
		for l, word := range z {
			w[l][j] = word
		}
		k.ops.multiply(z, z, base, scratch)
	}
}

// add sets z to x+y.
func (k *radix64) add(z, x, y element) {
	var carry uint
	for i := range z {
		z[i], carry = bits.Add(x[i], y[i], carry)
	}
	// The sum of two numbers below R needs at most two subtractions of N, which
	// is above R/2, to be below R.
	carry -= subtract(z, z, k.prime, -carry)
	subtract(z, z, k.prime, -carry)
}

func (k *radix64) words() int { return len(k.prime) }

func (k *radix64) radixBits() int { return len(k.prime) * bits.UintSize }

func (k *radix64) calculator() calculator {
	n := len(k.prime)
	room := make([]uint, 4*n)
	return &radix64Calculator{k: k, z: room[:n], entry: room[n : 2*n], scratch: room[2*n:], window: make(window, n)}
}

type radix64Calculator struct {
	k        *radix64
	z, entry element
	scratch  []uint
	window   window
}

func (c *radix64Calculator) fromBytes(z element, b []byte) {
	if len(b) != len(c.k.prime)*wordSize {
		panic("srp: number has not the size of the prime")
	}
	setWords(c.z, b)
	// Callers compare with the prime first.
	if subtract(c.entry, c.z, c.k.prime, ^uint(0)) == 0 {
		panic("srp: number is not below the prime")
	}
	c.k.ops.multiply(z, c.z, c.k.radix2, c.scratch)
}

func (c *radix64Calculator) toBytes(b []byte, x element) {
	z, reduced := c.z, c.entry
	clear(z)
	z[0] = 1
	// The result, x/R mod N, is at most N since x is below R.
	c.k.ops.multiply(z, x, z, c.scratch)
	borrow := subtract(reduced, z, c.k.prime, ^uint(0))
	for i := range z {
		z[i] = reduced[i] ^ (reduced[i]^z[i])&-borrow
	}
	putWords(b[:len(z)*wordSize], z)
}

func (c *radix64Calculator) product(z, x, y element) { c.k.ops.multiply(z, x, y, c.scratch) }

func (c *radix64Calculator) sum(z, x, y element) { c.k.add(z, x, y) }

// power reads the exponent digit by digit from the top, with four squares and one product
// for each. A product with entry 0, which is 1, takes as long as any other. Larger digits
// would save no more products than their table needs.
func (c *radix64Calculator) power(z, base element, e *[PrivateSize]byte) {
	c.k.fill(c.z, c.window, base, c.scratch)
	c.k.ops.read(z, c.window, digit(e, windowCount-1))
	for i := windowCount - 2; i >= 0; i-- {
		for range windowBits {
			c.k.ops.square(z, z, c.scratch)
		}
		c.k.ops.read(c.entry, c.window, digit(e, i))
		c.k.ops.multiply(z, z, c.entry, c.scratch)
	}
}

// powerG multiplies one entry of each window of the table.
func (c *radix64Calculator) powerG(z element, e *[PrivateSize]byte) {
	c.k.ops.read(z, c.k.windows[0], digit(e, 0))
	for i := 1; i < windowCount; i++ {
		c.k.ops.read(c.entry, c.k.windows[i], digit(e, i))
		c.k.ops.multiply(z, z, c.entry, c.scratch)
	}
}

func (c *radix64Calculator) wipe() {
	clear(c.z)
	clear(c.entry)
	clear(c.scratch)
	clear(c.window)
}

// goWords implements wordOps in Go.
type goWords struct {
	prime   []uint
	inverse uint // -1/N modulo the base of a word
}

func (w *goWords) multiply(z, x, y, scratch []uint) {
	n := len(w.prime)
	low := scratch[:n]
	clear(low)
	for i := range n {
		scratch[n+i] = addProduct(scratch[i:n+i], x, y[i])
	}
	w.reduce(z, scratch)
}

// square computes each product of two different words once, doubles the sum, and adds the
// squares of the words.
func (w *goWords) square(z, x, scratch []uint) {
	n := len(w.prime)
	low := scratch[:n]
	clear(low)
	for i := range n {
		scratch[n+i] = addProduct(scratch[2*i+1:n+i], x[i+1:], x[i])
	}
	var carry, c1, c2 uint
	for i := range n {
		// Shift two words left by one bit.
		low, high := scratch[2*i], scratch[2*i+1]
		d0, d1 := low<<1|carry, high<<1|low>>(bits.UintSize-1)
		carry = high >> (bits.UintSize - 1)
		h, l := bits.Mul(x[i], x[i])
		d0, c1 = bits.Add(d0, l, c2)
		d1, c2 = bits.Add(d1, h, c1)
		scratch[2*i], scratch[2*i+1] = d0, d1
	}
	w.reduce(z, scratch)
}

// reduce sets z to t/R modulo the prime, for t below R^2. It adds multiples of the prime
// until the lower half of t is 0. The upper half is then below R+N, so at most one
// subtraction makes it less than R.
func (w *goWords) reduce(z, t []uint) {
	n := len(w.prime)
	var carry uint
	for i := range n {
		c := addProduct(t[i:n+i], w.prime, t[i]*w.inverse)
		t[n+i], carry = bits.Add(t[n+i], c, carry)
	}
	subtract(z, t[n:], w.prime, -carry)
}

func (w *goWords) read(z []uint, from window, j uint) { from.read(z, j) }

// addProduct adds x*y to z, which has as many words as x, and returns the carry.
func addProduct(z, x []uint, y uint) (carry uint) {
	var c uint
	for len(z) >= 4 && len(x) >= 4 {
		h0, l0 := bits.Mul(x[0], y)
		h1, l1 := bits.Mul(x[1], y)
		h2, l2 := bits.Mul(x[2], y)
		h3, l3 := bits.Mul(x[3], y)
		l0, c = bits.Add(l0, carry, 0)
		l1, c = bits.Add(l1, h0, c)
		l2, c = bits.Add(l2, h1, c)
		l3, c = bits.Add(l3, h2, c)
		h3, _ = bits.Add(h3, 0, c)
		z[0], c = bits.Add(z[0], l0, 0)
		z[1], c = bits.Add(z[1], l1, c)
		z[2], c = bits.Add(z[2], l2, c)
		z[3], c = bits.Add(z[3], l3, c)
		carry, _ = bits.Add(h3, 0, c)
		z, x = z[4:], x[4:]
	}
	for i := range z {
		h, l := bits.Mul(x[i], y)
		l, c = bits.Add(l, carry, 0)
		h, _ = bits.Add(h, 0, c)
		z[i], c = bits.Add(z[i], l, 0)
		carry, _ = bits.Add(h, 0, c)
	}
	return carry
}

// subtract sets z to x-y if mask is all ones, or to x if it is 0, and returns the borrow.
func subtract(z, x, y []uint, mask uint) (borrow uint) {
	x, y = x[:len(z)], y[:len(z)]
	for i := range z {
		z[i], borrow = bits.Sub(x[i], y[i]&mask, borrow)
	}
	return borrow
}

// minusInverse returns -1/x modulo the base of a word, for odd x.
func minusInverse(x uint) uint {
	// x is its own inverse modulo 2^3. Each step of Newton's method doubles the number of
	// correct bits.
	y := x
	for i := 3; i < bits.UintSize; i *= 2 {
		y *= 2 - x*y
	}
	return -y
}

// wordSize is the size of a word in bytes.
const wordSize = bits.UintSize / 8

// wordsOf returns the number with big-endian bytes b, a multiple of wordSize, as
// words, least significant first.
func wordsOf(b []byte) []uint {
	x := make([]uint, len(b)/wordSize)
	setWords(x, b)
	return x
}

// setWords sets x to the number with big-endian bytes b, wordSize bytes for each word.
func setWords(x []uint, b []byte) {
	for i := range x {
		var word uint
		for _, c := range b[len(b)-(i+1)*wordSize : len(b)-i*wordSize] {
			word = word<<8 | uint(c)
		}
		x[i] = word
	}
}

// putWords sets b to x in big-endian order, wordSize bytes for each word.
func putWords(b []byte, x []uint) {
	for i, word := range x {
		for j := range wordSize {
			b[len(b)-1-i*wordSize-j] = byte(word >> (8 * j))
		}
	}
}

var (
	_ kernel     = (*radix64)(nil)
	_ calculator = (*radix64Calculator)(nil)
	_ wordOps    = (*goWords)(nil)
)
