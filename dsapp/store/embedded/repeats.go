package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

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

// marking is the result of a call that marks.
type marking struct {
	entry    repeat.Entry
	found    bool
	claims   []ownership.Claim
	record   activation.Record
	admitted bool
}

// Mark implements repeat.Store.
func (s *Store) Mark(ctx context.Context, m repeat.Mark) (_ repeat.Entry, _ bool, err error) {
	defer s.observe.Begin(ctx, "mark")(nil, &err)
	x, err := update(ctx, s, func(t *transaction) (x marking, err error) {
		x.entry, x.found, err = t.mark(m)
		return x, err
	})
	return x.entry, x.found, err
}

// MarkOwner implements repeat.Store.
func (s *Store) MarkOwner(
	ctx context.Context, m repeat.Mark, kind ownership.Kind, key string,
) (_ repeat.Entry, _ bool, _ ownership.Claim, _ bool, err error) {
	defer s.observe.Begin(ctx, "mark_owner")(nil, &err)
	x, err := update(ctx, s, func(t *transaction) (x marking, err error) {
		c, err := lookupClaim(t.tx, claimKey(kind, key), t.now)
		if err != nil {
			return x, err
		}
		if c != nil {
			x.claims = []ownership.Claim{{Key: key, Token: c.token, Owner: c.owner}}
		}
		x.entry, x.found, err = t.mark(m)
		return x, err
	})
	if err != nil {
		return repeat.Entry{}, false, ownership.Claim{}, false, readError(err)
	}
	if len(x.claims) == 0 {
		return x.entry, x.found, ownership.Claim{}, false, nil
	}
	return x.entry, x.found, x.claims[0], true, nil
}

// MarkPending implements repeat.Store.
func (s *Store) MarkPending(
	ctx context.Context, m repeat.Mark, kind ownership.Kind, serialNumber string,
) (_ repeat.Entry, _ bool, _ []ownership.Claim, err error) {
	defer s.observe.Begin(ctx, "mark_pending")(nil, &err)
	x, err := update(ctx, s, func(t *transaction) (x marking, err error) {
		if x.claims, err = pendingClaims(t.tx, kind, serialNumber, t.now); err != nil {
			return x, err
		}
		x.entry, x.found, err = t.mark(m)
		return x, err
	})
	return x.entry, x.found, x.claims, readError(err)
}

// MarkDevice implements repeat.Store.
func (s *Store) MarkDevice(
	ctx context.Context, m repeat.Mark, identifier string, maxAttempts int,
) (_ repeat.Entry, _ bool, _ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "mark_device")(&admitted, &err)
	x, err := s.markAdmitted(ctx, m, func(t *transaction) (activation.Record, bool, error) {
		return t.admitDevice(identifier, maxAttempts)
	})
	return x.entry, x.found, x.record, x.admitted, err
}

// MarkConfirmation implements repeat.Store.
func (s *Store) MarkConfirmation(
	ctx context.Context, m repeat.Mark, identifier string, maxAttempts int, kinds ...activation.Kind,
) (_ repeat.Entry, _ bool, _ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "mark_confirmation")(&admitted, &err)
	kinds = slices.Clone(kinds)
	x, err := s.markAdmitted(ctx, m, func(t *transaction) (activation.Record, bool, error) {
		return t.admitConfirmation(identifier, maxAttempts, kinds)
	})
	return x.entry, x.found, x.record, x.admitted, err
}

// markAdmitted calls admit and marks what it admits, unless there is an entry.
func (s *Store) markAdmitted(
	ctx context.Context, m repeat.Mark, admit func(*transaction) (activation.Record, bool, error),
) (marking, error) {
	return update(ctx, s, func(t *transaction) (x marking, err error) {
		kept, err := lookupKept(t.tx, m.Digest, t.now)
		if err != nil {
			return x, err
		}
		if kept != nil {
			x.entry, x.found = kept.Entry, true
			return x, nil
		}
		if x.record, x.admitted, err = admit(t); err == nil && x.admitted {
			_, _, err = t.mark(m)
		}
		return x, err
	})
}

// Kept implements repeat.Store.
func (s *Store) Kept(ctx context.Context, _ string, d repeat.Digest) (_ repeat.Entry, _ bool, err error) {
	defer s.observe.Begin(ctx, "kept")(nil, &err)
	now := s.now()
	kept, err := view(ctx, s, func(tx *bolt.Tx) (*keptEntry, error) { return lookupKept(tx, d, now) })
	if err != nil || kept == nil {
		return repeat.Entry{}, false, err
	}
	return kept.Entry, true, nil
}

// Keep implements repeat.Store.
func (s *Store) Keep(ctx context.Context, m repeat.Mark, outcome []byte) (err error) {
	defer s.observe.Begin(ctx, "keep")(nil, &err)
	// The caller may change its slice when it stops waiting, before this is written.
	outcome = bytes.Clone(outcome)
	_, err = update(ctx, s, func(t *transaction) (struct{}, error) {
		kept, err := lookupKept(t.tx, m.Digest, t.now)
		if err != nil || kept != nil && kept.Token != m.Token {
			return struct{}{}, err
		}
		return struct{}{}, t.putKept(m, outcome)
	})
	return err
}

// Forget implements repeat.Store.
func (s *Store) Forget(ctx context.Context, _ string, d repeat.Digest, token repeat.Token) (err error) {
	defer s.observe.Begin(ctx, "forget")(nil, &err)
	_, err = update(ctx, s, func(t *transaction) (struct{}, error) {
		kept, err := lookupKept(t.tx, d, t.now)
		if err != nil || kept == nil || kept.Token != token {
			return struct{}{}, err
		}
		return struct{}{}, t.dropRepeat(indexKey(string(d[:]), kept.ends))
	})
	return err
}

// mark returns the entry of a digest, or stores m if there is none.
func (t *transaction) mark(m repeat.Mark) (repeat.Entry, bool, error) {
	kept, err := lookupKept(t.tx, m.Digest, t.now)
	if err != nil {
		return repeat.Entry{}, false, err
	}
	if kept != nil {
		return kept.Entry, true, nil
	}
	return repeat.Entry{}, false, t.putKept(m, nil)
}

// lookupKept returns the entry of a digest, or nil if there is none or it has ended.
func lookupKept(tx *bolt.Tx, d repeat.Digest, now time.Time) (*keptEntry, error) {
	b := bucket(tx, bucketRepeats).Get(d[:])
	if b == nil {
		return nil, nil
	}
	kept, err := decodeKept(b)
	if err != nil || now.UnixNano() >= kept.ends {
		return nil, err
	}
	return kept, nil
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

// putKept stores an entry, in the place of one that there is.
func (t *transaction) putKept(m repeat.Mark, outcome []byte) error {
	repeats, ends := bucket(t.tx, bucketRepeats), bucket(t.tx, bucketRepeatEnds)
	if b := repeats.Get(m.Digest[:]); b != nil {
		before, err := decodeKept(b)
		if err != nil {
			return err
		}
		if err := t.dropRepeat(indexKey(string(m.Digest[:]), before.ends)); err != nil {
			return err
		}
	}
	t.changed++
	end := t.now.Add(m.Lifetime).UnixNano()
	if err := ends.Put(indexKey(string(m.Digest[:]), end), nil); err != nil {
		return err
	}
	value := binary.BigEndian.AppendUint64(nil, uint64(end))
	return repeats.Put(m.Digest[:], append(append(value, m.Token[:]...), outcome...))
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
