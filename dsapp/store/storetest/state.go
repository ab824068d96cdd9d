package storetest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

func simulation() []test {
	return []test{
		{"simulated: take creates the record that a registration would have", func(s *suite) {
			h := newSimulated()
			s.put("id-1", h)
			got, _, ok := s.take("id-1", maxAttempts)
			if !ok || !got.Simulated || got.Generation != h.Generation || !bytes.Equal(got.State, h.State) {
				s.Fatalf("take: %v, simulated %v, %d bytes of state", ok, got.Simulated, len(got.State))
			}
			s.same(s.load("id-1"), activation.Record{
				Identifier: "id-1", Generation: h.Generation, Kind: activation.KindSimulated, Lifetime: h.RecordLifetime,
			})
		}},
		{"simulated: attempts are counted and burn like real ones, and are never proven", func(s *suite) {
			h := newSimulated()
			for range maxAttempts {
				s.put("id-1", h)
				_, token, ok := s.take("id-1", maxAttempts)
				if !ok {
					s.Fatal("refused below the limit")
				}
				s.refuseSettle("id-1", settlement(h.Generation, token, true))
			}
			s.put("id-1", h)
			s.refuseTake("id-1", maxAttempts)
			s.put("id-1", h)
			s.refuseTake("id-1", 10*maxAttempts)
			s.same(s.load("id-1"), activation.Record{
				Identifier: "id-1", Generation: h.Generation, Kind: activation.KindSimulated, Lifetime: h.RecordLifetime,
			})
		}},
		{"simulated: a handshake of another generation than the record's is refused", func(s *suite) {
			h := newSimulated()
			s.put("id-1", h)
			s.take("id-1", maxAttempts)
			s.put("id-1", newSimulated())
			s.refuseTake("id-1", maxAttempts)
			if got := s.load("id-1"); got.Generation != h.Generation {
				s.Fatal("the record was replaced")
			}
		}},
		{"simulated: a flood drops simulated state only", func(s *suite) {
			genuine := s.created("real", activation.KindMDL)
			s.put("real", newHandshake(genuine.Generation))
			for i := range 4 * MaxSimulated {
				s.put(fmt.Sprintf("unknown-%d", i), newSimulated())
			}
			handshakes := 0
			for i := range 4 * MaxSimulated {
				if _, _, ok := s.take(fmt.Sprintf("unknown-%d", i), maxAttempts); ok {
					handshakes++
				}
			}
			if handshakes == 0 || handshakes > MaxSimulated {
				s.Errorf("%d simulated handshakes were kept, want 1 to %d", handshakes, MaxSimulated)
			}
			for i := range 4 * MaxSimulated {
				identifier := fmt.Sprintf("other-%d", i)
				s.put(identifier, newSimulated())
				s.take(identifier, maxAttempts)
			}
			records := 0
			for i := range 4 * MaxSimulated {
				for _, prefix := range []string{"unknown", "other"} {
					_, found, err := s.store.Load(s.Context(), fmt.Sprintf("%s-%d", prefix, i))
					if err != nil {
						s.Fatal(err)
					}
					if found {
						records++
					}
				}
			}
			if records == 0 || records > MaxSimulated {
				s.Errorf("%d simulated records were kept, want 1 to %d", records, MaxSimulated)
			}
			if _, _, ok := s.take("real", maxAttempts); !ok {
				s.Fatal("a real handshake was dropped")
			}
			s.same(s.load("real"), withoutData(genuine))
			s.succeed(genuine)
			later := s.created("later", activation.KindMDL)
			s.succeed(later)
		}},
	}
}

func secrets() []test {
	return []test{
		{"secret: the first candidate stays", func(s *suite) {
			first := random(100)
			for _, candidate := range [][]byte{first, random(100), random(60)} {
				got, err := s.store.SimulationSecret(s.Context(), candidate)
				if err != nil || !bytes.Equal(got, first) {
					s.Fatalf("not the first candidate, error %v", err)
				}
			}
		}},
		{"secret: replaced only if the current value is known", func(s *suite) {
			if ok, err := s.store.ReplaceSimulationSecret(s.Context(), nil, random(100)); err != nil || ok {
				s.Fatalf("replaced a value that does not exist: %v, error %v", ok, err)
			}
			first, second, third := random(100), random(100), random(100)
			if _, err := s.store.SimulationSecret(s.Context(), first); err != nil {
				s.Fatal(err)
			}
			for _, tt := range []struct {
				name          string
				current, next []byte
				want          bool
			}{
				{"another value", third, second, false},
				{"a prefix", first[:99], second, false},
				{"nothing", nil, second, false},
				{"the current value", first, second, true},
				{"the value before", first, third, false},
				{"the new value", second, third, true},
			} {
				ok, err := s.store.ReplaceSimulationSecret(s.Context(), tt.current, tt.next)
				if err != nil || ok != tt.want {
					s.Fatalf("%s: replaced %v, error %v, want %v", tt.name, ok, err, tt.want)
				}
			}
			if got, err := s.store.SimulationSecret(s.Context(), first); err != nil || !bytes.Equal(got, third) {
				s.Fatalf("not the last value, error %v", err)
			}
		}},
	}
}

func expiry() []test {
	return []test{
		{"expiry: the remaining lifetime shrinks", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			before := s.load("id-1").Lifetime
			poll.Until(s.T, "a shorter lifetime", func() bool { return s.load("id-1").Lifetime < before })
			if got, ok := s.settle("id-1", settlement(r.Generation, s.taken("id-1", r.Generation), true)); !ok || got.Lifetime >= before {
				s.Fatalf("settle: %v with %v left of %v", ok, got.Lifetime, before)
			}
		}},
		{"expiry: a record ends, and its identifier is free", func(s *suite) {
			r := newRecord("id-1", activation.KindMDL)
			r.Lifetime = brief
			s.create(r)
			s.put("id-1", newHandshake(r.Generation))
			poll.Until(s.T, "the end of the record", func() bool {
				_, found, err := s.store.Load(s.Context(), "id-1")
				return err == nil && !found
			})
			s.refuseTake("id-1", maxAttempts)
			s.refuseDevice("id-1")
			next := s.created("id-1", activation.KindMDL)
			s.same(s.load("id-1"), withoutData(next))
			s.succeed(next)
		}},
		{"expiry: a proof in flight does not outlive its record", func(s *suite) {
			r := newRecord("id-1", activation.KindMDL)
			r.Lifetime = short
			s.create(r)
			token := s.taken("id-1", r.Generation)
			poll.Until(s.T, "the end of the record", func() bool {
				_, found, err := s.store.Load(s.Context(), "id-1")
				return err == nil && !found
			})
			s.refuseSettle("id-1", settlement(r.Generation, token, true))
			s.absent("id-1")
		}},
		{"expiry: affinity ends", func(s *suite) {
			r := newRecord("id-1", activation.KindAffinity)
			r.Lifetime = brief
			s.create(r)
			poll.Until(s.T, "the end of the record", func() bool {
				_, ok := s.admitDevice("id-1")
				s.returnDevice("id-1", r.Generation)
				return !ok
			})
			if _, ok := s.confirm("id-1", maxAttempts, activation.KindAffinity); ok {
				s.Fatal("an expired record was confirmed")
			}
		}},
		{"expiry: a tombstone outlives its record and admits nothing", func(s *suite) {
			r := newRecord("id-1", activation.KindMDL)
			r.Lifetime = short
			s.create(r)
			s.succeed(r)
			s.burn(r)
			poll.Until(s.T, "the end of the record", func() bool { return s.load("id-1").Lifetime <= 0 })
			if problem := differ(s.load("id-1"), withoutSecrets(r)); problem != "" {
				s.Fatal(problem)
			}
			s.refuseDevice("id-1")
			if _, ok := s.confirm("id-1", maxAttempts, activation.KindMDL); ok {
				s.Fatal("an expired record was confirmed")
			}
			existing, created, err := s.store.Create(s.Context(), newRecord("id-1", activation.KindMDL), newGeneration())
			if err != nil || created {
				s.Fatalf("created %v, error %v, want a refusal", created, err)
			}
			if problem := differ(existing, withoutSecrets(r)); problem != "" {
				s.Fatal(problem)
			}
			s.put("id-1", newHandshake(r.Generation))
			s.refuseTake("id-1", maxAttempts)
			next := newRecord("id-1", activation.KindMDL)
			if _, created, err := s.store.Create(s.Context(), next, r.Generation); err != nil || !created {
				s.Fatalf("created %v, error %v", created, err)
			}
			s.same(s.load("id-1"), withoutData(next))
		}},
		{"expiry: a handshake ends and is not counted", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			h := newHandshake(r.Generation)
			h.Lifetime = 20 * time.Millisecond
			s.put("id-1", h)
			s.elapse(60 * time.Millisecond)
			s.refuseTake("id-1", maxAttempts)
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts {
				s.Fatalf("%d attempts left, want all %d", n, maxAttempts)
			}
		}},
		{"expiry: a simulated record ends", func(s *suite) {
			h := newSimulated()
			h.RecordLifetime = brief
			s.put("id-1", h)
			if _, _, ok := s.take("id-1", maxAttempts); !ok {
				s.Fatal("refused")
			}
			poll.Until(s.T, "the end of the record", func() bool {
				_, found, err := s.store.Load(s.Context(), "id-1")
				return err == nil && !found
			})
			again := newSimulated()
			s.put("id-1", again)
			if _, _, ok := s.take("id-1", maxAttempts); !ok {
				s.Fatal("refused after the end")
			}
			if got := s.load("id-1"); got.Generation != again.Generation {
				s.Fatal("the expired record came back")
			}
		}},
		{"expiry: attempts and activations do not prolong a record", func(s *suite) {
			r := newRecord("id-1", activation.KindMDL)
			r.Lifetime = short
			s.create(r)
			s.succeed(r)
			s.fail(r)
			poll.Until(s.T, "the end of the record", func() bool {
				if _, found, err := s.store.Load(s.Context(), "id-1"); err != nil || !found {
					return err == nil
				}
				s.put("id-1", newHandshake(r.Generation))
				s.admitDevice("id-1")
				s.returnDevice("id-1", r.Generation)
				return false
			})
		}},
	}
}

func isolation() []test {
	return []test{
		{"copies: what the caller does to its slices does not reach the store", func(s *suite) {
			r := newRecord("id-1", activation.KindMDL)
			given := r
			given.Facts, given.Verifier, given.Data = bytes.Clone(r.Facts), bytes.Clone(r.Verifier), bytes.Clone(r.Data)
			s.create(given)
			clear(given.Facts)
			clear(given.Verifier)
			clear(given.Data)
			s.same(s.load("id-1"), withoutData(r))

			h := newHandshake(r.Generation)
			state := bytes.Clone(h.State)
			s.put("id-1", h)
			clear(h.State)
			got, token, ok := s.take("id-1", maxAttempts)
			if !ok || !bytes.Equal(got.State, state) {
				s.Fatalf("take: %v, the state was changed", ok)
			}

			candidate := random(100)
			kept := bytes.Clone(candidate)
			if _, err := s.store.SimulationSecret(s.Context(), candidate); err != nil {
				s.Fatal(err)
			}
			clear(candidate)
			if got, err := s.store.SimulationSecret(s.Context(), random(10)); err != nil || !bytes.Equal(got, kept) {
				s.Fatalf("the secret was changed, error %v", err)
			}

			x := settlement(r.Generation, token, true)
			for range 2 {
				settled, ok := s.settle("id-1", x)
				if !ok {
					s.Fatal("refused")
				}
				s.same(settled, r)
				clear(settled.Facts)
				clear(settled.Verifier)
				clear(settled.Data)
			}
		}},
		{"copies: what the caller does to results does not reach the store", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			for range 2 {
				got := s.load("id-1")
				s.same(got, withoutData(r))
				clear(got.Facts)
				clear(got.Verifier)
				existing, _, err := s.store.Create(s.Context(), newRecord("id-1", activation.KindMDL), activation.Generation{})
				if err != nil {
					s.Fatal(err)
				}
				s.same(existing, withoutData(r))
				clear(existing.Facts)
				clear(existing.Verifier)
			}
			first := random(100)
			for range 3 {
				got, err := s.store.SimulationSecret(s.Context(), first)
				if err != nil || !bytes.Equal(got, first) {
					s.Fatalf("the secret was changed, error %v", err)
				}
				if &got[0] != &first[0] {
					clear(got)
				}
			}
		}},
		{"context: a call whose context is over fails and changes nothing", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			s.put("id-1", newHandshake(r.Generation))
			ctx, id := canceled(s.T), "id-1"

			_, err := s.store.Reserve(ctx)
			s.unavailable("Reserve", err)
			_, _, err = s.store.Create(ctx, newRecord(id, activation.KindMDL), r.Generation)
			s.unavailable("Create", err)
			_, _, err = s.store.Load(ctx, id)
			s.unavailable("Load", err)
			_, err = s.store.PutHandshake(ctx, id, newHandshake(newGeneration()))
			s.unavailable("PutHandshake", err)
			_, _, err = s.store.Take(ctx, id, newToken(), activation.Tag{}, maxAttempts)
			s.unavailable("Take", err)
			_, _, err = s.store.Settle(ctx, id, settlement(r.Generation, newToken(), true))
			s.unavailable("Settle", err)
			_, _, err = s.store.AdmitDevice(ctx, id, maxAttempts)
			s.unavailable("AdmitDevice", err)
			s.unavailable("ReturnDevice", s.store.ReturnDevice(ctx, id, r.Generation))
			_, _, err = s.store.AdmitConfirmation(ctx, id, maxAttempts, activation.KindMDL)
			s.unavailable("AdmitConfirmation", err)
			s.unavailable("ReturnConfirmation", s.store.ReturnConfirmation(ctx, id, r.Generation))
			_, _, err = s.store.Inspect(ctx, id)
			s.unavailable("Inspect", err)
			_, _, err = s.store.Burn(ctx, id, maxAttempts)
			s.unavailable("Burn", err)
			s.unavailable("Remove", s.store.Remove(ctx, id, r.Generation))
			_, err = s.store.SimulationSecret(ctx, random(10))
			s.unavailable("SimulationSecret", err)
			_, err = s.store.ReplaceSimulationSecret(ctx, nil, random(10))
			s.unavailable("ReplaceSimulationSecret", err)

			s.same(s.load(id), withoutData(r))
			if _, _, ok := s.take(id, 1); !ok {
				s.Fatal("the handshake or the attempts were changed")
			}
			if _, ok := s.admitDevice(id); !ok {
				s.Fatal("the right to add a device was consumed")
			}
			s.refuseDevice(id)
		}},
	}
}
