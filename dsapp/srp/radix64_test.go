package srp

import (
	"bytes"
	"math/big"
	"math/bits"
	"slices"
	"testing"
)

// wordCases returns numbers that are likely to reveal wrong carries: around 0, N and R, runs
// of ones, and a random one.
func wordCases(prime []uint) []*big.Int {
	n, one := bigOf(prime), big.NewInt(1)
	size := uint(len(prime) * bits.UintSize)
	r := new(big.Int).Lsh(one, size)
	half := new(big.Int).Lsh(one, size/2)
	return []*big.Int{
		big.NewInt(0), one, big.NewInt(2),
		new(big.Int).Sub(n, big.NewInt(2)), new(big.Int).Sub(n, one), n, new(big.Int).Mod(new(big.Int).Add(n, one), r),
		new(big.Int).Sub(r, one), new(big.Int).Sub(r, big.NewInt(2)), new(big.Int).Rsh(r, 1),
		new(big.Int).Sub(half, one), new(big.Int).Sub(r, half), new(big.Int).Sub(new(big.Int).Rsh(r, 1), one),
		number(bytes.Repeat(bytesFor("word", 0), int(size)/256)),
	}
}

// moduli returns the primes of the profiles with that many bits, the smallest and the largest
// odd number of the size, and a random one.
func moduli(size int) [][]uint {
	one := big.NewInt(1)
	r := new(big.Int).Lsh(one, uint(size))
	random := number(bytes.Repeat(bytesFor("modulus", 0), size/256))
	random.SetBit(random, 0, 1).SetBit(random, size-1, 1)
	m := [][]uint{
		fixedWords(new(big.Int).Sub(r, one), size),
		fixedWords(new(big.Int).SetBit(big.NewInt(1), size-1, 1), size),
		fixedWords(random, size),
	}
	for _, p := range allProfiles() {
		if 8*p.Size() == size {
			m = append(m, wordsOf(p.prime))
		}
	}
	return m
}

// bigOf returns the number with the given words.
func bigOf(x []uint) *big.Int {
	w := make([]big.Word, len(x))
	for i := range x {
		w[i] = big.Word(x[i])
	}
	return new(big.Int).SetBits(w)
}

// fixedWords returns x as words of that many bits.
func fixedWords(x *big.Int, size int) []uint {
	w := make([]uint, size/bits.UintSize)
	for i, b := range x.Bits() {
		w[i] = uint(b)
	}
	return w
}

// guard is the value of the words before and after memory that wordOps write to.
const guard = 0xA5A5A5A5

// guarded returns n words between two guards, and a function that checks the guards.
func guarded(t *testing.T, n int) ([]uint, func()) {
	t.Helper()
	x := make([]uint, n+2)
	for i := range x {
		x[i] = guard
	}
	return x[1 : n+1 : n+1], func() {
		t.Helper()
		if x[0] != guard || x[n+1] != guard {
			t.Fatal("a word outside was written")
		}
	}
}

// checkWords checks that a product and a square agree with math/big for operands below R,
// that operands are not changed, that the destination may be an operand, and that no other
// memory is written.
func checkWords(t *testing.T, w wordOps, prime, x, y []uint) {
	t.Helper()
	n, size := len(prime), uint(len(prime)*bits.UintSize)
	modulus := bigOf(prime)
	check := func(name string, z, x, y []uint) {
		t.Helper()
		left := new(big.Int).Lsh(bigOf(z), size)
		right := new(big.Int).Mul(bigOf(x), bigOf(y))
		if left.Sub(left, right).Mod(left, modulus).Sign() != 0 {
			t.Fatalf("%s of %x and %x modulo %x: %x", name, bigOf(x), bigOf(y), modulus, bigOf(z))
		}
	}
	z, inside := guarded(t, n)
	scratch, scratchInside := guarded(t, 2*n)
	x0, y0 := slices.Clone(x), slices.Clone(y)
	w.multiply(z, x, y, scratch)
	check("product", z, x, y)
	product := slices.Clone(z)
	w.square(z, x, scratch)
	check("square", z, x, x)
	if !slices.Equal(x, x0) || !slices.Equal(y, y0) {
		t.Fatal("an operand was changed")
	}
	square := slices.Clone(z)
	w.multiply(z, x, x, scratch)
	if !slices.Equal(z, square) {
		t.Fatalf("square of %x modulo %x differs from product", bigOf(x), modulus)
	}
	for _, alias := range []func(){
		func() { copy(z, x); w.multiply(z, z, y, scratch) },
		func() { copy(z, y); w.multiply(z, x, z, scratch) },
	} {
		if alias(); !slices.Equal(z, product) {
			t.Fatal("the product differs if the destination is an operand")
		}
	}
	copy(z, x)
	if w.square(z, z, scratch); !slices.Equal(z, square) {
		t.Fatal("the square differs if the destination is the operand")
	}
	inside()
	scratchInside()
}

// checkRead checks that read returns every entry of a window of n words.
func checkRead(t *testing.T, w wordOps, n int) {
	t.Helper()
	from := make(window, n)
	for l := range from {
		for j := range from[l] {
			from[l][j] = ^uint(0) / 251 * uint(1+16*l+j)
		}
	}
	for j := range windowSize {
		z, inside := guarded(t, n)
		w.read(z, from, uint(j))
		for l := range z {
			if z[l] != from[l][j] {
				t.Fatalf("entry %d, word %d: %x, want %x", j, l, z[l], from[l][j])
			}
		}
		inside()
	}
}

func goWordsOf(prime []uint) wordOps {
	return &goWords{prime: prime, inverse: minusInverse(prime[0])}
}

// wordSizes are the sizes in bits that wordOps are tested with.
var wordSizes = []int{1024, 2048, 3072, 4096}

// checkAllWords does checkRead, and checkWords for all pairs of wordCases and all moduli, at
// every size.
func checkAllWords(t *testing.T, wordOpsOf func(prime []uint) wordOps, sizes []int) {
	t.Helper()
	if raceDetector {
		sizes = sizes[:2] // See arithmeticProfiles.
	}
	for _, size := range sizes {
		checkRead(t, wordOpsOf(moduli(size)[0]), size/bits.UintSize)
		for _, prime := range moduli(size) {
			for _, x := range wordCases(prime) {
				for _, y := range wordCases(prime) {
					checkWords(t, wordOpsOf(prime), prime, fixedWords(x, size), fixedWords(y, size))
				}
			}
		}
	}
}

// TestWords: wordOps in Go are right.
func TestWords(t *testing.T) {
	t.Parallel()
	checkAllWords(t, goWordsOf, wordSizes)
}

// TestRadix64Spoiled: the test that a kernel must pass finds a single wrong bit in what
// it computes with, in assembly too.
func TestRadix64Spoiled(t *testing.T) {
	t.Parallel()
	kernels := map[string]func([]byte, byte) kernel{"radix64": newRadix64}
	for _, i := range implementations {
		if i.name == "adx" && i.supported(2048) {
			kernels[i.name] = i.new
		}
	}
	p := profiles[0]
	for kernelName, made := range kernels {
		for name, spoil := range map[string]func(k *radix64){
			"nothing": func(*radix64) {},
			"N":       func(k *radix64) { k.prime[1] ^= 1 },
			"one":     func(k *radix64) { k.one[2] ^= 1 },
			"radix":   func(k *radix64) { k.radix2[3] ^= 1 },
			"table":   func(k *radix64) { k.windows[30][5][15] ^= 1 },
		} {
			i := implementation{"spoiled", supportsRadix64, func(prime []byte, generator byte) kernel {
				k := made(prime, generator).(*radix64)
				spoil(k)
				return k
			}}
			if passed := p.newTestedKernel(i) != nil; passed != (name == "nothing") {
				t.Errorf("%s: %s is wrong, passed: %t", kernelName, name, passed)
			}
		}
	}
}

// TestRadix64Refuses: newRadix64 panics for moduli that are even or whose highest bit is 0.
func TestRadix64Refuses(t *testing.T) {
	t.Parallel()
	for _, x := range []*big.Int{
		new(big.Int).Lsh(big.NewInt(1), 1023),
		new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 1023), big.NewInt(1)),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("modulus %x is taken", x)
				}
			}()
			newRadix64(x.FillBytes(make([]byte, 128)), 2)
		}()
	}
}

// wordsFrom returns the last bytes of b as words, for a size in bits.
func wordsFrom(b []byte, size int) []uint {
	padded := make([]byte, size/8)
	b = b[max(0, len(b)-len(padded)):]
	copy(padded[len(padded)-len(b):], b)
	return wordsOf(padded)
}

// addWordSeeds adds the edge cases of every size.
func addWordSeeds(f *testing.F) {
	for i, size := range wordSizes {
		for _, prime := range moduli(size) {
			cases := wordCases(prime)
			for j, x := range cases {
				y := cases[(j+3)%len(cases)]
				f.Add(byte(i), bigOf(prime).Bytes(), x.Bytes(), y.Bytes())
			}
		}
	}
}

// fuzzedWords returns a modulus and two operands from what the fuzzer made.
func fuzzedWords(size byte, modulus, x, y []byte) (prime, a, b []uint) {
	n := wordSizes[int(size)%len(wordSizes)]
	prime = wordsFrom(modulus, n)
	prime[0] |= 1
	prime[len(prime)-1] |= 1 << (bits.UintSize - 1)
	return prime, wordsFrom(x, n), wordsFrom(y, n)
}

// FuzzRadix64: wordOps in Go agree with math/big for every odd modulus whose highest bit is
// set and for any operands.
func FuzzRadix64(f *testing.F) {
	addWordSeeds(f)
	f.Fuzz(func(t *testing.T, size byte, modulus, x, y []byte) {
		prime, a, b := fuzzedWords(size, modulus, x, y)
		checkWords(t, goWordsOf(prime), prime, a, b)
	})
}
