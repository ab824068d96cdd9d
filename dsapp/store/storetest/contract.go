package storetest

import (
	"bytes"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

func creation() []test {
	return []test{
		{"reserve: a record fits in with room, without any, and twice in what was reserved once", func(s *suite) {
			first, err := s.store.Reserve(s.Context())
			if err != nil {
				s.Fatal(err)
			}
			second, err := s.store.Reserve(s.Context())
			if err != nil {
				s.Fatal(err)
			}
			s.created("id-1", activation.KindMDL)
			first()
			first()
			s.created("id-2", activation.KindStandard)
			s.created("id-3", activation.KindAffinity)
			second()
			s.created("id-4", activation.KindMDL)
			third, err := s.store.Reserve(s.Context())
			if err != nil {
				s.Fatal(err)
			}
			third()
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
