package srp

import (
	"bytes"
	"crypto/rand"
	"io"
	"math/big"
	"slices"
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

// compare runs both sides of an exchange with the inputs of r and compares every value that
// they send or return with r.
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

// ephemeral is the server's key pair b, B of one exchange.
type ephemeral struct{ private, public []byte }

func (p *Profile) newEphemeral(verifier []byte, random io.Reader) (ephemeral, error) {
	b := make([]byte, PrivateSize+p.Size())
	e := ephemeral{b[:PrivateSize:PrivateSize], b[PrivateSize:]}
	if err := p.generateEphemeral(e.private, e.public, verifier, random); err != nil {
		return ephemeral{}, err
	}
	return e, nil
}

// TestExchange: exchanges agree with the oracle, with every group and kernel.
func TestExchange(t *testing.T) {
	t.Parallel()
	for _, p := range arithmeticProfiles() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for n := range 3 {
				r := oracleOf(p).exchange("e3wfISG9", "Tb048aX1", bytesFor("salt", n)[:SaltSize], bytesFor("a", n), bytesFor("b", n))
				if r.clientS.Cmp(r.serverS) != 0 {
					t.Fatal("the two formulas of the oracle differ")
				}
				forEachProfileKernel(t, p, func(t *testing.T, p *Profile) { compare(t, p, r) })
			}
		})
	}
}

// TestExchangeProperty: exchanges with any input agree with the oracle, in the smallest group.
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

// TestLeadingZeros: values that begin with a zero byte are padded in B, u, K, M1 and M2. Each
// case searches for inputs that lead to such a value, and starts the search at known ones.
// Hashing without padding must give another M1, or the case would prove nothing.
func TestLeadingZeros(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		start [4]int
		zero  func(o oracle, r transcript) bool
		// hashed is true if the value is a number that is padded and hashed.
		hashed bool
	}{
		{"A", [4]int{14, 44, 29, 812}, func(o oracle, r transcript) bool { return o.fixed(r.A)[0] == 0 }, true},
		{"B", [4]int{455, 0, 120, 459}, func(o oracle, r transcript) bool { return o.fixed(r.B)[0] == 0 }, true},
		{"S", [4]int{15, 227, 203, 44}, func(o oracle, r transcript) bool { return o.fixed(r.serverS)[0] == 0 }, true},
		{"salt", [4]int{38, 38, 38, 38}, func(_ oracle, r transcript) bool { return r.salt[0] == 0 }, false},
		{"M1", [4]int{127, 246, 335, 216}, func(_ oracle, r transcript) bool { return r.M1[0] == 0 }, false},
	}
	for _, c := range cases {
		for i, p := range arithmeticProfiles() {
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
				forEachProfileKernel(t, p, func(t *testing.T, p *Profile) { compare(t, p, r) })

				o.stripped = true
				s := o.exchange(r.identity, r.password, r.salt, r.a.Bytes(), r.b.Bytes())
				if c.hashed == bytes.Equal(r.M1, s.M1) {
					t.Errorf("M1 without padding is the same: %t", !c.hashed)
				}
			})
		}
	}
}

// TestInputsUnchanged: no call changes or clears its arguments.
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
