package srp

import (
	"math/bits"

	"filippo.io/bigmod"
)

const (
	windowBits  = 4
	windowSize  = 1 << windowBits
	windowCount = PrivateSize * 8 / windowBits
)

// portable is the kernel for every machine. Its elements are the words of a
// bigmod.Nat, least significant first.
type portable struct {
	modulus *bigmod.Modulus
	windows [windowCount]window
}

// window holds g^(j*16^i) for one i and every digit j from 0 to 15. The words of
// equal significance stand together, so that reading one entry walks through
// memory in order, over all of them.
type window [][windowSize]uint

// newPortable returns the portable kernel for an odd prime and a generator, and
// computes its table of powers: 64 windows, 256 KB at 2048 bits.
func newPortable(prime []byte, generator byte) *portable {
	m, err := bigmod.NewModulus(prime)
	if err != nil {
		panic("srp: " + err.Error())
	}
	one := bigmod.NewNat().SetUint(1).ExpandFor(m)
	base := bigmod.NewNat().SetUint(uint(generator)).ExpandFor(m)
	n := len(one.Bits())

	k := &portable{modulus: m}
	rows := make(window, windowCount*n)
	for i := range k.windows {
		w := rows[i*n : (i+1)*n]
		entry := copyOf(one, m)
		for j := range windowSize {
			for l, word := range entry.Bits() {
				w[l][j] = word
			}
			entry.Mul(base, m)
		}
		k.windows[i] = w
		// The entry past the last one, base^16, is the base of the next window.
		base = entry
	}
	return k
}

func (k *portable) fromBytes(b []byte) element {
	n, err := bigmod.NewNat().SetBytes(b, k.modulus)
	if err != nil {
		// Callers compare with the prime first.
		panic("srp: number is not below the prime")
	}
	return n.Bits()
}

func (k *portable) toBytes(x element) []byte {
	n := k.nat(x)
	defer clear(n.Bits())
	return n.Bytes(k.modulus)
}

func (k *portable) product(x, y element) element {
	z, n := k.nat(x), k.nat(y)
	defer clear(n.Bits())
	return z.Mul(n, k.modulus).Bits()
}

func (k *portable) sum(x, y element) element {
	z, n := k.nat(x), k.nat(y)
	defer clear(n.Bits())
	return z.Add(n, k.modulus).Bits()
}

func (k *portable) power(base element, e *[PrivateSize]byte) element {
	n := k.nat(base)
	defer clear(n.Bits())
	return bigmod.NewNat().Exp(n, e[:], k.modulus).Bits()
}

// powerG multiplies one entry of each window. A product with entry 0, which is
// 1, costs as much as any other.
func (k *portable) powerG(e *[PrivateSize]byte) element {
	z := bigmod.NewNat().ExpandFor(k.modulus)
	entry := bigmod.NewNat().ExpandFor(k.modulus)
	defer clear(entry.Bits())

	k.windows[0].read(z.Bits(), digit(e, 0))
	for i := 1; i < windowCount; i++ {
		k.windows[i].read(entry.Bits(), digit(e, i))
		z.Mul(entry, k.modulus)
	}
	return z.Bits()
}

// nat returns a copy of x that bigmod can compute with.
func (k *portable) nat(x element) *bigmod.Nat {
	n := bigmod.NewNat().ExpandFor(k.modulus)
	copy(n.Bits(), x)
	return n
}

// digit returns digit i of e in base 16, the least significant being digit 0.
func digit(e *[PrivateSize]byte, i int) uint {
	return uint(e[PrivateSize-1-i/2]) >> (i % 2 * windowBits) % windowSize
}

// read sets dst to entry j of w. It loads every word of every entry and keeps
// those of one by masks, so neither branches nor addresses depend on j.
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

var _ kernel = (*portable)(nil)
