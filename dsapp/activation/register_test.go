package activation

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// Which registration may take the place of which: the same instance, user and
// domain may, also a tombstone's; another may not. That is no alarm.
func TestReplacing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		before   func(w *world)
		change   func(*Registration)
		replaced bool
	}{
		{"nothing before", nil, nil, true},
		{"same registrant", func(w *world) { w.register(w.mdl("e3wfISG9")) }, nil, true},
		{"other licence and data", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *Registration) {
			r.SerialNumber, r.Data.ActivationMessage = "VDS1000004", "00"
		}, true},
		{"other user", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *Registration) { r.UserID = "john.doe" }, false},
		{"user in other case", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *Registration) { r.UserID = "Jane.doe" }, false},
		{"other domain", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *Registration) { r.Domain = "" }, false},
		{"other instance", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *Registration) { r.Instance = "backup" }, false},
		{"parts moved", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *Registration) { r.UserID, r.Domain = "jane.doemydomain", ".com" }, false},
		{"burned, same registrant", func(w *world) { w.register(w.mdl("e3wfISG9")); w.burn("e3wfISG9") }, nil, true},
		{"burned, other user", func(w *world) { w.register(w.mdl("e3wfISG9")); w.burn("e3wfISG9") }, func(r *Registration) { r.UserID = "john.doe" }, false},
		{"tombstone, other user", func(w *world) {
			w.register(w.mdl("e3wfISG9"))
			w.burn("e3wfISG9")
			w.clock.advance(w.registrationLifetime)
		}, func(r *Registration) { r.UserID = "john.doe" }, false},
		{"expired, other user", func(w *world) { w.register(w.mdl("e3wfISG9")); w.clock.advance(w.registrationLifetime) }, func(r *Registration) { r.UserID = "john.doe" }, true},
		{"probed", func(w *world) { w.activate("e3wfISG9", "any password") }, nil, true},
		{"probed until burned", func(w *world) { w.burn("e3wfISG9") }, nil, true},
		{"kept by mdlRegister", func(w *world) {
			r := w.affinity("e3wfISG9")
			r.Domain, r.Instance = "mydomain.com", "primary"
			w.register(r)
		}, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if c.before != nil {
				c.before(w)
			}
			r := w.mdl("e3wfISG9")
			if c.change != nil {
				c.change(&r)
			}
			before := w.begin("e3wfISG9", "any password")
			got, err := w.Register(t.Context(), r)
			if a := w.takeAlarms(); len(a) != 0 {
				t.Errorf("alarms %v", a)
			}
			if !c.replaced {
				if !same(err, ErrExists) || got != (Registered{}) {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			refusedNow(t, before)
			p := w.begin("e3wfISG9", got.Password)
			proof, err := p.prove()
			if err != nil {
				t.Fatal(err)
			}
			if d := p.open(proof); d.ActivationMessage != form.ActivationMessage(strings.ToUpper(string(r.Data.ActivationMessage))) {
				t.Errorf("got %+v", d)
			}
		})
	}
}

// Replacing resets attempts and activations, and ends the old password.
func TestReplacingResets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.register(w.mdl("e3wfISG9"))
	w.activate("e3wfISG9", old.Password)
	w.burn("e3wfISG9")
	r := w.register(w.mdl("e3wfISG9"))
	refusedNow(t, w.begin("e3wfISG9", old.Password))
	refusedNow(t, w.begin("e3wfISG9", old.Password))
	for range 3 {
		if err := w.activate("e3wfISG9", r.Password); err != nil {
			t.Fatal(err)
		}
	}
}

// Between the refusal to create and the replacement, somebody else may register:
// then it is judged against that one.
func TestReplacingMeetsAnother(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		user string
		want error
	}{{"jane.doe", nil}, {"john.doe", ErrExists}} {
		w := newWorld(t)
		w.register(w.mdl("e3wfISG9"))
		once := make(chan struct{}, 1)
		once <- struct{}{}
		w.store.after["Create"] = func() {
			select {
			case <-once:
				w.store.mu.Lock()
				defer w.store.mu.Unlock()
				_, ring, _ := w.opener(t.Context())
				r := Record{Identifier: "e3wfISG9", Generation: random16(), Kind: KindMDL, Lifetime: time.Minute}
				r.Facts, _ = ring.Seal(recordLabel(sealedFacts, r), encodeSubject(form.Subject{UserID: c.user, Domain: "mydomain.com", Instance: "primary"}))
				w.store.records["e3wfISG9"] = &stored{Record: r, expires: w.clock.now().Add(time.Minute), inFlight: map[Token]bool{}}
			default:
			}
		}
		if _, err := w.Register(t.Context(), w.mdl("e3wfISG9")); !same(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.user, err, c.want)
		}
	}
}

// Registrations of one identifier that never rest end in an error, not in a loop.
func TestReplacingGivesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(w.mdl("e3wfISG9"))
	w.store.after["Create"] = func() {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		e := w.store.records["e3wfISG9"]
		_, ring, _ := w.opener(t.Context())
		f, _ := ring.Open(recordLabel(sealedFacts, e.Record), e.Facts)
		e.Generation = random16()
		e.Facts, _ = ring.Seal(recordLabel(sealedFacts, e.Record), f)
	}
	if _, err := w.Register(t.Context(), w.mdl("e3wfISG9")); !same(err, ErrExists) {
		t.Errorf("got %v", err)
	}
}

// A drawn identifier that is taken is drawn again, never replaced; if all are
// taken it is an error.
func TestDrawnIdentifierCollides(t *testing.T) {
	t.Parallel()
	for _, taken := range []int{1, 3, 1000} {
		w := newWorld(t)
		w.config.Open = opens(t, &crowded{memory: w.store, left: taken}, 1)
		w.restart()
		got, err := w.Register(t.Context(), w.standard(""))
		if taken == 1000 {
			if err == nil || errors.Is(err, ErrExists) || errors.Is(err, ErrUnavailable) {
				t.Errorf("got %+v, %v", got, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := w.activate(got.Identifier, got.Password); err != nil {
			t.Error(err)
		}
		if a := w.takeAlarms(); len(a) != 0 {
			t.Errorf("alarms %v", a)
		}
	}
}

// crowded is a store in which the first few drawn identifiers are taken, by the
// very same registrant.
type crowded struct {
	*memory
	left int
}

func (c *crowded) Create(ctx context.Context, r Record, replaces Generation) (Record, bool, error) {
	if c.left > 0 {
		c.left--
		if replaces != (Generation{}) {
			return Record{}, false, errors.New("a drawn identifier was to be replaced")
		}
		r.Generation = Generation{1}
		return r, false, nil
	}
	return c.memory.Create(ctx, r, replaces)
}

// Drawn identifiers are valid, 8 characters long and do not repeat.
func TestDrawnIdentifiers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := make(map[string]bool)
	for range 50 {
		r := w.register(w.standard(""))
		if _, err := form.Parse[form.Identifier](string(r.Identifier)); len(r.Identifier) != 8 || err != nil || strings.ContainsAny(string(r.Identifier), "0Oo1Il") || seen[string(r.Identifier)] {
			t.Errorf("drew %q", r.Identifier)
		}
		seen[string(r.Identifier)] = true
	}
}

// The lifetime counts from Started, not from when the record is stored.
func TestLifetimeCountsFromStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.mdl("e3wfISG9")
	w.clock.advance(4 * time.Minute)
	got := w.register(r)
	if want := r.Started.Add(10 * time.Minute); !got.ExpiresAt.Equal(want) {
		t.Errorf("expires at %v, want %v", got.ExpiresAt, want)
	}
	w.store.peek("e3wfISG9", func(e *stored) {
		if e.Lifetime != 6*time.Minute {
			t.Errorf("stored for %v", e.Lifetime)
		}
	})
	w.clock.advance(6*time.Minute - 1)
	if err := w.activate("e3wfISG9", got.Password); err != nil {
		t.Error(err)
	}
	w.clock.advance(1)
	refusedNow(t, w.begin("e3wfISG9", got.Password))
}

// A lifetime that is over before the record is stored is an error, also if it
// ends while the record is made; a clock that runs behind does not lengthen it.
func TestOverdue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.mdl("e3wfISG9")
	w.clock.advance(10 * time.Minute)
	if got, err := w.Register(t.Context(), r); !same(err, ErrExpired) || got != (Registered{}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if calls := w.store.take(); len(calls) != 0 {
		t.Errorf("the store was asked: %v", calls)
	}
	r.Started = w.clock.now()
	w.store.before["SimulationSecret"] = func() { w.clock.advance(10 * time.Minute) }
	if _, err := w.Register(t.Context(), r); !same(err, ErrExpired) {
		t.Errorf("got %v", err)
	}
	r.Started = w.clock.now().Add(time.Minute)
	w.register(r)
	w.store.peek("e3wfISG9", func(e *stored) {
		if e.Lifetime != 10*time.Minute {
			t.Errorf("stored for %v", e.Lifetime)
		}
	})
}

// An affinity registration has neither password nor verifier nor data.
func TestAffinityStoresFactsOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.affinity("e3wfISG9"))
	if r.Password != "" || r.ExpiresAt != w.clock.now().Add(10*time.Minute) {
		t.Errorf("got %+v", r)
	}
	w.store.peek("e3wfISG9", func(e *stored) {
		if e.Kind != KindAffinity || len(e.Facts) == 0 || e.Verifier != nil || e.Data != nil {
			t.Errorf("stored %+v", e.Record)
		}
	})
	if calls := w.store.take(); len(calls) != 1 {
		t.Errorf("store calls %v, want one", calls)
	}
}

// What cannot be registered is refused before the store is asked, with an error
// that names the member and not the value.
func TestRegistrationForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := func(n int) string { return strings.Repeat("A", n) }
	for _, c := range []struct {
		name   string
		r      Registration
		change func(*Registration)
		member string // empty if it is fine
	}{
		{"mdl", w.mdl("e3wfISG9"), func(*Registration) {}, ""},
		{"longest", w.mdl("e3wfISG9"), func(r *Registration) {
			r.UserID, r.Domain, r.SerialNumber, r.Instance, r.Data.ActivationMessage = long(255), long(255), long(255), long(255), form.ActivationMessage(long(4234))
		}, ""},
		{"other scripts", w.mdl("e3wfISG9"), func(r *Registration) { r.UserID = "Žofie Nováková" }, ""},
		{"no domain", w.mdl("e3wfISG9"), func(r *Registration) { r.Domain, r.SerialNumber = "", "" }, ""},
		{"longest code", w.standard(""), func(r *Registration) {
			r.Data = ActivationData{ActivationCode: form.ActivationCode(long(4142)), EventReactivationCounter: form.EventCounter(long(91))}
		}, ""},

		{"no identifier", w.mdl(""), func(*Registration) {}, "registrationIdentifier"},
		{"no identifier, affinity", w.affinity(""), func(*Registration) {}, "registrationIdentifier"},
		{"no kind", w.mdl("e3wfISG9"), func(r *Registration) { r.Kind = "" }, "kind"},
		{"simulated", w.mdl("e3wfISG9"), func(r *Registration) { r.Kind = KindSimulated }, "kind"},
		{"no start", w.mdl("e3wfISG9"), func(r *Registration) { r.Started = time.Time{} }, "started"},

		{"no message", w.mdl("e3wfISG9"), func(r *Registration) { r.Data.ActivationMessage = "" }, "activationMessage"},
		{"code for mdl", w.mdl("e3wfISG9"), func(r *Registration) { r.Data.ActivationCode = "1" }, "activationCode"},
		{"counter for mdl", w.mdl("e3wfISG9"), func(r *Registration) { r.Data.EventReactivationCounter = "1" }, "eventReactivationCounter"},
		{"message for standard", w.standard(""), func(r *Registration) { r.Data.ActivationMessage = "00" }, "activationMessage"},
		{"message for affinity", w.affinity("e3wfISG9"), func(r *Registration) { r.Data.ActivationMessage = "00" }, "activationMessage"},
		{"no code", w.standard(""), func(r *Registration) { r.Data.ActivationCode = "" }, "activationCode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.change(&c.r)
			got, err := w.Register(t.Context(), c.r)
			if c.member == "" {
				if err != nil {
					t.Fatal(err)
				}
				p := w.begin(got.Identifier, got.Password)
				proof, err := p.prove()
				if err != nil {
					t.Fatal(err)
				}
				want := c.r.Data
				want.ActivationMessage = form.ActivationMessage(strings.ToUpper(string(want.ActivationMessage)))
				if d := p.open(proof); d != want {
					t.Errorf("got %+v, want %+v", d, want)
				}
				return
			}
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Member != c.member || got != (Registered{}) {
				t.Errorf("got %+v, %v, want %s", got, err, c.member)
			}
			if calls := w.store.take(); len(calls) != 0 {
				t.Errorf("the store was asked: %v", calls)
			}
		})
	}
}

// Facts of any allowed form come back through an admission.
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

// What is stored of every profile has a length that depends on the profile only, and
// leads back to it.
func TestStoredSizes(t *testing.T) {
	t.Parallel()
	ps := profiles(using(t, srp.DefaultProfile))
	for _, p := range srp.Profiles() {
		credential := len(p.Credential(make([]byte, secretSize), "e3wfISG9", "Tb048aX1"))
		if credential != 16+p.Size() || p.StateSize() != 16+32+3*p.Size() {
			t.Errorf("%s: a credential of %d bytes, a state of %d", p.Name(), credential, p.StateSize())
		}
		b, value := named(p, credential)
		rand.Read(value)
		got, again, ok := ps.cut(bytes.Clone(b))
		if len(b) != 32+credential || !ok || got != Profile(p) || !bytes.Equal(again, value) {
			t.Errorf("%s: %d bytes, %v, %t", p.Name(), len(b), got, ok)
		}
	}
}

// Whatever decodes is encoded to the same bytes again; nothing panics.
func FuzzDecode(f *testing.F) {
	ps := profiles(using(f, srp.DefaultProfile))
	f.Add([]byte(nil))
	f.Add(encodeSubject(form.Subject{UserID: "jane", Domain: "domain", Instance: "primary"}))
	for _, size := range []int{16 + 256, 1 + ps[0].StateSize()} {
		b, _ := named(ps[0], size)
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
		if p, value, ok := ps.cut(b); ok {
			b, room := named(p, len(value))
			copy(room, value)
			again("value of "+p.Name(), b)
		}
	})
}
