package srp

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash"
	"math/big"
	"slices"
	"testing"
)

// TestServerEphemeral: b has 256 bits, B has the size of N, is reduced and not 0, and both
// differ each time.
func TestServerEphemeral(t *testing.T) {
	t.Parallel()
	for _, p := range arithmeticProfiles() {
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

// TestServerEphemeralRedraws: if B is 0 another b is drawn.
func TestServerEphemeralRedraws(t *testing.T) {
	t.Parallel()
	for _, p := range arithmeticProfiles() {
		o := oracleOf(p)
		first, second := bytesFor("b", 1), bytesFor("b", 2)
		// B = k*v + g^b = 0 for v = -g^b / k.
		v := new(big.Int).ModInverse(o.multiplier(), o.n)
		v = o.mod(v.Mul(v.Neg(v), o.exp(o.g, number(first))))
		forEachProfileKernel(t, p, func(t *testing.T, p *Profile) {
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

// TestServerEphemeralErrors: an invalid verifier is refused, and so is a lack of random bytes.
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

// TestServerVerifyRefuses: verify returns results only for the right evidence of exactly this
// exchange.
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
		// With these values a client can compute the right evidence without a password.
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

// forged returns the evidence that is right for the S of the server.
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

// TestForged: forged returns right evidence, so the tests that use it are about the value
// that they change only.
func TestForged(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	x, _ := honestExchange(t, p)
	if _, _, ok := p.verify(x, forged(p, x)); !ok {
		t.Error("forged evidence is wrong even for an honest exchange")
	}
}

// zeroHash is a hash whose result is 0 for inputs of one length.
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

// TestZeroScrambler: both sides stop if u, the scrambling parameter, is 0, even if the evidence would be right.
func TestZeroScrambler(t *testing.T) {
	t.Parallel()
	p := profileWith("u = 0", prime1024, 2, func() hash.Hash {
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
