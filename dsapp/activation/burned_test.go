package activation_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// The error of the proof that burns a registration says whose registration it was, and no
// other error does. Its text is that of every refusal. It does not exist for identifiers
// that nobody registered.
func TestBurningIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	registrations := map[string]activation.Registration{"mdl-id": w.mdl("mdl-id"), "standard-id": w.standard("standard-id"), "affinity-id": w.affinity("affinity-id")}
	for _, r := range registrations {
		w.register(r)
	}
	for _, id := range []string{"mdl-id", "standard-id", "affinity-id", "unknown-id"} {
		var told []*activation.BurnedError
		for n := range 2 * w.maxAttempts {
			p, err := w.begin(form.Identifier(id), "wrong password").prove()
			refused(t, p, err)
			burned, ok := errors.AsType[*activation.BurnedError](err)
			if !ok {
				continue
			}
			if n+1 != w.maxAttempts {
				t.Errorf("%s: told of proof %d", id, n+1)
			}
			told = append(told, burned)
		}
		r := registrations[id]
		if r.Kind != activation.KindMDL && r.Kind != activation.KindStandard {
			if len(told) != 0 {
				t.Errorf("%s: told %+v", id, told)
			}
			continue
		}
		if len(told) != 1 {
			t.Fatalf("%s: told %d times", id, len(told))
		}
		got := told[0].Admission
		if string(got.Identifier) != id || got.Kind != r.Kind || got.UserID != r.UserID || got.Domain != r.Domain || got.SerialNumber != r.SerialNumber || got.Instance != r.Instance {
			t.Errorf("%s: told %+v, want %+v", id, got, r)
		}
	}
}

// First calls, in any number, and second calls without a first one use up no attempt: the
// phone that knows the password still gets its data.
func TestFirstCallsBurnNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	for range 10 * w.maxAttempts {
		w.begin(r.Identifier, "wrong password")
	}
	p := w.begin(r.Identifier, "wrong password")
	for range 10 * w.maxAttempts {
		// The first one of them is a guess.
		proof, err := p.prove()
		refused(t, proof, err)
	}
	w.peek(r.Identifier, func(e *storetest.Entry) {
		if e.Reserved != 1 {
			t.Errorf("%d attempts are reserved, want 1", e.Reserved)
		}
	})
	if err := w.activate(r.Identifier, r.Password); err != nil {
		t.Error(err)
	}
}

// A refusal stays a refusal if the registration cannot be looked up afterwards or opened.
func TestBurningIsRefusedAnyway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.MaxAttempts = 1 })
	w.register(w.mdl("lost-id"))
	p := w.begin("lost-id", "wrong password")
	w.store.Fail("Load", errors.New("gone"))
	proof, err := p.prove()
	refused(t, proof, err)
	if _, ok := errors.AsType[*activation.BurnedError](err); ok || !strings.Contains(w.logs.String(), "burned its registration is not known") {
		t.Errorf("error is %#v, log %s", err, w.logs)
	}
	w.store.Fail("Load", nil)

	w.register(w.mdl("spoiled-id"))
	p = w.begin("spoiled-id", "wrong password")
	w.peek("spoiled-id", func(e *storetest.Entry) { e.Facts[0] ^= 1 })
	proof, err = p.prove()
	refused(t, proof, err)
	burned, ok := errors.AsType[*activation.BurnedError](err)
	if !ok || burned.Identifier != "spoiled-id" || burned.UserID != "" {
		t.Errorf("error is %#v", err)
	}
	if a := w.takeAlarms(); len(a) != 1 || a[0] != "record_unopened spoiled-id" {
		t.Errorf("alarms %q", a)
	}
}
