package activation

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// sample is one way to make a call; prepare is not measured.
type sample struct {
	name          string
	prepare, call func()
}

// firstCalls are first calls for identifiers in different states.
func firstCalls(w *world) []sample {
	w.register(w.mdl("known-id"))
	w.register(w.mdl("burned-id"))
	w.register(w.affinity("affinity-id"))
	w.burn("burned-id")
	w.burn("probed-id")
	client, err := w.profile.NewClient("known-id", "any password")
	if err != nil {
		w.t.Fatal(err)
	}
	a := upperHex(client.Public())
	identifiers := []string{"known-id", "unknown-id", "burned-id", "affinity-id", "probed-id"}
	samples := make([]sample, 0, len(identifiers))
	for _, id := range identifiers {
		samples = append(samples, sample{strings.TrimSuffix(id, "-id"), func() {}, func() {
			if _, err := w.Begin(w.t.Context(), id, a); err != nil {
				w.t.Fatal(err)
			}
		}})
	}
	return samples
}

// wrongProofs are refused second calls for identifiers in different states. The
// handshake and the counters are put back each time.
func wrongProofs(w *world) []sample {
	firstCalls(w)
	evidence := strings.Repeat("5", 64)
	identifiers := []string{"known-id", "unknown-id", "burned-id", "affinity-id", "probed-id", "none-id"}
	samples := make([]sample, 0, len(identifiers))
	for _, id := range identifiers {
		if id != "none-id" {
			w.begin(id, "wrong password")
		}
		h := w.store.handshakes[id]
		var before *stored
		w.store.peek(id, func(e *stored) {
			if e != nil {
				before = &stored{}
				*before = *e
			}
		})
		samples = append(samples, sample{strings.TrimSuffix(id, "-id"), func() {
			delete(w.store.records, id)
			if before != nil {
				e := *before
				e.inFlight = map[Token]bool{}
				w.store.records[id] = &e
			}
			if h != nil {
				w.store.handshakes[id] = h
			}
		}, func() {
			if _, err := w.Prove(w.t.Context(), id, evidence); !same(err, ErrRefused) {
				w.t.Fatalf("%s: %v", id, err)
			}
		}})
	}
	return samples
}

// The time of a call does not tell in which state an identifier is. The samples
// take turns, medians are compared, and a disturbed measurement is repeated.
// This test does not run beside others.
func TestTimeDoesNotTell(t *testing.T) {
	for name, calls := range map[string]func(*world) []sample{"first call": firstCalls, "second call": wrongProofs} {
		t.Run(name, func(t *testing.T) {
			samples := calls(newWorld(t))
			const rounds, tolerance, tries = 41, 1.10, 8
			var worst float64
			for range tries {
				durations := map[string][]time.Duration{}
				for round := range rounds {
					for i := range samples {
						s := samples[(i+round)%len(samples)]
						s.prepare()
						start := time.Now()
						s.call()
						durations[s.name] = append(durations[s.name], time.Since(start))
					}
				}
				medians := make([]time.Duration, 0, len(durations))
				for _, d := range durations {
					slices.Sort(d)
					medians = append(medians, d[len(d)/2])
				}
				worst = float64(slices.Max(medians)) / float64(slices.Min(medians))
				if worst <= tolerance {
					return
				}
			}
			t.Errorf("medians differ by a factor of %.2f", worst)
		})
	}
}

func BenchmarkBegin(b *testing.B) {
	for _, s := range firstCalls(newWorld(b)) {
		b.Run(s.name, func(b *testing.B) { benchmark(b, s) })
	}
}

func BenchmarkProve(b *testing.B) {
	w := newWorld(b)
	samples := wrongProofs(w)
	r := w.register(w.mdl("right-id"))
	p := w.begin(r.Identifier, r.Password)
	h := w.store.handshakes["right-id"]
	samples = append(samples, sample{"right", func() {
		w.store.handshakes["right-id"] = h
		w.store.records["right-id"].activations = 0
	}, func() {
		if _, err := p.prove(); err != nil {
			b.Fatal(err)
		}
	}})
	for _, s := range samples {
		b.Run(s.name, func(b *testing.B) { benchmark(b, s) })
	}
}

func benchmark(b *testing.B, s sample) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		s.prepare()
		s.call()
	}
}
