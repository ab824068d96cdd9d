// Package storetest has the specification of activation.Store and ownership.Store. Model
// says what every call answers, and Memory makes a store in memory of it for the tests of
// services. Run and RunOwnership are the conformance suites: a store on which they succeed
// does everything that the services rely on.
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// MaxSimulated is the limit of simulated handshakes, and of simulated records, that a store
// under test must be opened with. It is small enough for the suite to reach it, and large
// enough for the other tests not to.
const MaxSimulated = 64

// Lifetimes and limits of the suite.
const (
	// lifetime does not end within a test.
	lifetime = time.Minute
	// brief is the lifetime of what a test waits for to end.
	brief = 150 * time.Millisecond
	// short is for what must end after some calls that have to succeed before.
	short = 6 * time.Second
	// maxAttempts and maxActivations are the limits where a test does not depend on them.
	maxAttempts    = 3
	maxActivations = 3
)

// Run checks that the stores returned by open keep the contract of activation.Store. Every
// call of open must return an empty store with the limit MaxSimulated, and register its own
// cleanup. Tests run in parallel, each on a store of its own.
func Run(t *testing.T, open func(t *testing.T) activation.Store) {
	t.Helper()
	for _, tests := range [][]test{
		creation(), handshakes(), sources(), contention(), attempts(), settlements(), burning(), devices(),
		confirmations(), inspection(), removal(), simulation(), secrets(), expiry(), isolation(), storms(),
	} {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				tt.run(&suite{T: t, store: open(t)})
			})
		}
	}
	t.Run("random operations agree with the model", func(t *testing.T) {
		t.Parallel()
		checkModel(t, open)
	})
}

// test is one sentence of the contract.
type test struct {
	name string
	run  func(s *suite)
}

// suite is a store under test. Its methods fail the test on every error.
type suite struct {
	*testing.T

	store activation.Store
}

func newGeneration() activation.Generation {
	var g activation.Generation
	_, _ = rand.Read(g[:])
	return g
}

func newToken() activation.Token {
	var t activation.Token
	_, _ = rand.Read(t[:])
	return t
}

// random returns n random bytes. Sealed values are binary.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func newRecord(identifier string, kind activation.Kind) activation.Record {
	r := activation.Record{
		Identifier: identifier,
		Generation: newGeneration(),
		Kind:       kind,
		Facts:      random(120),
		Lifetime:   lifetime,
	}
	if kind != activation.KindAffinity {
		r.Verifier = random(320)
		r.Data = random(200)
	}
	return r
}

func newHandshake(g activation.Generation) activation.Handshake {
	return activation.Handshake{Generation: g, State: random(900), Lifetime: lifetime}
}

func newSimulated() activation.Handshake {
	h := newHandshake(newGeneration())
	h.Simulated = true
	h.RecordLifetime = lifetime
	return h
}

func (s *suite) create(r activation.Record) {
	s.Helper()
	if existing, created, err := s.store.Create(s.Context(), r, activation.Generation{}); err != nil || !created {
		s.Fatalf("create %s: created %v, existing kind %q, error %v", r.Identifier, created, existing.Kind, err)
	}
}

// created stores a new record of kind and returns it.
func (s *suite) created(identifier string, kind activation.Kind) activation.Record {
	s.Helper()
	r := newRecord(identifier, kind)
	s.create(r)
	return r
}

// load returns the record, which must be there.
func (s *suite) load(identifier string) activation.Record {
	s.Helper()
	r, found, err := s.store.Load(s.Context(), identifier)
	if err != nil || !found {
		s.Fatalf("load %s: found %v, error %v", identifier, found, err)
	}
	return r
}

func (s *suite) absent(identifier string) {
	s.Helper()
	if _, found, err := s.store.Load(s.Context(), identifier); err != nil || found {
		s.Fatalf("load %s: found %v, error %v, want an unknown identifier", identifier, found, err)
	}
}

func (s *suite) put(identifier string, h activation.Handshake) (contended bool) {
	s.Helper()
	contended, err := s.store.PutHandshake(s.Context(), identifier, h)
	if err != nil {
		s.Fatalf("put handshake of %s: %v", identifier, err)
	}
	return contended
}

func (s *suite) take(identifier string, limit int) (activation.Handshake, activation.Token, bool) {
	s.Helper()
	return s.takeFrom(identifier, activation.Tag{}, limit)
}

func (s *suite) takeFrom(identifier string, source activation.Tag, limit int) (activation.Handshake, activation.Token, bool) {
	s.Helper()
	token := newToken()
	h, ok, err := s.store.Take(s.Context(), identifier, token, source, limit)
	if err != nil {
		s.Fatalf("take of %s: %v", identifier, err)
	}
	return h, token, ok
}

// taken puts a handshake and takes it, which must succeed.
func (s *suite) taken(identifier string, g activation.Generation) activation.Token {
	s.Helper()
	s.put(identifier, newHandshake(g))
	_, token, ok := s.take(identifier, maxAttempts)
	if !ok {
		s.Fatalf("take of %s was refused", identifier)
	}
	return token
}

func (s *suite) refuseTake(identifier string, limit int) {
	s.Helper()
	if h, _, ok := s.take(identifier, limit); ok || h.State != nil {
		s.Fatalf("take of %s: %v with %d bytes of state, want a refusal", identifier, ok, len(h.State))
	}
}

func settlement(g activation.Generation, token activation.Token, proven bool) activation.Settlement {
	return activation.Settlement{
		Generation: g, Token: token, Proven: proven, MaxAttempts: maxAttempts, MaxActivations: maxActivations,
	}
}

func (s *suite) settle(identifier string, x activation.Settlement) (activation.Record, bool) {
	s.Helper()
	r, ok, err := s.store.Settle(s.Context(), identifier, x)
	if err != nil {
		s.Fatalf("settle of %s: %v", identifier, err)
	}
	return r, ok
}

func (s *suite) refuseSettle(identifier string, x activation.Settlement) {
	s.Helper()
	if r, ok := s.settle(identifier, x); ok || r.Data != nil {
		s.Fatalf("settle of %s: %v with %d bytes of data, want a refusal", identifier, ok, len(r.Data))
	}
}

// fail makes one whole exchange with wrong evidence.
func (s *suite) fail(r activation.Record) {
	s.Helper()
	s.refuseSettle(r.Identifier, settlement(r.Generation, s.taken(r.Identifier, r.Generation), false))
}

// succeed makes one whole exchange with right evidence and returns its settlement.
func (s *suite) succeed(r activation.Record) activation.Settlement {
	s.Helper()
	x := settlement(r.Generation, s.taken(r.Identifier, r.Generation), true)
	got, ok := s.settle(r.Identifier, x)
	if !ok {
		s.Fatalf("settle of %s was refused", r.Identifier)
	}
	s.same(got, r)
	return x
}

// burn uses up every attempt of r.
func (s *suite) burn(r activation.Record) {
	s.Helper()
	for range maxAttempts {
		s.fail(r)
	}
}

// attemptsLeft counts how many proofs can be taken at once. It uses them up.
func (s *suite) attemptsLeft(r activation.Record, limit int) int {
	s.Helper()
	for n := range limit + 1 {
		s.put(r.Identifier, newHandshake(r.Generation))
		if _, _, ok := s.take(r.Identifier, limit); !ok {
			return n
		}
	}
	s.Fatalf("more than %d attempts of %s were reserved", limit, r.Identifier)
	return 0
}

func (s *suite) admitDevice(identifier string) (activation.Record, bool) {
	s.Helper()
	r, ok, err := s.store.AdmitDevice(s.Context(), identifier, maxAttempts)
	if err != nil {
		s.Fatalf("admit device of %s: %v", identifier, err)
	}
	return r, ok
}

func (s *suite) refuseDevice(identifier string) {
	s.Helper()
	if r, ok := s.admitDevice(identifier); ok || r.Facts != nil {
		s.Fatalf("admit device of %s: %v with %d bytes of facts, want a refusal", identifier, ok, len(r.Facts))
	}
}

func (s *suite) returnDevice(identifier string, g activation.Generation) {
	s.Helper()
	if err := s.store.ReturnDevice(s.Context(), identifier, g); err != nil {
		s.Fatalf("return device of %s: %v", identifier, err)
	}
}

func (s *suite) confirm(identifier string, limit int, kinds ...activation.Kind) (activation.Record, bool) {
	s.Helper()
	r, ok, err := s.store.AdmitConfirmation(s.Context(), identifier, limit, kinds...)
	if err != nil {
		s.Fatalf("admit confirmation of %s: %v", identifier, err)
	}
	return r, ok
}

func (s *suite) returnConfirmation(identifier string, g activation.Generation) {
	s.Helper()
	if err := s.store.ReturnConfirmation(s.Context(), identifier, g); err != nil {
		s.Fatalf("return confirmation of %s: %v", identifier, err)
	}
}

func (s *suite) remove(identifier string, g activation.Generation) {
	s.Helper()
	if err := s.store.Remove(s.Context(), identifier, g); err != nil {
		s.Fatalf("remove %s: %v", identifier, err)
	}
}

// same fails unless got is want in every member but the lifetime, which must be
// what is left of it.
func (s *suite) same(got, want activation.Record) {
	s.Helper()
	if problem := differ(got, want); problem != "" {
		s.Fatal(problem)
	}
	if got.Lifetime <= 0 || got.Lifetime > want.Lifetime {
		s.Fatalf("record of %s has %v left of %v", want.Identifier, got.Lifetime, want.Lifetime)
	}
}

// differ returns a text about the first difference of two records, or an empty one. It
// ignores the lifetime. Absent values must be nil.
func differ(got, want activation.Record) string {
	switch {
	case got.Identifier != want.Identifier:
		return fmt.Sprintf("record has identifier %q, want %q", got.Identifier, want.Identifier)
	case got.Generation != want.Generation:
		return "record of " + want.Identifier + " has another generation"
	case got.Kind != want.Kind:
		return fmt.Sprintf("record of %s has kind %q, want %q", want.Identifier, got.Kind, want.Kind)
	}
	for _, m := range []struct {
		name      string
		got, want []byte
	}{{"facts", got.Facts, want.Facts}, {"verifier", got.Verifier, want.Verifier}, {"data", got.Data, want.Data}} {
		if !slices.Equal(m.got, m.want) || (m.got == nil) != (m.want == nil) {
			return fmt.Sprintf("record of %s has %d bytes of %s that are not the %d bytes expected",
				want.Identifier, len(m.got), m.name, len(m.want))
		}
	}
	return ""
}

// withoutData returns r as calls return it that do not return Data.
func withoutData(r activation.Record) activation.Record {
	r.Data, r.Answer = nil, nil
	return r
}

// withoutSecrets returns r as calls return it that return neither Verifier nor Data.
func withoutSecrets(r activation.Record) activation.Record {
	r.Verifier, r.Data, r.Answer = nil, nil, nil
	return r
}

// elapse waits for d by the clock of the store. The end of a handshake cannot be polled,
// because Take removes the handshake.
func (s *suite) elapse(d time.Duration) {
	<-time.After(d)
}

// canceled returns a context that has ended.
func canceled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// unavailable fails unless err wraps ErrUnavailable.
func (s *suite) unavailable(call string, err error) {
	s.Helper()
	if !errors.Is(err, activation.ErrUnavailable) {
		s.Errorf("%s: error %v does not wrap ErrUnavailable", call, err)
	}
}
