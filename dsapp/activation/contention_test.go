package activation_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// First calls from other addresses do not replace the phone's handshake, whose proof
// succeeds without using up an attempt. A first call from the phone's own address
// replaces it, whatever its application.
func TestStrangersFirstCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.MaxAttempts = 1 })
	r := w.register(w.mdl("e3wfISG9"))
	p := w.begin(r.Identifier, r.Password)
	w.beginEverywhere(r.Identifier)
	if _, err := p.prove(); err != nil {
		t.Errorf("the phone is refused: %v", err)
	}
	// Behind one address there is one handshake, whoever it is for.
	p = w.begin(r.Identifier, r.Password)
	w.beginFrom(activation.Origin{Address: home.Address, Application: "other-app"}, r.Identifier, "any password")
	refusedNow(t, p)
}

// A phone may have another address at its second call if no other client began after it.
func TestPhoneChangesItsAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	w.beginFrom(at(2), r.Identifier, "any password")
	p := w.begin(r.Identifier, r.Password)
	p.from = at(9)
	if _, err := p.prove(); err != nil {
		t.Errorf("the phone is refused: %v", err)
	}
	w.peek(r.Identifier, func(e *storetest.Entry) {
		if e.Reserved != 0 {
			t.Errorf("%d attempts are reserved", e.Reserved)
		}
	})
}

// A proof from an address without a handshake is verified against the newest one and
// counted, so that other addresses do not avoid the limit of attempts. This also holds
// for unknown identifiers.
func TestProofsFromElsewhereCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(w.mdl("known-id"))
	for _, id := range []string{"known-id", "unknown-id"} {
		w.begin(form.Identifier(id), "any password")
		w.beginEverywhere(form.Identifier(id))
		for i := range activation.MaxHandshakes {
			p, err := w.Prove(t.Context(), form.Identifier(id), form.ClientEvidence(strings.Repeat("5", 64)), at(20+i))
			refused(t, p, err)
		}
		w.peek(form.Identifier(id), func(e *storetest.Entry) {
			if e.Reserved != w.maxAttempts || !e.Burned {
				t.Errorf("%s: %d attempts are reserved, burned %t", id, e.Reserved, e.Burned)
			}
		})
	}
}

// First calls from MaxHandshakes other addresses displace the phone's handshake. Its
// proof is then verified against another client's handshake and fails: this is a known
// limit.
func TestManyAddressesDisplace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	p := w.begin(r.Identifier, r.Password)
	w.beginEverywhere(r.Identifier)
	w.beginFrom(at(99), r.Identifier, "any password")
	refusedNow(t, p)
	w.peek(r.Identifier, func(e *storetest.Entry) {
		if e.Reserved != 1 {
			t.Errorf("%d attempts are reserved, want 1", e.Reserved)
		}
	})
	if err := w.activate(r.Identifier, r.Password); err != nil {
		t.Errorf("the phone cannot begin again: %v", err)
	}
}

// Contention is reported when another address or application begins while a handshake
// waits, at most once a minute, for known and unknown identifiers, and for all nodes
// together.
func TestContentionIsTold(t *testing.T) {
	t.Parallel()
	other := activation.Origin{Address: home.Address, Application: "other-app"}
	for _, id := range []string{"known-id", "unknown-id"} {
		w := newWorld(t)
		w.register(w.mdl("known-id"))
		for i, c := range []struct {
			from activation.Origin
			wait time.Duration
			want bool
		}{
			{home, 0, false},
			{home, time.Second, false},
			{at(2), 0, true},
			{at(3), 0, false},
			{other, activation.ContentionInterval - 1, false},
			{home, 1, true},
			{other, activation.ContentionInterval, true},
			// Nothing waits any more.
			{at(2), w.handshakeLifetime, false},
			{other, 0, true},
		} {
			w.clock.Advance(c.wait)
			w.restart()
			if got := w.beginFrom(c.from, form.Identifier(id), "any password").challenge.Contended; got != c.want {
				t.Errorf("%s: call %d: told %t", id, i+1, got)
			}
		}
	}
}

// Tags depend on the identifier, on the value and on its use. They are the same on every
// node and differ from the salt.
func TestTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := map[activation.Tag]string{}
	note := func(tag activation.Tag, what string) {
		t.Helper()
		if before, ok := seen[tag]; ok && before != what {
			t.Errorf("%s has the tag of %s", what, before)
		}
		seen[tag] = what
	}
	for range 2 {
		for _, id := range []string{"one-id", "other-id"} {
			for _, value := range []string{"one", "other"} {
				w.beginFrom(activation.Origin{Address: value, Application: value}, form.Identifier(id), "any password")
				h := w.last(id)
				note(h.Source, id+" address "+value)
				note(h.Application, id+" application "+value)
				note(activation.Tag(h.Generation), id+" generation")
			}
		}
		w.restart()
	}
	if len(seen) != 10 {
		t.Errorf("%d different tags, want 10", len(seen))
	}
	_, ring, err := w.config.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := ring.Open(activation.SecretLabel, w.secret())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"one-id", "other-id"} {
		note(activation.Tag(w.profile.Salt(secret, id)), "salt of "+id)
	}
}

// If a method of the store reports damage, the call fails as in an outage and there is an
// alarm about the registration.
func TestDamagedIsAnAlarm(t *testing.T) {
	t.Parallel()
	for method, call := range map[string]func(w *world, p *phone, a activation.Admission) error{
		"Create": func(w *world, _ *phone, _ activation.Admission) error {
			_, err := w.Register(w.t.Context(), w.mdl("e3wfISG9"))
			return err
		},
		"Load": func(w *world, _ *phone, _ activation.Admission) error {
			_, err := w.Begin(w.t.Context(), "e3wfISG9", "1234", home)
			return err
		},
		"PutHandshake": func(w *world, _ *phone, _ activation.Admission) error {
			_, err := w.Begin(w.t.Context(), "e3wfISG9", "1234", home)
			return err
		},
		"Take":   func(_ *world, p *phone, _ activation.Admission) error { _, err := p.prove(); return err },
		"Settle": func(_ *world, p *phone, _ activation.Admission) error { _, err := p.prove(); return err },
		"AdmitDevice": func(w *world, _ *phone, _ activation.Admission) error {
			_, err := w.AdmitDevice(w.t.Context(), "e3wfISG9")
			return err
		},
		"AdmitConfirmation": func(w *world, _ *phone, _ activation.Admission) error {
			_, err := w.AdmitConfirmation(w.t.Context(), "e3wfISG9", activation.KindMDL)
			return err
		},
		"ReturnDevice":       func(w *world, _ *phone, a activation.Admission) error { return w.ReturnDevice(w.t.Context(), a) },
		"ReturnConfirmation": func(w *world, _ *phone, a activation.Admission) error { return w.ReturnConfirmation(w.t.Context(), a) },
		"Remove":             func(w *world, _ *phone, a activation.Admission) error { return w.Complete(w.t.Context(), a) },
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.register(w.mdl("e3wfISG9"))
			if err := w.activate(r.Identifier, r.Password); err != nil {
				t.Fatal(err)
			}
			a, err := w.AdmitDevice(t.Context(), r.Identifier)
			if err != nil {
				t.Fatal(err)
			}
			p := w.begin(r.Identifier, r.Password)
			w.store.Fail(method, activation.ErrDamaged)
			if err := call(w, p, a); !errors.Is(err, activation.ErrDamaged) || !errors.Is(err, activation.ErrUnavailable) || errors.Is(err, activation.ErrRefused) {
				t.Errorf("got %v", err)
			}
			if alarms := w.takeAlarms(); len(alarms) != 1 || alarms[0] != "record_damaged e3wfISG9" {
				t.Errorf("alarms %q", alarms)
			}
			if !strings.Contains(w.logs.String(), "level=ERROR") {
				t.Errorf("no error in the log: %s", w.logs)
			}
		})
	}
	// Other failures are none.
	w := newWorld(t)
	w.store.Fail("Load", errors.New("connection refused"))
	if _, err := w.Begin(t.Context(), "e3wfISG9", "1234", home); !errors.Is(err, activation.ErrUnavailable) || errors.Is(err, activation.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if alarms := w.takeAlarms(); len(alarms) != 0 {
		t.Errorf("alarms %q", alarms)
	}
}
