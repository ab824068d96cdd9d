package srp

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// edges returns public values that must be refused, because everybody could compute the key
// or because they are not below N, and the smallest and largest permitted ones.
func edges(p *Profile) (refused, taken map[string]*big.Int) {
	n := number(p.prime)
	add := func(d int64) *big.Int { return new(big.Int).Add(n, big.NewInt(d)) }
	top := new(big.Int).Lsh(big.NewInt(1), uint(8*p.Size()))
	refused = map[string]*big.Int{
		"0": big.NewInt(0), "1": big.NewInt(1), "N-1": add(-1), "N": n, "N+1": add(1),
		"2^bits-1": top.Sub(top, big.NewInt(1)),
	}
	taken = map[string]*big.Int{"2": big.NewInt(2), "N-2": add(-2)}
	return refused, taken
}

// TestParsePublicRange: A must satisfy 1 < A < N-1; it is not reduced, and it is padded.
func TestParsePublicRange(t *testing.T) {
	t.Parallel()
	for _, p := range allProfiles() {
		refused, taken := edges(p)
		for name, x := range refused {
			for _, digits := range []string{x.Text(16), fmt.Sprintf("%0*X", 2*p.Size(), x)} {
				if b, err := p.ParsePublic(digits); !errors.Is(err, ErrOutOfRange) || b != nil {
					t.Errorf("%s: A = %s: error %v, want %v", p.name, name, err, ErrOutOfRange)
				}
			}
		}
		twice := new(big.Int).Lsh(number(p.prime), 1)
		if _, err := p.ParsePublic(twice.Text(16)); !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: A = 2N: error %v, want %v", p.name, err, ErrTooLong)
		}
		for name, x := range taken {
			for _, digits := range []string{x.Text(16), strings.ToUpper(x.Text(16)), fmt.Sprintf("%0*x", 2*p.Size(), x), fmt.Sprintf("%0*x", 2*p.Size()+2, x)} {
				b, err := p.ParsePublic(digits)
				if err != nil || !bytes.Equal(b, x.FillBytes(make([]byte, p.Size()))) {
					t.Errorf("%s: A = %s: %X, %v", p.name, name, b, err)
				}
			}
		}
	}
}

// TestParseErrors: each problem has an error of its own, which does not contain the text.
func TestParseErrors(t *testing.T) {
	t.Parallel()
	p := profiles[0]
	full := strings.Repeat("7", 2*p.Size())
	tests := []struct {
		name   string
		parse  func(*Profile, string) ([]byte, error)
		digits string
		want   error
	}{
		{"A empty", (*Profile).ParsePublic, "", ErrMissing},
		{"A one digit too long", (*Profile).ParsePublic, full + "7", ErrTooLong},
		{"A one byte too long", (*Profile).ParsePublic, "01" + full, ErrTooLong},
		{"A two bytes too long", (*Profile).ParsePublic, "0000" + full, ErrTooLong},
		{"A too long and not hex", (*Profile).ParsePublic, full + "xyz", ErrTooLong},
		{"A not hex", (*Profile).ParsePublic, "12g4", ErrNotHex},
		{"A not hex, odd", (*Profile).ParsePublic, "12g", ErrNotHex},
		{"A with sign", (*Profile).ParsePublic, "-12", ErrNotHex},
		{"A with prefix", (*Profile).ParsePublic, "0x1234", ErrNotHex},
		{"A with space", (*Profile).ParsePublic, " 1234", ErrNotHex},
		{"A full-width digits", (*Profile).ParsePublic, "１２", ErrNotHex},
		{"A zero", (*Profile).ParsePublic, "0", ErrOutOfRange},
		{"M1 empty", (*Profile).ParseEvidence, "", ErrMissing},
		{"M1 one digit too long", (*Profile).ParseEvidence, full[:65], ErrTooLong},
		{"M1 one byte too long", (*Profile).ParseEvidence, full[:66], ErrTooLong},
		{"M1 two bytes too long", (*Profile).ParseEvidence, "0000" + full[:64], ErrTooLong},
		{"M1 very long", (*Profile).ParseEvidence, full, ErrTooLong},
		{"M1 not hex", (*Profile).ParseEvidence, full[:63] + "g", ErrNotHex},
	}
	for _, test := range tests {
		b, err := test.parse(p, test.digits)
		if !same(err, test.want) || b != nil {
			t.Errorf("%s: %X, %v, want %v", test.name, b, err, test.want)
		}
		if len(test.digits) > 1 && strings.Contains(err.Error(), test.digits) {
			t.Errorf("%s: the error repeats the value", test.name)
		}
	}
}

// TestOversizedRefusedFirst: too long texts are refused without arithmetic and without
// allocating memory.
func TestOversizedRefusedFirst(t *testing.T) {
	p := profileWith("no arithmetic", prime2048, 2, sha256.New)
	p.group = func() *group {
		t.Error("arithmetic was used")
		return nil
	}
	long := strings.Repeat("7", 1<<20)
	if n := testing.AllocsPerRun(10, func() {
		if _, err := p.ParsePublic(long); !errors.Is(err, ErrTooLong) {
			t.Error(err)
		}
		if _, err := profiles[0].ParseEvidence(long); !errors.Is(err, ErrTooLong) {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for refused texts", n)
	}
}

// TestParseProperty: every number in range is parsed from all of its texts, and every
// evidence from digits in either case.
func TestParseProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(allProfiles()).Draw(t, "profile")
		x := number(rapid.SliceOfN(rapid.Byte(), 1, p.Size()).Draw(t, "A"))
		digits := x.Text(16)
		digits = strings.Repeat("0", rapid.IntRange(0, 2*p.Size()+2-len(digits)).Draw(t, "zeros")) + digits
		if rapid.Bool().Draw(t, "upper") {
			digits = strings.ToUpper(digits)
		}
		n := number(p.prime)
		inRange := x.Cmp(big.NewInt(1)) > 0 && x.Cmp(n.Sub(n, big.NewInt(1))) < 0
		b, err := p.ParsePublic(digits)
		if inRange != (err == nil) {
			t.Fatalf("in range: %t, error %v", inRange, err)
		}
		if inRange && (len(b) != p.Size() || number(b).Cmp(x) != 0) {
			t.Fatalf("%s became %X", digits, b)
		}

		m := rapid.SliceOfN(rapid.Byte(), EvidenceSize, EvidenceSize).Draw(t, "M1")
		for _, digits := range []string{fmt.Sprintf("%x", m), fmt.Sprintf("%X", m)} {
			if b, err := profiles[0].ParseEvidence(digits); err != nil || !bytes.Equal(b, m) {
				t.Fatalf("%s became %X, %v", digits, b, err)
			}
		}
	})
}

// isHex reports whether s consists of hexadecimal digits only.
func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// FuzzParsePublic: for every group exactly the texts of numbers in range are accepted, and
// the result is the padded number.
func FuzzParsePublic(f *testing.F) {
	for _, s := range []string{"", "0", "1", "2", "zz", "0x12", "-1", "+2", " 2", "2_0", "aB", "00000002", prime2048, strings.ToLower(prime2048), prime2048 + "0"} {
		f.Add(s)
	}
	for _, p := range profiles {
		for _, d := range []int64{-2, -1, 0, 1} {
			f.Add(new(big.Int).Add(number(p.prime), big.NewInt(d)).Text(16))
		}
		for _, n := range []int{-1, 0, 1} {
			f.Add(strings.Repeat("0", 2*p.Size()+n-1) + "2")
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range profiles {
			b, err := p.ParsePublic(s)
			want := false
			x := new(big.Int)
			if isHex(s) && len(s) <= 2*p.Size()+2 {
				x.SetString(s, 16)
				want = x.Cmp(big.NewInt(1)) > 0 && x.Cmp(new(big.Int).Sub(number(p.prime), big.NewInt(1))) < 0
			}
			if want != (err == nil) {
				t.Fatalf("%s: taken: %t, want %t", p.name, err == nil, want)
			}
			if err != nil {
				if b != nil {
					t.Fatalf("%s: a value came with an error", p.name)
				}
				continue
			}
			if len(b) != p.Size() || number(b).Cmp(x) != 0 {
				t.Fatalf("%s: %q became %X", p.name, s, b)
			}
		}
	})
}

// FuzzParseEvidence: numbers of at most 256 bits are taken, with or without leading
// zeros.
func FuzzParseEvidence(f *testing.F) {
	for _, s := range []string{
		"", "0", "00", strings.Repeat("0", 63), strings.Repeat("0", 64), strings.Repeat("0", 65),
		strings.Repeat("aF", 32), strings.Repeat("g", 64), strings.Repeat("é", 32),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := profiles[0].ParseEvidence(s)
		x, isNumber := new(big.Int).SetString(s, 16)
		if want := isHex(s) && isNumber && len(s) <= 66 && x.BitLen() <= 256; want != (err == nil) {
			t.Fatalf("taken: %t, want %t", err == nil, want)
		}
		if err != nil {
			if b != nil {
				t.Fatal("a value came with an error")
			}
			return
		}
		if len(b) != EvidenceSize || number(b).Cmp(x) != 0 {
			t.Fatalf("%q became %X", s, b)
		}
	})
}
