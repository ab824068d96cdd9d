package storetest

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// storm is the number of goroutines that call a store at once.
const storm = 24

// together runs f in n goroutines that start at the same moment.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

func storms() []test {
	return []test{
		{"storm: a handshake is taken once", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.put("id-1", newHandshake(r.Generation))
			var taken atomic.Int32
			together(storm, func(int) {
				if _, ok, err := s.store.Take(s.Context(), "id-1", newToken(), activation.Tag{}, storm); err != nil {
					s.Error(err)
				} else if ok {
					taken.Add(1)
				}
			})
			if n := taken.Load(); n != 1 {
				s.Fatalf("taken %d times", n)
			}
		}},
		{"storm: never more failed proofs than attempts", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			var taken atomic.Int32
			together(storm, func(int) {
				for range 3 {
					token, ok := s.exchange(r)
					if !ok {
						continue
					}
					taken.Add(1)
					if _, ok, err := s.store.Settle(s.Context(), "id-1", settlement(r.Generation, token, false)); err != nil || ok {
						s.Errorf("settle: %v, error %v", ok, err)
					}
				}
			})
			if n := taken.Load(); n > maxAttempts {
				s.Fatalf("%d attempts, want at most %d", n, maxAttempts)
			}
			s.attemptsLeft(r, maxAttempts)
		}},
		{"storm: never more activations than allowed, nor attempts reserved at once", func(s *suite) {
			const limit = 4
			r := s.created("id-1", activation.KindMDL)
			var inFlight, activated, refused atomic.Int32
			together(storm, func(int) {
				for range 3 {
					token, ok := s.exchange(r)
					if !ok {
						continue
					}
					if n := inFlight.Add(1); n > maxAttempts {
						s.Errorf("%d attempts reserved at once, want at most %d", n, maxAttempts)
					}
					inFlight.Add(-1)
					x := settlement(r.Generation, token, true)
					x.MaxActivations = limit
					_, ok, err := s.store.Settle(s.Context(), "id-1", x)
					switch {
					case err != nil:
						s.Error(err)
					case ok:
						activated.Add(1)
					default:
						refused.Add(1)
					}
				}
			})
			if n := activated.Load(); n > limit {
				s.Errorf("%d activations, want at most %d", n, limit)
			}
			if n := refused.Load(); n > maxAttempts {
				s.Errorf("%d proofs beyond the activations, want at most %d", n, maxAttempts)
			}
			for range activated.Load() {
				if _, ok := s.admitDevice("id-1"); !ok {
					s.Fatal("an activation admitted no device")
				}
			}
			s.refuseDevice("id-1")
		}},
		{"storm: a settlement repeated at once counts once", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			x := settlement(r.Generation, s.taken("id-1", r.Generation), true)
			together(storm, func(int) {
				if got, ok, err := s.store.Settle(s.Context(), "id-1", x); err != nil || !ok || differ(got, r) != "" {
					s.Errorf("settle: %v, error %v", ok, err)
				}
			})
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("no device admitted")
			}
			s.refuseDevice("id-1")
		}},
		{"storm: one of many registrations wins", func(s *suite) {
			var created atomic.Int32
			together(storm, func(int) {
				r := newRecord("id-1", activation.KindMDL)
				existing, ok, err := s.store.Create(s.Context(), r, activation.Generation{})
				switch {
				case err != nil:
					s.Error(err)
				case ok:
					created.Add(1)
				case existing.Generation == r.Generation:
					s.Error("refused because of itself")
				}
			})
			if n := created.Load(); n != 1 {
				s.Fatalf("%d registrations were created", n)
			}
		}},
		{"storm: devices and confirmations are admitted as often as allowed", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			s.succeed(r)
			var devices, confirmations atomic.Int32
			together(storm, func(int) {
				if _, ok, err := s.store.AdmitDevice(s.Context(), "id-1", maxAttempts); err != nil {
					s.Error(err)
				} else if ok {
					devices.Add(1)
				}
				if _, ok, err := s.store.AdmitConfirmation(s.Context(), "id-1", 5, activation.KindMDL); err != nil {
					s.Error(err)
				} else if ok {
					confirmations.Add(1)
				}
			})
			if d, c := devices.Load(), confirmations.Load(); d != 2 || c != 5 {
				s.Fatalf("%d devices and %d confirmations, want 2 and 5", d, c)
			}
		}},
		{"storm: of affinity never more calls under way than attempts", func(s *suite) {
			r := s.created("id-1", activation.KindAffinity)
			var devices, confirmations, most atomic.Int32
			together(storm, func(int) {
				for range 3 {
					if _, ok, err := s.store.AdmitDevice(s.Context(), "id-1", maxAttempts); err != nil {
						s.Error(err)
					} else if ok {
						if devices.Add(1) > maxAttempts {
							most.Store(devices.Load())
						}
						devices.Add(-1)
						if err := s.store.ReturnDevice(s.Context(), "id-1", r.Generation); err != nil {
							s.Error(err)
						}
					}
					if _, ok, err := s.store.AdmitConfirmation(s.Context(), "id-1", maxAttempts, activation.KindAffinity); err != nil {
						s.Error(err)
					} else if ok {
						confirmations.Add(1)
					}
				}
			})
			if n := most.Load(); n != 0 {
				s.Errorf("%d devices were being added at once, want at most %d", n, maxAttempts)
			}
			if n := confirmations.Load(); n != maxAttempts {
				s.Errorf("%d final calls were admitted, want %d", n, maxAttempts)
			}
			for range maxAttempts {
				if _, ok := s.admitDevice("id-1"); !ok {
					s.Fatal("a returned call is refused")
				}
			}
			s.refuseDevice("id-1")
		}},
		{"storm: contention is told once", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.put("id-1", newHandshake(r.Generation))
			simulated := newSimulated()
			s.put("id-2", simulated)
			for _, h := range []activation.Handshake{newHandshake(r.Generation), simulated} {
				identifier := "id-1"
				if h.Simulated {
					identifier = "id-2"
				}
				var told atomic.Int32
				together(storm, func(i int) {
					h := h
					h.Source[0] = byte(i)
					if contended, err := s.store.PutHandshake(s.Context(), identifier, h); err != nil {
						s.Error(err)
					} else if contended {
						told.Add(1)
					}
				})
				if n := told.Load(); n != 1 {
					s.Errorf("%s: told %d times", identifier, n)
				}
			}
		}},
		{"storm: everyone gets the same secret, and one replaces it", func(s *suite) {
			secrets := make([][]byte, storm)
			var replaced atomic.Int32
			together(storm, func(i int) {
				got, err := s.store.SimulationSecret(s.Context(), random(100))
				if err != nil {
					s.Error(err)
				}
				secrets[i] = got
			})
			for _, got := range secrets {
				if !bytes.Equal(got, secrets[0]) {
					s.Fatal("two secrets")
				}
			}
			together(storm, func(int) {
				ok, err := s.store.ReplaceSimulationSecret(s.Context(), secrets[0], random(100))
				if err != nil {
					s.Error(err)
				} else if ok {
					replaced.Add(1)
				}
			})
			if n := replaced.Load(); n != 1 {
				s.Fatalf("replaced %d times", n)
			}
		}},
		{"storm: registrations are replaced under running exchanges", func(s *suite) {
			first := s.created("id-1", activation.KindMDL)
			latest := atomic.Pointer[activation.Record]{}
			latest.Store(&first)
			together(storm, func(i int) {
				for range 3 {
					current := *latest.Load()
					if i%4 == 0 {
						r := newRecord("id-1", activation.KindMDL)
						if _, ok, err := s.store.Create(s.Context(), r, current.Generation); err != nil {
							s.Error(err)
						} else if ok {
							latest.Store(&r)
						}
						continue
					}
					token, ok := s.exchange(current)
					if !ok {
						continue
					}
					got, ok, err := s.store.Settle(s.Context(), "id-1", settlement(current.Generation, token, true))
					if err != nil {
						s.Error(err)
					}
					if problem := differ(got, current); ok && problem != "" {
						s.Error(problem)
					}
				}
			})
		}},
	}
}

// exchange puts a handshake and takes one. It reports whether it took one: another
// goroutine may have taken or replaced it. The source is one of a few.
func (s *suite) exchange(r activation.Record) (activation.Token, bool) {
	s.Helper()
	token := newToken()
	h := newHandshake(r.Generation)
	h.Source[0] = token[0] % (2 * activation.MaxHandshakes)
	if _, err := s.store.PutHandshake(s.Context(), r.Identifier, h); err != nil {
		s.Error(err)
	}
	_, ok, err := s.store.Take(s.Context(), r.Identifier, token, h.Source, maxAttempts)
	if err != nil {
		s.Error(err)
	}
	return token, ok && err == nil
}

// Benchmark measures the two transactions of a proof, Take and Settle, on a
// store, by one caller and by several.
func Benchmark(b *testing.B, store activation.Store) {
	b.Helper()
	once := func(b *testing.B, identifier string, r activation.Record) {
		b.Helper()
		if _, err := store.PutHandshake(b.Context(), identifier, newHandshake(r.Generation)); err != nil {
			b.Fatal(err)
		}
		token := newToken()
		if _, ok, err := store.Take(b.Context(), identifier, token, activation.Tag{}, maxAttempts); err != nil || !ok {
			b.Fatalf("take: %v, error %v", ok, err)
		}
		x := settlement(r.Generation, token, true)
		x.MaxActivations = 1 << 30
		if _, ok, err := store.Settle(b.Context(), identifier, x); err != nil || !ok {
			b.Fatalf("settle: %v, error %v", ok, err)
		}
	}
	register := func(b *testing.B) activation.Record {
		b.Helper()
		r := newRecord("bench-"+string(newIdentifier()), activation.KindMDL)
		r.Lifetime = 100 * lifetime
		if _, ok, err := store.Create(b.Context(), r, activation.Generation{}); err != nil || !ok {
			b.Fatalf("create: %v, error %v", ok, err)
		}
		return r
	}
	b.Run("serial", func(b *testing.B) {
		r := register(b)
		for b.Loop() {
			once(b, r.Identifier, r)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			r := register(b)
			for pb.Next() {
				once(b, r.Identifier, r)
			}
		})
	})
}

// newIdentifier draws letters.
func newIdentifier() []byte {
	id := random(12)
	for i := range id {
		id[i] = 'a' + id[i]%26
	}
	return id
}
