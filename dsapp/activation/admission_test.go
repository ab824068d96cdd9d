package activation

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// The kinds of a call decide; an exchange has to come first; each right proof
// admits one device, and final calls are limited.
func TestAdmissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.MaxAttempts = 2 })
	ctx := t.Context()
	mdl, standard := w.register(w.mdl("mdl-id")), w.register(w.standard("standard-id"))
	w.register(w.affinity("affinity-id"))
	refusedNow(t, w.begin("probed-id", "any password"))

	device := func(id string, want error) Admission {
		t.Helper()
		a, err := w.AdmitDevice(ctx, form.Identifier(id))
		if !same(err, want) || want != nil && a != (Admission{}) {
			t.Errorf("device of %s: %+v, %v, want %v", id, a, err, want)
		}
		return a
	}
	final := func(id string, want error, kinds ...Kind) Admission {
		t.Helper()
		a, err := w.AdmitConfirmation(ctx, form.Identifier(id), kinds...)
		if !same(err, want) || want != nil && a != (Admission{}) {
			t.Errorf("final call of %s: %+v, %v, want %v", id, a, err, want)
		}
		return a
	}
	for _, id := range []string{"mdl-id", "standard-id"} {
		device(id, ErrRefused)
		final(id, ErrRefused, KindMDL, KindStandard, KindAffinity)
	}
	for _, id := range []string{"unknown-id", "probed-id"} {
		device(id, ErrUnknown)
		final(id, ErrUnknown, KindMDL, KindStandard, KindAffinity)
	}
	if !errors.Is(ErrUnknown, ErrRefused) {
		t.Error("ErrUnknown is no ErrRefused")
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	for range 3 {
		want := Admission{Identifier: "affinity-id", Kind: KindAffinity, Subject: form.Subject{UserID: "jane.doe", Instance: "backup"}}
		admitted := []Admission{device("affinity-id", nil), final("affinity-id", nil, KindMDL, KindAffinity)}
		if err := errors.Join(w.ReturnDevice(canceled, admitted[0]), w.ReturnConfirmation(canceled, admitted[1])); err != nil {
			t.Error(err)
		}
		for _, a := range admitted {
			if a.Generation == (Generation{}) {
				t.Error("no generation")
			}
			a.Generation = Generation{}
			if a != want {
				t.Errorf("got %+v, want %+v", a, want)
			}
		}
		final("affinity-id", ErrRefused, KindStandard)
	}
	// What is not given back is limited, and refused as that of a known one.
	for range 2 {
		device("affinity-id", nil)
		final("affinity-id", nil, KindAffinity)
	}
	device("affinity-id", ErrRefused)
	final("affinity-id", ErrRefused, KindAffinity)

	if err := w.activate(mdl.Identifier, mdl.Password); err != nil {
		t.Fatal(err)
	}
	a := device("mdl-id", nil)
	w.store.peek("mdl-id", func(e *stored) {
		want := Admission{"mdl-id", e.Generation, KindMDL, form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "primary"}}
		if a != want {
			t.Errorf("got %+v, want %+v", a, want)
		}
	})
	device("mdl-id", ErrRefused)
	if err := w.ReturnDevice(canceled, a); err != nil {
		t.Errorf("returning after the client has gone: %v", err)
	}
	if err := w.ReturnDevice(ctx, a); err != nil {
		t.Error(err)
	}
	device("mdl-id", nil)
	device("mdl-id", ErrRefused)
	final("mdl-id", ErrRefused, KindStandard)
	final("mdl-id", nil, KindMDL, KindAffinity)
	a = final("mdl-id", nil, KindMDL)
	final("mdl-id", ErrRefused, KindMDL)
	if err := w.ReturnConfirmation(canceled, a); err != nil {
		t.Errorf("returning after the client has gone: %v", err)
	}
	a = final("mdl-id", nil, KindMDL)
	final("mdl-id", ErrRefused, KindMDL)
	if err := w.Complete(canceled, a); err != nil {
		t.Errorf("completing after the client has gone: %v", err)
	}
	final("mdl-id", ErrUnknown, KindMDL)

	if err := w.activate(standard.Identifier, standard.Password); err != nil {
		t.Fatal(err)
	}
	device("standard-id", ErrRefused)
	a = final("standard-id", nil, KindStandard)

	// A newer registration is not removed.
	w.register(w.standard("standard-id"))
	if err := w.Complete(ctx, a); err != nil {
		t.Fatal(err)
	}
	final("standard-id", ErrRefused, KindStandard)
}

// Only a live registration that was made to remember its instance is located, as
// often as asked. That reads the store once, and changes nothing in it.
func TestLocate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		before func(w *world)
		want   error
	}{
		{"affinity", func(w *world) { w.register(w.affinity("e3wfISG9")) }, nil},
		{"probed and burned", func(w *world) { w.register(w.affinity("e3wfISG9")); w.burn("e3wfISG9") }, nil},
		{"just before its end", func(w *world) {
			w.register(w.affinity("e3wfISG9"))
			w.clock.advance(w.registrationLifetime - 1)
		}, nil},
		{"expired", func(w *world) { w.register(w.affinity("e3wfISG9")); w.clock.advance(w.registrationLifetime) }, ErrUnknown},
		{"tombstone", func(w *world) {
			w.register(w.affinity("e3wfISG9"))
			w.burn("e3wfISG9")
			w.clock.advance(w.registrationLifetime)
		}, ErrRefused},
		{"unknown", func(*world) {}, ErrUnknown},
		{"probed", func(w *world) { w.burn("e3wfISG9") }, ErrUnknown},
		{"multi-device licence", func(w *world) { w.register(w.mdl("e3wfISG9")) }, ErrRefused},
		{"standard licence", func(w *world) { w.register(w.standard("e3wfISG9")) }, ErrRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.before(w)
			for range 2 {
				w.store.take()
				a, err := w.Locate(t.Context(), "e3wfISG9")
				if calls := w.store.take(); !slices.Equal(calls, []string{"Load"}) {
					t.Errorf("store calls %v", calls)
				}
				if c.want != nil {
					if !same(err, c.want) || a != (Admission{}) {
						t.Errorf("got %+v, %v, want %v", a, err, c.want)
					}
					continue
				}
				var generation Generation
				w.store.peek("e3wfISG9", func(e *stored) { generation = e.Generation })
				if want := (Admission{"e3wfISG9", generation, KindAffinity, form.Subject{UserID: "jane.doe", Instance: "backup"}}); err != nil || a != want {
					t.Errorf("got %+v, %v, want %+v", a, err, want)
				}
			}
		})
	}
}

// What Locate says of an identifier without a live registration of its kind is
// what the final call says of one that may not be made.
func TestLocateRefusesLikeFinalCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(w.mdl("mdl-id"))
	w.register(w.affinity("tombstone-id"))
	w.burn("tombstone-id")
	refusedNow(t, w.begin("probed-id", "any password"))
	w.clock.advance(w.registrationLifetime - time.Second)
	w.register(w.standard("standard-id"))
	refusedNow(t, w.begin("probed-again-id", "any password"))
	w.clock.advance(time.Second)
	for _, id := range []string{"mdl-id", "tombstone-id", "probed-id", "standard-id", "probed-again-id", "unknown-id"} {
		_, located := w.Locate(t.Context(), form.Identifier(id))
		_, admitted := w.AdmitConfirmation(t.Context(), form.Identifier(id), KindAffinity)
		if !errors.Is(located, ErrRefused) || !same(located, admitted) {
			t.Errorf("%s: %v, final call %v", id, located, admitted)
		}
	}
}

// A burned registration is refused as such, not as unknown.
func TestBurnedIsNotUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(w.mdl("e3wfISG9"))
	w.burn("e3wfISG9")
	if _, err := w.AdmitDevice(t.Context(), "e3wfISG9"); !same(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	if _, err := w.AdmitConfirmation(t.Context(), "e3wfISG9", KindMDL); !same(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
}
