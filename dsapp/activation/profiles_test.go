package activation_test

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// made returns a profile of a variant.
func made(tb testing.TB, name string, v variant.Variant) *srp.Profile {
	tb.Helper()
	p, err := srp.New(name, v)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// twoProfiles are the default profile and another one with values of the same sizes.
func twoProfiles(tb testing.TB) []activation.Profile {
	tb.Helper()
	return []activation.Profile{profile(tb, srp.DefaultProfile), made(tb, "other", variant.Variant{Preset: "nimbus"})}
}

// offers is a Config that offers these profiles.
func offers(ps ...activation.Profile) func(*activation.Config) {
	return func(c *activation.Config) { c.Profiles = ps }
}

// registerAs registers a user for an exchange of a profile.
func (w *world) registerAs(profile string, r activation.Registration) activation.Registered {
	w.t.Helper()
	r.Profile = form.ProfileName(profile)
	return w.register(r)
}

// Registrations of several profiles are activated side by side, each by the application of its
// profile, and the steps name the profile. For an application of another profile, they look like
// identifiers that nobody registered: the same calls of the store, values and states of the same
// sizes, and the one refusal. A proof by it counts as an attempt and leaves the registration
// usable.
func TestProfilesSideBySide(t *testing.T) {
	t.Parallel()
	all := append(twoProfiles(t), profile(t, "rfc5054-3072-sha256"))
	var steps []activation.StepEvent
	w := newWorld(t, offers(all...))
	w.restart(func(c *activation.Config) {
		c.Observe = func(_ context.Context, e activation.StepEvent) { steps = append(steps, e) }
	})
	for i, own := range all {
		id := form.Identifier("registered-" + own.Name())
		r := w.registerAs(cmp.Or(map[int]string{0: ""}[i], own.Name()), w.mdl(id))
		for _, p := range all {
			if p == own {
				continue
			}
			look := func(id form.Identifier) (calls []string, sizes [3]int) {
				w.store.TakeCalls()
				ph := w.beginAs(home, p.(*srp.Profile), id, r.Password)
				sizes = [3]int{len(ph.challenge.ServerPublic), len(ph.challenge.Salt), len(w.last(string(id)).State)}
				proof, err := ph.prove()
				refused(t, proof, err)
				return w.store.TakeCalls(), sizes
			}
			calls, sizes := look(id)
			unknownCalls, unknownSizes := look("unknown-" + form.Identifier(own.Name()+p.Name()))
			if !slices.Equal(calls, unknownCalls) || sizes != unknownSizes {
				t.Errorf("%s as %s: %q, %v, unknown identifiers get %q, %v", id, p.Name(), calls, sizes, unknownCalls, unknownSizes)
			}
			if want := "is of another profile"; !strings.Contains(w.logs.String(), want) {
				t.Errorf("the log does not say %q", want)
			}
			w.peek(id, func(e *storetest.Entry) {
				if e.Burned {
					t.Errorf("%s is burned", id)
				}
			})
		}
		steps = nil
		ph := w.beginAs(home, own.(*srp.Profile), id, r.Password)
		proof, err := ph.prove()
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if proof.LicenseActivationMessage == nil {
			t.Errorf("%s: no activation message", id)
		}
		for _, s := range steps {
			if s.Profile != own.Name() {
				t.Errorf("step %s of %s names the profile %q", s.Step, id, s.Profile)
			}
		}
		if len(steps) != 2 {
			t.Errorf("%d steps", len(steps))
		}
	}
	if a := w.takeAlarms(); len(a) > 0 {
		t.Errorf("alarms %q", a)
	}
}

// A registration of a profile that is not offered, or whose choices were changed under the same
// name, is unknown: its exchange is refused, before the first call and between the two, and
// raises no alarm. When the profile is back, the registration is usable.
func TestProfileIsTakenAway(t *testing.T) {
	t.Parallel()
	both := twoProfiles(t)
	changed := made(t, "other", variant.Variant{Preset: "nimbus", MACInput: variant.Template{"data"}})
	for name, c := range map[string]struct {
		profiles []activation.Profile
		as       *srp.Profile // the application after the change
	}{
		"changed":    {[]activation.Profile{both[0], changed}, changed},
		"taken away": {both[:1], both[0].(*srp.Profile)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := both[1].(*srp.Profile)
			w := newWorld(t, offers(both...))
			r := w.registerAs("other", w.mdl("e3wfISG9"))
			waiting := w.beginAs(home, own, r.Identifier, r.Password)
			w.restart(offers(c.profiles...))
			waiting.from.Profile = c.as.Name()
			refusedNow(t, waiting)
			refusedNow(t, w.beginAs(home, c.as, r.Identifier, r.Password))
			if a := w.takeAlarms(); len(a) > 0 {
				t.Errorf("alarms %q", a)
			}
			w.restart(offers(both...))
			ph := w.beginAs(home, own, r.Identifier, r.Password)
			if _, err := ph.prove(); err != nil {
				t.Errorf("with the profile back: %v", err)
			}
		})
	}
}

// The order of the profiles does not matter for registrations and handshakes.
func TestOrderOfProfiles(t *testing.T) {
	t.Parallel()
	both := twoProfiles(t)
	w := newWorld(t, offers(both...))
	r := w.registerAs("", w.mdl("e3wfISG9"))
	waiting := w.begin(r.Identifier, r.Password)
	w.restart(offers(both[1], both[0]))
	for range 2 {
		proof, err := waiting.prove()
		if err != nil {
			t.Fatal(err)
		}
		if waiting.open(proof).ActivationMessage == "" {
			t.Error("no activation message")
		}
		waiting = w.beginAs(home, both[0].(*srp.Profile), r.Identifier, r.Password)
	}
}

// Each application's values are judged by its own profile.
func TestProfileJudgesValues(t *testing.T) {
	t.Parallel()
	w := newWorld(t, offers(profile(t, srp.DefaultProfile), profile(t, "rfc5054-3072-sha256")))
	a := form.ClientPublic(strings.Repeat("1", 768))
	large := activation.Origin{Address: home.Address, Application: home.Application, Profile: "rfc5054-3072-sha256"}
	if c, err := w.Begin(t.Context(), "unknown-id", a, large); err != nil || len(c.ServerPublic) != 768 {
		t.Errorf("B of %d digits, %v", len(c.ServerPublic), err)
	}
	if _, err := w.Begin(t.Context(), "unknown-id", a, home); err == nil {
		t.Error("a value above N was accepted")
	}
}

// A profile that is not offered is an invalid member of a registration, before anything is stored.
func TestUnknownProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, offers(twoProfiles(t)...))
	r := w.mdl("e3wfISG9")
	r.Profile = "rfc5054-4096-sha256"
	_, err := w.Register(t.Context(), r)
	invalid, ok := errors.AsType[*activation.InvalidError](err)
	if !ok || invalid.Member != "profile" {
		t.Errorf("got %v", err)
	}
	w.peek("e3wfISG9", func(e *storetest.Entry) {
		if e != nil {
			t.Error("a record was stored")
		}
	})
	for name, want := range map[form.ProfileName]string{"": srp.DefaultProfile, "other": "other"} {
		if got, err := w.Profile(name); got != want || err != nil {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
	if _, err := w.Profile("none"); err == nil {
		t.Error("a profile that is not offered was found")
	}
	strange := activation.Origin{Profile: "none"}
	if _, err := w.Begin(t.Context(), "e3wfISG9", form.ClientPublic(hex.EncodeToString([]byte{2})), strange); err == nil {
		t.Error("a first call of a profile that is not offered was answered")
	}
	if _, err := w.Prove(t.Context(), "e3wfISG9", "01", strange); err == nil {
		t.Error("a second call of a profile that is not offered was answered")
	}
}
