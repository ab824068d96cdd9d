package storetest

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// keptEntry is what the model has about a call.
type keptEntry struct {
	repeat.Entry

	end time.Time
}

// keptFor returns the entry of a digest, and whether there is one.
func (m *Model) keptFor(d repeat.Digest) (repeat.Entry, bool) {
	x, ok := m.kept[d]
	if !ok || m.over(x.end) {
		return repeat.Entry{}, false
	}
	x.Outcome = bytes.Clone(x.Outcome)
	return x.Entry, true
}

func (m *Model) mark(x repeat.Mark) (repeat.Entry, bool) {
	e, found := m.keptFor(x.Digest)
	if !found {
		m.kept[x.Digest] = keptEntry{repeat.Entry{Token: x.Token}, m.now().Add(x.Lifetime)}
	}
	return e, found
}

func (m *Model) keep(x repeat.Mark, outcome []byte) {
	if e, found := m.keptFor(x.Digest); !found || e.Token == x.Token {
		m.kept[x.Digest] = keptEntry{repeat.Entry{Token: x.Token, Outcome: bytes.Clone(outcome)}, m.now().Add(x.Lifetime)}
	}
}

func (m *Model) forgetCall(d repeat.Digest, token repeat.Token) {
	if e, found := m.keptFor(d); found && e.Token == token {
		delete(m.kept, d)
	}
}

// Mark implements repeat.Store.
func (m *Memory) Mark(ctx context.Context, x repeat.Mark) (e repeat.Entry, found bool, err error) {
	err = m.call(ctx, "Mark", func() { e, found = m.model.mark(x) })
	return e, found, err
}

// MarkOwner implements repeat.Store.
func (m *Memory) MarkOwner(
	ctx context.Context, x repeat.Mark, kind ownership.Kind, key string,
) (e repeat.Entry, found bool, c ownership.Claim, owned bool, err error) {
	err = m.call(ctx, "MarkOwner", func() {
		e, found = m.model.mark(x)
		if o := m.model.owner(Request{kind, key}); o != nil {
			c, owned = cloneClaim(o.Claim), true
		}
	})
	return e, found, c, owned, err
}

// MarkPending implements repeat.Store.
func (m *Memory) MarkPending(
	ctx context.Context, x repeat.Mark, kind ownership.Kind, serialNumber string,
) (e repeat.Entry, found bool, claims []ownership.Claim, err error) {
	err = m.call(ctx, "MarkPending", func() {
		e, found = m.model.mark(x)
		for _, o := range m.model.listed(kind, serialNumber) {
			claims = append(claims, cloneClaim(o.Claim))
		}
	})
	return e, found, claims, err
}

// MarkDevice implements repeat.Store.
func (m *Memory) MarkDevice(
	ctx context.Context, x repeat.Mark, identifier string, maxAttempts int,
) (e repeat.Entry, found bool, r activation.Record, admitted bool, err error) {
	err = m.call(ctx, "MarkDevice", func() {
		e, found, r, admitted = m.model.markAdmitted(x, func() (activation.Record, bool) { return m.model.admitDevice(identifier, maxAttempts) })
	})
	return e, found, r, admitted, err
}

// MarkConfirmation implements repeat.Store.
func (m *Memory) MarkConfirmation(
	ctx context.Context, x repeat.Mark, identifier string, maxAttempts int, kinds ...activation.Kind,
) (e repeat.Entry, found bool, r activation.Record, admitted bool, err error) {
	err = m.call(ctx, "MarkConfirmation", func() {
		e, found, r, admitted = m.model.markAdmitted(x, func() (activation.Record, bool) { return m.model.confirm(identifier, maxAttempts, kinds) })
	})
	return e, found, r, admitted, err
}

func (m *Model) markAdmitted(x repeat.Mark, admit func() (activation.Record, bool)) (e repeat.Entry, found bool, r activation.Record, admitted bool) {
	if e, found = m.keptFor(x.Digest); found {
		return e, true, r, false
	}
	if r, admitted = admit(); admitted {
		m.mark(x)
	}
	return e, false, cloneRecord(r), admitted
}

// Kept implements repeat.Store.
func (m *Memory) Kept(ctx context.Context, _ string, d repeat.Digest) (e repeat.Entry, found bool, err error) {
	err = m.call(ctx, "Kept", func() { e, found = m.model.keptFor(d) })
	return e, found, err
}

// Keep implements repeat.Store.
func (m *Memory) Keep(ctx context.Context, x repeat.Mark, outcome []byte) error {
	return m.call(ctx, "Keep", func() { m.model.keep(x, outcome) }, outcome)
}

// Forget implements repeat.Store.
func (m *Memory) Forget(ctx context.Context, _ string, d repeat.Digest, token repeat.Token) error {
	return m.call(ctx, "Forget", func() { m.model.forgetCall(d, token) })
}

var _ repeat.Store = (*Memory)(nil)

// RepeatStore is a store under test with everything that marks are combined with.
type RepeatStore interface {
	activation.Store
	ownership.Store
	repeat.Store
}

// RunRepeats checks that the stores returned by open keep the contract of repeat.Store. Every
// call of open must return an empty store and register its own cleanup. Tests run in parallel,
// each on a store of its own.
func RunRepeats(t *testing.T, open func(t *testing.T) RepeatStore) {
	t.Helper()
	for _, tt := range []struct {
		name string
		run  func(s *repeatSuite)
	}{
		{"the first call is marked, another one finds the mark", (*repeatSuite).marks},
		{"the outcome replaces the mark and is found until it ends", (*repeatSuite).outcomes},
		{"only the call that was marked removes its mark", (*repeatSuite).forgotten},
		{"a mark ends by itself", (*repeatSuite).ends},
		{"an outcome that comes late displaces no other call", (*repeatSuite).late},
		{"a look-up for the owner marks", (*repeatSuite).owners},
		{"only what is admitted is marked, and what was found is not admitted", (*repeatSuite).admissions},
		{"of many calls at once one is marked", (*repeatSuite).storm},
		{"random operations agree with the model", (*repeatSuite).random},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(&repeatSuite{T: t, store: open(t)})
		})
	}
}

// repeatSuite is a store under test. Its methods fail the test on every error.
type repeatSuite struct {
	*testing.T

	store RepeatStore
}

func newMark(place string) repeat.Mark {
	return repeat.Mark{Place: place, Digest: repeat.Digest(random(32)), Token: repeat.Token(random(16)), Lifetime: lifetime}
}

// twin returns the mark of the same call, made again.
func twin(m repeat.Mark) repeat.Mark {
	m.Token = repeat.Token(random(16))
	return m
}

func (s *repeatSuite) mark(m repeat.Mark) (repeat.Entry, bool) {
	s.Helper()
	e, found, err := s.store.Mark(s.Context(), m)
	if err != nil {
		s.Fatal(err)
	}
	return e, found
}

func (s *repeatSuite) marked(m repeat.Mark) {
	s.Helper()
	if _, found := s.mark(m); found {
		s.Fatal("another call was found")
	}
}

// has fails unless the entry of m has its token and the outcome, to Kept and to Mark.
func (s *repeatSuite) has(m repeat.Mark, outcome []byte) {
	s.Helper()
	e, found, err := s.store.Kept(s.Context(), m.Place, m.Digest)
	if err != nil || !found || e.Token != m.Token || !bytes.Equal(e.Outcome, outcome) || (e.Outcome == nil) != (outcome == nil) {
		s.Fatalf("found %v, error %v, %d bytes of outcome, want %d", found, err, len(e.Outcome), len(outcome))
	}
	if again, found := s.mark(twin(m)); !found || again.Token != m.Token || !bytes.Equal(again.Outcome, outcome) {
		s.Fatal("a repeat does not find what is kept")
	}
}

func (s *repeatSuite) absent(m repeat.Mark) {
	s.Helper()
	if _, found, err := s.store.Kept(s.Context(), m.Place, m.Digest); err != nil || found {
		s.Fatalf("found %v, error %v, want nothing", found, err)
	}
}

func (s *repeatSuite) keep(m repeat.Mark, outcome []byte) {
	s.Helper()
	if err := s.store.Keep(s.Context(), m, outcome); err != nil {
		s.Fatal(err)
	}
}

func (s *repeatSuite) forget(m repeat.Mark) {
	s.Helper()
	if err := s.store.Forget(s.Context(), m.Place, m.Digest, m.Token); err != nil {
		s.Fatal(err)
	}
}

func (s *repeatSuite) marks() {
	m, other := newMark("1234567890"), newMark("1234567890")
	s.absent(m)
	s.marked(m)
	s.has(m, nil)
	s.absent(other)
	s.marked(other)
}

func (s *repeatSuite) outcomes() {
	m, outcome := newMark("a.b-c_d"), random(3000)
	s.marked(m)
	s.keep(m, outcome)
	s.has(m, outcome)
	m.Lifetime = brief
	s.keep(m, outcome[:1])
	poll.Until(s, "the end of an outcome", func() bool {
		_, found, err := s.store.Kept(s.Context(), m.Place, m.Digest)
		return err == nil && !found
	})
	s.marked(twin(m))
}

func (s *repeatSuite) forgotten() {
	m := newMark("VDS1000000-1")
	s.marked(m)
	s.forget(twin(m))
	s.has(m, nil)
	s.forget(m)
	s.absent(m)
	s.forget(m)
	s.marked(twin(m))
}

func (s *repeatSuite) ends() {
	m := newMark("1")
	m.Lifetime = brief
	s.marked(m)
	next := twin(m)
	next.Lifetime = lifetime
	poll.Until(s, "the end of a mark", func() bool {
		_, found := s.mark(next)
		return !found
	})
	s.has(next, nil)
}

func (s *repeatSuite) late() {
	m := newMark("1")
	s.keep(m, []byte("late")) // The mark has ended.
	s.has(m, []byte("late"))
	s.keep(twin(m), []byte("another"))
	s.has(m, []byte("late"))
	s.keep(m, []byte("again"))
	s.has(m, []byte("again"))
}

func (s *repeatSuite) owners() {
	const key, device = "1234567890", "VDS1000000-1"
	c := newClaim(key)
	for _, claimed := range []bool{false, true} {
		if claimed {
			if won, err := s.store.Claim(s.Context(), ownership.Login, c, device, lifetime); err != nil || !won {
				s.Fatalf("claim: %v, error %v", won, err)
			}
		}
		m := newMark(key)
		for repeated := range 2 {
			e, found, got, owned, err := s.store.MarkOwner(s.Context(), m, ownership.Login, key)
			if err != nil || found != (repeated == 1) || owned != claimed || claimed && (got.Token != c.Token || !bytes.Equal(got.Owner, c.Owner)) {
				s.Fatalf("claimed %v, call %d: found %v, owned %v, error %v", claimed, repeated, found, owned, err)
			}
			if found && e.Token != m.Token {
				s.Fatal("another token")
			}
		}
		s.has(m, nil)
		m = newMark(device)
		for repeated := range 2 {
			_, found, claims, err := s.store.MarkPending(s.Context(), m, ownership.Login, device)
			if err != nil || found != (repeated == 1) || (len(claims) == 1) != claimed || claimed && claims[0].Token != c.Token {
				s.Fatalf("claimed %v, call %d: found %v, %d claims, error %v", claimed, repeated, found, len(claims), err)
			}
		}
		s.has(m, nil)
	}
}

func (s *repeatSuite) admissions() {
	const identifier = "registration-1"
	device := func(m repeat.Mark) (bool, bool) {
		s.Helper()
		_, found, _, admitted, err := s.store.MarkDevice(s.Context(), m, identifier, maxAttempts)
		if err != nil {
			s.Fatal(err)
		}
		return found, admitted
	}
	confirm := func(m repeat.Mark, kinds ...activation.Kind) (bool, bool) {
		s.Helper()
		_, found, r, admitted, err := s.store.MarkConfirmation(s.Context(), m, identifier, 2, kinds...)
		if err != nil || admitted && r.Identifier != identifier {
			s.Fatalf("record of %q, error %v", r.Identifier, err)
		}
		return found, admitted
	}
	want := func(what string, found, admitted, wantFound, wantAdmitted bool) {
		s.Helper()
		if found != wantFound || admitted != wantAdmitted {
			s.Fatalf("%s: found %v, admitted %v", what, found, admitted)
		}
	}
	m := newMark(identifier)
	found, admitted := device(m)
	want("unknown", found, admitted, false, false)
	s.absent(m)

	(&suite{T: s.T, store: s.store}).succeed((&suite{T: s.T, store: s.store}).created(identifier, activation.KindMDL))
	found, admitted = device(m)
	want("first device", found, admitted, false, true)
	s.has(m, nil)
	found, admitted = device(twin(m))
	want("its repeat", found, admitted, true, false)
	other := newMark(identifier)
	found, admitted = device(other)
	want("second device", found, admitted, false, false)
	s.absent(other)

	m = newMark(identifier)
	found, admitted = confirm(m, activation.KindStandard)
	want("wrong kind", found, admitted, false, false)
	for n := range 4 {
		found, admitted = confirm(m, activation.KindMDL, activation.KindAffinity)
		want("final call and its repeats", found, admitted, n > 0, n == 0)
	}
	found, admitted = confirm(newMark(identifier), activation.KindMDL)
	want("second final call", found, admitted, false, true)
	found, admitted = confirm(newMark(identifier), activation.KindMDL)
	want("third final call", found, admitted, false, false)
	if r, present, err := s.store.Inspect(s.Context(), identifier); err != nil || !present || r.Confirmations != 2 || r.Devices != 0 {
		s.Fatalf("%d final calls, %d devices, error %v", r.Confirmations, r.Devices, err)
	}
}

func (s *repeatSuite) storm() {
	m := newMark("1")
	var first atomic.Int32
	var wg sync.WaitGroup
	for range claimants {
		wg.Go(func() {
			_, found, err := s.store.Mark(s.Context(), twin(m))
			if err != nil {
				s.Error(err)
			}
			if !found {
				first.Add(1)
			}
		})
	}
	wg.Wait()
	if n := first.Load(); n != 1 {
		s.Errorf("%d calls were the first", n)
	}
}

// random makes the same random calls on the store and on a model, whose answers must agree.
func (s *repeatSuite) random() {
	model := newModel(time.Now)
	pick := func(n int) int { return int(random(1)[0]) % n }
	var marks []repeat.Mark
	for _, place := range []string{"1", "2", "3"} {
		m := newMark(place)
		marks = append(marks, m, twin(m))
	}
	for step := range 300 {
		m := marks[pick(len(marks))]
		switch pick(4) {
		case 0:
			wantEntry, want := model.mark(m)
			if e, found := s.mark(m); found != want || e.Token != wantEntry.Token || !bytes.Equal(e.Outcome, wantEntry.Outcome) {
				s.Fatalf("step %d: mark found %v, want %v", step, found, want)
			}
		case 1:
			outcome := random(1 + pick(50))
			model.keep(m, outcome)
			s.keep(m, outcome)
		case 2:
			model.forgetCall(m.Digest, m.Token)
			s.forget(m)
		default:
			wantEntry, want := model.keptFor(m.Digest)
			e, found, err := s.store.Kept(s.Context(), m.Place, m.Digest)
			if err != nil || found != want || e.Token != wantEntry.Token || !bytes.Equal(e.Outcome, wantEntry.Outcome) {
				s.Fatalf("step %d: kept %v, want %v, error %v", step, found, want, err)
			}
		}
	}
}
