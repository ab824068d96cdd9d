package storetest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

func creation() []test {
	return []test{
		{"writable: a working store accepts writes", func(s *suite) {
			if err := s.store.Writable(s.Context()); err != nil {
				s.Fatal(err)
			}
		}},
		{"create: every kind is stored and loaded without data", func(s *suite) {
			for _, kind := range []activation.Kind{activation.KindMDL, activation.KindStandard, activation.KindAffinity} {
				r := s.created("id-"+string(kind), kind)
				s.same(s.load(r.Identifier), withoutData(r))
			}
		}},
		{"create: an existing record is returned without data and kept", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			existing, created, err := s.store.Create(s.Context(), newRecord("id-1", activation.KindStandard), newGeneration())
			if err != nil || created {
				s.Fatalf("created %v, error %v, want a refusal", created, err)
			}
			s.same(existing, withoutData(r))
			s.same(s.load("id-1"), withoutData(r))
			s.succeed(r)
		}},
		{"create: a record of the replaced generation is replaced", func(s *suite) {
			old := s.created("id-1", activation.KindMDL)
			r := newRecord("id-1", activation.KindStandard)
			if _, created, err := s.store.Create(s.Context(), r, old.Generation); err != nil || !created {
				s.Fatalf("created %v, error %v", created, err)
			}
			s.same(s.load("id-1"), withoutData(r))
			s.succeed(r)
		}},
		{"create: replacing removes the handshake", func(s *suite) {
			old := s.created("id-1", activation.KindMDL)
			r := newRecord("id-1", activation.KindMDL)
			s.put("id-1", newHandshake(r.Generation))
			if _, created, err := s.store.Create(s.Context(), r, old.Generation); err != nil || !created {
				s.Fatalf("created %v, error %v", created, err)
			}
			s.refuseTake("id-1", maxAttempts)
		}},
		{"create: a first registration removes the handshake too", func(s *suite) {
			r := newRecord("id-1", activation.KindMDL)
			h := newSimulated()
			h.Generation = r.Generation
			s.put("id-1", h)
			s.create(r)
			s.refuseTake("id-1", maxAttempts)
			s.same(s.load("id-1"), withoutData(r))
		}},
		{"create: replacing resets every counter", func(s *suite) {
			old := s.created("id-1", activation.KindMDL)
			s.succeed(old)
			s.fail(old)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("the first confirmation was refused")
			}
			inFlight := s.taken("id-1", old.Generation)
			r := newRecord("id-1", activation.KindMDL)
			if _, created, err := s.store.Create(s.Context(), r, old.Generation); err != nil || !created {
				s.Fatalf("created %v, error %v", created, err)
			}
			s.refuseDevice("id-1")
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); ok {
				s.Fatal("an activation of the replaced registration still counts")
			}
			s.refuseSettle("id-1", settlement(old.Generation, inFlight, true))
			s.refuseSettle("id-1", settlement(r.Generation, inFlight, true))
			for range maxActivations {
				s.succeed(r)
			}
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts {
				s.Fatalf("%d attempts left, want all %d", n, maxAttempts)
			}
		}},
		{"create: repeating it succeeds and changes nothing", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			s.fail(r)
			s.put("id-1", newHandshake(r.Generation))
			again := r
			again.Facts, again.Lifetime = random(120), 2*lifetime
			for _, replaces := range []activation.Generation{{}, newGeneration(), r.Generation} {
				if _, created, err := s.store.Create(s.Context(), again, replaces); err != nil || !created {
					s.Fatalf("created %v, error %v", created, err)
				}
			}
			s.same(s.load("id-1"), withoutData(r))
			if _, _, ok := s.take("id-1", 2); !ok {
				s.Fatal("the handshake was removed, or the attempts were changed")
			}
			s.put("id-1", newHandshake(r.Generation))
			s.refuseTake("id-1", 2)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("the right to add a device was lost")
			}
		}},
		{"create: a replaced record can be replaced again, by its own generation only", func(s *suite) {
			first := s.created("id-1", activation.KindMDL)
			second := newRecord("id-1", activation.KindMDL)
			if _, created, _ := s.store.Create(s.Context(), second, first.Generation); !created {
				s.Fatal("not created")
			}
			if existing, created, _ := s.store.Create(s.Context(), newRecord("id-1", activation.KindMDL), first.Generation); created ||
				existing.Generation != second.Generation {
				s.Fatal("the earlier generation still replaces")
			}
		}},
		{"create: a simulated record is replaced without asking", func(s *suite) {
			h := newSimulated()
			s.put("id-1", h)
			_, token, ok := s.take("id-1", maxAttempts)
			if !ok {
				s.Fatal("a simulated handshake was refused")
			}
			r := s.created("id-1", activation.KindMDL)
			s.same(s.load("id-1"), withoutData(r))
			s.refuseSettle("id-1", settlement(h.Generation, token, true))
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts {
				s.Fatalf("%d attempts left, want all %d", n, maxAttempts)
			}
		}},
		{"create: identifiers do not share anything", func(s *suite) {
			a, b := s.created("id-1", activation.KindMDL), s.created("id-11", activation.KindMDL)
			s.burn(a)
			s.same(s.load("id-11"), withoutData(b))
			s.succeed(b)
			s.refuseDevice("id-1")
		}},
		{"load: an unknown identifier is not found", func(s *suite) {
			s.created("id-1", activation.KindMDL)
			s.absent("id-2")
			s.absent("ID-1")
		}},
	}
}

func handshakes() []test {
	return []test{
		{"handshake: it is returned once, as it was put", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			h := newHandshake(r.Generation)
			s.put("id-1", h)
			got, _, ok := s.take("id-1", maxAttempts)
			if !ok || got.Generation != h.Generation || !bytes.Equal(got.State, h.State) || got.Simulated {
				s.Fatalf("take: %v, simulated %v, %d bytes of state", ok, got.Simulated, len(got.State))
			}
			if got.Lifetime <= 0 || got.Lifetime > h.Lifetime {
				s.Fatalf("handshake has %v left of %v", got.Lifetime, h.Lifetime)
			}
			s.refuseTake("id-1", maxAttempts)
		}},
		{"handshake: a new one replaces the old", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.put("id-1", newHandshake(r.Generation))
			h := newHandshake(r.Generation)
			s.put("id-1", h)
			got, _, ok := s.take("id-1", maxAttempts)
			if !ok || !bytes.Equal(got.State, h.State) {
				s.Fatalf("take: %v, not the latest handshake", ok)
			}
			s.refuseTake("id-1", maxAttempts)
		}},
		{"handshake: a short one replaces a long one and ends", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.put("id-1", newHandshake(r.Generation))
			h := newHandshake(r.Generation)
			h.Lifetime = time.Millisecond
			s.put("id-1", h)
			s.elapse(20 * time.Millisecond)
			s.refuseTake("id-1", maxAttempts)
		}},
		{"handshake: putting one does not count", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			for range 4 * maxAttempts {
				s.put("id-1", newHandshake(r.Generation))
			}
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts {
				s.Fatalf("%d attempts left, want all %d", n, maxAttempts)
			}
		}},
		{"handshake: it does not make a registration", func(s *suite) {
			s.put("id-1", newHandshake(newGeneration()))
			s.put("id-2", newSimulated())
			s.absent("id-1")
			s.absent("id-2")
		}},
		{"handshake: one that replaces a usable one and cannot be used takes its place", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.put("id-1", newHandshake(r.Generation))
			s.put("id-1", newHandshake(newGeneration()))
			s.refuseTake("id-1", maxAttempts)
			s.refuseTake("id-1", maxAttempts)
		}},
	}
}

func attempts() []test {
	return []test{
		{"take: without a handshake it is refused and not counted", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			for range 2 * maxAttempts {
				s.refuseTake("id-1", maxAttempts)
			}
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts {
				s.Fatalf("%d attempts left, want all %d", n, maxAttempts)
			}
		}},
		{"take: without a record it is refused", func(s *suite) {
			s.put("id-1", newHandshake(newGeneration()))
			s.refuseTake("id-1", maxAttempts)
			s.absent("id-1")
		}},
		{"take: a handshake of another generation is refused, removed and not counted", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.put("id-1", newHandshake(newGeneration()))
			s.refuseTake("id-1", maxAttempts)
			simulated := newSimulated()
			s.put("id-1", simulated)
			s.refuseTake("id-1", maxAttempts)
			s.same(s.load("id-1"), withoutData(r))
			s.refuseTake("id-1", maxAttempts)
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts {
				s.Fatalf("%d attempts left, want all %d", n, maxAttempts)
			}
		}},
		{"take: attempts are limited, in flight or failed", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.fail(r)
			s.taken("id-1", r.Generation)
			if n := s.attemptsLeft(r, 5); n != 3 {
				s.Fatalf("%d attempts left, want 3 of 5", n)
			}
		}},
		{"take: at the limit the handshake is removed", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.taken("id-1", r.Generation)
			s.put("id-1", newHandshake(r.Generation))
			s.refuseTake("id-1", 1)
			s.refuseTake("id-1", 5)
		}},
		{"take: no attempts at all", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.put("id-1", newHandshake(r.Generation))
			s.refuseTake("id-1", 0)
			s.put("id-2", newSimulated())
			s.refuseTake("id-2", 0)
			s.absent("id-2")
			s.same(s.load("id-1"), withoutData(r))
		}},
		{"take: a proof that never settles stays counted", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.taken("id-1", r.Generation)
			s.taken("id-1", r.Generation)
			s.succeed(r)
			if n := s.attemptsLeft(r, maxAttempts); n != 1 {
				s.Fatalf("%d attempts left, want 1", n)
			}
		}},
		{"take: a simulated handshake of a registration's generation is taken as any other", func(s *suite) {
			r := s.created("id-1", activation.KindAffinity)
			h := newSimulated()
			h.Generation = r.Generation
			s.put("id-1", h)
			got, token, ok := s.take("id-1", maxAttempts)
			if !ok || !got.Simulated {
				s.Fatalf("take: %v, simulated %v", ok, got.Simulated)
			}
			s.refuseSettle("id-1", settlement(r.Generation, token, false))
			s.same(s.load("id-1"), r)
		}},
	}
}

func settlements() []test {
	return []test{
		{"settle: a proven one returns the whole record and gives its attempt back", func(s *suite) {
			r := s.created("id-1", activation.KindStandard)
			s.succeed(r)
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts {
				s.Fatalf("%d attempts left, want all %d", n, maxAttempts)
			}
		}},
		{"settle: a failed one is refused and stays counted", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.fail(r)
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts-1 {
				s.Fatalf("%d attempts left, want %d", n, maxAttempts-1)
			}
		}},
		{"settle: a failed one returns nothing of the record", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			got, ok := s.settle("id-1", settlement(r.Generation, s.taken("id-1", r.Generation), false))
			if ok || differ(got, activation.Record{}) != "" {
				s.Fatalf("settle: %v with a record", ok)
			}
		}},
		{"settle: only a proof in flight is settled", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.refuseSettle("id-1", settlement(r.Generation, newToken(), true))
			token := s.taken("id-1", r.Generation)
			s.refuseSettle("id-1", settlement(r.Generation, newToken(), true))
			s.refuseSettle("id-1", settlement(r.Generation, newToken(), false))
			if _, ok := s.settle("id-1", settlement(r.Generation, token, true)); !ok {
				s.Fatal("the proof in flight was refused")
			}
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts {
				s.Fatalf("%d attempts left, want all %d", n, maxAttempts)
			}
		}},
		{"settle: a proof of another generation is refused and stays in flight", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			token := s.taken("id-1", r.Generation)
			s.refuseSettle("id-1", settlement(newGeneration(), token, true))
			s.refuseSettle("id-1", settlement(newGeneration(), token, false))
			if _, ok := s.settle("id-1", settlement(r.Generation, token, true)); !ok {
				s.Fatal("the proof is no longer in flight")
			}
		}},
		{"settle: a token belongs to one identifier", func(s *suite) {
			a, b := s.created("id-1", activation.KindMDL), s.created("id-2", activation.KindMDL)
			token := s.taken("id-1", a.Generation)
			s.refuseSettle("id-2", settlement(a.Generation, token, true))
			s.refuseSettle("id-2", settlement(b.Generation, token, true))
			s.refuseSettle("id-3", settlement(a.Generation, token, true))
		}},
		{"settle: repeating a proven one returns the same and counts once", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			x := s.succeed(r)
			for range 3 {
				got, ok := s.settle("id-1", x)
				if !ok {
					s.Fatal("the repetition was refused")
				}
				s.same(got, r)
			}
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("no device admitted")
			}
			s.refuseDevice("id-1")
			s.fail(r)
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts-1 {
				s.Fatalf("%d attempts left, want %d: the repetition gave attempts back", n, maxAttempts-1)
			}
		}},
		{"settle: the outcome of the first one holds, whatever the repetition says", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			x := s.succeed(r)
			x.Proven = false
			if _, ok := s.settle("id-1", x); !ok {
				s.Fatal("a settled proof was settled again")
			}
			y := settlement(r.Generation, s.taken("id-1", r.Generation), false)
			s.refuseSettle("id-1", y)
			y.Proven = true
			s.refuseSettle("id-1", y)
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts-1 {
				s.Fatalf("%d attempts left, want %d", n, maxAttempts-1)
			}
		}},
		{"settle: a repetition after a later proof was taken still returns the same", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			x := s.succeed(r)
			s.taken("id-1", r.Generation)
			if _, ok := s.settle("id-1", x); !ok {
				s.Fatal("the repetition was refused")
			}
		}},
		{"settle: an earlier token counts nothing after another proof was settled", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			x := s.succeed(r)
			s.fail(r)
			s.refuseSettle("id-1", x)
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts-1 {
				s.Fatalf("%d attempts left, want %d", n, maxAttempts-1)
			}
		}},
		{"settle: activations are limited, and a proof beyond them stays counted", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			for range maxActivations {
				s.succeed(r)
			}
			for range maxAttempts {
				x := settlement(r.Generation, s.taken("id-1", r.Generation), true)
				s.refuseSettle("id-1", x)
				s.refuseSettle("id-1", x)
			}
			s.put("id-1", newHandshake(r.Generation))
			s.refuseTake("id-1", maxAttempts)
			if got := s.load("id-1"); got.Verifier != nil {
				s.Fatal("a record without attempts keeps its verifier")
			}
			for range maxActivations {
				if _, ok := s.admitDevice("id-1"); !ok {
					s.Fatal("a right to add a device is missing")
				}
			}
			s.refuseDevice("id-1")
		}},
		{"settle: no activations at all", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			x := settlement(r.Generation, s.taken("id-1", r.Generation), true)
			x.MaxActivations = 0
			s.refuseSettle("id-1", x)
			s.refuseDevice("id-1")
		}},
		{"settle: proofs in flight settle in any order", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			first, second := s.taken("id-1", r.Generation), s.taken("id-1", r.Generation)
			if _, ok := s.settle("id-1", settlement(r.Generation, second, true)); !ok {
				s.Fatal("the second proof was refused")
			}
			s.refuseSettle("id-1", settlement(r.Generation, first, false))
			if n := s.attemptsLeft(r, maxAttempts); n != maxAttempts-1 {
				s.Fatalf("%d attempts left, want %d", n, maxAttempts-1)
			}
		}},
	}
}

func burning() []test {
	return []test{
		{"burn: the secrets are wiped once every attempt is used", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			for range maxAttempts - 1 {
				s.fail(r)
				s.same(s.load("id-1"), withoutData(r))
			}
			s.fail(r)
			s.same(s.load("id-1"), withoutSecrets(r))
		}},
		{"burn: not while a proof is in flight, which can still succeed", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.fail(r)
			first, second := s.taken("id-1", r.Generation), s.taken("id-1", r.Generation)
			s.refuseSettle("id-1", settlement(r.Generation, first, false))
			s.same(s.load("id-1"), withoutData(r))
			got, ok := s.settle("id-1", settlement(r.Generation, second, true))
			if !ok {
				s.Fatal("the proof in flight was refused")
			}
			s.same(got, r)
			s.same(s.load("id-1"), withoutData(r))
			if n := s.attemptsLeft(r, maxAttempts); n != 1 {
				s.Fatalf("%d attempts left, want 1", n)
			}
		}},
		{"burn: the last proof in flight burns", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			tokens := []activation.Token{s.taken("id-1", r.Generation), s.taken("id-1", r.Generation), s.taken("id-1", r.Generation)}
			for _, token := range tokens {
				s.same(s.load("id-1"), withoutData(r))
				s.refuseSettle("id-1", settlement(r.Generation, token, false))
			}
			s.same(s.load("id-1"), withoutSecrets(r))
		}},
		{"burn: nothing is taken or settled afterwards, at no limit", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.burn(r)
			s.put("id-1", newHandshake(r.Generation))
			s.refuseTake("id-1", 10*maxAttempts)
			s.refuseTake("id-1", 10*maxAttempts)
			s.refuseSettle("id-1", settlement(r.Generation, newToken(), true))
		}},
		{"burn: the identifier stays taken, and can be replaced", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.burn(r)
			existing, created, err := s.store.Create(s.Context(), newRecord("id-1", activation.KindMDL), activation.Generation{})
			if err != nil || created {
				s.Fatalf("created %v, error %v, want a refusal", created, err)
			}
			s.same(existing, withoutSecrets(r))
			next := newRecord("id-1", activation.KindMDL)
			if _, created, err := s.store.Create(s.Context(), next, r.Generation); err != nil || !created {
				s.Fatalf("created %v, error %v", created, err)
			}
			s.same(s.load("id-1"), withoutData(next))
			s.succeed(next)
		}},
		{"burn: what was admitted before stays admitted", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			s.burn(r)
			got, ok := s.admitDevice("id-1")
			if !ok {
				s.Fatal("a right that was earned is gone")
			}
			s.same(got, withoutSecrets(r))
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("the final call is refused")
			}
		}},
		{"burn: affinity stays", func(s *suite) {
			r := s.created("id-1", activation.KindAffinity)
			h := newSimulated()
			h.Generation = r.Generation
			for range maxAttempts {
				s.put("id-1", h)
				_, token, ok := s.take("id-1", maxAttempts)
				if !ok {
					s.Fatal("refused below the limit")
				}
				s.refuseSettle("id-1", settlement(r.Generation, token, false))
			}
			s.put("id-1", h)
			s.refuseTake("id-1", 10*maxAttempts)
			for range 2 {
				got, ok := s.admitDevice("id-1")
				if !ok {
					s.Fatal("a device is refused")
				}
				s.same(got, r)
				if _, ok := s.confirm("id-1", 2, activation.KindAffinity); !ok {
					s.Fatal("the final call is refused")
				}
			}
		}},
		{"burn: repeating the settlement that burned is refused again", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.fail(r)
			s.fail(r)
			x := settlement(r.Generation, s.taken("id-1", r.Generation), false)
			s.refuseSettle("id-1", x)
			s.refuseSettle("id-1", x)
			s.same(s.load("id-1"), withoutSecrets(r))
		}},
	}
}

func devices() []test {
	return []test{
		{"device: one exchange admits one, without secrets", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.refuseDevice("id-1")
			s.succeed(r)
			got, ok := s.admitDevice("id-1")
			if !ok {
				s.Fatal("refused after an exchange")
			}
			s.same(got, withoutSecrets(r))
			s.refuseDevice("id-1")
			s.succeed(r)
			s.succeed(r)
			for range 2 {
				if _, ok := s.admitDevice("id-1"); !ok {
					s.Fatal("refused after two exchanges")
				}
			}
			s.refuseDevice("id-1")
		}},
		{"device: a failed exchange admits none", func(s *suite) {
			s.fail(s.created("id-1", activation.KindMDL))
			s.refuseDevice("id-1")
		}},
		{"device: affinity admits as many as attempts, besides those given back", func(s *suite) {
			r := s.created("id-1", activation.KindAffinity)
			for range 2 * maxAttempts {
				got, ok := s.admitDevice("id-1")
				if !ok {
					s.Fatal("refused")
				}
				s.same(got, r)
				s.returnDevice("id-1", r.Generation)
			}
			// What was not consumed cannot be returned.
			s.returnDevice("id-1", r.Generation)
			for range maxAttempts {
				if _, ok := s.admitDevice("id-1"); !ok {
					s.Fatal("refused below the limit")
				}
			}
			s.refuseDevice("id-1")
			s.returnDevice("id-1", newGeneration())
			s.returnConfirmation("id-1", r.Generation)
			s.refuseDevice("id-1")
			s.returnDevice("id-1", r.Generation)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("the returned call is refused")
			}
			s.refuseDevice("id-1")
			if _, ok := s.confirm("id-1", 1, activation.KindAffinity); !ok {
				s.Fatal("devices count as final calls")
			}
		}},
		{"device: affinity is never proven, which would give calls back", func(s *suite) {
			r := s.created("id-1", activation.KindAffinity)
			h := newSimulated()
			h.Generation = r.Generation
			s.put("id-1", h)
			_, token, ok := s.take("id-1", maxAttempts)
			if !ok {
				s.Fatal("refused below the limit")
			}
			s.refuseSettle("id-1", settlement(r.Generation, token, true))
			s.refuseSettle("id-1", settlement(r.Generation, token, true))
			for range maxAttempts {
				if _, ok := s.admitDevice("id-1"); !ok {
					s.Fatal("refused below the limit")
				}
			}
			s.refuseDevice("id-1")
		}},
		{"device: no other kind, no unknown identifier", func(s *suite) {
			s.succeed(s.created("id-1", activation.KindStandard))
			s.refuseDevice("id-1")
			s.put("id-2", newSimulated())
			s.take("id-2", maxAttempts)
			s.refuseDevice("id-2")
			s.refuseDevice("id-3")
		}},
		{"device: a returned right can be used again, once", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("refused")
			}
			s.returnDevice("id-1", r.Generation)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("the returned right is refused")
			}
			s.refuseDevice("id-1")
		}},
		{"device: what was not consumed cannot be returned", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.returnDevice("id-1", r.Generation)
			s.refuseDevice("id-1")
			s.succeed(r)
			s.returnDevice("id-1", r.Generation)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("refused")
			}
			s.refuseDevice("id-1")
		}},
		{"device: nothing is returned to another generation or kind", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("refused")
			}
			s.returnDevice("id-1", newGeneration())
			s.refuseDevice("id-1")
			standard := s.created("id-2", activation.KindStandard)
			s.returnDevice("id-2", standard.Generation)
			s.refuseDevice("id-2")
			s.returnDevice("id-3", newGeneration())
			s.absent("id-3")
		}},
	}
}

func confirmations() []test {
	return []test{
		{"confirmation: only after an activation, limited, without secrets", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			if _, ok := s.confirm("id-1", 2, activation.KindMDL); ok {
				s.Fatal("admitted before an activation")
			}
			s.succeed(r)
			for range 2 {
				got, ok := s.confirm("id-1", 2, activation.KindMDL)
				if !ok {
					s.Fatal("refused")
				}
				s.same(got, withoutSecrets(r))
			}
			if got, ok := s.confirm("id-1", 2, activation.KindMDL); ok || got.Facts != nil {
				s.Fatal("admitted beyond the limit")
			}
			if _, ok := s.confirm("id-1", 3, activation.KindMDL); !ok {
				s.Fatal("a refused call was counted")
			}
		}},
		{"confirmation: further activations do not reset the count", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("refused")
			}
			s.succeed(r)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); ok {
				s.Fatal("admitted beyond the limit")
			}
		}},
		{"confirmation: only of the kinds given, and a refusal is not counted", func(s *suite) {
			mdl, standard := s.created("id-1", activation.KindMDL), s.created("id-2", activation.KindStandard)
			s.succeed(mdl)
			s.succeed(standard)
			for _, tt := range []struct {
				identifier string
				kinds      []activation.Kind
				want       bool
			}{
				{"id-1", nil, false},
				{"id-1", []activation.Kind{activation.KindStandard}, false},
				{"id-1", []activation.Kind{activation.KindAffinity, activation.KindSimulated}, false},
				{"id-1", []activation.Kind{activation.KindAffinity, activation.KindMDL}, true},
				{"id-2", []activation.Kind{activation.KindMDL, activation.KindAffinity}, false},
				{"id-2", []activation.Kind{activation.KindStandard}, true},
				{"id-3", []activation.Kind{activation.KindMDL, activation.KindStandard, activation.KindAffinity}, false},
			} {
				if _, ok := s.confirm(tt.identifier, 1, tt.kinds...); ok != tt.want {
					s.Fatalf("%s as %v: %v, want %v", tt.identifier, tt.kinds, ok, tt.want)
				}
			}
		}},
		{"confirmation: affinity needs no activation, and is limited", func(s *suite) {
			r := s.created("id-1", activation.KindAffinity)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); ok {
				s.Fatal("admitted as another kind")
			}
			for range 3 {
				got, ok := s.confirm("id-1", 1, activation.KindMDL, activation.KindAffinity)
				if !ok {
					s.Fatal("refused")
				}
				s.same(got, r)
				if _, ok := s.confirm("id-1", 1, activation.KindAffinity); ok {
					s.Fatal("admitted beyond the limit")
				}
				s.returnDevice("id-1", r.Generation)
				if _, ok := s.confirm("id-1", 1, activation.KindAffinity); ok {
					s.Fatal("returning a device returned a call")
				}
				s.returnConfirmation("id-1", r.Generation)
			}
			s.returnConfirmation("id-1", r.Generation)
			if _, ok := s.confirm("id-1", 0, activation.KindAffinity); ok {
				s.Fatal("admitted without any attempt")
			}
		}},
		{"confirmation: never of a simulated record", func(s *suite) {
			h := newSimulated()
			s.put("id-1", h)
			_, token, _ := s.take("id-1", maxAttempts)
			s.refuseSettle("id-1", settlement(h.Generation, token, true))
			if _, ok := s.confirm("id-1", 1, activation.KindSimulated, activation.KindMDL); ok {
				s.Fatal("admitted")
			}
		}},
		{"confirmation: independent of devices", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("refused before a device was added")
			}
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("the confirmation consumed the right to add a device")
			}
		}},
		{"confirmation: a returned call can be made again, once", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			for range 2 {
				if _, ok := s.confirm("id-1", 2, activation.KindMDL); !ok {
					s.Fatal("refused")
				}
			}
			s.returnConfirmation("id-1", r.Generation)
			if _, ok := s.confirm("id-1", 2, activation.KindMDL); !ok {
				s.Fatal("the returned call is refused")
			}
			if _, ok := s.confirm("id-1", 2, activation.KindMDL); ok {
				s.Fatal("admitted beyond the limit")
			}
		}},
		{"confirmation: what was not counted cannot be returned", func(s *suite) {
			r := s.created("id-1", activation.KindStandard)
			s.returnConfirmation("id-1", r.Generation)
			if _, ok := s.confirm("id-1", 1, activation.KindStandard); ok {
				s.Fatal("admitted before an activation")
			}
			s.succeed(r)
			s.returnConfirmation("id-1", r.Generation)
			if _, ok := s.confirm("id-1", 1, activation.KindStandard); !ok {
				s.Fatal("refused")
			}
			if _, ok := s.confirm("id-1", 1, activation.KindStandard); ok {
				s.Fatal("admitted beyond the limit")
			}
			affinity := s.created("id-2", activation.KindAffinity)
			s.returnConfirmation("id-2", affinity.Generation)
			if _, ok := s.confirm("id-2", 1, activation.KindAffinity); !ok {
				s.Fatal("affinity is refused")
			}
			s.returnConfirmation("id-3", newGeneration())
			s.absent("id-3")
		}},
		{"confirmation: nothing is returned to another generation", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("refused")
			}
			s.returnConfirmation("id-1", newGeneration())
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); ok {
				s.Fatal("admitted beyond the limit")
			}
		}},
		{"confirmation: returning one gives no device back", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			if _, ok := s.admitDevice("id-1"); !ok {
				s.Fatal("refused")
			}
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("refused")
			}
			s.returnConfirmation("id-1", r.Generation)
			s.refuseDevice("id-1")
			s.returnDevice("id-1", r.Generation)
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); !ok {
				s.Fatal("the returned call is refused")
			}
			if _, ok := s.confirm("id-1", 1, activation.KindMDL); ok {
				s.Fatal("returning a device returned a call")
			}
		}},
	}
}

func removal() []test {
	return []test{
		{"remove: the record and its handshake are gone", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.succeed(r)
			s.put("id-1", newHandshake(r.Generation))
			s.remove("id-1", r.Generation)
			s.absent("id-1")
			s.refuseTake("id-1", maxAttempts)
			s.refuseDevice("id-1")
			s.create(r)
			s.refuseTake("id-1", maxAttempts)
			s.refuseDevice("id-1")
		}},
		{"remove: another generation stays, with its handshake", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.put("id-1", newHandshake(r.Generation))
			s.remove("id-1", newGeneration())
			s.remove("id-2", r.Generation)
			s.same(s.load("id-1"), withoutData(r))
			if _, _, ok := s.take("id-1", maxAttempts); !ok {
				s.Fatal("the handshake is gone")
			}
		}},
		{"remove: a burned record and a simulated one are removed too", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.burn(r)
			s.remove("id-1", r.Generation)
			s.absent("id-1")
			h := newSimulated()
			s.put("id-2", h)
			s.take("id-2", maxAttempts)
			s.remove("id-2", h.Generation)
			s.absent("id-2")
		}},
		{"remove: a proof in flight does not bring it back", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			token := s.taken("id-1", r.Generation)
			s.remove("id-1", r.Generation)
			s.refuseSettle("id-1", settlement(r.Generation, token, true))
			s.returnDevice("id-1", r.Generation)
			s.returnConfirmation("id-1", r.Generation)
			s.absent("id-1")
		}},
	}
}

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
			s.eventually("a shorter lifetime", func() bool { return s.load("id-1").Lifetime < before })
			if got, ok := s.settle("id-1", settlement(r.Generation, s.taken("id-1", r.Generation), true)); !ok || got.Lifetime >= before {
				s.Fatalf("settle: %v with %v left of %v", ok, got.Lifetime, before)
			}
		}},
		{"expiry: a record ends, and its identifier is free", func(s *suite) {
			r := newRecord("id-1", activation.KindMDL)
			r.Lifetime = brief
			s.create(r)
			s.put("id-1", newHandshake(r.Generation))
			s.eventually("the end of the record", func() bool {
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
			s.eventually("the end of the record", func() bool {
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
			s.eventually("the end of the record", func() bool {
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
			s.eventually("the end of the record", func() bool { return s.load("id-1").Lifetime <= 0 })
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
			s.eventually("the end of the record", func() bool {
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
			s.eventually("the end of the record", func() bool {
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

			s.unavailable("Writable", s.store.Writable(ctx))
			_, _, err := s.store.Create(ctx, newRecord(id, activation.KindMDL), r.Generation)
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
