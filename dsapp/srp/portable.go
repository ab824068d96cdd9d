package srp

import "filippo.io/bigmod"

// A product of bigmod takes twice as long as one of the other kernels. The portable kernel
// therefore reads the exponents of powers of g in fewer, larger digits, of 5 bits. It has two
// windows for each digit: for its values below 16 and for the others.
const (
	pairBits  = windowBits + 1
	pairCount = (PrivateSize*8 + pairBits - 1) / pairBits
)

// portable is the kernel for every processor, by package bigmod. Its elements are the
// words of a bigmod.Nat, least significant first.
type portable struct {
	modulus *bigmod.Modulus
	// windows holds g^(j*32^i) for every digit j from 0 to 31, in pair i.
	windows [pairCount][2]window
}

// newPortable returns the portable kernel for an odd prime and a generator. It computes
// the table of powers of the generator: 52 pairs of windows, 416 KB at 2048 bits.
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

func (k *portable) radixBits() int { return 0 }

func (k *portable) calculator() calculator {
	return &portableCalculator{
		k: k,
		x: bigmod.NewNat().ExpandFor(k.modulus),
		y: bigmod.NewNat().ExpandFor(k.modulus),

		upper: make(element, k.words()),
	}
}

// portableCalculator has two numbers as memory. For numbers of more than 2048 bits bigmod
// allocates more memory in most operations, and does not clear it.
type portableCalculator struct {
	k    *portable
	x, y *bigmod.Nat
	// upper is the entry read from the second window of a pair.
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

// powerG multiplies one entry of each pair. A product with entry 0, which is 1, takes as
// long as any other.
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
	// A digit can begin in one byte and end in the next.
	at := PrivateSize - 1 - i*pairBits/8
	d := uint(e[at])
	if at > 0 {
		d |= uint(e[at-1]) << 8
	}
	d = d >> (i * pairBits % 8) % (2 * windowSize)
	// One of the two windows does not have the digit and gives zeros.
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
