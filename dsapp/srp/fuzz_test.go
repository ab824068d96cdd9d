package srp

import (
	"math/big"
	"strings"
	"testing"
)

// isHex tells whether s consists of hexadecimal digits only.
func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// FuzzParsePublic: in every group exactly the texts of numbers in range are taken,
// and what comes back is that number, padded.
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
