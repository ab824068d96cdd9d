package activation_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

// states set up every state of an identifier in which an exchange cannot succeed, and
// return the password to use.
var states = []struct {
	name  string
	setup func(w *world, identifier string) (password string)
}{
	{"wrong password", func(w *world, id string) string { w.register(w.mdl(form.Identifier(id))); return "wrong password" }},
	{"wrong password, standard licence", func(w *world, id string) string { w.register(w.standard(form.Identifier(id))); return "wrong password" }},
	{"unknown", func(w *world, id string) string { return "any password" }},
	{"another profile", func(w *world, id string) string {
		return w.registerAs(w.config.Profiles[1].Name(), w.mdl(form.Identifier(id))).Password
	}},
	{"wrong password, several handshakes", func(w *world, id string) string {
		w.register(w.mdl(form.Identifier(id)))
		w.beginEverywhere(form.Identifier(id))
		return "wrong password"
	}},
	{"unknown, several handshakes", func(w *world, id string) string {
		w.beginEverywhere(form.Identifier(id))
		return "any password"
	}},
	{"probed before", func(w *world, id string) string {
		p, err := w.begin(form.Identifier(id), "any password").prove()
		refused(w.t, p, err)
		return "any password"
	}},
	{"probed until burned", func(w *world, id string) string { w.burn(form.Identifier(id)); return "any password" }},
	{"burned", func(w *world, id string) string {
		r := w.register(w.mdl(form.Identifier(id)))
		w.burn(form.Identifier(id))
		return r.Password
	}},
	{"tombstone", func(w *world, id string) string {
		r := w.register(w.mdl(form.Identifier(id)))
		w.burn(form.Identifier(id))
		w.clock.Advance(w.registrationLifetime)
		return r.Password
	}},
	{"expired", func(w *world, id string) string {
		r := w.register(w.mdl(form.Identifier(id)))
		w.clock.Advance(w.registrationLifetime)
		return r.Password
	}},
	{"affinity", func(w *world, id string) string { w.register(w.affinity(form.Identifier(id))); return "any password" }},
	{"completed", func(w *world, id string) string {
		r := w.register(w.mdl(form.Identifier(id)))
		if err := w.activate(form.Identifier(id), r.Password); err != nil {
			w.t.Fatal(err)
		}
		a, err := w.AdmitConfirmation(context.Background(), form.Identifier(id), activation.KindMDL)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.Complete(context.Background(), a); err != nil {
			w.t.Fatal(err)
		}
		return r.Password
	}},
	{"no activation left", func(w *world, id string) string {
		r := w.register(w.mdl(form.Identifier(id)))
		for range w.maxActivations {
			if err := w.activate(form.Identifier(id), r.Password); err != nil {
				w.t.Fatal(err)
			}
		}
		return r.Password
	}},
}

// Whatever the reason, both calls answer in the same form and leave the same
// traces: the same store calls, a handshake of the same size and lifetime, the
// same refusal. Only the operator's log tells.
func TestRefusalsAreAlike(t *testing.T) {
	t.Parallel()
	for _, state := range states {
		t.Run(state.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			const id = "e3wfISG9"
			password := state.setup(w, id)
			w.activate("other-id", "everything lazy happens here")
			w.store.TakeCalls()
			w.takeAlarms()

			p := w.begin(id, password)
			if calls := w.store.TakeCalls(); !slices.Equal(calls, []string{"Load", "PutHandshake"}) {
				t.Errorf("first call asked the store for %v", calls)
			}
			if len(p.challenge.ServerPublic) != 512 || len(p.challenge.Salt) != 32 {
				t.Errorf("challenge %+v", p.challenge)
			}
			if h := w.last(id); len(h.State) != 32+1+16+32+3*256+49 || h.Lifetime != w.handshakeLifetime || h.RecordLifetime != w.registrationLifetime {
				t.Errorf("handshake of %d bytes for %v, record for %v", len(h.State), h.Lifetime, h.RecordLifetime)
			}

			proof, err := p.prove()
			refused(t, proof, err)
			if calls := w.store.TakeCalls(); !slices.Equal(calls, []string{"Take", "Settle", "Load"}) {
				t.Errorf("second call asked the store for %v", calls)
			}
			proof, err = p.prove()
			refused(t, proof, err)
			if calls := w.store.TakeCalls(); !slices.Equal(calls, []string{"Take", "Settle", "Load"}) {
				t.Errorf("a repeated second call asked the store for %v", calls)
			}
			if a := w.takeAlarms(); len(a) != 0 {
				t.Errorf("alarms %v", a)
			}
		})
	}
}

// Attempts for an unknown identifier are counted like those for a known one: after the
// same number of wrong proofs no more are taken, until the registration lifetime has
// passed.
func TestUnknownIsCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(w.mdl("known-id"))
	for _, id := range []string{"known-id", "unknown-id"} {
		taken := 0
		for range 5 {
			p := w.begin(form.Identifier(id), "wrong password")
			refusedNow(t, p)
			w.peek(form.Identifier(id), func(e *storetest.Entry) { taken = e.Reserved })
		}
		if taken != 3 {
			t.Errorf("%s: %d attempts were taken", id, taken)
		}
		w.peek(form.Identifier(id), func(e *storetest.Entry) {
			if !e.Burned || e.Lifetime != w.registrationLifetime {
				t.Errorf("%s: burned %t, ends in %v", id, e.Burned, e.Lifetime)
			}
		})
	}
}

func refusedNow(t *testing.T, p *phone) {
	t.Helper()
	proof, err := p.prove()
	refused(t, proof, err)
}

// The salt of an identifier is the same in every state, at every call, after a restart
// and on every node. It differs from those of other identifiers, and of the same
// identifier in another store.
func TestSaltIsStable(t *testing.T) {
	t.Parallel()
	seen := make(map[string]string)
	w := newWorld(t)
	const id = "e3wfISG9"
	want := w.begin(id, "any password").challenge.Salt
	check := func(when string) {
		t.Helper()
		for range 2 {
			c := w.begin(id, "any password").challenge
			if c.Salt != want {
				t.Errorf("%s: the salt changed", when)
			}
			if before, ok := seen[c.ServerPublic]; ok {
				t.Errorf("%s: B is that of %s", when, before)
			}
			seen[c.ServerPublic] = when
		}
	}
	check("unknown")
	w.burn(id)
	check("probed")
	w.restart()
	check("restarted")
	w.register(w.affinity(id))
	check("affinity")
	w.register(activation.Registration{Identifier: id, Kind: activation.KindStandard, Subject: form.Subject{UserID: "jane.doe", Instance: "backup"}, Data: w.standard("").Data, Started: w.clock.Now()})
	check("standard")
	other := w.Service
	w.restart(func(c *activation.Config) { c.MaxAttempts = 1 })
	r := activation.Registration{Identifier: id, Kind: activation.KindMDL, Subject: form.Subject{UserID: "jane.doe", Instance: "backup"}, Data: w.mdl("").Data, Started: w.clock.Now()}
	w.register(r)
	check("registered by another node")
	w.Service = other
	check("on the first node")
	w.burn(id)
	check("burned")
	w.clock.Advance(w.registrationLifetime)
	check("tombstone")
	w.clock.Advance(activation.TombstoneLifetime)
	check("gone")

	if w.begin("e3wfISGA", "any password").challenge.Salt == want {
		t.Error("another identifier has the same salt")
	}
	if newWorld(t).begin(id, "any password").challenge.Salt == want {
		t.Error("another store gives the same salt")
	}
}

// The salt is the documented function of simulation secret, profile and identifier. It
// never begins with a zero byte, because some clients treat it as a number.
func TestSaltFormula(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ring, err := w.config.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.begin("any-id", "any password") // makes the secret
	secret, err := ring.Open(activation.SecretLabel, w.secret())
	if err != nil || len(secret) != 32 {
		t.Fatalf("%d bytes, %v", len(secret), err)
	}
	inner, outer := bytes.Repeat([]byte{0x36}, 64), bytes.Repeat([]byte{0x5c}, 64)
	subtle.XORBytes(inner, inner, secret)
	subtle.XORBytes(outer, outer, secret)
	for i, zero := 0, false; !zero; i++ {
		identifier := fmt.Sprint("id-", i)
		h := sha256.Sum256(append(bytes.Clone(inner), "saltrfc5054-2048-sha256"+identifier...))
		h = sha256.Sum256(append(bytes.Clone(outer), h[:]...))
		if zero = h[0] == 0; zero {
			h[0] = 1
		} else if i > 0 {
			continue
		}
		want := strings.ToUpper(hex.EncodeToString(h[:16]))
		simulated := w.begin(form.Identifier(identifier), "any password").challenge.Salt
		registered := w.begin(form.Identifier(identifier), w.register(w.mdl(form.Identifier(identifier))).Password).challenge.Salt
		if simulated != want || registered != want {
			t.Errorf("%s: salts %s and %s, want %s", identifier, simulated, registered, want)
		}
	}
}

// MaxAttempts wrong proofs burn a registration and wipe its secrets, so that the right
// password is refused too. A right proof gives its attempt back.
func TestBurning(t *testing.T) {
	t.Parallel()
	for _, attempts := range []int{1, 2, 3, 7} {
		w := newWorld(t, func(c *activation.Config) { c.MaxAttempts, c.MaxActivations = attempts, 100 })
		r := w.register(w.mdl("e3wfISG9"))
		for range attempts - 1 {
			refusedNow(t, w.begin(r.Identifier, "wrong password"))
			if err := w.activate(r.Identifier, r.Password); err != nil {
				t.Fatalf("%d attempts: %v", attempts, err)
			}
		}
		refusedNow(t, w.begin(r.Identifier, "wrong password"))
		refusedNow(t, w.begin(r.Identifier, r.Password))
		w.peek(r.Identifier, func(e *storetest.Entry) {
			if !e.Burned || e.Verifier != nil || e.Data != nil {
				t.Errorf("%d attempts: burned %t, verifier of %d bytes", attempts, e.Burned, len(e.Verifier))
			}
		})
	}
}

// First calls, proofs without a handshake and proofs for a handshake that has ended do
// not count.
func TestWhatDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.MaxAttempts = 1 })
	r := w.register(w.mdl("e3wfISG9"))
	for range 10 {
		w.begin(r.Identifier, "wrong password")
	}
	p := w.begin(r.Identifier, "wrong password")
	w.clock.Advance(w.handshakeLifetime)
	refusedNow(t, p)
	for range 10 {
		proof, err := w.Prove(t.Context(), r.Identifier, form.ClientEvidence(strings.Repeat("5", 64)), home)
		refused(t, proof, err)
	}
	if err := w.activate(r.Identifier, r.Password); err != nil {
		t.Error(err)
	}
}

// A new first call replaces the handshake before it.
func TestNewHandshakeReplaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	old := w.begin(r.Identifier, r.Password)
	current := w.begin(r.Identifier, r.Password)
	refusedNow(t, old)
	refusedNow(t, current) // its handshake went with the proof before
	if err := w.activate(r.Identifier, r.Password); err != nil {
		t.Error(err)
	}
}

// A handshake is used for one proof only, also if many arrive at once: then exactly one
// succeeds.
func TestHandshakeServesOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.MaxActivations = 100 })
	r := w.register(w.mdl("e3wfISG9"))
	p := w.begin(r.Identifier, r.Password)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			proof, err := p.prove()
			if err == nil {
				won.Add(1)
				return
			}
			refused(t, proof, err)
		})
	}
	wg.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d of 8 proofs of one handshake were accepted", n)
	}
	refusedNow(t, p)
}

// After a new registration under the identifier, the handshake of an earlier one is
// refused and its proof is not counted.
func TestHandshakeOfEarlierRegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.MaxAttempts = 1 })
	first := w.register(w.mdl("e3wfISG9"))
	p := w.begin(first.Identifier, first.Password)
	second := w.register(w.mdl("e3wfISG9"))
	refusedNow(t, p)
	refusedNow(t, w.begin(first.Identifier, "wrong password"))
	refusedNow(t, w.begin(second.Identifier, second.Password))

	third := w.register(w.mdl("e3wfISG9"))
	if err := w.activate(third.Identifier, third.Password); err != nil {
		t.Error(err)
	}
}

// A first call that raced with the registration leaves a simulated handshake, which does
// not affect the registration.
func TestSimulatedHandshakeMeetsRegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.MaxAttempts = 1 })
	p := w.begin("e3wfISG9", "any password")
	saved := w.last("e3wfISG9")
	r := w.register(w.mdl("e3wfISG9"))
	w.store.Do(func(m *storetest.Model) { m.Handshakes["e3wfISG9"] = []*storetest.Handshake{saved} })
	refusedNow(t, p)
	if err := w.activate(r.Identifier, r.Password); err != nil {
		t.Error(err)
	}
}

// Even evidence that is right for a simulated exchange is refused. Nobody should be able
// to compute it, but the refusal does not depend on that.
func TestRightEvidenceOfSimulatedExchange(t *testing.T) {
	t.Parallel()
	w, book := newWorld(t), newLedger()
	w.restart(func(c *activation.Config) { c.Open = opens(t, audited{w.store, book}, 1) })
	p := w.begin("e3wfISG9", "any password")
	_, ring, err := w.config.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put := func(genuine byte) {
		// A handshake whose verifier belongs to the password.
		salt, _ := hex.DecodeString(p.challenge.Salt)
		credential := append(salt, w.profile.Verifier("e3wfISG9", "the password", salt)...)
		p.client, err = w.profile.NewClient("e3wfISG9", "the password")
		if err != nil {
			t.Fatal(err)
		}
		plaintext, handshake := activation.WithName(w.profile, 1+w.profile.StateSize())
		handshake[0] = genuine
		public, _, err := w.profile.Begin(handshake[1:], credential, p.client.Public())
		if err != nil {
			t.Fatal(err)
		}
		m1, err := p.client.Prove(salt, digits.Decode(t, public))
		if err != nil {
			t.Fatal(err)
		}
		p.evidence = hex.EncodeToString(m1)
		h := w.last("e3wfISG9")
		if h.State, err = ring.Seal(activation.HandshakeLabel("e3wfISG9", h.Generation), plaintext); err != nil {
			t.Fatal(err)
		}
	}
	saved := *w.last("e3wfISG9")
	put(0)
	refusedNow(t, p)
	if book.won["e3wfISG9"]+book.superseded["e3wfISG9"] != 0 {
		t.Error("the store was told of a right proof")
	}
	w.store.Do(func(m *storetest.Model) { m.Handshakes["e3wfISG9"] = []*storetest.Handshake{&saved} })
	put(1) // the store still knows that the record is simulated
	refusedNow(t, p)
}

// MaxActivations right proofs succeed, further ones are refused.
func TestMaxActivations(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		w := newWorld(t, func(c *activation.Config) { c.MaxActivations = n })
		r := w.register(w.mdl("e3wfISG9"))
		for range n {
			if err := w.activate(r.Identifier, r.Password); err != nil {
				t.Fatal(err)
			}
		}
		refusedNow(t, w.begin(r.Identifier, r.Password))
	}
}

// Counters survive a restart.
func TestCountersSurviveRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	for range 3 {
		refusedNow(t, w.begin(r.Identifier, "wrong password"))
		w.restart()
	}
	refusedNow(t, w.begin(r.Identifier, r.Password))
}

// Two calls of one exchange may reach two nodes.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	w.restart()
	p := w.begin(r.Identifier, r.Password)
	w.restart()
	if _, err := p.prove(); err != nil {
		t.Error(err)
	}
}

// A proof is settled even if its client leaves while or after its handshake is taken. A
// wrong one is counted, a right one is not, and none stays in flight.
func TestClientLeavesDuringProof(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "after"} {
		for _, right := range []bool{true, false} {
			clientLeaves(t, when, right)
		}
	}
	// Who has gone before takes nothing.
	w := newWorld(t)
	p := w.begin("unknown-id", "any password")
	ctx, leave := context.WithCancel(t.Context())
	leave()
	w.store.TakeCalls()
	if _, err := w.Prove(ctx, "unknown-id", form.ClientEvidence(p.evidence), home); !errors.Is(err, activation.ErrUnavailable) || slices.Contains(w.store.TakeCalls(), "Take") {
		t.Errorf("got %v", err)
	}
}

func clientLeaves(t *testing.T, when string, right bool) {
	t.Helper()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	password := "wrong password"
	if right {
		password = r.Password
	}
	p := w.begin(r.Identifier, password)
	ctx, leave := context.WithCancel(t.Context())
	map[string]func(string, storetest.Hook){"before": w.store.Before, "after": w.store.After}[when]("Take", hook(leave))
	_, err := w.Prove(ctx, r.Identifier, form.ClientEvidence(p.evidence), home)
	if right != (err == nil) {
		t.Errorf("right %t: %v", right, err)
	}
	w.peek(r.Identifier, func(e *storetest.Entry) {
		if len(e.InFlight) != 0 || right != (e.Activations == 1) || right != (e.Reserved == 0) {
			t.Errorf("right %t: %d in flight, %d reserved, %d activations", right, len(e.InFlight), e.Reserved, e.Activations)
		}
	})
}

// There is no answer before the settlement, and none if the store fails.
func TestStoreFailures(t *testing.T) {
	t.Parallel()
	cause := errors.New("connection refused")
	for _, method := range []string{"Create", "Load", "PutHandshake", "Take", "Settle", "AdmitDevice", "ReturnDevice", "AdmitConfirmation", "ReturnConfirmation", "Remove", "SimulationSecret"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ctx := t.Context()
			r := w.register(w.mdl("e3wfISG9"))
			if err := w.activate(r.Identifier, r.Password); err != nil {
				t.Fatal(err)
			}
			p := w.begin(r.Identifier, r.Password)
			w.store.TakeCalls()
			if method == "SimulationSecret" {
				w.restart()
			}
			w.store.Fail(method, cause)
			calls := map[string]func() (any, error){
				"Create":           func() (any, error) { return w.Register(ctx, w.mdl("e3wfISG9")) },
				"Load":             func() (any, error) { return w.Begin(ctx, "e3wfISG9", "1234", home) },
				"PutHandshake":     func() (any, error) { return w.Begin(ctx, "e3wfISG9", "1234", home) },
				"SimulationSecret": func() (any, error) { return w.Begin(ctx, "e3wfISG9", "1234", home) },
				"Take":             func() (any, error) { return p.prove() },
				"Settle":           func() (any, error) { return p.prove() },
				"AdmitDevice":      func() (any, error) { return w.AdmitDevice(ctx, "e3wfISG9") },
				"ReturnDevice": func() (any, error) {
					return activation.Admission{}, w.ReturnDevice(ctx, activation.Admission{Identifier: "e3wfISG9"})
				},
				"AdmitConfirmation": func() (any, error) { return w.AdmitConfirmation(ctx, "e3wfISG9", activation.KindMDL) },
				"ReturnConfirmation": func() (any, error) {
					return activation.Admission{}, w.ReturnConfirmation(ctx, activation.Admission{Identifier: "e3wfISG9"})
				},
				"Remove": func() (any, error) {
					return activation.Admission{}, w.Complete(ctx, activation.Admission{Identifier: "e3wfISG9"})
				},
			}
			got, err := calls[method]()
			if !errors.Is(err, activation.ErrUnavailable) || !errors.Is(err, cause) || errors.Is(err, activation.ErrRefused) || !reflect.ValueOf(got).IsZero() {
				t.Errorf("got %+v, %v", got, err)
			}
			w.store.Fail(method, nil)
			if method == "SimulationSecret" || method == "Load" || method == "PutHandshake" {
				if _, err := calls[method](); err != nil {
					t.Errorf("after the store is back: %v", err)
				}
			}
		})
	}
}

// If the store fails after a refusal, the error is that of the store.
func TestRefusalNeedsStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.store.Fail("Load", errors.New("connection refused"))
	for name, call := range map[string]func(context.Context, form.Identifier) (activation.Admission, error){"AdmitDevice": w.AdmitDevice, "Locate": w.Locate} {
		if a, err := call(t.Context(), "e3wfISG9"); !errors.Is(err, activation.ErrUnavailable) || errors.Is(err, activation.ErrRefused) || a != (activation.Admission{}) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

// The lifetime of a simulated record is that of a registration.
func TestSimulatedStateEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.RegistrationLifetime = time.Minute })
	w.burn("e3wfISG9")
	w.clock.Advance(time.Minute + activation.TombstoneLifetime)
	w.peek("e3wfISG9", func(e *storetest.Entry) {
		if e != nil {
			t.Error("simulated record is still there")
		}
	})
}

// Registrations survive the loss of the simulation secret, because the salt is stored
// with the verifier.
func TestSaltIsKeptWithVerifier(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	w.setSecret(nil)
	w.restart()
	if err := w.activate(r.Identifier, r.Password); err != nil {
		t.Error(err)
	}
}

// Only handshakes of identifiers that nobody registered are marked as simulated, so that
// a store knows what it may drop. They have the generation of the record, if there is
// one.
func TestSimulatedIsMarked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(w.mdl("mdl-id"))
	w.register(w.standard("standard-id"))
	w.register(w.affinity("affinity-id"))
	w.register(w.mdl("burned-id"))
	w.burn("burned-id")
	w.burn("probed-id")
	for id, want := range map[string]bool{"mdl-id": false, "standard-id": false, "affinity-id": false, "burned-id": false, "probed-id": true, "unknown-id": true} {
		w.begin(form.Identifier(id), "any password")
		h := w.last(id)
		if h.Simulated != want {
			t.Errorf("%s: simulated %t", id, h.Simulated)
		}
		w.peek(form.Identifier(id), func(e *storetest.Entry) {
			if e != nil && h.Generation != e.Generation || h.Generation == (activation.Generation{}) {
				t.Errorf("%s: generation %x", id, h.Generation)
			}
		})
	}
}

// A store that hangs delays the calls that do not end with the request for a few seconds
// at most.
func TestDetachedCallsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.Before("Remove", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		ctx, leave := context.WithCancel(t.Context())
		leave()
		start := time.Now()
		if err := w.Complete(ctx, activation.Admission{Identifier: "e3wfISG9"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("the call took %v", d)
		}
	})
}
