//go:build amd64 && !purego

package srp

import (
	"slices"
	"testing"
)

func adxWordsOf(prime []uint) wordOps {
	return &adxWords{prime: prime, inverse: minusInverse(prime[0])}
}

// withADX reports whether this processor supports the assembly.
func withADX(tb testing.TB) bool {
	tb.Helper()
	if supportsADX(2048) {
		return true
	}
	tb.Log("NOT CHECKED: this processor has no ADX and BMI2")
	return false
}

// TestADXWords: wordOps in assembly are right. 1536 bits add an odd number of blocks, which no
// group has.
func TestADXWords(t *testing.T) {
	t.Parallel()
	if !withADX(t) {
		return
	}
	checkAllWords(t, adxWordsOf, append([]int{1536}, wordSizes...))
}

// TestADXSupport: the kernel supports sizes of at least two whole blocks.
func TestADXSupport(t *testing.T) {
	t.Parallel()
	if !withADX(t) {
		return
	}
	for size, want := range map[int]bool{0: false, 512: false, 1000: false, 1024: true, 2048: true, 2112: false, 3072: true, 4096: true} {
		if supportsADX(size) != want {
			t.Errorf("%d bits: %t", size, !want)
		}
	}
}

// FuzzADX: wordOps in assembly agree with math/big, and word by word with those in Go, for
// every odd modulus whose highest bit is set and for any operands.
func FuzzADX(f *testing.F) {
	addWordSeeds(f)
	if !withADX(f) {
		f.Fuzz(func(*testing.T, byte, []byte, []byte, []byte) {})
		return
	}
	f.Fuzz(func(t *testing.T, size byte, modulus, x, y []byte) {
		prime, a, b := fuzzedWords(size, modulus, x, y)
		w, plain := adxWordsOf(prime), goWordsOf(prime)
		checkWords(t, w, prime, a, b)
		n := len(prime)
		z, want, scratch := make([]uint, n), make([]uint, n), make([]uint, 2*n)
		w.multiply(z, a, b, scratch)
		if plain.multiply(want, a, b, scratch); !slices.Equal(z, want) {
			t.Fatal("product differs from plain Go")
		}
		w.square(z, a, scratch)
		if plain.square(want, a, scratch); !slices.Equal(z, want) {
			t.Fatal("square differs from plain Go")
		}
	})
}
