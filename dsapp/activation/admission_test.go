package activation_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// A call is admitted only for registrations of its kinds and after an exchange. Each
// right proof admits one device. Final calls are limited.
func TestAdmissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.MaxAttempts = 2 })
	ctx := t.Context()
	mdl, standard := w.register(w.mdl("mdl-id")), w.register(w.standard("standard-id"))
	w.register(w.affinity("affinity-id"))
	refusedNow(t, w.begin("probed-id", "any password"))

	device := func(id string, want error) activation.Admission {
		t.Helper()
		a, err := w.AdmitDevice(ctx, form.Identifier(id))
		if !same(err, want) || want != nil && a != (activation.Admission{}) {
			t.Errorf("device of %s: %+v, %v, want %v", id, a, err, want)
		}
		return a
	}
	final := func(id string, want error, kinds ...activation.Kind) activation.Admission {
		t.Helper()
		a, err := w.AdmitConfirmation(ctx, form.Identifier(id), kinds...)
		if !same(err, want) || want != nil && a != (activation.Admission{}) {
			t.Errorf("final call of %s: %+v, %v, want %v", id, a, err, want)
		}
		return a
	}
	for _, id := range []string{"mdl-id", "standard-id"} {
		device(id, activation.ErrRefused)
		final(id, activation.ErrRefused, activation.KindMDL, activation.KindStandard, activation.KindAffinity)
	}
	for _, id := range []string{"unknown-id", "probed-id"} {
		device(id, activation.ErrUnknown)
		final(id, activation.ErrUnknown, activation.KindMDL, activation.KindStandard, activation.KindAffinity)
	}
	if !errors.Is(activation.ErrUnknown, activation.ErrRefused) {
		t.Error("ErrUnknown is no ErrRefused")
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	for range 3 {
		want := activation.Admission{Identifier: "affinity-id", Kind: activation.KindAffinity, Subject: form.Subject{UserID: "jane.doe", Instance: "backup"}}
		admitted := []activation.Admission{device("affinity-id", nil), final("affinity-id", nil, activation.KindMDL, activation.KindAffinity)}
		if err := errors.Join(w.ReturnDevice(canceled, admitted[0]), w.ReturnConfirmation(canceled, admitted[1])); err != nil {
			t.Error(err)
		}
		for _, a := range admitted {
			if a.Generation == (activation.Generation{}) {
				t.Error("no generation")
			}
			a.Generation = activation.Generation{}
			if a != want {
				t.Errorf("got %+v, want %+v", a, want)
			}
		}
		final("affinity-id", activation.ErrRefused, activation.KindStandard)
	}
	// What is not given back is limited, and refused as that of a known one.
	for range 2 {
		device("affinity-id", nil)
		final("affinity-id", nil, activation.KindAffinity)
	}
	device("affinity-id", activation.ErrRefused)
	final("affinity-id", activation.ErrRefused, activation.KindAffinity)

	if err := w.activate(mdl.Identifier, mdl.Password); err != nil {
		t.Fatal(err)
	}
	a := device("mdl-id", nil)
	w.peek("mdl-id", func(e *storetest.Entry) {
		want := activation.Admission{"mdl-id", e.Generation, activation.KindMDL, form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "primary"}}
		if a != want {
			t.Errorf("got %+v, want %+v", a, want)
		}
	})
	device("mdl-id", activation.ErrRefused)
	if err := w.ReturnDevice(canceled, a); err != nil {
		t.Errorf("returning after the client has gone: %v", err)
	}
	if err := w.ReturnDevice(ctx, a); err != nil {
		t.Error(err)
	}
	device("mdl-id", nil)
	device("mdl-id", activation.ErrRefused)
	final("mdl-id", activation.ErrRefused, activation.KindStandard)
	final("mdl-id", nil, activation.KindMDL, activation.KindAffinity)
	a = final("mdl-id", nil, activation.KindMDL)
	final("mdl-id", activation.ErrRefused, activation.KindMDL)
	if err := w.ReturnConfirmation(canceled, a); err != nil {
		t.Errorf("returning after the client has gone: %v", err)
	}
	a = final("mdl-id", nil, activation.KindMDL)
	final("mdl-id", activation.ErrRefused, activation.KindMDL)
	if err := w.Complete(canceled, a); err != nil {
		t.Errorf("completing after the client has gone: %v", err)
	}
	final("mdl-id", activation.ErrUnknown, activation.KindMDL)

	if err := w.activate(standard.Identifier, standard.Password); err != nil {
		t.Fatal(err)
	}
	device("standard-id", activation.ErrRefused)
	a = final("standard-id", nil, activation.KindStandard)

	// A newer registration is not removed.
	w.register(w.standard("standard-id"))
	if err := w.Complete(ctx, a); err != nil {
		t.Fatal(err)
	}
	final("standard-id", activation.ErrRefused, activation.KindStandard)
}

// Locate returns KindAffinity registrations whose lifetime has not passed, any number of
// times. It reads the store once and changes nothing.
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
			w.clock.Advance(w.registrationLifetime - 1)
		}, nil},
		{"expired", func(w *world) { w.register(w.affinity("e3wfISG9")); w.clock.Advance(w.registrationLifetime) }, activation.ErrUnknown},
		{"tombstone", func(w *world) {
			w.register(w.affinity("e3wfISG9"))
			w.burn("e3wfISG9")
			w.clock.Advance(w.registrationLifetime)
		}, activation.ErrRefused},
		{"unknown", func(*world) {}, activation.ErrUnknown},
		{"probed", func(w *world) { w.burn("e3wfISG9") }, activation.ErrUnknown},
		{"multi-device licence", func(w *world) { w.register(w.mdl("e3wfISG9")) }, activation.ErrRefused},
		{"standard licence", func(w *world) { w.register(w.standard("e3wfISG9")) }, activation.ErrRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.before(w)
			for range 2 {
				w.store.TakeCalls()
				a, err := w.Locate(t.Context(), "e3wfISG9")
				if calls := w.store.TakeCalls(); !slices.Equal(calls, []string{"Load"}) {
					t.Errorf("store calls %v", calls)
				}
				if c.want != nil {
					if !same(err, c.want) || a != (activation.Admission{}) {
						t.Errorf("got %+v, %v, want %v", a, err, c.want)
					}
					continue
				}
				var generation activation.Generation
				w.peek("e3wfISG9", func(e *storetest.Entry) { generation = e.Generation })
				if want := (activation.Admission{"e3wfISG9", generation, activation.KindAffinity, form.Subject{UserID: "jane.doe", Instance: "backup"}}); err != nil || a != want {
					t.Errorf("got %+v, %v, want %+v", a, err, want)
				}
			}
		})
	}
}

// Locate refuses an identifier with the same error as AdmitConfirmation.
func TestLocateRefusesLikeFinalCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(w.mdl("mdl-id"))
	w.register(w.affinity("tombstone-id"))
	w.burn("tombstone-id")
	refusedNow(t, w.begin("probed-id", "any password"))
	w.clock.Advance(w.registrationLifetime - time.Second)
	w.register(w.standard("standard-id"))
	refusedNow(t, w.begin("probed-again-id", "any password"))
	w.clock.Advance(time.Second)
	for _, id := range []string{"mdl-id", "tombstone-id", "probed-id", "standard-id", "probed-again-id", "unknown-id"} {
		_, located := w.Locate(t.Context(), form.Identifier(id))
		_, admitted := w.AdmitConfirmation(t.Context(), form.Identifier(id), activation.KindAffinity)
		if !errors.Is(located, activation.ErrRefused) || !same(located, admitted) {
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
	if _, err := w.AdmitDevice(t.Context(), "e3wfISG9"); !same(err, activation.ErrRefused) {
		t.Errorf("got %v", err)
	}
	if _, err := w.AdmitConfirmation(t.Context(), "e3wfISG9", activation.KindMDL); !same(err, activation.ErrRefused) {
		t.Errorf("got %v", err)
	}
}
