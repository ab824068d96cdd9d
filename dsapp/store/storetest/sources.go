package storetest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// from returns h from another source.
func from(source byte, h activation.Handshake) activation.Handshake {
	h.Source = activation.Tag{source}
	return h
}

// filled puts handshakes of sources 1 to n, in that order, each made by newOne.
func (s *suite) filled(identifier string, n byte, newOne func() activation.Handshake) []activation.Handshake {
	s.Helper()
	var all []activation.Handshake
	for source := byte(1); source <= n; source++ {
		h := from(source, newOne())
		s.put(identifier, h)
		all = append(all, h)
	}
	return all
}

// takes fails unless a proof from source takes want.
func (s *suite) takes(identifier string, source byte, want activation.Handshake) activation.Token {
	s.Helper()
	got, token, ok := s.takeFrom(identifier, activation.Tag{source}, 10)
	if !ok || got.Source != want.Source || got.Application != want.Application || !bytes.Equal(got.State, want.State) {
		s.Fatalf("take of %s from %d: %v, source %d, want that of source %d", identifier, source, ok, got.Source[0], want.Source[0])
	}
	return token
}

// refuseTakeFrom fails unless a proof from source is refused.
func (s *suite) refuseTakeFrom(identifier string, source byte) {
	s.Helper()
	if h, _, ok := s.takeFrom(identifier, activation.Tag{source}, 10); ok || h.State != nil {
		s.Fatalf("take of %s from %d: %v, want a refusal", identifier, source, ok)
	}
}

// either runs a test for a registered identifier and for an unknown one, whose
// handshakes are of one generation as well.
func either(run func(s *suite, identifier string, newOne func() activation.Handshake)) func(s *suite) {
	return func(s *suite) {
		r := s.created("known", activation.KindMDL)
		run(s, "known", func() activation.Handshake { return newHandshake(r.Generation) })
		g := newGeneration()
		run(s, "unknown", func() activation.Handshake {
			h := newSimulated()
			h.Generation = g
			return h
		})
	}
}

func sources() []test {
	return []test{
		{"source: each has a handshake of its own, taken once", either(func(s *suite, id string, newOne func() activation.Handshake) {
			all := s.filled(id, activation.MaxHandshakes, newOne)
			for i, h := range all {
				s.takes(id, byte(i+1), h)
			}
			s.refuseTakeFrom(id, 1)
		})},
		{"source: one without a handshake takes the one that was put last", either(func(s *suite, id string, newOne func() activation.Handshake) {
			all := s.filled(id, activation.MaxHandshakes, newOne)
			again := from(2, newOne())
			s.put(id, again)
			for _, want := range []activation.Handshake{again, all[3], all[2], all[0]} {
				s.takes(id, 9, want)
			}
			s.refuseTakeFrom(id, 9)
		})},
		{"source: a new handshake replaces that of its source only", either(func(s *suite, id string, newOne func() activation.Handshake) {
			all := s.filled(id, 3, newOne)
			again := from(1, newOne())
			again.Application = activation.Tag{7}
			s.put(id, again)
			s.takes(id, 1, again)
			s.takes(id, 2, all[1])
			s.takes(id, 3, all[2])
			s.refuseTakeFrom(id, 1)
		})},
		{"source: one too many replaces the oldest", either(func(s *suite, id string, newOne func() activation.Handshake) {
			all := s.filled(id, activation.MaxHandshakes, newOne)
			// Whose handshake is replaced by another one of its own is no longer the oldest.
			again := from(1, newOne())
			s.put(id, again)
			extra := from(9, newOne())
			s.put(id, extra)
			s.takes(id, 1, again)
			s.takes(id, 3, all[2])
			s.takes(id, 4, all[3])
			s.takes(id, 2, extra)
			s.refuseTakeFrom(id, 2)
		})},
		{"source: a place that became free is used before the oldest", either(func(s *suite, id string, newOne func() activation.Handshake) {
			all := s.filled(id, activation.MaxHandshakes, newOne)
			s.takes(id, 3, all[2])
			extra := from(9, newOne())
			s.put(id, extra)
			for i, want := range []activation.Handshake{all[0], all[1], extra, all[3]} {
				s.takes(id, want.Source[0], want)
				if i == 3 {
					s.refuseTakeFrom(id, 1)
				}
			}
		})},
		{"source: only what was taken is removed", either(func(s *suite, id string, newOne func() activation.Handshake) {
			all := s.filled(id, 3, newOne)
			token := s.takes(id, 2, all[1])
			s.refuseSettle(id, settlement(all[1].Generation, token, false))
			s.takes(id, 1, all[0])
			s.takes(id, 3, all[2])
		})},
		{"source: only what was refused is removed", func(s *suite) {
			r := s.created("id-1", activation.KindMDL)
			all := s.filled("id-1", 2, func() activation.Handshake { return newHandshake(r.Generation) })
			s.put("id-1", from(3, newHandshake(newGeneration())))
			s.refuseTakeFrom("id-1", 3)
			s.takes("id-1", 1, all[0])
			s.takes("id-1", 3, all[1])
			if n := s.attemptsLeft(r, 5); n != 3 {
				s.Fatalf("%d attempts left, want 3 of 5: a refusal was counted", n)
			}
		}},
		{"source: attempts are limited for all together", either(func(s *suite, id string, newOne func() activation.Handshake) {
			s.filled(id, activation.MaxHandshakes, newOne)
			taken := 0
			for source := byte(1); source <= activation.MaxHandshakes; source++ {
				if _, _, ok := s.takeFrom(id, activation.Tag{source}, maxAttempts); ok {
					taken++
				}
			}
			if taken != maxAttempts {
				s.Fatalf("%d attempts, want %d", taken, maxAttempts)
			}
		})},
		{"source: each handshake has its own end", either(func(s *suite, id string, newOne func() activation.Handshake) {
			long, short := from(1, newOne()), from(2, newOne())
			short.Lifetime = 20 * time.Millisecond
			s.put(id, long)
			s.put(id, short)
			s.elapse(60 * time.Millisecond)
			s.takes(id, 2, long)
			s.refuseTakeFrom(id, 1)
		})},
		{"source: what has ended makes room before the oldest", either(func(s *suite, id string, newOne func() activation.Handshake) {
			oldest := from(1, newOne())
			s.put(id, oldest)
			for source := byte(2); source <= activation.MaxHandshakes; source++ {
				h := from(source, newOne())
				h.Lifetime = 20 * time.Millisecond
				s.put(id, h)
			}
			s.elapse(60 * time.Millisecond)
			s.put(id, from(9, newOne()))
			s.takes(id, 1, oldest)
		})},
		{"source: a registration removes the handshakes of all", func(s *suite) {
			r := newRecord("id-1", activation.KindMDL)
			newOne := func() activation.Handshake {
				h := newSimulated()
				h.Generation = r.Generation
				return h
			}
			s.filled("id-1", activation.MaxHandshakes, newOne)
			s.create(r)
			s.refuseTakeFrom("id-1", 1)
			s.filled("id-1", activation.MaxHandshakes, func() activation.Handshake { return newHandshake(r.Generation) })
			s.remove("id-1", r.Generation)
			s.create(r)
			s.refuseTakeFrom("id-1", 1)
		}},
		{"source: a flood from many drops simulated state only", func(s *suite) {
			r := s.created("real", activation.KindMDL)
			all := s.filled("real", activation.MaxHandshakes, func() activation.Handshake { return newHandshake(r.Generation) })
			for i := range MaxSimulated {
				s.filled(fmt.Sprintf("unknown-%d", i), activation.MaxHandshakes+1, newSimulated)
			}
			for i, h := range all {
				s.takes("real", byte(i+1), h)
			}
		}},
	}
}

func contention() []test {
	return []test{
		{"contention: told of another source, once", either(func(s *suite, id string, newOne func() activation.Handshake) {
			for i, want := range []bool{false, true, false, false, false} {
				if got := s.put(id, from(byte(i), newOne())); got != want {
					s.Fatalf("handshake %d: contended %v, want %v", i+1, got, want)
				}
			}
		})},
		{"contention: told of another application of the same source, once", either(func(s *suite, id string, newOne func() activation.Handshake) {
			for i, want := range []bool{false, false, true, false} {
				h := newOne()
				h.Application = activation.Tag{byte(i / 2)}
				if got := s.put(id, h); got != want {
					s.Fatalf("handshake %d: contended %v, want %v", i+1, got, want)
				}
			}
		})},
		{"contention: not by oneself", either(func(s *suite, id string, newOne func() activation.Handshake) {
			for range 3 {
				if s.put(id, newOne()) {
					s.Fatal("contended")
				}
			}
		})},
		{"contention: not with what was taken or has ended", either(func(s *suite, id string, newOne func() activation.Handshake) {
			s.put(id, from(1, newOne()))
			s.takeFrom(id, activation.Tag{1}, maxAttempts)
			short := from(2, newOne())
			short.Lifetime = 20 * time.Millisecond
			if s.put(id, short) {
				s.Fatal("with what was taken")
			}
			s.elapse(60 * time.Millisecond)
			if s.put(id, from(3, newOne())) {
				s.Fatal("with what has ended")
			}
			if !s.put(id, from(4, newOne())) {
				s.Fatal("not told")
			}
		})},
		{"contention: that it was told outlives the handshakes", either(func(s *suite, id string, newOne func() activation.Handshake) {
			s.put(id, from(1, newOne()))
			if !s.put(id, from(2, newOne())) {
				s.Fatal("not told")
			}
			for range 2 {
				s.takeFrom(id, activation.Tag{}, maxAttempts)
			}
			s.refuseTake(id, maxAttempts)
			s.put(id, from(1, newOne()))
			if s.put(id, from(2, newOne())) {
				s.Fatal("told twice")
			}
		})},
		{"contention: told of each registration by itself", func(s *suite) {
			for range 2 {
				r := newRecord("id-1", activation.KindMDL)
				s.create(r)
				for source, want := range []bool{false, true} {
					if got := s.put("id-1", from(byte(source), newHandshake(r.Generation))); got != want {
						s.Fatalf("contended %v, want %v", got, want)
					}
				}
				s.put("id-2", from(1, newSimulated()))
				s.remove("id-1", r.Generation)
			}
			if !s.put("id-2", from(2, newSimulated())) {
				s.Fatal("another identifier was told of, and this one is not")
			}
		}},
	}
}
