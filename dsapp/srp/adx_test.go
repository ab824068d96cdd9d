//go:build amd64 && !purego

package srp

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func adxWordsOf(prime []uint) words {
	return &adxWords{prime: prime, inverse: minusInverse(prime[0])}
}

// withADX tells whether this processor runs the assembly. Without it there is
// nothing to test.
func withADX(tb testing.TB) bool {
	tb.Helper()
	if supportsADX(2048) {
		return true
	}
	tb.Log("NOT CHECKED: this processor has no ADX and BMI2")
	return false
}

// TestADXWords: products and squares in assembly are right for all pairs of edge
// cases, below N and not, modulo primes and other odd numbers.
func TestADXWords(t *testing.T) {
	t.Parallel()
	if !withADX(t) {
		return
	}
	for _, size := range append([]int{1536}, wordSizes...) {
		checkRead(t, adxWordsOf(moduli(size)[0]), size/64)
		for _, prime := range moduli(size) {
			for _, x := range wordCases(prime) {
				for _, y := range wordCases(prime) {
					checkWords(t, adxWordsOf(prime), prime, fixedWords(x, size), fixedWords(y, size))
				}
			}
		}
	}
}

// TestADXSupport: the kernel serves sizes in whole blocks.
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

// FuzzADX: assembly agrees with math/big and word by word with plain Go, for
// every odd modulus that fills its words and any operands, reduced or not. In
// the groups of the profiles it agrees with the portable kernel.
func FuzzADX(f *testing.F) {
	addWordSeeds(f)
	if !withADX(f) {
		f.Fuzz(func(*testing.T, byte, []byte, []byte, []byte) {})
		return
	}
	type pair struct {
		p        *Profile
		portable kernel
		adx      kernel
	}
	pairs := map[int]pair{}
	for _, p := range allProfiles() {
		pairs[p.Size()] = pair{p, newPortable(p.prime, p.generator), newADX(p.prime, p.generator)}
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

		k := pairs[8*n]
		o := oracleOf(k.p)
		u, v := o.fixed(o.mod(bigOf(a))), o.fixed(o.mod(bigOf(b)))
		for name, f := range map[string]func(k maker) element{
			"product": func(k maker) element { return k.product(k.fromBytes(u), k.fromBytes(v)) },
			"sum":     func(k maker) element { return k.sum(k.fromBytes(u), k.fromBytes(v)) },
		} {
			fast, slow := makerOf(k.adx), makerOf(k.portable)
			got, want := fast.toBytes(o.size(), f(fast)), slow.toBytes(o.size(), f(slow))
			if !bytes.Equal(got, want) {
				t.Fatalf("%s of %x and %x: %x, want %x", name, u, v, got, want)
			}
		}
	})
}

// TestADXAssembly: only pointers address memory, only arguments and constants
// make pointers, and only the ends of loops over lengths decide where to go on.
func TestADXAssembly(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("adx_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range assemblyFaults(string(text)) {
		t.Error(fault)
	}
	if jumps := strings.Count(string(text), "\tJ"); jumps != 15 {
		t.Errorf("%d jumps, want those of 15 loops", jumps)
	}

	for line, want := range map[string]int{
		"\tMULXQ 8(SI), AX, CX\n":                      0,
		"\tMOVQ y+16(FP), BP\n\tMOVQ BP, SI\n":         0,
		"\tDECQ 32(SP)\n\tJNE  outer\n":                0,
		"\tMULXQ 8(AX), AX, CX\n":                      1,
		"\tMOVQ (SI)(R8*8), AX\n":                      1,
		"\tMOVQ (SI), DI\n":                            1,
		"\tADDQ DX, SI\n":                              1,
		"\tLEAQ 8(SI), BP\n":                           1,
		"\tADDQ AX, AX\n\tJCS  outer\n":                1,
		"\tSUBQ $0x02, R8\n\tJNE  outer\n":             1,
		"\tCMOVQCS AX, CX\n":                           1,
		"\tDIVQ CX\n":                                  1,
		"\tVPGATHERQQ Y1, (SI)(Y2*8), Y3\n":            1,
		"\tANDQ $0x07, SI\n\tMOVQ (SI), R8\n":          1,
		"\tADDQ $0x40, SI\n\tCMPQ SI, 24(SP)\n\tJNE l": 0,
	} {
		if got := assemblyFaults(line); len(got) != want {
			t.Errorf("%q: %q", line, got)
		}
	}
}

var (
	assemblyAddress = regexp.MustCompile(`\(([^)]*)\)(\([^)]*\))?`)
	assemblyBase    = regexp.MustCompile(`^\((SI|DI|BP|SP|FP)\)$`)
	assemblyPointer = regexp.MustCompile(`^(SI|DI|BP)$`)
	// What may become of pointers and counters: an argument, a pointer kept on
	// the stack, another pointer, the next block.
	assemblyMove = regexp.MustCompile(`^(MOVQ (\w+\+\d+\(FP\)|\d*\(SP\)|SI|DI|BP)|ADDQ (\$[+0-9a-fx]+|\w+\+\d+\(FP\))), (SI|DI|BP)$|^DECQ BP$`)
	assemblyEnd  = regexp.MustCompile(`^(CMPQ SI, \d+\(SP\)|DECQ (\d+\(SP\)|BP|DX)|SUBQ \$0x02, CX)$`)
)

// assemblyFaults returns the lines of assembly that may address memory or jump by
// something else than pointers and lengths.
func assemblyFaults(text string) (faults []string) {
	previous := ""
	for line := range strings.Lines(text) {
		line = strings.Join(strings.Fields(line), " ")
		if line == "" || strings.HasPrefix(line, "//") || strings.HasPrefix(line, "#") ||
			strings.HasPrefix(line, "TEXT") || strings.HasSuffix(line, ":") {
			continue
		}
		name, operands, _ := strings.Cut(line, " ")
		list := strings.Split(operands, ", ")
		last := list[len(list)-1]
		bad := strings.HasPrefix(name, "CMOV") || strings.HasPrefix(name, "DIV") || strings.HasPrefix(name, "IDIV")
		for _, m := range assemblyAddress.FindAllString(line, -1) {
			bad = bad || !assemblyBase.MatchString(m)
		}
		if strings.HasPrefix(name, "J") {
			bad = bad || name != "JNE" && name != "JEQ" || !assemblyEnd.MatchString(previous)
		}
		if assemblyPointer.MatchString(last) && name != "CMPQ" {
			bad = bad || !assemblyMove.MatchString(line)
		}
		if bad {
			faults = append(faults, line)
		}
		previous = line
	}
	return faults
}
