package activation_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/timing"
)

// firstCalls are first calls for identifiers in different states.
func firstCalls(w *world) []timing.Sample {
	w.register(w.mdl("known-id"))
	w.register(w.mdl("burned-id"))
	w.register(w.affinity("affinity-id"))
	w.burn("burned-id")
	w.burn("probed-id")
	w.register(w.mdl("several-id"))
	w.beginEverywhere("several-id")
	w.beginEverywhere("several-unknown-id")
	foreign := w.mdl("foreign-id")
	foreign.Profile = form.ProfileName(w.config.Profiles[1].Name())
	w.register(foreign)
	client, err := w.profile.NewClient("known-id", "any password")
	if err != nil {
		w.t.Fatal(err)
	}
	a := fmt.Sprintf("%X", client.Public())
	identifiers := []string{"known-id", "unknown-id", "burned-id", "affinity-id", "probed-id", "several-id", "several-unknown-id", "foreign-id"}
	samples := make([]timing.Sample, 0, len(identifiers))
	for _, id := range identifiers {
		samples = append(samples, timing.Sample{Name: strings.TrimSuffix(id, "-id"), Call: func() {
			if _, err := w.Begin(w.t.Context(), form.Identifier(id), form.ClientPublic(a), home); err != nil {
				w.t.Fatal(err)
			}
		}})
	}
	return samples
}

// wrongProofs are refused second calls for identifiers in different states. The
// handshake and the counters are put back each time. The first call for stray-id was that of
// an application of another profile.
func wrongProofs(w *world) []timing.Sample {
	firstCalls(w)
	evidence := strings.Repeat("5", 64)
	identifiers := []string{"known-id", "unknown-id", "burned-id", "affinity-id", "probed-id", "several-id", "several-unknown-id", "foreign-id", "stray-id", "none-id"}
	samples := make([]timing.Sample, 0, len(identifiers))
	for _, id := range identifiers {
		switch id {
		case "none-id":
		case "stray-id":
			w.beginAs(home, w.config.Profiles[1].(*srp.Profile), "stray-id", "wrong password")
		default:
			w.begin(form.Identifier(id), "wrong password")
		}
		putBack := w.save(id)
		samples = append(samples, timing.Sample{Name: strings.TrimSuffix(id, "-id"), Prepare: putBack, Call: func() {
			if _, err := w.Prove(w.t.Context(), form.Identifier(id), form.ClientEvidence(evidence), home); !same(err, activation.ErrRefused) {
				w.t.Fatalf("%s: %v", id, err)
			}
		}})
	}
	return samples
}

// save returns what puts the registration and the handshakes of an identifier back.
func (w *world) save(id string) (putBack func()) {
	var saved *storetest.Entry
	var handshakes []*storetest.Handshake
	w.store.Do(func(m *storetest.Model) {
		handshakes = slices.Clone(m.Waiting(id))
		if e := m.Entry(id); e != nil {
			e := *e
			saved = &e
		}
	})
	return func() {
		w.store.Do(func(m *storetest.Model) {
			m.Handshakes[id] = slices.Clone(handshakes)
			delete(m.Records, id)
			if saved != nil {
				e := *saved
				e.InFlight = map[activation.Token]bool{}
				m.Records[id] = &e
			}
		})
	}
}

// The time of a call does not tell an application in which state an identifier is, nor whether it
// is that of a registration of another profile, whichever of two profiles the application has.
// The samples take turns, medians are compared, and a disturbed measurement is prolonged.
// This test does not run beside others.
func TestTimeDoesNotTell(t *testing.T) {
	both := twoProfiles(t)
	for i, p := range both {
		for name, calls := range map[string]func(*world) []timing.Sample{"first call": firstCalls, "second call": wrongProofs} {
			t.Run(p.Name()+" "+name, func(t *testing.T) {
				timing.Same(t, 1.10, calls(newWorld(t, func(c *activation.Config) {
					c.Profiles = []activation.Profile{p, both[1-i]}
				})))
			})
		}
	}
}

// storeTolerance is for calls that wait for a disk or a network.
const storeTolerance = 1.25

// checkTime checks that the time of a refused call does not tell whether an
// identifier is registered. Stores that openFull opens have room for one identifier
// that nobody registered.
func checkTime(t *testing.T, open, openFull opener) {
	t.Helper()
	for name, c := range map[string]struct {
		open  opener
		calls func(*world) []timing.Sample
	}{
		"first call": {open, firstCalls}, "wrong proof": {open, countedProofs}, "burned": {open, burnedProofs},
		"wrong proof at the cap": {openFull, func(w *world) []timing.Sample {
			for range w.maxAttempts {
				refusedNow(t, w.begin("filling-id", "any password"))
			}
			return countedProofs(w)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(config *activation.Config) { config.Open = opens(t, c.open(t, config.Now)[0], 1) })
			timing.Same(t, storeTolerance, c.calls(w))
		})
	}
}

// countedProofs are refused second calls that count an attempt. Each starts with
// counters at 0, and after as many writes: these can slow down the next.
func countedProofs(w *world) []timing.Sample {
	samples := make([]timing.Sample, 0, 5)
	for id, register := range map[string]func(id string){
		"known-id":           func(id string) { w.register(w.mdl(form.Identifier(id))); w.beginEverywhere("another-id") },
		"affinity-id":        func(id string) { w.register(w.affinity(form.Identifier(id))); w.beginEverywhere("another-id") },
		"unknown-id":         func(string) { w.beginEverywhere("another-id") },
		"several-id":         func(id string) { w.register(w.mdl(form.Identifier(id))); w.beginEverywhere(form.Identifier(id)) },
		"several-unknown-id": func(id string) { w.beginEverywhere(form.Identifier(id)) },
	} {
		samples = append(samples, wrongProof(w, id, func() {
			store, _, err := w.config.Open(w.t.Context())
			if err != nil {
				w.t.Fatal(err)
			}
			r, found, err := store.Load(w.t.Context(), id)
			if err == nil && found {
				err = store.Remove(w.t.Context(), id, r.Generation)
			}
			if err != nil {
				w.t.Fatal(err)
			}
			register(id)
		}))
	}
	return samples
}

// burnedProofs are second calls without an attempt left.
func burnedProofs(w *world) []timing.Sample {
	w.register(w.mdl("known-id"))
	w.register(w.affinity("affinity-id"))
	samples := make([]timing.Sample, 0, 3)
	for _, id := range []string{"known-id", "affinity-id", "unknown-id"} {
		w.burn(form.Identifier(id))
		samples = append(samples, wrongProof(w, id, func() {}))
	}
	return samples
}

// wrongProof is a refused second call, after prepare and a first call.
func wrongProof(w *world, id string, prepare func()) timing.Sample {
	return timing.Sample{Name: strings.TrimSuffix(id, "-id"), Prepare: func() {
		prepare()
		if _, err := w.Begin(w.t.Context(), form.Identifier(id), "1234", home); err != nil {
			w.t.Fatal(err)
		}
	}, Call: func() {
		if _, err := w.Prove(w.t.Context(), form.Identifier(id), form.ClientEvidence(strings.Repeat("5", 64)), home); !same(err, activation.ErrRefused) {
			w.t.Fatalf("%s: %v", id, err)
		}
	}}
}

// BenchmarkBegin is a whole first call over a store in memory.
func BenchmarkBegin(b *testing.B) {
	eachGroup(b, func(b *testing.B, w *world) {
		for _, s := range firstCalls(w) {
			b.Run(s.Name, func(b *testing.B) { benchmark(b, s) })
		}
	})
}

// BenchmarkProve is a whole second call over a store in memory.
func BenchmarkProve(b *testing.B) {
	eachGroup(b, benchmarkProofs)
}

func benchmarkProofs(b *testing.B, w *world) {
	samples := wrongProofs(w)
	r := w.register(w.mdl("right-id"))
	p := w.begin(r.Identifier, r.Password)
	putBack := w.save("right-id")
	samples = append(samples, timing.Sample{Name: "right", Prepare: putBack, Call: func() {
		if _, err := p.prove(); err != nil {
			b.Fatal(err)
		}
	}})
	for _, s := range samples {
		b.Run(s.Name, func(b *testing.B) { benchmark(b, s) })
	}
}

// eachGroup runs a benchmark with each of the groups.
func eachGroup(b *testing.B, run func(*testing.B, *world)) {
	for _, group := range []string{"rfc5054-2048", "rfc5054-3072", "rfc5054-4096"} {
		b.Run(group, func(b *testing.B) {
			run(b, newWorld(b, func(c *activation.Config) { c.Profiles = using(b, group+"-sha256") }))
		})
	}
}

func benchmark(b *testing.B, s timing.Sample) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		if s.Prepare != nil {
			s.Prepare()
		}
		s.Call()
	}
}
