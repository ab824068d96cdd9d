package storetest

import (
	"bytes"
	"context"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Answer implements repeat.Store.
func (m *Memory) Answer(ctx context.Context, identifier string) (answer []byte, err error) {
	err = m.call(ctx, "Answer", func() { answer = bytes.Clone(m.model.answer(identifier)) })
	return answer, err
}

func (s *repeatSuite) markedOutcomes() {
	m := newMark("1")
	m.Outcome = random(200)
	s.marked(m)
	s.has(m, m.Outcome)
	s.keep(m, []byte("outcome"))
	s.has(m, []byte("outcome"))
	s.forget(m)
	s.absent(m)
}

// answered fails unless the registration has that answer.
func (s *repeatSuite) answered(identifier string, want []byte) {
	s.Helper()
	if got, err := s.store.Answer(s.Context(), identifier); err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
		s.Fatalf("answer of %s: %d bytes, error %v, want %d", identifier, len(got), err, len(want))
	}
}

func (s *repeatSuite) answers() {
	x := &suite{T: s.T, store: s.store}
	register := func(identifier string, kind activation.Kind, answer []byte) activation.Record {
		s.Helper()
		r := newRecord(identifier, kind)
		r.Answer = answer
		x.create(r)
		s.answered(identifier, answer)
		return r
	}
	s.answered("unknown", nil)
	register("plain", activation.KindMDL, nil)

	r := register("completed", activation.KindMDL, random(4000))
	if found := x.load(r.Identifier); found.Answer != nil {
		s.Fatal("Load returns the answer")
	}
	// An exchange leaves it as it is, and shows nothing of it.
	if done := x.succeed(r); done.Proven {
		if again, ok := x.settle(r.Identifier, done); !ok || again.Answer != nil {
			s.Fatal("Settle returns the answer")
		}
	}
	s.answered(r.Identifier, r.Answer)
	x.remove(r.Identifier, r.Generation)
	s.answered(r.Identifier, nil)

	r = register("burned", activation.KindStandard, random(100))
	x.burn(r)
	s.answered(r.Identifier, nil)

	for _, kind := range []activation.Kind{activation.KindMDL, activation.KindAffinity} {
		r = register("ended-"+string(kind), kind, random(100))
		if _, ok, err := s.store.Burn(s.Context(), r.Identifier, maxAttempts); err != nil || !ok {
			s.Fatalf("burn: %v, error %v", ok, err)
		}
		s.answered(r.Identifier, nil)
	}

	for _, answer := range [][]byte{random(100), nil} {
		r = register("replaced", activation.KindAffinity, random(100))
		next := newRecord(r.Identifier, r.Kind)
		next.Answer = answer
		if _, created, err := s.store.Create(s.Context(), next, r.Generation); err != nil || !created {
			s.Fatalf("created %v, error %v", created, err)
		}
		s.answered(r.Identifier, answer)
		x.remove(r.Identifier, next.Generation)
	}

	r = newRecord("expired", activation.KindAffinity)
	r.Answer, r.Lifetime = random(100), brief
	x.create(r)
	poll.Until(s, "the end of an answer", func() bool {
		answer, err := s.store.Answer(s.Context(), r.Identifier)
		return err == nil && answer == nil
	})
}
