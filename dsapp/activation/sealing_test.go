package activation_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

// spoil flips a bit of a sealed value.
func spoil(b []byte) { b[len(b)-1] ^= 1 }

// A stored value that no key opens is an alarm and ErrUnavailable, never a refusal, and
// never treated as unknown. The proof is settled all the same.
func TestUnopened(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, identifier string
		spoil            func(w *world, m *storetest.Model, e *storetest.Entry)
		call             func(w *world, p *phone) error
		calls            []string
	}{
		{"verifier", "e3wfISG9", func(_ *world, _ *storetest.Model, e *storetest.Entry) { spoil(e.Verifier) }, func(w *world, _ *phone) error {
			_, err := w.Begin(context.Background(), "e3wfISG9", "1234", home)
			return err
		}, []string{"Load"}},
		{"handshake", "e3wfISG9", func(_ *world, m *storetest.Model, _ *storetest.Entry) { spoil(m.Waiting("e3wfISG9")[0].State) }, func(_ *world, p *phone) error {
			_, err := p.prove()
			return err
		}, []string{"Take", "Settle"}},
		{"data", "e3wfISG9", func(_ *world, _ *storetest.Model, e *storetest.Entry) { spoil(e.Data) }, func(_ *world, p *phone) error {
			_, err := p.prove()
			return err
		}, []string{"Take", "Settle"}},
		{"facts at registration", "e3wfISG9", func(_ *world, _ *storetest.Model, e *storetest.Entry) { spoil(e.Facts) }, func(w *world, _ *phone) error {
			_, err := w.Register(context.Background(), w.mdl("e3wfISG9"))
			return err
		}, []string{"Create"}},
		{"facts at final call", "e3wfISG9", func(_ *world, _ *storetest.Model, e *storetest.Entry) { spoil(e.Facts) }, func(w *world, _ *phone) error {
			_, err := w.AdmitConfirmation(context.Background(), "e3wfISG9", activation.KindMDL)
			return err
		}, []string{"AdmitConfirmation", "ReturnConfirmation"}},
		{"facts at device", "e3wfISG9", func(_ *world, _ *storetest.Model, e *storetest.Entry) { spoil(e.Facts) }, func(w *world, _ *phone) error {
			_, err := w.AdmitDevice(context.Background(), "e3wfISG9")
			return err
		}, []string{"AdmitDevice", "ReturnDevice"}},
		{"simulation secret", "", func(w *world, m *storetest.Model, _ *storetest.Entry) { spoil(m.Secret); w.restart() }, func(w *world, _ *phone) error {
			_, err := w.Begin(context.Background(), "unknown-id", "1234", home)
			return err
		}, []string{"SimulationSecret"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.register(w.mdl("e3wfISG9"))
			if err := w.activate(r.Identifier, r.Password); err != nil {
				t.Fatal(err)
			}
			p := w.begin(r.Identifier, r.Password)
			w.store.Do(func(m *storetest.Model) { c.spoil(w, m, m.Entry("e3wfISG9")) })
			w.store.TakeCalls()
			err := c.call(w, p)
			if !errors.Is(err, activation.ErrUnavailable) || !errors.Is(err, seal.ErrUnopened) || errors.Is(err, activation.ErrRefused) {
				t.Errorf("got %v", err)
			}
			if a := w.takeAlarms(); len(a) != 1 || a[0] != "record_unopened "+c.identifier {
				t.Errorf("alarms %q", a)
			}
			if calls := w.store.TakeCalls(); !slices.Equal(calls, c.calls) {
				t.Errorf("store calls %v, want %v", calls, c.calls)
			}
			if c.name == "handshake" {
				w.peek(r.Identifier, func(e *storetest.Entry) {
					if len(e.InFlight) != 0 {
						t.Error("the proof is still in flight")
					}
				})
			}
			if c.name == "facts at device" {
				w.peek(r.Identifier, func(e *storetest.Entry) {
					if e.Rights != 1 {
						t.Error("the right was lost")
					}
				})
			}
		})
	}
}

// A sealed value does not open for another identifier, kind, generation or use, so that
// whoever can write to the store gains nothing by moving it.
func TestSealedValuesStayInPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		move func(mine, theirs *storetest.Entry)
	}{
		{"verifier of another registration", func(mine, theirs *storetest.Entry) { mine.Verifier = theirs.Verifier }},
		{"data as verifier", func(mine, _ *storetest.Entry) { mine.Verifier = mine.Data }},
		{"facts as verifier", func(mine, _ *storetest.Entry) { mine.Verifier = mine.Facts }},
		{"other generation", func(mine, _ *storetest.Entry) { mine.Generation[0] ^= 1 }},
		{"other kind", func(mine, _ *storetest.Entry) { mine.Kind = activation.KindStandard }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.register(w.mdl("mine-id"))
			w.register(w.mdl("theirs-id"))
			w.store.Do(func(m *storetest.Model) { c.move(m.Entry("mine-id"), m.Entry("theirs-id")) })
			if _, err := w.Begin(t.Context(), "mine-id", "1234", home); !errors.Is(err, seal.ErrUnopened) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("data of another registration", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		mine := w.register(w.mdl("mine-id"))
		w.register(w.mdl("theirs-id"))
		p := w.begin("mine-id", mine.Password)
		w.store.Do(func(m *storetest.Model) { m.Entry("mine-id").Data = m.Entry("theirs-id").Data })
		if proof, err := p.prove(); !errors.Is(err, seal.ErrUnopened) || proof != (activation.Proof{}) {
			t.Errorf("got %+v, %v", proof, err)
		}
	})
	t.Run("handshake of another registration", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.register(w.mdl("mine-id"))
		theirs := w.register(w.mdl("theirs-id"))
		p := w.begin("mine-id", "any password")
		w.begin("theirs-id", theirs.Password)
		w.last("mine-id").State = w.last("theirs-id").State
		if _, err := p.prove(); !errors.Is(err, seal.ErrUnopened) {
			t.Errorf("got %v", err)
		}
	})
}

// Sealing keys rotate in three steps, under running registrations and without a
// change of salts: added last, moved first, old one removed.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	salt := w.begin("unknown-id", "any password").challenge.Salt
	step := func(name string, resealed bool, keys ...byte) {
		t.Helper()
		before := bytes.Clone(w.secret())
		w.restart(func(c *activation.Config) { c.Open = opens(t, w.store, keys...) })
		w.store.TakeCalls()
		if got := w.begin("unknown-id", "any password").challenge.Salt; got != salt {
			t.Errorf("%s: the salt changed", name)
		}
		if bytes.Equal(before, w.secret()) == resealed {
			t.Errorf("%s: simulation secret sealed anew: %t", name, !resealed)
		}
		if slices.Contains(w.store.TakeCalls(), "ReplaceSimulationSecret") != resealed {
			t.Errorf("%s: the store was asked to replace the secret: %t", name, !resealed)
		}
	}
	step("added", false, 1, 2)
	p := w.begin(r.Identifier, r.Password)
	step("moved", true, 2, 1)
	if _, err := p.prove(); err != nil {
		t.Errorf("proof under the old key: %v", err)
	}
	if err := w.activate(r.Identifier, r.Password); err != nil {
		t.Errorf("registration under the old key: %v", err)
	}
	young := w.register(w.mdl("young-id"))
	step("removed", false, 2)
	if err := w.activate(young.Identifier, young.Password); err != nil {
		t.Errorf("registration under the new key: %v", err)
	}
	if _, err := w.Begin(t.Context(), r.Identifier, "1234", home); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("registration under the removed key: %v", err)
	}
}

// If the secret cannot be sealed again, the next call tries again. If another node was
// faster, its result is used.
func TestResealingSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	salt := w.begin("unknown-id", "any password").challenge.Salt
	w.restart(func(c *activation.Config) { c.Open = opens(t, w.store, 2, 1) })
	w.store.Fail("ReplaceSimulationSecret", errors.New("connection refused"))
	if _, err := w.Begin(t.Context(), "unknown-id", "1234", home); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	w.store.Fail("ReplaceSimulationSecret", nil)
	other, err := activation.New(w.config)
	if err != nil {
		t.Fatal(err)
	}
	w.store.Before("ReplaceSimulationSecret", hook(func() {
		w.store.Before("ReplaceSimulationSecret", nil)
		if _, err := other.Begin(t.Context(), "unknown-id", "1234", home); err != nil {
			t.Error(err)
		}
	}))
	if got := w.begin("unknown-id", "any password").challenge.Salt; got != salt {
		t.Error("the salt changed")
	}
	_, ring, _ := w.config.Open(t.Context())
	if !ring.Current(w.secret()) {
		t.Error("the secret is still under the old key")
	}
}

// Nodes that start at once on an empty store agree on one secret, and do not fetch it
// again.
func TestNodesAgreeOnSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := make([]*activation.Service, 3)
	for i := range nodes {
		var err error
		if nodes[i], err = activation.New(w.config); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	salts := make(map[string]bool)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			c, err := nodes[i%3].Begin(t.Context(), "unknown-id", "1234", home)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			salts[c.Salt] = true
		})
	}
	wg.Wait()
	if len(salts) != 1 {
		t.Errorf("%d different salts", len(salts))
	}
	w.store.TakeCalls()
	for _, node := range nodes {
		if _, err := node.Begin(t.Context(), "unknown-id", "1234", home); err != nil {
			t.Error(err)
		}
	}
	if slices.Contains(w.store.TakeCalls(), "SimulationSecret") {
		t.Error("a node asked for what it knew")
	}
}

// A node stores the secret again within a minute if the store has lost it, so that salts
// stay the same. It uses another secret that it finds in the store. If the store fails
// then, the known secret is used.
func TestSecretIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	salt := w.begin("unknown-id", "any password").challenge.Salt
	w.setSecret(nil)
	w.clock.Advance(activation.SecretRefresh - time.Second)
	w.begin("unknown-id", "any password")
	if w.secret() != nil {
		t.Error("looked at it too soon")
	}
	w.clock.Advance(time.Second)
	w.store.Fail("SimulationSecret", errors.New("no answer"))
	w.store.TakeCalls()
	if got := w.begin("unknown-id", "any password").challenge.Salt; got != salt {
		t.Error("the salt changed with a failure of the store")
	}
	if !slices.Contains(w.store.TakeCalls(), "SimulationSecret") {
		t.Error("the secret was not fetched again")
	}
	w.store.Fail("SimulationSecret", nil)
	w.clock.Advance(activation.SecretRefresh)
	w.begin("unknown-id", "any password")
	w.restart()
	if got := w.begin("unknown-id", "any password").challenge.Salt; got != salt {
		t.Error("the salt changed with the loss and a restart")
	}

	_, ring, err := w.config.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other, err := ring.Seal(activation.SecretLabel, make([]byte, activation.SecretSize))
	if err != nil {
		t.Fatal(err)
	}
	w.setSecret(other)
	w.clock.Advance(activation.SecretRefresh)
	if got := w.begin("unknown-id", "any password").challenge.Salt; got == salt {
		t.Error("the secret of the store was not taken over")
	}
}

// After a rotation, Prepare and Reserve seal the secret with the new first key without
// any exchange.
func TestKeyRotationWithoutTraffic(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(*world) error{
		"Prepare": func(w *world) error { return w.Prepare(w.t.Context()) },
		"Reserve": func(w *world) error { _, err := w.Reserve(w.t.Context()); return err },
	} {
		w := newWorld(t)
		salt := w.begin("unknown-id", "any password").challenge.Salt
		w.restart(func(c *activation.Config) { c.Open = opens(t, w.store, 2, 1) })
		if err := use(w); err != nil {
			t.Fatal(err)
		}
		w.restart(func(c *activation.Config) { c.Open = opens(t, w.store, 2) })
		if got := w.begin("unknown-id", "any password").challenge.Salt; got != salt {
			t.Errorf("%s: the salt changed", name)
		}
		// Without any of its keys nothing can be registered.
		w.restart(func(c *activation.Config) { c.Open = opens(t, w.store, 3) })
		if err := use(w); !errors.Is(err, activation.ErrUnavailable) || !errors.Is(err, seal.ErrUnopened) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Locate treats a subject that no key opens in the same way.
func TestUnopenedFactsAreNotLocated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(w.affinity("e3wfISG9"))
	w.peek("e3wfISG9", func(e *storetest.Entry) { spoil(e.Facts) })
	w.store.TakeCalls()
	a, err := w.Locate(t.Context(), "e3wfISG9")
	if !errors.Is(err, activation.ErrUnavailable) || !errors.Is(err, seal.ErrUnopened) || errors.Is(err, activation.ErrRefused) || a != (activation.Admission{}) {
		t.Errorf("got %+v, %v", a, err)
	}
	if a := w.takeAlarms(); !slices.Equal(a, []string{"record_unopened e3wfISG9"}) {
		t.Errorf("alarms %q", a)
	}
	if calls := w.store.TakeCalls(); !slices.Equal(calls, []string{"Load"}) {
		t.Errorf("store calls %v", calls)
	}
}

// Missing keys are treated like a store that cannot be used.
func TestOpenFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cause := errors.New("key file is gone")
	w.restart(func(c *activation.Config) {
		c.Open = func(context.Context) (activation.Store, *seal.Keyring, error) { return w.store, nil, cause }
	})
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"Register": func() error { _, err := w.Register(ctx, w.mdl("e3wfISG9")); return err },
		"Begin":    func() error { _, err := w.Begin(ctx, "e3wfISG9", "1234", home); return err },
		"Prove": func() error {
			_, err := w.Prove(ctx, "e3wfISG9", form.ClientEvidence(strings.Repeat("0", 64)), home)
			return err
		},
		"Locate":            func() error { _, err := w.Locate(ctx, "e3wfISG9"); return err },
		"AdmitDevice":       func() error { _, err := w.AdmitDevice(ctx, "e3wfISG9"); return err },
		"AdmitConfirmation": func() error { _, err := w.AdmitConfirmation(ctx, "e3wfISG9", activation.KindMDL); return err },
		"Reserve":           func() error { _, err := w.Reserve(ctx); return err },
		"Prepare":           func() error { return w.Prepare(ctx) },
	} {
		if err := call(); !errors.Is(err, activation.ErrUnavailable) || !errors.Is(err, cause) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if calls := w.store.TakeCalls(); len(calls) != 0 {
		t.Errorf("the store was asked: %v", calls)
	}
	// What was admitted is given back without keys; without a store it is not.
	a := activation.Admission{Identifier: "e3wfISG9"}
	if err := errors.Join(w.ReturnDevice(ctx, a), w.Complete(ctx, a)); err != nil {
		t.Error(err)
	}
	w.restart(func(c *activation.Config) {
		c.Open = func(context.Context) (activation.Store, *seal.Keyring, error) { return nil, nil, cause }
	})
	for _, err := range []error{w.ReturnDevice(ctx, a), w.Complete(ctx, a)} {
		if !errors.Is(err, activation.ErrUnavailable) || !errors.Is(err, cause) {
			t.Errorf("error %v", err)
		}
	}
}

// Secrets appear neither in the store nor in log, errors or alarms: not raw, in
// hexadecimal digits or in base64. Names do not appear there either.
func TestNoSecretLeaks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	var texts []string
	note := func(err error) {
		if err != nil {
			texts = append(texts, err.Error())
		}
	}
	const id = "e3wfISG9"
	r := w.register(w.mdl(id))
	standard := w.register(w.standard("standard-id"))
	proof, err := w.begin(id, r.Password).prove()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.begin("standard-id", standard.Password).prove(); err != nil {
		t.Fatal(err)
	}
	wrong := w.begin(id, "wrong password")
	_, err = wrong.prove()
	note(err)
	_, err = w.Register(ctx, activation.Registration{Identifier: id, Kind: activation.KindMDL, Subject: form.Subject{UserID: "john.doe", Instance: "primary"}, Data: w.mdl("").Data, Started: w.clock.Now()})
	note(err)
	_, err = w.Begin(ctx, id, "not hex at all", home)
	note(err)
	_, err = w.Prove(ctx, id, "not hex at all", home)
	note(err)
	w.peek(id, func(e *storetest.Entry) { spoil(e.Facts) })
	_, err = w.AdmitDevice(ctx, id)
	note(err)
	if len(texts) != 5 {
		t.Fatalf("%d errors", len(texts))
	}

	_, ring, err := w.config.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := ring.Open(activation.SecretLabel, w.secret())
	if err != nil {
		t.Fatal(err)
	}
	var plain []byte
	w.peek(id, func(e *storetest.Entry) {
		plain, err = ring.Open(activation.RecordLabel(activation.SealedVerifier, e.Record), e.Verifier)
	})
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{
		"password": []byte(r.Password), "standard password": []byte(standard.Password), "wrong password": []byte("wrong password"),
		"activation message": []byte(strings.ToUpper(message)), "activation message as given": []byte(message), "activation code": []byte("1234-5678"),
		"verifier": plain[32+srp.SaltSize:], "simulation secret": secret, "sealing key": testKey(1),
		"M1": digits.Decode(t, wrong.evidence), "M2": digits.Decode(t, proof.Evidence), "event counter": []byte("000042"),
	}
	everywhere := map[string][]byte{"store": w.store.Given(), "log": []byte(w.logs.String()), "errors": []byte(strings.Join(texts, "\n")), "alarms": []byte(strings.Join(w.takeAlarms(), "\n"))}
	for place, content := range everywhere {
		if len(content) == 0 {
			t.Errorf("%s is empty", place)
		}
		for what, value := range secrets {
			for _, form := range [][]byte{value, []byte(hex.EncodeToString(value)), []byte(fmt.Sprintf("%X", value)), []byte(base64.StdEncoding.EncodeToString(value)), []byte(base64.RawURLEncoding.EncodeToString(value))} {
				if bytes.Contains(content, form) {
					t.Errorf("%s holds the %s", place, what)
				}
			}
		}
		for _, name := range []string{"jane.doe", "john.doe", "mydomain.com", "VDS1000003", "not hex at all", home.Address, home.Application} {
			if bytes.Contains(content, []byte(name)) {
				t.Errorf("%s holds %s", place, name)
			}
		}
	}
}

// Each answer is encrypted with keys and counters of its own.
func TestAnswersDiffer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.standard(""))
	seen := make(map[string]bool)
	for range 3 {
		proof, err := w.begin(r.Identifier, r.Password).prove()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{proof.Evidence, proof.ActivationCode.Data, proof.ActivationCode.Counter, proof.ActivationCode.MAC, proof.EventReactivationCounter.Counter, proof.EventReactivationCounter.MAC} {
			if seen[s] {
				t.Errorf("%s repeated", s)
			}
			seen[s] = true
		}
	}
}
