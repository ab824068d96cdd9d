package srp

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// honestExchange returns the server's side of an exchange with a client that knows the
// password, and the client's evidence.
func honestExchange(t testing.TB, p *Profile) (exchange, []byte) {
	t.Helper()
	const identity, password = "e3wfISG9", "Tb048aX1"
	salt := bytesFor("salt", 0)[:SaltSize]
	v := p.Verifier(identity, password, salt)
	c, err := p.NewClient(identity, password)
	if err != nil {
		t.Fatal(err)
	}
	e, err := p.newEphemeral(v, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	evidence, err := c.Prove(salt, e.public)
	if err != nil {
		t.Fatal(err)
	}
	return exchange{
		identity: identity, salt: salt, verifier: v, clientPublic: c.Public(),
		private: e.private, serverPublic: e.public,
	}, evidence
}

// failer is what *testing.T and *rapid.T have in common.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// compare runs both sides of the package on the inputs of r and compares every
// value that leaves them with r.
func compare(t failer, p *Profile, r transcript) {
	t.Helper()
	o := oracleOf(p)
	check := func(name string, got, want []byte) {
		t.Helper()
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %s = %X, want %X", p.name, name, got, want)
		}
	}
	v := p.Verifier(r.identity, r.password, r.salt)
	check("v", v, o.fixed(r.v))
	c, err := p.newClient(r.identity, r.password, bytes.NewReader(r.a.FillBytes(make([]byte, PrivateSize))))
	if err != nil {
		t.Fatalf("new client: %v", err)
	}
	check("A", c.Public(), o.fixed(r.A))
	parsed, err := p.ParsePublic(r.A.Text(16))
	if err != nil {
		t.Fatalf("parse A: %v", err)
	}
	check("A as parsed", parsed, o.fixed(r.A))
	e, err := p.newEphemeral(v, bytes.NewReader(r.b.FillBytes(make([]byte, PrivateSize))))
	if err != nil {
		t.Fatalf("server ephemeral: %v", err)
	}
	check("b", e.private, r.b.FillBytes(make([]byte, PrivateSize)))
	check("B", e.public, o.fixed(r.B))
	evidence, err := c.Prove(r.salt, e.public)
	if err != nil {
		t.Fatalf("prove: %v", err)
	}
	check("M1", evidence, r.M1)
	key, m2, ok := p.verify(exchange{
		identity: r.identity, salt: r.salt, verifier: v, clientPublic: parsed,
		private: e.private, serverPublic: e.public,
	}, r.M1)
	if !ok {
		t.Fatalf("evidence is refused")
	}
	check("K of the server", key, r.K)
	check("M2", m2, r.M2)
	key, err = c.Confirm(r.M2)
	if err != nil {
		t.Fatalf("confirm: %v", err)
	}
	check("K of the client", key, r.K)
}

// pair is the server's part of an exchange.
type ephemeral struct{ private, public []byte }

func (p *Profile) newEphemeral(verifier []byte, random io.Reader) (ephemeral, error) {
	b := make([]byte, PrivateSize+p.Size())
	e := ephemeral{b[:PrivateSize:PrivateSize], b[PrivateSize:]}
	if err := p.generateEphemeral(e.private, e.public, verifier, random); err != nil {
		return ephemeral{}, err
	}
	return e, nil
}

// TestExchange compares whole exchanges with the oracle, on every group and kernel.
func TestExchange(t *testing.T) {
	t.Parallel()
	for _, p := range allProfiles() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for n := range 3 {
				r := oracleOf(p).exchange("e3wfISG9", "Tb048aX1", bytesFor("salt", n)[:SaltSize], bytesFor("a", n), bytesFor("b", n))
				if r.clientS.Cmp(r.serverS) != 0 {
					t.Fatal("the two formulas of the oracle differ")
				}
				forEachServingKernel(t, p, func(t *testing.T, p *Profile) { compare(t, p, r) })
			}
		})
	}
}

// TestExchangeProperty compares exchanges over any input with the oracle, on the
// smallest group.
func TestExchangeProperty(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ -~]{4,64}`)
		private := rapid.SliceOfN(rapid.Byte(), PrivateSize, PrivateSize).Filter(func(b []byte) bool {
			return number(b).Cmp(big.NewInt(1)) > 0
		})
		salt := rapid.SliceOfN(rapid.Byte(), SaltSize, SaltSize)
		compare(t, p, oracleOf(p).exchange(
			text.Draw(t, "identity"), text.Draw(t, "password"), salt.Draw(t, "salt"), private.Draw(t, "a"), private.Draw(t, "b")))
	})
}

// TestLeadingZeros: values that begin with a zero byte stay padded in B, u, K,
// M1 and M2. The hit of each search is where it starts, so it ends at once;
// hashing without padding must give another M1, or the case would prove nothing.
func TestLeadingZeros(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		start [4]int
		zero  func(o oracle, r transcript) bool
		// hashed tells that the value is a number, which padding is about.
		hashed bool
	}{
		{"A", [4]int{14, 44, 29, 812}, func(o oracle, r transcript) bool { return o.fixed(r.A)[0] == 0 }, true},
		{"B", [4]int{455, 0, 120, 459}, func(o oracle, r transcript) bool { return o.fixed(r.B)[0] == 0 }, true},
		{"S", [4]int{15, 227, 203, 44}, func(o oracle, r transcript) bool { return o.fixed(r.serverS)[0] == 0 }, true},
		{"salt", [4]int{38, 38, 38, 38}, func(_ oracle, r transcript) bool { return r.salt[0] == 0 }, false},
		{"M1", [4]int{127, 246, 335, 216}, func(_ oracle, r transcript) bool { return r.M1[0] == 0 }, false},
	}
	for _, c := range cases {
		for i, p := range allProfiles() {
			t.Run(c.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				o := oracleOf(p)
				n := c.start[i]
				var r transcript
				for {
					r = o.exchange("e3wfISG9", "Tb048aX1", bytesFor("salt "+c.name, n)[:SaltSize], bytesFor("a "+c.name, n), bytesFor("b "+c.name, n))
					if c.zero(o, r) {
						break
					}
					n++
				}
				if n != c.start[i] {
					t.Errorf("the search from %d ended at %d", c.start[i], n)
				}
				forEachServingKernel(t, p, func(t *testing.T, p *Profile) { compare(t, p, r) })

				o.stripped = true
				s := o.exchange(r.identity, r.password, r.salt, r.a.Bytes(), r.b.Bytes())
				if c.hashed == bytes.Equal(r.M1, s.M1) {
					t.Errorf("M1 without padding is the same: %t", !c.hashed)
				}
			})
		}
	}
}

// edges returns the public values that everybody could compute a key for, or
// that are no numbers of the group, and the two next to them that are fine.
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

// TestParsePublicRange: only 1 < A < N-1 passes, nothing is reduced, and what
// passes is padded.
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

// TestParseErrors: each fault of a text has its own name, and the error does not
// repeat the text.
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

// TestOversizedRefusedFirst: texts over the limit cost neither arithmetic nor
// memory.
func TestOversizedRefusedFirst(t *testing.T) {
	p := newProfile("no arithmetic", prime2048, 2, sha256.New)
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

// TestParseProperty: every number in range comes back from any of its texts, and
// every evidence from both cases.
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

// TestServerEphemeral: B has the full length, is reduced, is not 0 and differs
// from draw to draw, as does b with its 256 bits.
func TestServerEphemeral(t *testing.T) {
	t.Parallel()
	for _, p := range allProfiles() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			v := p.Verifier("e3wfISG9", "Tb048aX1", bytesFor("salt", 0)[:SaltSize])
			n := number(p.prime)
			seen := map[string]bool{}
			for range 40 {
				e, err := p.newEphemeral(v, rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				if len(e.private) != PrivateSize || len(e.public) != p.Size() {
					t.Fatalf("b has %d bytes, B has %d", len(e.private), len(e.public))
				}
				if B := number(e.public); B.Sign() == 0 || B.Cmp(n) >= 0 {
					t.Fatal("B is 0 or not reduced")
				}
				if seen[string(e.private)] || seen[string(e.public)] {
					t.Fatal("b or B repeats")
				}
				seen[string(e.private)], seen[string(e.public)] = true, true
			}
		})
	}
}

// TestServerEphemeralRedraws: a b that makes B = 0 is not used.
func TestServerEphemeralRedraws(t *testing.T) {
	t.Parallel()
	for _, p := range allProfiles() {
		o := oracleOf(p)
		first, second := bytesFor("b", 1), bytesFor("b", 2)
		// B = k*v + g^b = 0 for v = -g^b / k.
		v := new(big.Int).ModInverse(o.multiplier(), o.n)
		v = o.mod(v.Mul(v.Neg(v), o.exp(o.g, number(first))))
		forEachServingKernel(t, p, func(t *testing.T, p *Profile) {
			e, err := p.newEphemeral(o.fixed(v), bytes.NewReader(slices.Concat(first, second)))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(e.private, second) {
				t.Errorf("%s: b was not drawn again", p.name)
			}
			if want := o.fixed(o.public(v, number(second))); !bytes.Equal(e.public, want) {
				t.Errorf("%s: B = %X, want %X", p.name, e.public, want)
			}
		})
	}
}

// TestServerEphemeralErrors: a verifier that no password has is refused, and no
// pair is made without random bytes.
func TestServerEphemeralErrors(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	refused, _ := edges(p)
	for name, v := range refused {
		if _, err := p.newEphemeral(v.FillBytes(make([]byte, p.Size())), rand.Reader); err == nil {
			t.Errorf("v = %s is taken", name)
		}
	}
	for _, n := range []int{0, p.Size() - 1, p.Size() + 1} {
		if _, err := p.newEphemeral(bytes.Repeat([]byte{3}, n), rand.Reader); err == nil {
			t.Errorf("v of %d bytes is taken", n)
		}
	}
	v := p.simulatedVerifier(bytesFor("secret", 0), "e3wfISG9")
	if e, err := p.newEphemeral(v, bytes.NewReader(make([]byte, PrivateSize-1))); err == nil || e.private != nil {
		t.Error("a pair was made from too few random bytes")
	}
	if c, err := p.newClient("e3wfISG9", "Tb048aX1", bytes.NewReader(make([]byte, PrivateSize-1))); err == nil || c != nil {
		t.Error("a client was made from too few random bytes")
	}
}

// TestServerVerifyRefuses: nothing but the right evidence for exactly this
// exchange gives a session; the values of a refused exchange yield nothing.
func TestServerVerifyRefuses(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	x, evidence := honestExchange(t, p)
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
		return b
	}
	wide := func(n *big.Int) []byte { return n.FillBytes(make([]byte, p.Size())) }
	tests := map[string]func(x *exchange, evidence *[]byte){
		"other identity": func(x *exchange, _ *[]byte) { x.identity = "e3wfISG8" },
		"no identity":    func(x *exchange, _ *[]byte) { x.identity = "" },
		"other salt":     func(x *exchange, _ *[]byte) { x.salt = flip(x.salt) },
		"other verifier": func(x *exchange, _ *[]byte) { x.verifier = flip(x.verifier) },
		"other A":        func(x *exchange, _ *[]byte) { x.clientPublic = flip(x.clientPublic) },
		"other B":        func(x *exchange, _ *[]byte) { x.serverPublic = flip(x.serverPublic) },
		"other b":        func(x *exchange, _ *[]byte) { x.private = flip(x.private) },
		"short salt":     func(x *exchange, m *[]byte) { x.salt = x.salt[1:]; *m = forged(p, *x) },
		"long salt":      func(x *exchange, m *[]byte) { x.salt = append(bytes.Clone(x.salt), 0); *m = forged(p, *x) },
		"short verifier": func(x *exchange, _ *[]byte) { x.verifier = x.verifier[1:] },
		"long verifier":  func(x *exchange, _ *[]byte) { x.verifier = append([]byte{0}, x.verifier...) },
		"short A":        func(x *exchange, _ *[]byte) { x.clientPublic = x.clientPublic[1:] },
		"long A":         func(x *exchange, _ *[]byte) { x.clientPublic = append([]byte{0}, x.clientPublic...) },
		"short B":        func(x *exchange, m *[]byte) { x.serverPublic = x.serverPublic[1:]; *m = forged(p, *x) },
		"long B": func(x *exchange, m *[]byte) {
			x.serverPublic = append([]byte{0}, x.serverPublic...)
			*m = forged(p, *x)
		},
		"short b":              func(x *exchange, _ *[]byte) { x.private = x.private[1:] },
		"long b":               func(x *exchange, _ *[]byte) { x.private = append([]byte{0}, x.private...) },
		"nothing":              func(x *exchange, _ *[]byte) { *x = exchange{} },
		"no evidence":          func(_ *exchange, m *[]byte) { *m = nil },
		"short evidence":       func(_ *exchange, m *[]byte) { *m = (*m)[:len(*m)-1] },
		"long evidence":        func(_ *exchange, m *[]byte) { *m = append(bytes.Clone(*m), 0) },
		"zero evidence":        func(_ *exchange, m *[]byte) { *m = make([]byte, len(*m)) },
		"evidence, first bit":  func(_ *exchange, m *[]byte) { *m = bytes.Clone(*m); (*m)[0] ^= 0x80 },
		"evidence, last bit":   func(_ *exchange, m *[]byte) { *m = flip(*m) },
		"verifier of no one":   func(x *exchange, _ *[]byte) { x.verifier = p.simulatedVerifier(bytesFor("s", 0), x.identity) },
		"verifier not reduced": func(x *exchange, _ *[]byte) { x.verifier = bytes.Repeat([]byte{0xFF}, p.Size()) },
	}
	refused, _ := edges(p)
	for name, n := range refused {
		// With these the evidence of a client that knows no password would be right.
		tests["A = "+name] = func(x *exchange, m *[]byte) {
			x.clientPublic = wide(n)
			*m = forged(p, *x)
		}
		tests["v = "+name] = func(x *exchange, m *[]byte) {
			x.verifier = wide(n)
			*m = forged(p, *x)
		}
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			y, m := x, evidence
			change(&y, &m)
			if key, m2, ok := p.verify(y, m); ok || key != nil || m2 != nil {
				t.Error("a session was made")
			}
		})
	}
	key, m2, ok := p.verify(x, evidence)
	if !ok || len(key) != p.hash().Size() || len(m2) != p.hash().Size() {
		t.Error("the unchanged exchange is refused")
	}
}

// forged returns the evidence for the S that the server computes.
func forged(p *Profile, x exchange) []byte {
	o := oracleOf(p)
	A, v := number(x.clientPublic), number(x.verifier)
	u := number(o.h(x.clientPublic, x.serverPublic))
	key := o.h(o.fixed(o.serverS(A, v, u, number(x.private))))
	label := o.h(o.n.Bytes())
	for i, c := range o.h(o.g.Bytes()) {
		label[i] ^= c
	}
	return o.h(label, o.h([]byte(x.identity)), x.salt, x.clientPublic, x.serverPublic, key)
}

// TestForged: forged computes evidence that is right, so that the cases built
// with it are refused for the value and nothing else.
func TestForged(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	x, _ := honestExchange(t, p)
	if _, _, ok := p.verify(x, forged(p, x)); !ok {
		t.Error("forged evidence is wrong even for an honest exchange")
	}
}

// zeroHash is a hash that gives 0 for inputs of one length.
type zeroHash struct {
	hash.Hash
	length, written int
}

func (h *zeroHash) Write(b []byte) (int, error) {
	h.written += len(b)
	return h.Hash.Write(b)
}

func (h *zeroHash) Reset() {
	h.written = 0
	h.Hash.Reset()
}

func (h *zeroHash) Sum(b []byte) []byte {
	if h.written == h.length {
		return append(b, make([]byte, h.Size())...)
	}
	return h.Hash.Sum(b)
}

// TestZeroScrambler: with a hash that makes u = 0 both sides stop, though the
// evidence would be right.
func TestZeroScrambler(t *testing.T) {
	t.Parallel()
	p := newProfile("u = 0", prime1024, 2, func() hash.Hash {
		// Only u is the hash of exactly A and B.
		return &zeroHash{Hash: sha256.New(), length: 2 * len(prime1024) / 2}
	})
	salt := bytesFor("salt", 0)[:SaltSize]
	v := p.Verifier("e3wfISG9", "Tb048aX1", salt)
	c, err := p.NewClient("e3wfISG9", "Tb048aX1")
	if err != nil {
		t.Fatal(err)
	}
	e, err := p.newEphemeral(v, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Prove(salt, e.public); !errors.Is(err, ErrServerPublicInvalid) {
		t.Errorf("client: error %v, want %v", err, ErrServerPublicInvalid)
	}

	x := exchange{
		identity: "e3wfISG9", salt: salt, verifier: v, clientPublic: c.Public(),
		private: e.private, serverPublic: e.public,
	}
	w := p.acquireWorkspace()
	defer w.release()
	w.serverPremasterSecret(x)
	w.setKeyAndEvidence(x.identity, salt, x.clientPublic, x.serverPublic, w.x)
	evidence := w.m1
	if key, _, ok := p.verify(x, evidence); ok || key != nil {
		t.Error("server: u = 0 is taken")
	}
}

// TestClientText: identity and password are checked before anything is computed,
// and errors do not repeat them.
func TestClientText(t *testing.T) {
	t.Parallel()
	const good = "Tb048aX1"
	tests := []struct {
		identity, password string
		want               error
	}{
		{"", good, ErrIdentityMissing},
		{"abc", good, ErrIdentityLength},
		{strings.Repeat("a", 65), good, ErrIdentityLength},
		{"caf\u00e9s", good, ErrIdentityNotASCII},
		{good, "", ErrPasswordMissing},
		{good, "abc", ErrPasswordLength},
		{good, strings.Repeat("a", 65), ErrPasswordLength},
		{good, "caf\u00e9s", ErrPasswordNotASCII},
		{good, "\x80aaa", ErrPasswordNotASCII},
		{"abcd", "abcd", nil},
		{strings.Repeat("a", 64), strings.Repeat("a", 64), nil},
	}
	for _, test := range tests {
		c, err := rfcProfile().NewClient(test.identity, test.password)
		if !errors.Is(err, test.want) || (c == nil) != (err != nil) {
			t.Errorf("NewClient(%q, %q): error %v, want %v", test.identity, test.password, err, test.want)
		}
	}
}

// TestClientProveRefuses: the client stops at every unusable answer, before its
// password enters anything, and has no second try with the same a.
func TestClientProveRefuses(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	salt := bytesFor("salt", 0)[:SaltSize]
	good := p.pad([]byte{9})
	top := bytes.Repeat([]byte{0xFF}, p.Size())
	next := bytes.Clone(p.prime)
	next[len(next)-1]++
	tests := []struct {
		name         string
		salt, public []byte
		want         error
	}{
		{"no salt", nil, good, ErrSaltMissing},
		{"short salt", salt[1:], good, ErrSaltLength},
		{"long salt", append(bytes.Clone(salt), 0), good, ErrSaltLength},
		{"no B", salt, nil, ErrServerPublicMissing},
		{"short B", salt, good[1:], ErrServerPublicInvalid},
		{"long B", salt, append([]byte{0}, good...), ErrServerPublicTooLong},
		{"B = 0", salt, make([]byte, p.Size()), ErrServerPublicInvalid},
		{"B = N", salt, p.prime, ErrServerPublicInvalid},
		{"B = N+1", salt, next, ErrServerPublicInvalid},
		{"B = 2^bits-1", salt, top, ErrServerPublicInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, err := p.NewClient("e3wfISG9", "Tb048aX1")
			if err != nil {
				t.Fatal(err)
			}
			m, err := c.Prove(test.salt, test.public)
			if !errors.Is(err, test.want) || m != nil {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if m, err := c.Prove(salt, good); err == nil || m != nil {
				t.Error("a second answer is taken")
			}
			if key, err := c.Confirm(make([]byte, EvidenceSize)); err == nil || key != nil {
				t.Error("a key was given")
			}
		})
	}
}

// TestClientConfirm: K is given once, for the right M2 only.
func TestClientConfirm(t *testing.T) {
	t.Parallel()
	p := profiles[0]
	r := oracleOf(p).exchange("e3wfISG9", "Tb048aX1", bytesFor("salt", 0)[:SaltSize], bytesFor("a", 0), bytesFor("b", 0))
	wrong := bytes.Clone(r.M2)
	wrong[0] ^= 1
	tests := []struct {
		name     string
		evidence []byte
		want     error
	}{
		{"none", nil, ErrServerEvidenceMissing},
		{"short", r.M2[1:], ErrServerEvidenceLength},
		{"long", append(bytes.Clone(r.M2), 0), ErrServerEvidenceLength},
		{"wrong", wrong, ErrServerEvidenceMismatch},
		{"M1", r.M1, ErrServerEvidenceMismatch},
	}
	prepare := func(t *testing.T) *Client {
		c, err := p.newClient(r.identity, r.password, bytes.NewReader(r.a.FillBytes(make([]byte, PrivateSize))))
		if err != nil {
			t.Fatal(err)
		}
		if key, err := c.Confirm(r.M2); err == nil || key != nil {
			t.Error("M2 is taken before M1 was made")
		}
		if _, err := c.Prove(r.salt, oracleOf(p).fixed(r.B)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := prepare(t)
			if key, err := c.Confirm(test.evidence); !errors.Is(err, test.want) || key != nil {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if key, err := c.Confirm(r.M2); err == nil || key != nil {
				t.Error("a second evidence is taken")
			}
		})
	}
	c := prepare(t)
	if key, err := c.Confirm(r.M2); err != nil || !bytes.Equal(key, r.K) {
		t.Errorf("K = %X, %v", key, err)
	}
	if key, err := c.Confirm(r.M2); err == nil || key != nil {
		t.Error("K is given twice")
	}
}

// TestClientForgetsSecrets: after its last step a client holds neither a, nor
// password, nor K.
func TestClientForgetsSecrets(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	salt := bytesFor("salt", 0)[:SaltSize]
	c, err := p.NewClient("e3wfISG9", "Tb048aX1")
	if err != nil {
		t.Fatal(err)
	}
	if isZero(c.private[:]) {
		t.Error("a is 0 from the start")
	}
	if _, err := c.Prove(salt, p.pad([]byte{9})); err != nil {
		t.Fatal(err)
	}
	key := c.key
	if _, err := c.Confirm(make([]byte, len(c.expected))); !errors.Is(err, ErrServerEvidenceMismatch) {
		t.Fatal(err)
	}
	if !isZero(c.private[:]) || c.password != "" || c.key != nil || !isZero(key) {
		t.Error("a secret is still there")
	}
}

// TestSalt is the formula of the profile, and that neighbours do not collide.
func TestSalt(t *testing.T) {
	t.Parallel()
	secret := bytesFor("secret", 0)
	salt := profiles[0].Salt(secret, "e3wfISG9")
	// HMAC by its definition, RFC 2104; the key is shorter than a block.
	inner, outer := bytes.Repeat([]byte{0x36}, 64), bytes.Repeat([]byte{0x5C}, 64)
	for i, b := range secret {
		inner[i] ^= b
		outer[i] ^= b
	}
	h := sha256.Sum256(append(inner, "saltrfc5054-2048-sha256e3wfISG9"...))
	h = sha256.Sum256(append(outer, h[:]...))
	wantBytes(t, "salt", salt, h[:16])

	for name, other := range map[string][]byte{
		"identity": profiles[0].Salt(secret, "e3wfISG8"),
		"profile":  profiles[1].Salt(secret, "e3wfISG9"),
		"secret":   profiles[0].Salt(bytesFor("secret", 1), "e3wfISG9"),
	} {
		if bytes.Equal(salt, other) {
			t.Errorf("the salt does not depend on the %s", name)
		}
	}
	wantBytes(t, "salt again", profiles[0].Salt(secret, "e3wfISG9"), salt)
}

// TestSaltIsANumber: no salt loses a byte where it is read as a number.
func TestSaltIsANumber(t *testing.T) {
	t.Parallel()
	secret := bytesFor("secret", 0)
	one := false
	for i := range 2000 {
		salt := profiles[0].Salt(secret, fmt.Sprint("identity", i))
		if len(salt) != SaltSize || salt[0] == 0 {
			t.Fatalf("salt %X", salt)
		}
		one = one || salt[0] == 1
	}
	if !one {
		t.Error("no salt begins with 1")
	}
}

// TestSimulatedVerifier: always the same for an identity, different for every
// other input, below N, and a B and a refusal like any other.
func TestSimulatedVerifier(t *testing.T) {
	t.Parallel()
	secret := bytesFor("secret", 0)
	seen := map[string]string{}
	for _, p := range profiles {
		for n := range 20 {
			identity := fmt.Sprintf("identity%d", n)
			v := p.simulatedVerifier(secret, identity)
			if len(v) != p.Size() || v[0]&0x80 != 0 || !p.inRange(v) {
				t.Fatalf("%s: %d bytes, in range: %t", p.name, len(v), p.inRange(v))
			}
			if !bytes.Equal(v, p.simulatedVerifier(secret, identity)) {
				t.Fatal("the verifier changes")
			}
			start := string(v[:64])
			if other, ok := seen[start]; ok {
				t.Fatalf("%s and %s share a verifier", identity, other)
			}
			seen[start] = identity
		}
		a, b := p.simulatedVerifier(secret, "e3wfISG9"), p.simulatedVerifier(bytesFor("secret", 1), "e3wfISG9")
		if bytes.Equal(a, b) {
			t.Error("the verifier does not depend on the secret")
		}
	}

	p := profiles[0]
	x, evidence := honestExchange(t, p)
	x.verifier = p.simulatedVerifier(secret, x.identity)
	e, err := p.newEphemeral(x.verifier, rand.Reader)
	if err != nil || len(e.public) != p.Size() || len(e.private) != PrivateSize {
		t.Fatal(err)
	}
	x.private, x.serverPublic = e.private, e.public
	if _, _, ok := p.verify(x, evidence); ok {
		t.Error("evidence for a simulated verifier is taken")
	}
}

// TestInputsUnchanged: no call writes into what it was given; the wiping stays
// inside.
func TestInputsUnchanged(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	x, evidence := honestExchange(t, p)
	all := func() []byte {
		return slices.Concat([]byte(x.identity), x.salt, x.verifier, x.clientPublic, x.private, x.serverPublic, evidence, p.prime)
	}
	before := all()
	for range 2 {
		if _, _, ok := p.verify(x, evidence); !ok {
			t.Fatal("evidence is refused")
		}
		if _, err := p.newEphemeral(x.verifier, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(before, all()) {
		t.Error("an input was changed")
	}
}
