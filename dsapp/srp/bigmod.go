package srp

import (
	"math/bits"

	"filippo.io/bigmod"
)

const (
	windowBits  = 4
	windowSize  = 1 << windowBits
	windowCount = PrivateSize * 8 / windowBits

	// A product of bigmod costs two of other kernels, so the portable one has fewer
	// and larger digits: pairs of windows, for the digits below 16 and from there on.
	pairBits  = windowBits + 1
	pairCount = (PrivateSize*8 + pairBits - 1) / pairBits
)

// portable is the kernel for every machine. Its elements are the words of a
// bigmod.Nat, least significant first.
type portable struct {
	modulus *bigmod.Modulus
	// windows hold g^(j*32^i) for every digit j from 0 to 31.
	windows [pairCount][2]window
}

// window holds 16 powers that follow each other, such as g^(j*16^i) for one i and
// every digit j. The words of equal significance stand together, so that reading one
// entry walks through memory in order, over all of them.
type window [][windowSize]uint

// newPortable returns the portable kernel for an odd prime and a generator, and
// computes its table of powers: 52 pairs of windows, 416 KB at 2048 bits.
func newPortable(prime []byte, generator byte) *portable {
	m, err := bigmod.NewModulus(prime)
	if err != nil {
		panic("srp: " + err.Error())
	}
	one := bigmod.NewNat().SetUint(1).ExpandFor(m)
	base := bigmod.NewNat().SetUint(uint(generator)).ExpandFor(m)
	n := len(one.Bits())

	k := &portable{modulus: m}
	for i := range k.windows {
		entry := copyOf(one, m)
		for half := range k.windows[i] {
			w := make(window, n)
			for j := range windowSize {
				for l, word := range entry.Bits() {
					w[l][j] = word
				}
				entry.Mul(base, m)
			}
			k.windows[i][half] = w
		}
		// The entry past the last one, base^32, is the base of the next pair.
		base = entry
	}
	return k
}

func (k *portable) words() int { return len(k.windows[0][0]) }

func (k *portable) radix() int { return 0 }

func (k *portable) calculator() calculator {
	return &portableCalculator{
		k: k,
		x: bigmod.NewNat().ExpandFor(k.modulus),
		y: bigmod.NewNat().ExpandFor(k.modulus),

		upper: make(element, k.words()),
	}
}

// portableCalculator computes with two numbers of its own. Above 2048 bits bigmod
// takes more memory for most operations, and does not clear it.
type portableCalculator struct {
	k    *portable
	x, y *bigmod.Nat
	// upper is what an entry could be in the second window of a pair.
	upper element
}

func (c *portableCalculator) fromBytes(z element, b []byte) {
	if _, err := c.x.SetBytes(b, c.k.modulus); err != nil {
		// Callers compare with the prime first.
		panic("srp: number is not below the prime")
	}
	copy(z, c.x.Bits())
}

func (c *portableCalculator) toBytes(b []byte, x element) { putWords(b[:c.k.modulus.Size()], x) }

func (c *portableCalculator) product(z, x, y element) {
	copy(c.x.Bits(), x)
	copy(c.y.Bits(), y)
	copy(z, c.x.Mul(c.y, c.k.modulus).Bits())
}

func (c *portableCalculator) sum(z, x, y element) {
	copy(c.x.Bits(), x)
	copy(c.y.Bits(), y)
	copy(z, c.x.Add(c.y, c.k.modulus).Bits())
}

func (c *portableCalculator) power(z, base element, e *[PrivateSize]byte) {
	copy(c.y.Bits(), base)
	copy(z, c.x.Exp(c.y, e[:], c.k.modulus).Bits())
}

// powerG multiplies one entry of each window. A product with entry 0, which is
// 1, costs as much as any other.
func (c *portableCalculator) powerG(z element, e *[PrivateSize]byte) {
	c.read(c.x.Bits(), e, 0)
	for i := 1; i < pairCount; i++ {
		c.read(c.y.Bits(), e, i)
		c.x.Mul(c.y, c.k.modulus)
	}
	copy(z, c.x.Bits())
}

// read sets dst to the entry of pair i for its digit of e.
func (c *portableCalculator) read(dst []uint, e *[PrivateSize]byte, i int) {
	// The digit can begin in one byte and end in the next.
	at := PrivateSize - 1 - i*pairBits/8
	d := uint(e[at])
	if at > 0 {
		d |= uint(e[at-1]) << 8
	}
	d = d >> (i * pairBits % 8) % (2 * windowSize)
	// A window without the digit gives zeros.
	c.k.windows[i][0].read(dst, d)
	c.k.windows[i][1].read(c.upper, d^windowSize)
	for l, word := range c.upper {
		dst[l] |= word
	}
}

func (c *portableCalculator) wipe() {
	clear(c.x.Bits())
	clear(c.y.Bits())
	clear(c.upper)
}

// digit returns digit i of e in base 16, the least significant being digit 0.
func digit(e *[PrivateSize]byte, i int) uint {
	return uint(e[PrivateSize-1-i/2]) >> (i % 2 * windowBits) % windowSize
}

// read sets dst to entry j of w, or to zeros if there is none with that number below
// 32. It loads every word of every entry and keeps those of one by masks, so neither
// branches nor addresses depend on j.
func (w window) read(dst []uint, j uint) {
	var mask [windowSize]uint
	for i := range mask {
		// All ones where i == j: only 0-1 has its top bit set.
		mask[i] = -(((uint(i) ^ j) - 1) >> (bits.UintSize - 1))
	}
	dst = dst[:len(w)]
	for l := range w {
		row := &w[l]
		dst[l] = row[0]&mask[0] | row[1]&mask[1] | row[2]&mask[2] | row[3]&mask[3] |
			row[4]&mask[4] | row[5]&mask[5] | row[6]&mask[6] | row[7]&mask[7] |
			row[8]&mask[8] | row[9]&mask[9] | row[10]&mask[10] | row[11]&mask[11] |
			row[12]&mask[12] | row[13]&mask[13] | row[14]&mask[14] | row[15]&mask[15]
	}
}

// copyOf returns a copy of x with the size of m.
func copyOf(x *bigmod.Nat, m *bigmod.Modulus) *bigmod.Nat {
	n := bigmod.NewNat().ExpandFor(m)
	copy(n.Bits(), x.Bits())
	return n
}

var (
	_ kernel     = (*portable)(nil)
	_ calculator = (*portableCalculator)(nil)
)
