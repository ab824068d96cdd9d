//go:build !purego

package srp

import (
	"encoding/binary"

	"filippo.io/bigmod"
	"golang.org/x/sys/cpu"
)

const (
	// digitBits is the size of a digit, the operand of VPMADD52.
	digitBits = 52
	digitMax  = 1<<digitBits - 1
	// registerWords is the number of digits in a 512-bit register.
	registerWords = 8
)

// ifmaSize is what the kernel has for numbers of one size.
type ifmaSize struct {
	// bits is the size of N.
	bits int
	// lanes is the number of words of an element: its digits, in whole registers.
	lanes int
	// rows is the number of digits that a product takes from its second factor. The
	// Montgomery radix is 2^(52*rows), more than 4N.
	rows int

	// multiply sets z to x*y/2^(52*rows) mod N or that plus N, for x and y below 2N.
	// Then it squares z until there have been as many products as times says. z may
	// be x or y. The scratch keeps secrets.
	multiply func(z, x, y, modulus, scratch *uint, times uint)
	// choose sets z to one of 16 entries that follow each other.
	choose func(z, entries *uint, digit uint)
}

// ifmaSizes are the sizes that there is assembly for.
var ifmaSizes = [...]ifmaSize{
	{1024, 24, 20, ifmaProduct1024, ifmaSelect1024},
	{1536, 32, 30, ifmaProduct1536, ifmaSelect1536},
	{2048, 40, 40, ifmaProduct2048, ifmaSelect2048},
	{3072, 64, 60, ifmaProduct3072, ifmaSelect3072},
	{4096, 80, 80, ifmaProduct4096, ifmaSelect4096},
}

// ifmaSizeOf returns the size for an N of that many bits, or nil.
func ifmaSizeOf(bits int) *ifmaSize {
	for i := range ifmaSizes {
		if ifmaSizes[i].bits == bits {
			return &ifmaSizes[i]
		}
	}
	return nil
}

// supportsIFMA tells whether the processor multiplies digits of 52 bits in
// 512-bit registers, the system saves those, and there is assembly for the size.
// GODEBUG=cpu.avx512ifma=off says no.
func supportsIFMA(bits int) bool {
	return cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512IFMA &&
		cpu.X86.HasBMI2 && ifmaSizeOf(bits) != nil
}

//go:generate go -C _asm/ifma run main.go -out ../../ifma_amd64.s -stubs ../../ifma_stubs_amd64.go -pkg srp

// ifma is the kernel for processors with AVX-512 IFMA. The element of a number is
// x*2^(52*rows) mod N, or that plus N, in digits of 52 bits, the least significant
// first, with zeros up to whole registers.
//
// Elements are below 2N, not below N, so a Montgomery product needs no
// subtraction at its end: (2N*2N + N*2^(52*rows)) / 2^(52*rows) is below 2N again
// because 2^(52*rows) is more than 4N.
//
// Every digit of an element is below 2^52. VPMADD52 ignores what a factor has
// above that, and the result would be wrong without a sign of it.
//
// Elements and tables are multiples of 64 bytes long, for which the allocator of
// Go takes 64-byte boundaries. Without them the kernel would be slower, not wrong.
type ifma struct {
	*ifmaSize
	// modulus is N in the form that multiply reads: see ifmaModulus.
	modulus []uint
	// n and twoN are N and 2N.
	n, twoN []uint
	// one is the element of 1. radix2 is 2^(2*52*rows) mod N: times that, a number
	// becomes its element.
	one, radix2 element
	// powers holds the elements of g^(j*16^i) for i from 0 to 63, and for each i
	// those for j from 0 to 15.
	powers []uint
}

// newIFMA returns the kernel for an odd prime of a size in ifmaSizes and a
// generator, and computes its table of powers: 64 windows, 320 KB at 2048 bits.
func newIFMA(prime []byte, generator byte) kernel {
	k := &ifma{ifmaSize: ifmaSizeOf(8 * len(prime))}
	k.n = k.digits(prime)
	k.twoN = make([]uint, k.lanes)
	for i, d := range k.n {
		k.twoN[i] |= d << 1 & digitMax
		if i+1 < k.lanes {
			k.twoN[i+1] = d >> (digitBits - 1)
		}
	}
	k.modulus = ifmaModulus(k.n)

	m, err := bigmod.NewModulus(prime)
	if err != nil {
		panic("srp: " + err.Error())
	}
	two := bigmod.NewNat().SetUint(2).ExpandFor(m)
	exponent := binary.BigEndian.AppendUint16(nil, uint16(2*digitBits*k.rows))
	k.radix2 = k.digits(bigmod.NewNat().Exp(two, exponent, m).Bytes(m))
	small := make([]byte, len(prime))
	small[len(small)-1] = 1
	k.one = k.fromBytes(small)
	small[len(small)-1] = generator
	base := k.fromBytes(small)

	c := k.newCall()
	window := windowSize * k.lanes
	k.powers = make([]uint, windowCount*window)
	for i := range windowCount {
		w := k.powers[i*window : (i+1)*window]
		c.fill(w, base)
		// base^15 * base is the base of the next window.
		c.multiply(base, w[window-k.lanes:], base)
	}
	return k
}

// digits returns the big-endian number b in digits.
func (k *ifma) digits(b []byte) element {
	x := make(element, k.lanes)
	for i := range x {
		// A digit begins with a byte or in the middle of one, so that seven bytes
		// hold it.
		var d uint64
		for j := range 7 {
			if at := len(b) - 1 - digitBits*i/8 - j; at >= 0 {
				d |= uint64(b[at]) << (8 * j)
			}
		}
		x[i] = uint(d>>(digitBits*i%8)) & digitMax
	}
	return x
}

func (k *ifma) fromBytes(b []byte) element {
	if len(b) != k.bits/8 {
		panic("srp: number has not the size of the prime")
	}
	c := k.newCall()
	defer c.end()
	x := k.digits(b)
	defer clear(x)
	z := make(element, k.lanes)
	if subtractDigits(z, x, k.n) == 0 {
		// Callers compare with the prime first.
		panic("srp: number is not below the prime")
	}
	c.multiply(z, x, k.radix2)
	return z
}

// toBytes leaves the Montgomery form by a product with 1, which is N at most, and
// takes N away where it is N.
func (k *ifma) toBytes(x element) []byte {
	c := k.newCall()
	defer c.end()
	z := make(element, k.lanes)
	defer clear(z)
	unit := make(element, k.lanes)
	unit[0] = 1
	c.multiply(z, x, unit)
	reduceDigits(z, k.n)

	b := make([]byte, k.bits/8)
	for i := range b {
		// Byte i from the end begins at bit 8*i, in the digit of that bit or in
		// that and the next.
		d, shift := 8*i/digitBits, 8*i%digitBits
		v := z[d] >> shift
		if shift > digitBits-8 {
			v |= z[d+1] << (digitBits - shift)
		}
		b[len(b)-1-i] = byte(v)
	}
	return b
}

func (k *ifma) product(x, y element) element {
	c := k.newCall()
	defer c.end()
	z := make(element, k.lanes)
	c.multiply(z, x, y)
	return z
}

// sum adds the digits with their carries, which gives less than 4N, and takes 2N
// away where there is as much.
func (k *ifma) sum(x, y element) element {
	z := make(element, k.lanes)
	carry := uint(0)
	for i := range z {
		d := x[i] + y[i] + carry
		z[i], carry = d&digitMax, d>>digitBits
	}
	reduceDigits(z, k.twoN)
	return z
}

// power goes through e from the top, one product and four squarings for each
// digit. A product with entry 0, which is 1, costs as much as any other.
func (k *ifma) power(base element, e *[PrivateSize]byte) element {
	c := k.newCall()
	defer c.end()
	entries := make([]uint, windowSize*k.lanes)
	defer clear(entries)
	entry := make(element, k.lanes)
	defer clear(entry)
	c.fill(entries, base)

	z := make(element, k.lanes)
	k.choose(&z[0], &entries[0], digit(e, windowCount-1))
	c.multiplySquare(z, z, z, windowBits-1)
	for i := windowCount - 2; i > 0; i-- {
		k.choose(&entry[0], &entries[0], digit(e, i))
		c.multiplySquare(z, z, entry, windowBits)
	}
	k.choose(&entry[0], &entries[0], digit(e, 0))
	c.multiply(z, z, entry)
	return z
}

// powerG multiplies one entry of each window.
func (k *ifma) powerG(e *[PrivateSize]byte) element {
	c := k.newCall()
	defer c.end()
	entry := make(element, k.lanes)
	defer clear(entry)

	z := make(element, k.lanes)
	k.choose(&z[0], &k.powers[0], digit(e, 0))
	for i := 1; i < windowCount; i++ {
		k.choose(&entry[0], &k.powers[i*windowSize*k.lanes], digit(e, i))
		c.multiply(z, z, entry)
	}
	return z
}

// ifmaCall is one call of the kernel, with memory that its products share.
type ifmaCall struct {
	k       *ifma
	scratch []uint
}

func (k *ifma) newCall() ifmaCall {
	return ifmaCall{k, make([]uint, 2*(k.lanes+registerWords))}
}

// end wipes what the products of the call have left in memory and in registers.
func (c ifmaCall) end() {
	clear(c.scratch)
	ifmaWipe()
}

// multiply sets z to x*y. z may be x or y.
func (c ifmaCall) multiply(z, x, y element) { c.multiplySquare(z, x, y, 0) }

// multiplySquare sets z to x*y, and then squares it so many times, without the way
// to the assembly and back in between. z may be x or y.
func (c ifmaCall) multiplySquare(z, x, y element, squares uint) {
	c.k.ifmaSize.multiply(&z[0], &x[0], &y[0], &c.k.modulus[0], &c.scratch[0], squares+1)
}

// fill sets entries to base^0 to base^15.
func (c ifmaCall) fill(entries []uint, base element) {
	n := c.k.lanes
	copy(entries, c.k.one)
	copy(entries[n:], base)
	for j := 2; j < windowSize; j++ {
		// base^j is base^(j/2) squared, or base^(j-1) times base.
		x, y := j/2, j/2
		if j%2 == 1 {
			x, y = j-1, 1
		}
		c.multiply(entries[j*n:], entries[x*n:], entries[y*n:])
	}
}

// subtractDigits sets z to x-y, modulo the power of two above its digits, and
// returns 1 if x is less than y and 0 if not.
func subtractDigits(z, x, y []uint) uint {
	borrow := uint(0)
	for i := range z {
		d := x[i] - y[i] - borrow
		z[i], borrow = d&digitMax, d>>63
	}
	return borrow
}

// reduceDigits subtracts y from z if z is not less. It always subtracts, and keeps
// one of the two numbers by a mask.
func reduceDigits(z, y []uint) {
	d := make([]uint, len(z))
	defer clear(d)
	keep := -subtractDigits(d, z, y)
	for i := range z {
		z[i] = z[i]&keep | d[i]&^keep
	}
}

// ifmaModulus returns N in the form that the assembly reads: its digits from
// digit 4 and from digit 3 up, each with zeros to the same length, then digits 0
// to 3 alone, then -1/N mod 2^52, shifted left by 12.
func ifmaModulus(n []uint) []uint {
	m := make([]uint, 2*len(n)+registerWords)
	copy(m, n[4:])
	copy(m[len(n):], n[3:])
	low := m[2*len(n):]
	copy(low, n[:4])
	low[4] = negativeInverse(n[0]) << (64 - digitBits)
	return m
}

// negativeInverse returns -1/n modulo 2^52, for odd n.
func negativeInverse(n uint) uint {
	// n is its own inverse modulo 8. Each step doubles the bits that are right.
	inverse := n
	for range 5 {
		inverse *= 2 - n*inverse
	}
	return -inverse & digitMax
}

var _ kernel = (*ifma)(nil)
