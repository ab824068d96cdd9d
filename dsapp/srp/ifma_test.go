//go:build amd64 && !purego

package srp

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"testing"
	"unsafe"
)

// ifmaKernels returns kernels for every size, with the primes and with moduli that are likely
// to reveal wrong products: the largest and the smallest odd number of a size, and one with
// long runs of ones and zeros.
func ifmaKernels(t testing.TB) map[string]*ifma {
	t.Helper()
	kernels := map[string]*ifma{}
	add := func(name string, n *big.Int, generator byte) {
		size := (n.BitLen() + 7) / 8
		if !supportsIFMA(8 * size) {
			t.Logf("NOT CHECKED: this machine does not have the kernel for %s", name)
			return
		}
		kernels[name] = newIFMA(n.FillBytes(make([]byte, size)), generator).(*ifma)
	}
	for _, p := range arithmeticProfiles() {
		add(p.name, number(p.prime), p.generator)
	}
	one := big.NewInt(1)
	for _, s := range ifmaSizes {
		if raceDetector && s.bits > 2048 {
			continue // See arithmeticProfiles.
		}
		top := new(big.Int).Lsh(one, uint(s.bits))
		if s.lowOnes {
			low := new(big.Int).Sub(new(big.Int).Lsh(one, 64), one)
			add(fmt.Sprint("ones at both ends/", s.bits), low.Or(low, new(big.Int).Rsh(top, 1)), 3)
			continue
		}
		add(fmt.Sprint("all ones/", s.bits), new(big.Int).Sub(top, one), 2)
		half := new(big.Int).Rsh(top, 1)
		add(fmt.Sprint("two ones/", s.bits), new(big.Int).Add(half, one), 3)
		runs := new(big.Int).Set(half)
		for i := 0; i < s.bits; i += 208 {
			runs.Or(runs, new(big.Int).Lsh(new(big.Int).Sub(new(big.Int).Lsh(one, 104), one), uint(i)))
		}
		add(fmt.Sprint("runs/", s.bits), runs.SetBit(runs.Rsh(runs, uint(max(0, runs.BitLen()-s.bits))), 0, 1), 5)
	}
	return kernels
}

// forIFMA runs a test for every kernel of ifmaKernels.
func forIFMA(t *testing.T, test func(t *testing.T, k *ifma, n *big.Int)) {
	t.Helper()
	for name, k := range ifmaKernels(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, k, fromDigits(k.n))
		})
	}
}

// fromDigits returns the number with the given digits. It panics if a digit is not below
// 2^52.
func fromDigits(x []uint) *big.Int {
	words := make([]big.Word, len(x)*digitBits/64+1)
	for i, d := range x {
		if d > digitMax {
			panic(fmt.Sprintf("digit %#x has more than 52 bits", d))
		}
		at, shift := i*digitBits/64, i*digitBits%64
		words[at] |= big.Word(d << shift)
		if shift > 64-digitBits {
			words[at+1] |= big.Word(d >> (64 - shift))
		}
	}
	return new(big.Int).SetBits(words)
}

// toDigits returns x, which must fit into an element, as digits.
func (k *ifma) toDigits(x *big.Int) element {
	z, words := make(element, k.length), append(make([]big.Word, 0, k.length+1), x.Bits()...)
	words = words[:cap(words)]
	for i := range z {
		at, shift := i*digitBits/64, i*digitBits%64
		// A shift by 64 bits gives 0.
		z[i] = uint(words[at]>>shift|words[at+1]<<(64-shift)) & digitMax
	}
	return z
}

// ifmaOperands returns numbers below 2n: around 0, n and 2n, runs of ones that begin and end
// at or beside the borders of digits and registers, and some random ones.
func ifmaOperands(n *big.Int) []*big.Int {
	one := big.NewInt(1)
	twice := new(big.Int).Lsh(n, 1)
	power := func(e int) *big.Int { return new(big.Int).Lsh(one, uint(e)) }
	x := []*big.Int{big.NewInt(0), one, big.NewInt(2), new(big.Int).Rsh(n, 1)}
	for d := range int64(3) {
		x = append(x, new(big.Int).Sub(n, big.NewInt(d)), new(big.Int).Add(n, big.NewInt(d)), new(big.Int).Sub(twice, big.NewInt(d+1)))
	}
	bits := n.BitLen()
	for _, from := range []int{0, 1, 51, 52, 53, 104, 156, 208, 260, 416} {
		for _, to := range []int{64, 156, 208, 209, 416, 832, bits - 53, bits - 1, bits} {
			if from < to {
				x = append(x, new(big.Int).Sub(power(to), power(from)), power(to))
			}
		}
	}
	for i := range 6 {
		var b []byte
		for j := range bits/256 + 1 {
			b = append(b, bytesFor("ifma operand", 100*i+j)...)
		}
		x = append(x, number(b))
	}
	for i := range x {
		x[i] = new(big.Int).Mod(x[i], twice)
	}
	return x
}

// TestIFMAProduct: products and squares agree with math/big and are below 2N, with digits of 52
// bits, for operands in [0, 2N), also if the destination is an operand.
func TestIFMAProduct(t *testing.T) {
	t.Parallel()
	forIFMA(t, func(t *testing.T, k *ifma, n *big.Int) {
		radix := new(big.Int).Lsh(big.NewInt(1), uint(digitBits*k.rows))
		if new(big.Int).Lsh(n, 2).Cmp(radix) >= 0 {
			t.Fatal("the Montgomery radix is not more than 4N")
		}
		inverse := new(big.Int).ModInverse(radix, n)
		twice := new(big.Int).Lsh(n, 1)
		c := k.newCalculator()
		check := func(what string, z element, x, y *big.Int) {
			t.Helper()
			got := fromDigits(z)
			want := new(big.Int).Mul(x, y)
			want.Mod(want.Mul(want, inverse), n)
			if got.Cmp(twice) >= 0 || new(big.Int).Mod(got, n).Cmp(want) != 0 {
				t.Fatalf("%s of %x and %x is %x", what, x, y, got)
			}
		}
		operands := ifmaOperands(n)
		for i, x := range operands {
			// A different seventh of the operands for each x.
			for j := i % 7; j < len(operands); j += 7 {
				y := operands[j]
				a, b, z := k.toDigits(x), k.toDigits(y), make(element, k.length)
				c.multiply(z, a, b)
				check("product", z, x, y)
			}
			a := k.toDigits(x)
			c.multiply(a, a, a)
			check("product with itself in place", a, x, x)
			a, z := k.toDigits(x), make(element, k.length)
			c.square(z, a, 1)
			check("square", z, x, x)
			c.square(a, a, 1)
			check("square in place", a, x, x)
			for _, y := range operands[:4] {
				a, b := k.toDigits(x), k.toDigits(y)
				c.multiply(a, a, b)
				check("product in place of x", a, x, y)
				a = k.toDigits(x)
				c.multiply(b, a, b)
				check("product in place of y", b, x, y)
			}
		}
	})
}

// TestIFMACarries: the product of x and the element of 1 is x, or that plus N. For runs of ones
// carries pass through long runs of digits.
func TestIFMACarries(t *testing.T) {
	t.Parallel()
	forIFMA(t, func(t *testing.T, k *ifma, n *big.Int) {
		c := k.newCalculator()
		for _, x := range ifmaOperands(n) {
			for _, factors := range [][2]element{{k.toDigits(x), k.one}, {k.one, k.toDigits(x)}} {
				z := make(element, k.length)
				c.multiply(z, factors[0], factors[1])
				if got := fromDigits(z); new(big.Int).Mod(new(big.Int).Sub(got, x), n).Sign() != 0 {
					t.Fatalf("%x became %x", x, got)
				}
			}
		}
	})
}

// TestIFMARandomProducts: long chains of products agree with math/big.
func TestIFMARandomProducts(t *testing.T) {
	t.Parallel()
	forIFMA(t, func(t *testing.T, k *ifma, n *big.Int) {
		inverse := new(big.Int).ModInverse(new(big.Int).Lsh(big.NewInt(1), uint(digitBits*k.rows)), n)
		operands := ifmaOperands(n)
		x, y := operands[len(operands)-1], operands[len(operands)-2]
		a, b := k.toDigits(x), k.toDigits(y)
		c := k.newCalculator()
		for range 500 {
			c.multiply(a, a, b)
			a, b = b, a
			x.Mod(x.Mul(x.Mul(x, y), inverse), n)
			x, y = y, x
			if new(big.Int).Mod(fromDigits(b), n).Cmp(y) != 0 {
				t.Fatalf("product is %x, want %x", fromDigits(b), y)
			}
		}
	})
}

// TestIFMASquares: several squares in one call agree with single squares and with products.
func TestIFMASquares(t *testing.T) {
	t.Parallel()
	forIFMA(t, func(t *testing.T, k *ifma, n *big.Int) {
		c := k.newCalculator()
		for _, x := range ifmaOperands(n) {
			got, one, want := k.toDigits(x), k.toDigits(x), k.toDigits(x)
			for times := range uint(6) {
				c.multiply(want, want, want)
				c.square(one, one, 1)
				if !slices.Equal(one, want) {
					t.Fatalf("square %d of %x is %x, want %x", times, x, one, want)
				}
				z := make(element, k.length)
				c.square(z, got, times+1)
				if !slices.Equal(z, want) {
					t.Fatalf("%d squares of %x are %x, want %x", times+1, x, z, want)
				}
			}
			c.square(got, got, 6)
			if !slices.Equal(got, want) {
				t.Fatalf("squares of %x in place are %x, want %x", x, got, want)
			}
		}
	})
}

// TestIFMAForms: both elements of a number, below N and not, give the same bytes and sums, and
// sums are below 2N.
func TestIFMAForms(t *testing.T) {
	t.Parallel()
	forIFMA(t, func(t *testing.T, k *ifma, n *big.Int) {
		radix := new(big.Int).Lsh(big.NewInt(1), uint(digitBits*k.rows))
		inverse := new(big.Int).ModInverse(radix, n)
		twice := new(big.Int).Lsh(n, 1)
		operands := ifmaOperands(n)
		m := makerOf(k)
		for i, x := range operands {
			want := new(big.Int).Mul(x, inverse)
			if got := number(m.toBytes(k.bits/8, k.toDigits(x))); got.Cmp(want.Mod(want, n)) != 0 {
				t.Fatalf("bytes of %x are %x", x, got)
			}
			for _, y := range []*big.Int{x, operands[(i+1)%len(operands)], operands[0], new(big.Int).Sub(twice, big.NewInt(1)), new(big.Int).Sub(twice, x)} {
				y = new(big.Int).Mod(y, twice)
				got, want := fromDigits(m.sum(k.toDigits(x), k.toDigits(y))), new(big.Int).Add(x, y)
				if got.Cmp(twice) >= 0 || got.Cmp(want.Mod(want, twice)) != 0 {
					t.Fatalf("%x + %x = %x", x, y, got)
				}
			}
		}
	})
}

// TestIFMASelect: every digit selects its whole entry.
func TestIFMASelect(t *testing.T) {
	t.Parallel()
	for _, s := range ifmaSizes {
		if !supportsIFMA(s.bits) {
			t.Logf("NOT CHECKED: this machine does not have the kernel for %d bits", s.bits)
			continue
		}
		entries := make([]uint, windowSize*s.length)
		for i := range entries {
			entries[i] = uint(i)*0x9E3779B97F4A7C15 | 1
		}
		for d := range uint(windowSize) {
			z := make(element, s.length)
			s.read(&z[0], &entries[0], d)
			if want := entries[d*uint(s.length) : (d+1)*uint(s.length)]; !slices.Equal(z, want) {
				t.Errorf("%d bits: digit %d selects %x, want %x", s.bits, d, z, want)
			}
		}
	}
}

// loseCarry makes products of the kernel wrong if three digits, from the given one on, are
// the largest, as if a carry had not passed through them.
func (k *ifma) loseCarry(from int) {
	changed, sound := *k.ifmaSize, k.ifmaSize.multiply
	changed.multiply = func(z, x, y, modulus, scratch *uint) {
		sound(z, x, y, modulus, scratch)
		d := unsafe.Slice(z, changed.length)[from : from+3]
		if d[0]&d[1]&d[2] == digitMax {
			d[2] = 0
		}
	}
	k.ifmaSize = &changed
}

// TestIFMASpoiled: the self-test finds a single wrong bit in the constants and the table of a
// kernel, and lost carries.
func TestIFMASpoiled(t *testing.T) {
	t.Parallel()
	for _, p := range arithmeticProfiles()[1:] {
		if !supportsIFMA(8 * p.Size()) {
			t.Logf("NOT CHECKED: this machine does not have the kernel for %s", p.name)
			continue
		}
		spoiled := map[string]func(k *ifma){
			"nothing":     func(*ifma) {},
			"N":           func(k *ifma) { k.n[0] ^= 2 },
			"2N":          func(k *ifma) { k.twoN[3] ^= 1 },
			"N from 2":    func(k *ifma) { k.modulus[k.rows-4] ^= 1 },
			"N from 1":    func(k *ifma) { k.modulus[k.length] ^= 1 },
			"N from 0":    func(k *ifma) { k.modulus[2*k.length+1] ^= 1 },
			"N without 1": func(k *ifma) { k.modulus[3*k.length+1] ^= 1 },
			"N_1":         func(k *ifma) { k.modulus[3*k.length+registerWords+1] ^= 1 },
			"2^52-1":      func(k *ifma) { k.modulus[3*k.length+registerWords+3] ^= 1 },
			"-1/N": func(k *ifma) {
				if k.lowOnes {
					// It is not used.
					k.one[0] ^= 1
				}
				k.modulus[3*k.length+registerWords+2] ^= 1
			},
			"one":                           func(k *ifma) { k.one[1] ^= 1 },
			"radix":                         func(k *ifma) { k.radix2[2] ^= 1 },
			"a carry from the lowest digit": func(k *ifma) { k.loseCarry(0) },
			"a carry between registers":     func(k *ifma) { k.loseCarry(registerWords - 1) },
			"a carry further up":            func(k *ifma) { k.loseCarry(k.rows - 6) },
		}
		for i := range windowCount / 4 {
			// Every digit and every fourth window.
			at := (4*i+i%4)*windowSize + i
			spoiled[fmt.Sprint("table, entry ", at)] = func(k *ifma) { k.windows[at*k.length+at%k.rows] ^= 1 }
		}
		for name, spoil := range spoiled {
			i := implementation{"spoiled", supportsIFMA, func(prime []byte, generator byte) kernel {
				k := newIFMA(prime, generator).(*ifma)
				spoil(k)
				return k
			}}
			if passed := p.newTestedKernel(i) != nil; passed != (name == "nothing") {
				t.Errorf("%s: %s is wrong, passed: %t", p.name, name, passed)
			}
		}
	}
}

// TestIFMASupport: the kernel supports the sizes of ifmaSizes.
func TestIFMASupport(t *testing.T) {
	t.Parallel()
	// Whether this processor supports the kernel.
	has := supportsIFMA(2048)
	for bits, want := range map[int]bool{
		0: false, 512: false, 1024: has, 1536: false, 2047: false, 2048: has, 2056: false, 3072: has, 4096: has, 8192: false,
	} {
		if supportsIFMA(bits) != want {
			t.Errorf("%d bits are supported: %t", bits, !want)
		}
	}
}

// FuzzIFMA: products, squares and sums agree with math/big, for every modulus of a supported
// size and any elements.
func FuzzIFMA(f *testing.F) {
	kernels := ifmaKernels(f)
	for _, name := range slices.Sorted(maps.Keys(kernels)) {
		k := kernels[name]
		size := slices.IndexFunc(ifmaSizes[:], func(s ifmaSize) bool { return s.bits == k.bits })
		n := fromDigits(k.n)
		operands := ifmaOperands(n)
		for i := range 4 {
			x, y := operands[len(operands)-1-i], operands[len(operands)/4*i+9]
			f.Add(byte(size), n.Bytes(), x.Bytes(), y.Bytes(), byte(i))
		}
	}
	f.Fuzz(func(t *testing.T, size byte, modulus, a, b []byte, times byte) {
		s := ifmaSizes[int(size)%len(ifmaSizes)]
		if !supportsIFMA(s.bits) {
			return
		}
		n := bigOf(wordsFrom(modulus, s.bits))
		n.SetBit(n.SetBit(n, 0, 1), s.bits-1, 1)
		if s.lowOnes {
			n.Or(n, new(big.Int).SetUint64(1<<64-1))
			// The kernel refuses more than 103 ones.
			if new(big.Int).Add(n, big.NewInt(1)).TrailingZeroBits() > 2*digitBits-1 {
				n.SetBit(n, 2*digitBits-1, 0)
			}
		}
		k := newIFMA(n.FillBytes(make([]byte, s.bits/8)), 2).(*ifma)
		twice := new(big.Int).Lsh(n, 1)
		x, y := new(big.Int).Mod(number(a), twice), new(big.Int).Mod(number(b), twice)
		c, z := k.newCalculator(), make(element, k.length)
		check := func(what string, got element, shift uint, want *big.Int) {
			t.Helper()
			// A product times the Montgomery radix is the product of the values.
			left := new(big.Int).Lsh(fromDigits(got), shift)
			if left.Sub(left, want).Mod(left, n).Sign() != 0 || fromDigits(got).Cmp(twice) >= 0 {
				t.Fatalf("%s of %x and %x modulo %x is %x", what, x, y, n, fromDigits(got))
			}
		}
		c.product(z, k.toDigits(x), k.toDigits(y))
		check("product", z, uint(k.radixBits()), new(big.Int).Mul(x, y))
		c.sum(z, k.toDigits(x), k.toDigits(y))
		check("sum", z, 0, new(big.Int).Add(x, y))
		want := k.toDigits(x)
		for range times%8 + 1 {
			v := fromDigits(want)
			c.square(want, want, 1)
			check("square", want, uint(k.radixBits()), v.Mul(v, v))
		}
		if c.square(z, k.toDigits(x), uint(times%8+1)); !slices.Equal(z, want) {
			t.Fatalf("%d squares of %x modulo %x are %x, want %x", times%8+1, x, n, fromDigits(z), fromDigits(want))
		}
	})
}
