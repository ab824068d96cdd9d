package storetest

import (
	"fmt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// differInState returns a text about the first difference of two states besides their
// records, or an empty one.
func differInState(got, want activation.State) string {
	if got.Burned != want.Burned {
		return fmt.Sprintf("burned %v, want %v", got.Burned, want.Burned)
	}
	for _, n := range []struct {
		name      string
		got, want int
	}{
		{"attempts", got.Attempts, want.Attempts},
		{"proofs in flight", got.InFlight, want.InFlight},
		{"activations", got.Activations, want.Activations},
		{"devices", got.Devices, want.Devices},
		{"confirmations", got.Confirmations, want.Confirmations},
	} {
		if n.got != n.want {
			return fmt.Sprintf("%d %s, want %d", n.got, n.name, n.want)
		}
	}
	return ""
}

// inspect fails unless the state of r is want and has no secrets.
func (s *suite) inspect(r activation.Record, want activation.State) {
	s.Helper()
	got, found, err := s.store.Inspect(s.Context(), r.Identifier)
	if err != nil || !found {
		s.Fatalf("inspect %s: found %v, error %v", r.Identifier, found, err)
	}
	s.same(got.Record, withoutSecrets(r))
	if problem := differInState(got, want); problem != "" {
		s.Fatalf("inspect %s: %s", r.Identifier, problem)
	}
}

// burnNow burns r by the operator's call.
func (s *suite) burnNow(r activation.Record) {
	s.Helper()
	got, ok, err := s.store.Burn(s.Context(), r.Identifier, maxAttempts)
	if err != nil || !ok {
		s.Fatalf("burn %s: %v, error %v", r.Identifier, ok, err)
	}
	s.same(got, withoutSecrets(r))
}

func inspection() []test {
	return []test{
		{"inspect: counters, without secrets", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			s.inspect(r, activation.State{})
			s.succeed(r)
			s.fail(r)
			s.taken("id-1", r.Generation)
			s.inspect(r, activation.State{Attempts: 2, InFlight: 1, Activations: 1, Devices: 1})
			s.admitDevice("id-1")
			s.confirm("id-1", maxAttempts, activation.KindMDL)
			s.inspect(r, activation.State{Attempts: 2, InFlight: 1, Activations: 1, Confirmations: 1})
			affinity := s.created("id-2", activation.KindAffinity)
			s.admitDevice("id-2")
			s.inspect(affinity, activation.State{Devices: 1})
			burned := s.created("id-3", activation.KindStandard)
			s.burn(burned)
			s.inspect(burned, activation.State{Burned: true, Attempts: maxAttempts})
			if _, found, err := s.store.Inspect(s.Context(), "id-4"); err != nil || found {
				s.Fatalf("inspect of an unknown identifier: found %v, error %v", found, err)
			}
		}},
		{"burn: nothing can be done any more", func(s *suite) {
			for _, kind := range []activation.Kind{activation.KindMDL, activation.KindStandard} {
				r := s.created("id-"+string(kind), kind)
				s.succeed(r)
				s.succeed(r)
				if kind == activation.KindMDL {
					s.admitDevice(r.Identifier) // and is given back below
				}
				token := s.taken(r.Identifier, r.Generation)
				s.put(r.Identifier, newHandshake(r.Generation))
				for range 2 {
					s.burnNow(r)
				}
				s.same(s.load(r.Identifier), withoutSecrets(r))
				s.refuseSettle(r.Identifier, settlement(r.Generation, token, true))
				s.refuseTake(r.Identifier, maxAttempts)
				s.put(r.Identifier, newHandshake(r.Generation))
				s.refuseTake(r.Identifier, 10*maxAttempts)
				s.returnDevice(r.Identifier, r.Generation)
				s.refuseDevice(r.Identifier)
				s.returnConfirmation(r.Identifier, r.Generation)
				if _, ok := s.confirm(r.Identifier, maxAttempts, kind); ok {
					s.Fatal("a final call was admitted")
				}
				if _, created, err := s.store.Create(s.Context(), newRecord(r.Identifier, kind), newGeneration()); err != nil || created {
					s.Fatalf("created %v over the tombstone, error %v", created, err)
				}
			}
		}},
		{"burn: affinity, also with calls that are given back later", func(s *suite) {
			r := s.created("id-1", activation.KindAffinity)
			s.admitDevice("id-1")
			s.confirm("id-1", maxAttempts, activation.KindAffinity)
			s.burnNow(r)
			s.returnDevice("id-1", r.Generation)
			s.refuseDevice("id-1")
			s.returnConfirmation("id-1", r.Generation)
			if _, ok := s.confirm("id-1", maxAttempts, activation.KindAffinity); ok {
				s.Fatal("a final call was admitted")
			}
		}},
		{"burn: a simulated and an unknown identifier are nobody's registration", func(s *suite) {
			h := newSimulated()
			s.put("id-1", h)
			s.take("id-1", maxAttempts)
			for _, id := range []string{"id-1", "id-2"} {
				if r, ok, err := s.store.Burn(s.Context(), id, maxAttempts); err != nil || ok || r.Facts != nil {
					s.Fatalf("burn %s: %v, error %v", id, ok, err)
				}
			}
			if got := s.load("id-1"); got.Kind != activation.KindSimulated {
				s.Fatal("the simulated record was changed")
			}
			s.absent("id-2")
		}},
		{"burn: the tombstone outlives the record, and another registration can follow", func(s *suite) {
			r := newRecord("id-1", activation.KindMDL)
			r.Lifetime = brief
			s.create(r)
			s.burnNow(r)
			poll.Until(s.T, "the end of the record", func() bool { return s.load("id-1").Lifetime <= 0 })
			if problem := differ(s.load("id-1"), withoutSecrets(r)); problem != "" {
				s.Fatal(problem)
			}
			next := newRecord("id-1", activation.KindMDL)
			if _, created, err := s.store.Create(s.Context(), next, r.Generation); err != nil || !created {
				s.Fatalf("created %v, error %v", created, err)
			}
			s.succeed(next)
		}},
	}
}
