package activation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// A registration is replaced, even as a tombstone, by one of the same instance, user and
// domain only. A refusal is no alarm.
func TestReplacing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		before   func(w *world)
		change   func(*activation.Registration)
		replaced bool
	}{
		{"nothing before", nil, nil, true},
		{"same registrant", func(w *world) { w.register(w.mdl("e3wfISG9")) }, nil, true},
		{"other licence and data", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *activation.Registration) {
			r.SerialNumber, r.Data.ActivationMessage = "VDS1000004", "00"
		}, true},
		{"other user", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *activation.Registration) { r.UserID = "john.doe" }, false},
		{"user in other case", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *activation.Registration) { r.UserID = "Jane.doe" }, false},
		{"other domain", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *activation.Registration) { r.Domain = "" }, false},
		{"other instance", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *activation.Registration) { r.Instance = "backup" }, false},
		{"parts moved", func(w *world) { w.register(w.mdl("e3wfISG9")) }, func(r *activation.Registration) { r.UserID, r.Domain = "jane.doemydomain", ".com" }, false},
		{"burned, same registrant", func(w *world) { w.register(w.mdl("e3wfISG9")); w.burn("e3wfISG9") }, nil, true},
		{"burned, other user", func(w *world) { w.register(w.mdl("e3wfISG9")); w.burn("e3wfISG9") }, func(r *activation.Registration) { r.UserID = "john.doe" }, false},
		{"tombstone, other user", func(w *world) {
			w.register(w.mdl("e3wfISG9"))
			w.burn("e3wfISG9")
			w.clock.Advance(w.registrationLifetime)
		}, func(r *activation.Registration) { r.UserID = "john.doe" }, false},
		{"expired, other user", func(w *world) { w.register(w.mdl("e3wfISG9")); w.clock.Advance(w.registrationLifetime) }, func(r *activation.Registration) { r.UserID = "john.doe" }, true},
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
				if !same(err, activation.ErrExists) || got != (activation.Registered{}) {
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

// If another registration is stored between the refused Create and the replacement, the
// rule is applied to that one.
func TestReplacingMeetsAnother(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		user string
		want error
	}{{"jane.doe", nil}, {"john.doe", activation.ErrExists}} {
		w := newWorld(t)
		w.register(w.mdl("e3wfISG9"))
		_, ring, err := w.config.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.store.After("Create", hook(sync.OnceFunc(func() {
			r := activation.Record{Identifier: "e3wfISG9", Generation: newGeneration(), Kind: activation.KindMDL}
			subject := form.Subject{UserID: c.user, Domain: "mydomain.com", Instance: "primary"}
			r.Facts, _ = ring.Seal(activation.RecordLabel(activation.SealedFacts, r), activation.EncodeSubject(subject))
			w.peek("e3wfISG9", func(e *storetest.Entry) { e.Record = r })
		})))
		if _, err := w.Register(t.Context(), w.mdl("e3wfISG9")); !same(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.user, err, c.want)
		}
	}
}

// If the registration to replace changes all the time, Register gives up.
func TestReplacingGivesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(w.mdl("e3wfISG9"))
	_, ring, err := w.config.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.store.After("Create", hook(func() {
		w.peek("e3wfISG9", func(e *storetest.Entry) {
			f, _ := ring.Open(activation.RecordLabel(activation.SealedFacts, e.Record), e.Facts)
			e.Generation = newGeneration()
			e.Facts, _ = ring.Seal(activation.RecordLabel(activation.SealedFacts, e.Record), f)
		})
	}))
	w.store.TakeCalls()
	if _, err := w.Register(t.Context(), w.mdl("e3wfISG9")); !same(err, activation.ErrExists) {
		t.Errorf("got %v", err)
	}
	if calls := w.store.TakeCalls(); !slices.Equal(calls, slices.Repeat([]string{"Create"}, 8)) {
		t.Errorf("store calls %v", calls)
	}
}

// A drawn identifier that is taken is drawn again and never replaced. If all are taken
// Register fails.
func TestDrawnIdentifierCollides(t *testing.T) {
	t.Parallel()
	for _, taken := range []int{1, 7, 8} {
		w := newWorld(t)
		w.config.Open = opens(t, &crowded{Memory: w.store, left: taken}, 1)
		w.restart()
		got, err := w.Register(t.Context(), w.standard(""))
		if taken == 8 {
			if err == nil || errors.Is(err, activation.ErrExists) || errors.Is(err, activation.ErrUnavailable) {
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

// crowded is a store in which the first few drawn identifiers are taken by the same
// subject.
type crowded struct {
	*storetest.Memory
	left int
}

func (c *crowded) Create(ctx context.Context, r activation.Record, replaces activation.Generation) (activation.Record, bool, error) {
	if c.left > 0 {
		c.left--
		if replaces != (activation.Generation{}) {
			return activation.Record{}, false, errors.New("a drawn identifier was to be replaced")
		}
		r.Generation = activation.Generation{1}
		return r, false, nil
	}
	return c.Memory.Create(ctx, r, replaces)
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
	w.clock.Advance(4 * time.Minute)
	got := w.register(r)
	if want := r.Started.Add(10 * time.Minute); !got.ExpiresAt.Equal(want) {
		t.Errorf("expires at %v, want %v", got.ExpiresAt, want)
	}
	w.peek("e3wfISG9", func(e *storetest.Entry) {
		if e.Lifetime != 6*time.Minute {
			t.Errorf("stored for %v", e.Lifetime)
		}
	})
	w.clock.Advance(6*time.Minute - 1)
	if err := w.activate("e3wfISG9", got.Password); err != nil {
		t.Error(err)
	}
	w.clock.Advance(1)
	refusedNow(t, w.begin("e3wfISG9", got.Password))
}

// A registration whose lifetime ends before it is stored is an error. A Started in the
// future does not extend the lifetime.
func TestOverdue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.mdl("e3wfISG9")
	w.clock.Advance(10 * time.Minute)
	if got, err := w.Register(t.Context(), r); !same(err, activation.ErrExpired) || got != (activation.Registered{}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if calls := w.store.TakeCalls(); len(calls) != 0 {
		t.Errorf("the store was asked: %v", calls)
	}
	r.Started = w.clock.Now()
	w.store.Before("SimulationSecret", hook(func() { w.clock.Advance(10 * time.Minute) }))
	if _, err := w.Register(t.Context(), r); !same(err, activation.ErrExpired) {
		t.Errorf("got %v", err)
	}
	r.Started = w.clock.Now().Add(time.Minute)
	w.register(r)
	w.peek("e3wfISG9", func(e *storetest.Entry) {
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
	if r.Password != "" || r.ExpiresAt != w.clock.Now().Add(10*time.Minute) {
		t.Errorf("got %+v", r)
	}
	w.peek("e3wfISG9", func(e *storetest.Entry) {
		if e.Kind != activation.KindAffinity || len(e.Facts) == 0 || e.Verifier != nil || e.Data != nil {
			t.Errorf("stored %+v", e.Record)
		}
	})
	if calls := w.store.TakeCalls(); len(calls) != 1 {
		t.Errorf("store calls %v, want one", calls)
	}
}

// An invalid registration is refused before the store is called, with an error that names
// the member and not the value.
func TestRegistrationForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := func(n int) string { return strings.Repeat("A", n) }
	for _, c := range []struct {
		name   string
		r      activation.Registration
		change func(*activation.Registration)
		member string // empty if it is fine
	}{
		{"mdl", w.mdl("e3wfISG9"), func(*activation.Registration) {}, ""},
		{"longest", w.mdl("e3wfISG9"), func(r *activation.Registration) {
			r.UserID, r.Domain, r.SerialNumber, r.Instance, r.Data.ActivationMessage = long(255), long(255), long(255), long(255), form.ActivationMessage(long(4234))
		}, ""},
		{"other scripts", w.mdl("e3wfISG9"), func(r *activation.Registration) { r.UserID = "Žofie Nováková" }, ""},
		{"no domain", w.mdl("e3wfISG9"), func(r *activation.Registration) { r.Domain, r.SerialNumber = "", "" }, ""},
		{"longest code", w.standard(""), func(r *activation.Registration) {
			r.Data = activation.ActivationData{ActivationCode: form.ActivationCode(long(4142)), EventReactivationCounter: form.EventCounter(long(91))}
		}, ""},

		{"no identifier", w.mdl(""), func(*activation.Registration) {}, "registrationIdentifier"},
		{"no identifier, affinity", w.affinity(""), func(*activation.Registration) {}, "registrationIdentifier"},
		{"no kind", w.mdl("e3wfISG9"), func(r *activation.Registration) { r.Kind = "" }, "kind"},
		{"simulated", w.mdl("e3wfISG9"), func(r *activation.Registration) { r.Kind = activation.KindSimulated }, "kind"},
		{"no start", w.mdl("e3wfISG9"), func(r *activation.Registration) { r.Started = time.Time{} }, "started"},

		{"no message", w.mdl("e3wfISG9"), func(r *activation.Registration) { r.Data.ActivationMessage = "" }, "activationMessage"},
		{"code for mdl", w.mdl("e3wfISG9"), func(r *activation.Registration) { r.Data.ActivationCode = "1" }, "activationCode"},
		{"counter for mdl", w.mdl("e3wfISG9"), func(r *activation.Registration) { r.Data.EventReactivationCounter = "1" }, "eventReactivationCounter"},
		{"message for standard", w.standard(""), func(r *activation.Registration) { r.Data.ActivationMessage = "00" }, "activationMessage"},
		{"message for affinity", w.affinity("e3wfISG9"), func(r *activation.Registration) { r.Data.ActivationMessage = "00" }, "activationMessage"},
		{"no code", w.standard(""), func(r *activation.Registration) { r.Data.ActivationCode = "" }, "activationCode"},
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
			var invalid *activation.InvalidError
			if !errors.As(err, &invalid) || invalid.Member != c.member || got != (activation.Registered{}) {
				t.Errorf("got %+v, %v, want %s", got, err, c.member)
			}
			if calls := w.store.TakeCalls(); len(calls) != 0 {
				t.Errorf("the store was asked: %v", calls)
			}
		})
	}
}

// Every registration has a password of its own.
func TestPasswordsDiffer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := make(map[string]bool)
	for range 20 {
		p := w.register(w.mdl("e3wfISG9")).Password
		if seen[p] {
			t.Fatal("password repeated")
		}
		seen[p] = true
	}
}
