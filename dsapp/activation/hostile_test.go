package activation_test

import (
	"context"
	"errors"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

// A value that a sealing key opens, but that this program never sealed, is treated like
// one that no key opens: with an alarm and ErrUnavailable. It is never a refusal or an
// unknown identifier and never causes a panic. Only a credential or handshake that names
// another profile belongs to that, and its identifier is unknown to the caller.
func TestSealedNonsense(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		// put seals the value anew, as something else.
		put  func(w *world, m *storetest.Model, e *storetest.Entry, reseal func(l seal.Label, sealed []byte) []byte)
		call func(w *world, p *phone) error
		// identifier of the alarm.
		identifier string
	}{
		"verifier": {func(_ *world, _ *storetest.Model, e *storetest.Entry, reseal func(seal.Label, []byte) []byte) {
			e.Verifier = reseal(activation.RecordLabel(activation.SealedVerifier, e.Record), e.Verifier)
		}, func(w *world, _ *phone) error {
			_, err := w.Begin(context.Background(), "e3wfISG9", "1234", home)
			return err
		}, "e3wfISG9"},
		"handshake": {func(_ *world, m *storetest.Model, e *storetest.Entry, reseal func(seal.Label, []byte) []byte) {
			h := m.Waiting("e3wfISG9")[0]
			h.State = reseal(activation.HandshakeLabel("e3wfISG9", e.Generation), h.State)
		}, func(_ *world, p *phone) error {
			_, err := p.prove()
			return err
		}, "e3wfISG9"},
		"data": {func(_ *world, _ *storetest.Model, e *storetest.Entry, reseal func(seal.Label, []byte) []byte) {
			e.Data = reseal(activation.RecordLabel(activation.SealedData, e.Record), e.Data)
		}, func(_ *world, p *phone) error {
			proof, err := p.prove()
			if proof != (activation.Proof{}) {
				return errors.New("a proof came with the error")
			}
			return err
		}, "e3wfISG9"},
		"facts at registration": {func(_ *world, _ *storetest.Model, e *storetest.Entry, reseal func(seal.Label, []byte) []byte) {
			e.Facts = reseal(activation.RecordLabel(activation.SealedFacts, e.Record), e.Facts)
		}, func(w *world, _ *phone) error {
			_, err := w.Register(context.Background(), w.mdl("e3wfISG9"))
			return err
		}, "e3wfISG9"},
		"facts at final call": {func(_ *world, _ *storetest.Model, e *storetest.Entry, reseal func(seal.Label, []byte) []byte) {
			e.Facts = reseal(activation.RecordLabel(activation.SealedFacts, e.Record), e.Facts)
		}, func(w *world, _ *phone) error {
			_, err := w.AdmitConfirmation(context.Background(), "e3wfISG9", activation.KindMDL)
			return err
		}, "e3wfISG9"},
		"simulation secret": {func(w *world, m *storetest.Model, _ *storetest.Entry, reseal func(seal.Label, []byte) []byte) {
			m.Secret = reseal(activation.SecretLabel, m.Secret)
			w.restart()
		}, func(w *world, _ *phone) error {
			_, err := w.Begin(context.Background(), "unknown-id", "1234", home)
			return err
		}, ""},
	} {
		for how, change := range map[string]func([]byte) []byte{
			"nothing":       func([]byte) []byte { return nil },
			"one byte":      func(b []byte) []byte { return b[:1] },
			"cut short":     func(b []byte) []byte { return b[:len(b)-1] },
			"prolonged":     func(b []byte) []byte { return append(b, 0) },
			"all ones":      func(b []byte) []byte { return slices.Repeat([]byte{0xff}, len(b)) },
			"other profile": func(b []byte) []byte { return append([]byte("rfc5054-8192-sha256\x00"), b[min(len(b), 20):]...) },
		} {
			named := how == "all ones" || how == "other profile"
			if what == "simulation secret" && named {
				// Any 32 bytes are a secret.
				continue
			}
			t.Run(what+" "+how, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r := w.register(w.mdl("e3wfISG9"))
				if err := w.activate(r.Identifier, r.Password); err != nil {
					t.Fatal(err)
				}
				p := w.begin(r.Identifier, r.Password)
				_, ring, err := w.config.Open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				reseal := func(l seal.Label, sealed []byte) []byte {
					plaintext, err := ring.Open(l, sealed)
					if err != nil {
						t.Fatal(err)
					}
					sealed, err = ring.Seal(l, change(plaintext))
					if err != nil {
						t.Fatal(err)
					}
					return sealed
				}
				w.store.Do(func(m *storetest.Model) { c.put(w, m, m.Entry("e3wfISG9"), reseal) })
				err = c.call(w, p)
				if named && (what == "verifier" || what == "handshake") {
					if a := w.takeAlarms(); err != nil && !same(err, activation.ErrRefused) || len(a) > 0 {
						t.Errorf("got %v, alarms %q", err, a)
					}
					return
				}
				if !errors.Is(err, activation.ErrUnavailable) || errors.Is(err, activation.ErrRefused) {
					t.Errorf("got %v", err)
				}
				if a := w.takeAlarms(); len(a) != 1 || a[0] != "record_unopened "+c.identifier {
					t.Errorf("alarms %q", a)
				}
			})
		}
	}
}

// For everything that a phone may send in the two calls: values of the wrong form fail
// before the store is called, for every identifier in the same way. Values of the right
// form get an answer of the same form, whether they make sense or not.
func FuzzCalls(f *testing.F) {
	w := newWorld(f)
	n, ok := new(big.Int).SetString(prime, 16)
	if !ok {
		f.Fatal("no prime")
	}
	registered := w.register(w.mdl("e3wfISG9"))
	for _, identifier := range []string{"", "abc", "abcd", string(registered.Identifier), "E3wfISG9", "../..", "a;bc", "abc\x00", "über", strings.Repeat("a", 64), strings.Repeat("a", 65)} {
		f.Add(identifier, "2", strings.Repeat("0", 64))
	}
	for _, digits := range []string{"", "0", "1", "02", "-2", "0x2", " 2", "2_2", "g", "é", n.Text(16), strings.Repeat("0", 512), strings.Repeat("0", 511) + "2", strings.Repeat("f", 512), strings.Repeat("0", 513), "00" + strings.Repeat("f", 64), "01" + strings.Repeat("f", 64), "000" + strings.Repeat("f", 64), "a"} {
		f.Add("e3wfISG9", digits, digits)
	}
	for _, d := range []int64{-2, -1, 1} {
		f.Add("e3wfISG9", new(big.Int).Add(n, big.NewInt(d)).Text(16), strings.Repeat("aF", 32))
	}
	hexadecimal := regexp.MustCompile(`\A[0-9A-Fa-f]+\z`)
	last := new(big.Int).Sub(n, big.NewInt(1))
	f.Fuzz(func(t *testing.T, text, public, evidence string) {
		identifier, err := form.Parse[form.Identifier](text)
		if err != nil {
			return
		}
		inOrder := func(call string, err error, inForm bool, member string, asked []string) bool {
			t.Helper()
			invalid, ok := errors.AsType[*activation.InvalidError](err)
			switch {
			case !inForm && (!ok || invalid.Member != member):
				t.Fatalf("%s: %v, want an error about %s", call, err, member)
			case !inForm && len(asked) > 0:
				t.Fatalf("%s: the store was asked for %v", call, asked)
			case inForm && ok:
				t.Fatalf("%s: %v", call, err)
			}
			return inForm
		}
		a := new(big.Int)
		inForm := len(public) <= 514 && hexadecimal.MatchString(public)
		if inForm {
			a.SetString(public, 16)
			inForm = a.Cmp(big.NewInt(1)) > 0 && a.Cmp(last) < 0
		}
		w.store.TakeCalls()
		c, err := w.Begin(context.Background(), identifier, form.ClientPublic(public), home)
		if inOrder("first call", err, inForm, "clientEphemeralPublicKey", w.store.TakeCalls()) {
			if err != nil || len(digits.Decode(t, c.ServerPublic)) != 256 || len(digits.Decode(t, c.Salt)) != 16 || strings.ToUpper(c.ServerPublic+c.Salt) != c.ServerPublic+c.Salt {
				t.Fatalf("first call: %+v, %v", c, err)
			}
		} else if c != (activation.Challenge{}) {
			t.Fatalf("a challenge came with %v", err)
		}

		p, err := w.Prove(context.Background(), identifier, form.ClientEvidence(evidence), home)
		m1, isNumber := new(big.Int).SetString(evidence, 16)
		inForm = len(evidence) <= 66 && hexadecimal.MatchString(evidence) && isNumber && m1.BitLen() <= 256
		if inOrder("second call", err, inForm, "clientEvidenceMessage", w.store.TakeCalls()) {
			refused(t, p, err)
		} else if p != (activation.Proof{}) {
			t.Fatalf("a proof came with %v", err)
		}
	})
}
