package embedded

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

// keptEntry is an entry of bucketRepeats with its end in nanoseconds of Unix time. Its value
// is the end (8 bytes), the token and the outcome.
type keptEntry struct {
	repeat.Entry

	ends int64
}

// marking is the result of a call that marks what it admits.
type marking struct {
	entry    repeat.Entry
	found    bool
	record   activation.Record
	admitted bool
}

// Mark implements repeat.Store.
func (s *Store) Mark(ctx context.Context, m repeat.Mark) (_ repeat.Entry, _ bool, err error) {
	defer s.observe.Begin(ctx, "mark").End(nil, &err)
	return s.mark(ctx, m)
}

func (s *Store) mark(ctx context.Context, m repeat.Mark) (repeat.Entry, bool, error) {
	if err := s.usable(ctx); err != nil {
		return repeat.Entry{}, false, err
	}
	e, found, err := s.calls.mark(m)
	return e, found, callError(s.durable(m, err))
}

// usable returns an error if ctx has ended or the file is damaged.
func (s *Store) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	if damage := s.damage.Load(); damage != nil {
		return unavailable(*damage)
	}
	return nil
}

// callError returns an error of calls as one of the Store.
func callError(err error) error {
	if err == nil {
		return nil
	}
	return unavailable(err)
}

// MarkOwner implements repeat.Store. It looks for the owner first: a mark that was made for a
// look-up that fails would stay.
func (s *Store) MarkOwner(
	ctx context.Context, m repeat.Mark, kind ownership.Kind, key string,
) (_ repeat.Entry, _ bool, _ ownership.Claim, _ bool, err error) {
	defer s.observe.Begin(ctx, "mark_owner").End(nil, &err)
	c, owned, err := s.owner(ctx, kind, key)
	if err != nil {
		return repeat.Entry{}, false, ownership.Claim{}, false, err
	}
	e, found, err := s.mark(ctx, m)
	return e, found, c, owned, err
}

// MarkPending implements repeat.Store. It looks for the claims first.
func (s *Store) MarkPending(
	ctx context.Context, m repeat.Mark, kind ownership.Kind, serialNumber string,
) (_ repeat.Entry, _ bool, _ []ownership.Claim, err error) {
	defer s.observe.Begin(ctx, "mark_pending").End(nil, &err)
	claims, err := s.pending(ctx, kind, serialNumber)
	if err != nil {
		return repeat.Entry{}, false, nil, err
	}
	e, found, err := s.mark(ctx, m)
	return e, found, claims, err
}

// MarkDevice implements repeat.Store.
func (s *Store) MarkDevice(
	ctx context.Context, m repeat.Mark, identifier string, maxAttempts int,
) (_ repeat.Entry, _ bool, _ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "mark_device").End(&admitted, &err)
	x, err := s.markAdmitted(ctx, m, func(t *transaction) (activation.Record, bool, error) {
		return t.admitDevice(identifier, maxAttempts)
	})
	return x.entry, x.found, x.record, x.admitted, err
}

// MarkConfirmation implements repeat.Store.
func (s *Store) MarkConfirmation(
	ctx context.Context, m repeat.Mark, identifier string, maxAttempts int, kinds ...activation.Kind,
) (_ repeat.Entry, _ bool, _ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "mark_confirmation").End(&admitted, &err)
	kinds = slices.Clone(kinds)
	x, err := s.markAdmitted(ctx, m, func(t *transaction) (activation.Record, bool, error) {
		return t.admitConfirmation(identifier, maxAttempts, kinds)
	})
	return x.entry, x.found, x.record, x.admitted, err
}

// markAdmitted marks the call and calls admit, unless there is an entry. The mark comes first, and in
// the transaction, so that a twin is not admitted, too. If nothing is admitted, the mark is removed.
func (s *Store) markAdmitted(
	ctx context.Context, m repeat.Mark, admit func(*transaction) (activation.Record, bool, error),
) (marking, error) {
	var marked bool
	x, err := update(ctx, s, func(t *transaction) (x marking, err error) {
		// What cannot be marked is carried out as if there were no repeats.
		var markErr error
		if x.entry, x.found, markErr = s.calls.mark(m); x.found {
			return x, nil
		}
		marked = markErr == nil
		if x.record, x.admitted, err = admit(t); err == nil && !x.admitted && marked {
			err = s.calls.forget(m.Digest, m.Token)
		}
		return x, err
	})
	// If ctx has ended, the transaction may still be under way.
	if err != nil && ctx.Err() == nil && marked {
		err = errors.Join(err, callError(s.calls.forget(m.Digest, m.Token)))
	}
	return x, err
}

// Kept implements repeat.Store.
func (s *Store) Kept(ctx context.Context, _ string, d repeat.Digest) (_ repeat.Entry, _ bool, err error) {
	defer s.observe.Begin(ctx, "kept").End(nil, &err)
	if err := s.usable(ctx); err != nil {
		return repeat.Entry{}, false, err
	}
	e, found, err := s.calls.kept(d)
	return e, found, callError(err)
}

// Keep implements repeat.Store.
func (s *Store) Keep(ctx context.Context, m repeat.Mark, outcome []byte) (err error) {
	defer s.observe.Begin(ctx, "keep").End(nil, &err)
	return s.keep(ctx, m, outcome)
}

func (s *Store) keep(ctx context.Context, m repeat.Mark, outcome []byte) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	return callError(s.durable(m, s.calls.keep(m, outcome)))
}

// durable makes what was written for m durable if m has an outcome from the beginning: it then lives
// longer than a machine needs to start again. It returns err if that is not nil.
func (s *Store) durable(m repeat.Mark, err error) error {
	if err != nil || m.Outcome == nil {
		return err
	}
	return s.calls.sync()
}

// KeepClaim implements repeat.Store. The claim comes first: see its contract.
func (s *Store) KeepClaim(
	ctx context.Context, m repeat.Mark, outcome []byte, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration,
) (claimed bool, err error) {
	defer s.observe.Begin(ctx, "keep_claim").End(&claimed, &err)
	claimed, err = s.claim(ctx, kind, c, serialNumber, lifetime)
	switch {
	case err != nil:
		return false, err
	case claimed:
		err = s.keep(ctx, m, outcome)
	default:
		err = callError(s.calls.forget(m.Digest, m.Token))
	}
	return claimed && err == nil, err
}

// KeepRelease implements repeat.Store. The outcome comes first: without the claim, the phone could not
// make the call again.
func (s *Store) KeepRelease(
	ctx context.Context, m repeat.Mark, outcome []byte, kind ownership.Kind, key string, token ownership.Token, serialNumber string,
) (err error) {
	defer s.observe.Begin(ctx, "keep_release").End(nil, &err)
	return errors.Join(s.keep(ctx, m, outcome), s.release(ctx, kind, key, token, serialNumber))
}

// KeepRemove implements repeat.Store. The outcome comes first, as in KeepRelease.
func (s *Store) KeepRemove(ctx context.Context, m repeat.Mark, outcome []byte, identifier string, generation activation.Generation) (err error) {
	defer s.observe.Begin(ctx, "keep_remove").End(nil, &err)
	return errors.Join(s.keep(ctx, m, outcome), s.remove(ctx, identifier, generation))
}

// Forget implements repeat.Store.
func (s *Store) Forget(ctx context.Context, _ string, d repeat.Digest, token repeat.Token) (err error) {
	defer s.observe.Begin(ctx, "forget").End(nil, &err)
	if err := s.usable(ctx); err != nil {
		return err
	}
	return callError(s.calls.forget(d, token))
}

// decodeKept decodes a value of bucketRepeats. The entry shares no memory with b.
func decodeKept(b []byte) (*keptEntry, error) {
	r := reader{rest: b}
	kept := &keptEntry{ends: int64(r.uint64())}
	copy(kept.Token[:], r.take(len(kept.Token)))
	if r.bad {
		return nil, errCorrupt
	}
	if len(r.rest) > 0 {
		kept.Outcome = bytes.Clone(r.rest)
	}
	return kept, nil
}

// dropRepeat removes the entry with a key of bucketRepeatEnds. It does not decode the entry, so
// that a damaged one is removed as well when its lifetime has ended.
func (t *transaction) dropRepeat(index []byte) error {
	t.changed++
	if err := bucket(t.tx, bucketRepeatEnds).Delete(index); err != nil {
		return err
	}
	return bucket(t.tx, bucketRepeats).Delete(index[indexPrefix:])
}

var _ repeat.Store = (*Store)(nil)
