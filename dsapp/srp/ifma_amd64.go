//go:build !purego

package srp

import (
	"encoding/binary"
	"slices"

	"filippo.io/bigmod"
	"golang.org/x/sys/cpu"
)

//go:generate go -C _asm/ifma run main.go -out ../../ifma_amd64.s -stubs ../../ifma_stubs_amd64.go -pkg srp

const (
	// digitBits is the size of a digit, the operand of VPMADD52.
	digitBits = 52
	digitMax  = 1<<digitBits - 1
	// registerWords is the number of digits in a 512-bit register.
	registerWords = 8
)

// ifmaSize has the parameters and the assembly for one size of N.
type ifmaSize struct {
	// bits is the number of bits of N.
	bits int
	// length is the number of words of an element: its digits, rounded up to whole
	// registers.
	length int
	// rows is the number of digits of the second factor of a product. The Montgomery
	// radix is 2^(52*rows), which is more than 4N.
	rows int

	// lowOnes is true if the assembly requires that N is -1 modulo 2^64.
	lowOnes bool

	// multiply sets z to x*y/2^(52*rows) mod N or that plus N, for x and y below 2N. z may
	// be x or y. Secrets remain in scratch.
	multiply func(z, x, y, modulus, scratch *uint)
	// square sets z to the product of x with itself, and squares z again until it has
	// squared times times. times is not 0.
	square func(z, x, modulus, scratch *uint, times uint)
	// read sets z to one of 16 consecutive entries.
	read func(z, entries *uint, digit uint)
}

// ifmaSizes lists the sizes that the assembly supports. No profile has 1024 bits: that size
// is for the test vectors of RFC 5054.
var ifmaSizes = [...]ifmaSize{
	{1024, 24, 20, false, ifmaProduct1024, ifmaSquare1024, ifmaRead1024},
	{2048, 40, 40, false, ifmaProduct2048, ifmaSquare2048, ifmaRead2048},
	{3072, 64, 60, true, ifmaProduct3072, ifmaSquare3072, ifmaRead3072},
	{4096, 80, 80, true, ifmaProduct4096, ifmaSquare4096, ifmaRead4096},
}

// ifmaSizeOf returns the entry of ifmaSizes with that many bits, or nil.
func ifmaSizeOf(bits int) *ifmaSize {
	for i := range ifmaSizes {
		if ifmaSizes[i].bits == bits {
			return &ifmaSizes[i]
		}
	}
	return nil
}

// supportsIFMA reports whether the processor can multiply digits of 52 bits in 512-bit
// registers, the operating system saves these, and there is assembly for the size.
// GODEBUG=cpu.avx512ifma=off makes it return false.
func supportsIFMA(bits int) bool {
	return cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512IFMA &&
		cpu.X86.HasBMI2 && ifmaSizeOf(bits) != nil
}

// ifma is the kernel for processors with AVX-512 IFMA. The element of x is x*2^(52*rows)
// mod N, or that plus N, in digits of 52 bits, the least significant first, with zeros up
// to whole registers.
//
// Elements are below 2N instead of N, so that a Montgomery product needs no subtraction at
// its end: (2N*2N + N*2^(52*rows)) / 2^(52*rows) is below 2N again because 2^(52*rows) is
// more than 4N.
//
// Every digit of an element is below 2^52. VPMADD52 ignores higher bits of a factor, so a
// larger digit would silently give a wrong result.
//
// The sizes of elements and tables are multiples of 64 bytes, which the allocator of Go
// aligns to 64 bytes. Without this alignment the kernel is slower, but not wrong.
type ifma struct {
	*ifmaSize
	// modulus is N in the form that the assembly reads: see ifmaModulus.
	modulus []uint
	// n and twoN are N and 2N.
	n, twoN []uint
	// one is the element of 1. radix2 is 2^(2*52*rows) mod N; the product with it converts
	// a number to its element.
	one, radix2 element
	// windows holds the elements of g^(j*16^i), for i from 0 to 63 and within each i for j
	// from 0 to 15.
	windows []uint
}

// newIFMA returns the kernel for an odd prime of a size in ifmaSizes and a generator. For a
// size with lowOnes the prime must be -1 modulo 2^64, as the larger primes of RFC 5054 are.
// newIFMA computes the table of powers of the generator: 64 windows, 320 KB at 2048 bits.
func newIFMA(prime []byte, generator byte) kernel {
	k := &ifma{ifmaSize: ifmaSizeOf(8 * len(prime))}
	k.n = k.digits(prime)
	k.twoN = make([]uint, k.length)
	for i, d := range k.n {
		k.twoN[i] |= d << 1 & digitMax
		if i+1 < k.length {
			k.twoN[i+1] = d >> (digitBits - 1)
		}
	}
	k.modulus = ifmaModulus(k.n, k.lowOnes)

	m, err := bigmod.NewModulus(prime)
	if err != nil {
		panic("srp: " + err.Error())
	}
	two := bigmod.NewNat().SetUint(2).ExpandFor(m)
	exponent := binary.BigEndian.AppendUint16(nil, uint16(2*digitBits*k.rows))
	k.radix2 = k.digits(bigmod.NewNat().Exp(two, exponent, m).Bytes(m))
	small := make([]byte, len(prime))
	small[len(small)-1] = 1
	k.one = make(element, k.length)
	base := make(element, k.length)
	c := k.newCalculator()
	c.fromBytes(k.one, small)
	small[len(small)-1] = generator
	c.fromBytes(base, small)

	window := windowSize * k.length
	k.windows = make([]uint, windowCount*window)
	for i := range windowCount {
		w := k.windows[i*window : (i+1)*window]
		c.fill(w, base)
		// base^15 * base is the base of the next window.
		c.multiply(base, w[window-k.length:], base)
	}
	return k
}

// digits returns the big-endian number b as digits.
func (k *ifma) digits(b []byte) element {
	x := make(element, k.length)
	setDigits(x, b)
	return x
}

func (k *ifma) words() int { return k.length }

func (k *ifma) radixBits() int { return digitBits * k.rows }

func (k *ifma) calculator() calculator { return k.newCalculator() }

// ifmaCalculator is the calculator of the kernel.
type ifmaCalculator struct {
	k *ifma
	// scratch is the memory of the assembly.
	scratch []uint
	// x and y are for intermediate results, entries for the 16 powers of a base.
	x, y    element
	entries []uint
}

func (k *ifma) newCalculator() *ifmaCalculator {
	return &ifmaCalculator{
		k:       k,
		scratch: make([]uint, 4*k.length+2*registerWords),
		x:       make(element, k.length),
		y:       make(element, k.length),
		entries: make([]uint, windowSize*k.length),
	}
}

func (c *ifmaCalculator) wipe() {
	clear(c.scratch)
	clear(c.x)
	clear(c.y)
	clear(c.entries)
	ifmaWipe()
}

func (c *ifmaCalculator) fromBytes(z element, b []byte) {
	if len(b) != c.k.bits/8 {
		panic("srp: number has not the size of the prime")
	}
	setDigits(c.x, b)
	if subtractDigits(c.y, c.x, c.k.n) == 0 {
		// Callers compare with the prime first.
		panic("srp: number is not below the prime")
	}
	c.multiply(z, c.x, c.k.radix2)
}

// toBytes converts x from the Montgomery form by a product with 1. The result is at most
// N, and is reduced to 0 if it is N.
func (c *ifmaCalculator) toBytes(b []byte, x element) {
	clear(c.x)
	c.x[0] = 1
	c.multiply(c.x, x, c.x)
	reduceDigits(c.x, c.k.n, c.y)
	putDigits(b[:c.k.bits/8], c.x)
}

func (c *ifmaCalculator) product(z, x, y element) { c.multiply(z, x, y) }

// sum adds the digits with carries, which gives less than 4N, and subtracts 2N unless the
// sum is less.
func (c *ifmaCalculator) sum(z, x, y element) {
	carry := uint(0)
	for i := range z {
		d := x[i] + y[i] + carry
		z[i], carry = d&digitMax, d>>digitBits
	}
	reduceDigits(z, c.k.twoN, c.y)
}

// power reads the exponent digit by digit from the top, with four squares and one product
// for each. A product with entry 0, which is 1, takes as long as any other.
func (c *ifmaCalculator) power(z, base element, e *[PrivateSize]byte) {
	c.fill(c.entries, base)

	c.k.read(&z[0], &c.entries[0], digit(e, windowCount-1))
	for i := windowCount - 2; i >= 0; i-- {
		c.square(z, z, windowBits)
		c.k.read(&c.x[0], &c.entries[0], digit(e, i))
		c.multiply(z, z, c.x)
	}
}

// powerG multiplies one entry of each window of the table.
func (c *ifmaCalculator) powerG(z element, e *[PrivateSize]byte) {
	k := c.k
	k.read(&z[0], &k.windows[0], digit(e, 0))
	for i := 1; i < windowCount; i++ {
		k.read(&c.x[0], &k.windows[i*windowSize*k.length], digit(e, i))
		c.multiply(z, z, c.x)
	}
}

// multiply sets z to x*y. z may be x or y.
func (c *ifmaCalculator) multiply(z, x, y element) {
	c.k.ifmaSize.multiply(&z[0], &x[0], &y[0], &c.k.modulus[0], &c.scratch[0])
}

// square sets z to x^(2^times). times is not 0. z may be x.
func (c *ifmaCalculator) square(z, x element, times uint) {
	c.k.ifmaSize.square(&z[0], &x[0], &c.k.modulus[0], &c.scratch[0], times)
}

// fill sets entries to base^0 to base^15.
func (c *ifmaCalculator) fill(entries []uint, base element) {
	n := c.k.length
	copy(entries, c.k.one)
	copy(entries[n:], base)
	for j := 2; j < windowSize; j++ {
		// base^j is base^(j/2) squared, or base^(j-1) times base.
		if j%2 == 0 {
			c.square(entries[j*n:], entries[j/2*n:], 1)
		} else {
			c.multiply(entries[j*n:], entries[(j-1)*n:], base)
		}
	}
}

// subtractDigits sets z to x-y, modulo 2^(52*len(z)), and returns 1 if x is less than y
// and 0 if not.
func subtractDigits(z, x, y []uint) uint {
	borrow := uint(0)
	for i := range z {
		d := x[i] - y[i] - borrow
		z[i], borrow = d&digitMax, d>>63
	}
	return borrow
}

// reduceDigits subtracts y from z unless z is less. It always computes the difference, in
// d, and selects by a mask.
func reduceDigits(z, y, d []uint) {
	keep := -subtractDigits(d, z, y)
	for i := range z {
		z[i] = z[i]&keep | d[i]&^keep
	}
}

// setDigits sets x to the big-endian number b in digits.
func setDigits(x []uint, b []byte) {
	for i := range x {
		// A digit begins at or in the middle of a byte, so it spans at most seven bytes.
		var d uint64
		for j := range 7 {
			if at := len(b) - 1 - digitBits*i/8 - j; at >= 0 {
				d |= uint64(b[at]) << (8 * j)
			}
		}
		x[i] = uint(d>>(digitBits*i%8)) & digitMax
	}
}

// putDigits sets b to the digits of x in big-endian order.
func putDigits(b []byte, x []uint) {
	for i := range b {
		// Byte i from the end begins at bit 8*i. It is in one digit or in two.
		d, shift := 8*i/digitBits, 8*i%digitBits
		v := x[d] >> shift
		if shift > digitBits-8 {
			v |= x[d+1] << (digitBits - shift)
		}
		b[len(b)-1-i] = byte(v)
	}
}

// ifmaModulus returns N in the form that the assembly reads, from digits n:
//
//   - the digits from digit 2 up, with zeros up to len(n)
//   - the digits from digit 1 up, in the same way
//   - all digits, with 0 in place of digit 0
//   - one register with 0 and the digits from digit 2 up
//   - digits 0 and 1, -1/N mod 2^52, and 2^52-1, with zeros up to one register
//
// With lowOnes the digits are those of N+1.
func ifmaModulus(n []uint, lowOnes bool) []uint {
	inverse := minusInverse(n[0]) & digitMax
	n = slices.Clone(n)
	if lowOnes {
		if n[0] != digitMax || n[1] == digitMax {
			panic("srp: prime is not -1 modulo 2^64")
		}
		n[0] = 0
		n[1]++
	}
	m := make([]uint, 3*len(n), 3*len(n)+2*registerWords)
	copy(m, n[2:])
	copy(m[len(n):], n[1:])
	copy(m[2*len(n)+1:], n[1:])
	m = append(m, 0)
	m = append(m, n[2:2+registerWords-1]...)
	return append(m, n[0], n[1], inverse, digitMax, 0, 0, 0, 0)
}

var (
	_ kernel     = (*ifma)(nil)
	_ calculator = (*ifmaCalculator)(nil)
)
