package srp

import (
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestGroups: N is a safe prime with the first and last digits of RFC 5054, and g generates
// the whole group. 2 would not for the two larger primes.
func TestGroups(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		bits        int
		first, last string
		g           int64
		twoIsSquare bool
	}{
		{"rfc5054-2048-sha256", 2048, "AC6BDB41324A9A9B", "0FA7111F9E4AFF73", 2, false},
		{"rfc5054-3072-sha256", 3072, "FFFFFFFFFFFFFFFF", "FFFFFFFFFFFFFFFF", 5, true},
		{"rfc5054-4096-sha256", 4096, "FFFFFFFFFFFFFFFF", "FFFFFFFFFFFFFFFF", 5, true},
	}
	if len(tests) != len(profiles) {
		t.Errorf("%d profiles are offered, %d are tested", len(profiles), len(tests))
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p, err := LookupProfile(test.name)
			if err != nil {
				t.Fatal(err)
			}
			if p.Name() != test.name || p.Size() != test.bits/8 {
				t.Errorf("profile %s of %d bytes, want %s of %d", p.Name(), p.Size(), test.name, test.bits/8)
			}
			n := number(p.prime)
			if n.BitLen() != test.bits {
				t.Errorf("N has %d bits, want %d", n.BitLen(), test.bits)
			}
			digits := strings.ToUpper(n.Text(16))
			if !strings.HasPrefix(digits, test.first) || !strings.HasSuffix(digits, test.last) {
				t.Errorf("N is %s...%s, want %s...%s", digits[:16], digits[len(digits)-16:], test.first, test.last)
			}
			q := new(big.Int).Rsh(n, 1)
			// The rounds only confirm numbers long known to be prime.
			if !n.ProbablyPrime(3) || !q.ProbablyPrime(3) {
				t.Error("N is not a safe prime")
			}
			if int64(p.generator) != test.g {
				t.Errorf("g = %d, want %d", p.generator, test.g)
			}
			minusOne := new(big.Int).Sub(n, big.NewInt(1))
			if new(big.Int).Exp(big.NewInt(int64(p.generator)), q, n).Cmp(minusOne) != 0 {
				t.Error("g is a square, so it generates half of the group only")
			}
			if got := big.Jacobi(big.NewInt(2), n) == 1; got != test.twoIsSquare {
				t.Errorf("2 is a square: %t, want %t", got, test.twoIsSquare)
			}
		})
	}
}

// TestLookupProfile: only the three profiles exist, and the error lists them.
func TestLookupProfile(t *testing.T) {
	t.Parallel()
	if _, err := LookupProfile(DefaultProfile); err != nil {
		t.Error(err)
	}
	for _, name := range []string{
		"", "rfc5054-1024-sha1", "rfc5054-1536-sha256", "rfc5054-2048-sha1", "RFC5054-2048-SHA256", "rfc5054-2048-sha256 ",
	} {
		p, err := LookupProfile(name)
		if err == nil || p != nil {
			t.Errorf("profile %q exists", name)
			continue
		}
		for _, known := range []string{"rfc5054-2048-sha256", "rfc5054-3072-sha256", "rfc5054-4096-sha256"} {
			if !strings.Contains(err.Error(), known) {
				t.Errorf("error %q does not name %s", err, known)
			}
		}
	}
}

// TestGroupOnce: a group is made once in a process, even by concurrent calls.
func TestGroupOnce(t *testing.T) {
	t.Parallel()
	var made atomic.Int32
	p := *rfcProfile()
	p.group = sync.OnceValue(func() *group {
		return p.newGroup(p.selectKernel([]implementation{{"counted", func(int) bool { return true }, func([]byte, byte) kernel {
			made.Add(1)
			return kernelsOf(&p)["portable"]
		}}}))
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			p.Prepare(t.Context(), slog.New(slog.DiscardHandler))
			p.simulatedVerifier(bytesFor("secret", 0), "e3wfISG9")
			if _, err := p.NewClient("e3wfISG9", "Tb048aX1"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("%d tables were made", made.Load())
	}
	for _, p := range profiles {
		again, err := LookupProfile(p.name)
		if err != nil || again.group() != p.group() {
			t.Errorf("%s: another group when looked up: %v", p.name, err)
		}
	}
}
