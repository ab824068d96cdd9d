package activation

import (
	"bytes"
	"crypto/rand"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// Every subject can be encoded and decoded.
func TestFactsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 60, 255)
		f := form.Subject{UserID: text.Draw(t, "user"), Domain: text.Draw(t, "domain"), SerialNumber: text.Draw(t, "serial"), Instance: text.Draw(t, "instance")}
		got, ok := decodeSubject(encodeSubject(f))
		if !ok || got != f {
			t.Fatalf("got %+v, %t, want %+v", got, ok, f)
		}
	})
}

// The size of a stored value depends only on its profile. Only that profile takes the value for
// its own.
func TestStoredSizes(t *testing.T) {
	t.Parallel()
	for _, p := range srp.Profiles() {
		credential := len(p.Credential(make([]byte, secretSize), "e3wfISG9", "Tb048aX1"))
		if credential != 16+p.Size() || p.StateSize() != 16+32+3*p.Size() {
			t.Errorf("%s: a credential of %d bytes, a state of %d", p.Name(), credential, p.StateSize())
		}
		b, value := withName(p, credential)
		rand.Read(value)
		for _, q := range srp.Profiles() {
			again, own, ok := splitName(q, bytes.Clone(b))
			if len(b) != 32+credential || !ok || own != (q == p) || !bytes.Equal(again, value) {
				t.Errorf("%s read as %s: %d bytes, %t, %t", p.Name(), q.Name(), len(b), own, ok)
			}
		}
	}
}

// usable reports whether an exchange with the record can succeed.
func TestUsable(t *testing.T) {
	t.Parallel()
	good := Record{Kind: KindMDL, Verifier: []byte{1}, Lifetime: 1}
	for name, c := range map[string]struct {
		change func(*Record)
		want   bool
	}{
		"mdl":         {func(*Record) {}, true},
		"standard":    {func(r *Record) { r.Kind = KindStandard }, true},
		"affinity":    {func(r *Record) { r.Kind = KindAffinity }, false},
		"simulated":   {func(r *Record) { r.Kind = KindSimulated }, false},
		"no verifier": {func(r *Record) { r.Verifier = nil }, false},
		"expired":     {func(r *Record) { r.Lifetime = 0 }, false},
		"tombstone":   {func(r *Record) { r.Lifetime = -1 }, false},
	} {
		r := good
		c.change(&r)
		if r.usable() != c.want {
			t.Errorf("%s: usable %t", name, r.usable())
		}
	}
}

// Everything that can be decoded is encoded to the same bytes again. Nothing causes a
// panic.
func FuzzDecode(f *testing.F) {
	ps := allProfiles()
	f.Add([]byte(nil))
	f.Add(encodeSubject(form.Subject{UserID: "jane", Domain: "domain", Instance: "primary"}))
	for _, size := range []int{16 + 256, 1 + ps[0].StateSize()} {
		b, _ := withName(ps[0], size)
		f.Add(b)
	}
	f.Add([]byte{0, 3, 'a'})
	f.Add(append([]byte("rfc5054-2048-sha256"), make([]byte, 13)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		again := func(what string, got []byte) {
			if !bytes.Equal(got, b) {
				t.Fatalf("%s: %x came back as %x", what, b, got)
			}
		}
		if x, ok := decodeSubject(b); ok {
			again("facts", encodeSubject(x))
		}
		for _, p := range ps {
			if value, own, ok := splitName(p, b); ok && own {
				b, room := withName(p, len(value))
				copy(room, value)
				again("value of "+p.Name(), b)
			}
		}
	})
}

// allProfiles returns the supported profiles in any order.
func allProfiles() (ps []Profile) {
	for _, p := range srp.Profiles() {
		ps = append(ps, p)
	}
	return ps
}
