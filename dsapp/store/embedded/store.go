// Package embedded keeps registrations and claims in one bbolt file, for a gateway
// of one node without any other server.
//
// Registrations, their counters, claims and the simulation secret are durable: a
// call that changed them returns after the change was synced to disk. Handshakes
// live in memory. Everything secret that is given to the store is sealed already.
package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

const (
	// DefaultMaxSimulated is the default of Options.MaxSimulated.
	DefaultMaxSimulated = 10_000
	// maxIdentifier is the longest identifier in bytes that can be a key.
	maxIdentifier = 1024
	// sweepInterval is how often expired entries and claims are looked for when
	// nothing else is written, sweepSize how many of each are removed in one
	// transaction.
	sweepInterval = 30 * time.Second
	sweepSize     = 256
)

// Options adjusts a Store. The zero value is ready to use.
type Options struct {
	// MaxSimulated caps the simulated records and, on their own, the handshakes of
	// identifiers without a registration. At the cap those that end first are
	// dropped.
	// Default: DefaultMaxSimulated.
	MaxSimulated int
	// Now tells the time. Default: time.Now.
	Now func() time.Time
}

// Store keeps registrations and claims in a file. It implements activation.Store
// and ownership.Store. Every error wraps activation.ErrUnavailable.
type Store struct {
	db           *bolt.DB
	file         *os.File
	now          func() time.Time
	handshakes   *handshakes
	maxSimulated int
	queue        queue
	room         *room
	// simulated counts the simulated records. Only transactions touch it, one
	// after the other.
	simulated int

	// lost is why the file is not used any more, stuck says that bbolt keeps locks.
	lost  atomic.Pointer[error]
	stuck atomic.Bool

	stop    chan struct{}
	sweeper sync.WaitGroup
	closing func() error
}

// Open opens the file at path and creates it, readable by its owner only, with
// missing folders if there is none. It waits up to 5 s for another process that
// has the file open. A file that is damaged or that this program cannot have written
// is not changed: the error wraps a FileError.
func Open(path string, opts Options) (*Store, error) {
	db, file, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening embedded store %s: %w", path, err)
	}
	s := &Store{
		db:           db,
		file:         file,
		now:          opts.Now,
		maxSimulated: opts.MaxSimulated,
		room:         newRoom(file),
		stop:         make(chan struct{}),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.maxSimulated <= 0 {
		s.maxSimulated = DefaultMaxSimulated
	}
	s.handshakes = newHandshakes(s.maxSimulated)
	s.queue.run = s.write
	err = s.read(func(tx *bolt.Tx) error {
		c := bucket(tx, bucketSimulated).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			s.simulated++
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening embedded store %s: %w", path, err), s.closeFile())
	}
	s.closing = sync.OnceValue(func() error {
		close(s.stop)
		s.sweeper.Wait()
		s.queue.close()
		return s.closeFile()
	})
	s.sweeper.Go(s.sweepRegularly)
	return s, nil
}

// Close waits for running calls and closes the file. Later calls fail with
// activation.ErrUnavailable. Closing again does nothing.
func (s *Store) Close() error {
	return s.closing()
}

// Create implements activation.Store.
func (s *Store) Create(ctx context.Context, r activation.Record, replaces activation.Generation) (activation.Record, bool, error) {
	if err := checkIdentifier(r.Identifier); err != nil {
		return activation.Record{}, false, err
	}
	// The caller's slices are its own again as soon as it stops waiting.
	next := entry{
		generation: r.Generation,
		kind:       r.Kind,
		facts:      bytes.Clone(r.Facts),
		verifier:   bytes.Clone(r.Verifier),
		data:       bytes.Clone(r.Data),
	}
	a, err := enqueue(ctx, s, true, func(t *transaction) (admitted, error) {
		e, err := t.entry(r.Identifier)
		if err != nil {
			return admitted{}, err
		}
		if e != nil && !isSimulated(e) {
			if e.generation == r.Generation {
				return admitted{ok: true}, nil
			}
			if e.generation != replaces {
				existing := e.record(r.Identifier, t.now)
				existing.Verifier = e.verifier
				return admitted{record: existing}, nil
			}
		}
		next.expires = t.now.Add(r.Lifetime).UnixNano()
		s.handshakes.forget(r.Identifier)
		return admitted{ok: true}, t.put(r.Identifier, &next)
	})
	return a.record, a.ok, err
}

// Load implements activation.Store.
func (s *Store) Load(ctx context.Context, identifier string) (activation.Record, bool, error) {
	now := s.now()
	e, err := view(ctx, s, func(tx *bolt.Tx) (*entry, error) {
		return lookup(tx, identifier, now)
	})
	if err != nil || e == nil {
		return activation.Record{}, false, err
	}
	r := e.record(identifier, now)
	r.Verifier = e.verifier
	return r, true, nil
}

// PutHandshake implements activation.Store.
func (s *Store) PutHandshake(ctx context.Context, identifier string, h activation.Handshake) (bool, error) {
	if err := checkIdentifier(identifier); err != nil {
		return false, err
	}
	now := s.now()
	e, err := view(ctx, s, func(tx *bolt.Tx) (*entry, error) {
		return lookup(tx, identifier, now)
	})
	if err != nil {
		return false, err
	}
	// Whatever the handshake says: the number of those that the cap is not for is
	// bounded by that of the registrations.
	return s.handshakes.put(identifier, h, e != nil && !isSimulated(e), now), nil
}

// Take implements activation.Store.
func (s *Store) Take(
	ctx context.Context, identifier string, token activation.Token, source activation.Tag, maxAttempts int,
) (activation.Handshake, bool, error) {
	if err := checkIdentifier(identifier); err != nil {
		return activation.Handshake{}, false, err
	}
	// Taken or refused, the handshake is gone.
	h, err := update(ctx, s, written(func(t *transaction) (*activation.Handshake, error) {
		e, err := t.entry(identifier)
		if err != nil {
			return nil, err
		}
		h, present := s.handshakes.take(identifier, source, t.now)
		if !present {
			return nil, nil
		}
		if e == nil && h.Simulated {
			e = &entry{
				generation: h.Generation,
				kind:       activation.KindSimulated,
				expires:    t.now.Add(h.RecordLifetime).UnixNano(),
			}
		}
		if e == nil || !e.live(t.now) || e.burned || e.generation != h.Generation ||
			int64(e.reserved) >= int64(maxAttempts) || slices.Contains(e.inFlight, token) {
			return nil, nil
		}
		e.reserved++
		e.inFlight = append(e.inFlight, token)
		return &h, t.put(identifier, e)
	}))
	if err != nil || h == nil {
		return activation.Handshake{}, false, err
	}
	return *h, true, nil
}

// Settle implements activation.Store.
func (s *Store) Settle(ctx context.Context, identifier string, x activation.Settlement) (activation.Record, bool, error) {
	a, err := update(ctx, s, written(func(t *transaction) (admitted, error) {
		e, err := t.entry(identifier)
		if err != nil || e == nil || e.generation != x.Generation {
			return admitted{}, err
		}
		r := e.record(identifier, t.now)
		r.Verifier, r.Data = e.verifier, e.data
		i := slices.Index(e.inFlight, x.Token)
		if i < 0 {
			if e.settled && e.last == x.Token && e.proven && !e.burned {
				return admitted{r, true}, nil
			}
			return admitted{}, nil
		}
		e.inFlight = slices.Delete(e.inFlight, i, i+1)
		e.settled, e.last = true, x.Token
		e.proven = x.Proven && int64(e.activations) < int64(x.MaxActivations) && e.live(t.now) && hasExchange(e)
		if e.proven {
			e.reserved--
			e.activations++
			e.devices++
		} else {
			r = activation.Record{}
		}
		if int64(e.reserved) >= int64(x.MaxAttempts) && len(e.inFlight) == 0 {
			e.burned = true
			e.verifier, e.data = nil, nil
		}
		return admitted{r, e.proven}, t.put(identifier, e)
	}))
	return a.record, a.ok, err
}

// AdmitDevice implements activation.Store.
func (s *Store) AdmitDevice(ctx context.Context, identifier string, maxAttempts int) (activation.Record, bool, error) {
	return admit(ctx, s, func(t *transaction) (activation.Record, bool, error) {
		e, err := t.entry(identifier)
		if err != nil || e == nil || !e.live(t.now) {
			return activation.Record{}, false, err
		}
		switch {
		case e.kind == activation.KindAffinity && int64(e.devices) < int64(maxAttempts):
			e.devices++
		case e.kind == activation.KindMDL && e.devices > 0:
			e.devices--
		default:
			return activation.Record{}, false, nil
		}
		return e.record(identifier, t.now), true, t.put(identifier, e)
	})
}

// ReturnDevice implements activation.Store.
func (s *Store) ReturnDevice(ctx context.Context, identifier string, generation activation.Generation) error {
	return s.giveBack(ctx, identifier, generation, func(e *entry) bool {
		switch {
		case e.kind == activation.KindAffinity && e.devices > 0:
			e.devices--
		// More rights than activations would be rights that nobody earned.
		case e.kind == activation.KindMDL && e.devices < e.activations:
			e.devices++
		default:
			return false
		}
		return true
	})
}

// AdmitConfirmation implements activation.Store.
func (s *Store) AdmitConfirmation(ctx context.Context, identifier string, maxAttempts int, kinds ...activation.Kind) (activation.Record, bool, error) {
	kinds = slices.Clone(kinds)
	return admit(ctx, s, func(t *transaction) (activation.Record, bool, error) {
		e, err := t.entry(identifier)
		if err != nil || e == nil || !e.live(t.now) || !slices.Contains(kinds, e.kind) {
			return activation.Record{}, false, err
		}
		if int64(e.confirmations) >= int64(maxAttempts) || e.activations == 0 && e.kind != activation.KindAffinity {
			return activation.Record{}, false, nil
		}
		e.confirmations++
		return e.record(identifier, t.now), true, t.put(identifier, e)
	})
}

// ReturnConfirmation implements activation.Store.
func (s *Store) ReturnConfirmation(ctx context.Context, identifier string, generation activation.Generation) error {
	return s.giveBack(ctx, identifier, generation, func(e *entry) bool {
		if e.confirmations == 0 {
			return false
		}
		e.confirmations--
		return true
	})
}

// Remove implements activation.Store.
func (s *Store) Remove(ctx context.Context, identifier string, generation activation.Generation) error {
	_, err := update(ctx, s, func(t *transaction) (struct{}, error) {
		e, err := t.entry(identifier)
		if err != nil || e == nil || e.generation != generation {
			return struct{}{}, err
		}
		s.handshakes.forget(identifier)
		return struct{}{}, t.delete(identifier)
	})
	return err
}

// SimulationSecret implements activation.Store.
func (s *Store) SimulationSecret(ctx context.Context, candidate []byte) ([]byte, error) {
	current, err := view(ctx, s, func(tx *bolt.Tx) ([]byte, error) {
		return secret(tx), nil
	})
	if err != nil || current != nil {
		return current, err
	}
	candidate = bytes.Clone(candidate)
	return update(ctx, s, func(t *transaction) ([]byte, error) {
		if current := secret(t.tx); current != nil {
			return current, nil
		}
		return candidate, t.set(keySecret, candidate)
	})
}

// ReplaceSimulationSecret implements activation.Store.
func (s *Store) ReplaceSimulationSecret(ctx context.Context, current, next []byte) (bool, error) {
	current, next = bytes.Clone(current), bytes.Clone(next)
	return update(ctx, s, func(t *transaction) (bool, error) {
		stored := secret(t.tx)
		if stored == nil || !bytes.Equal(stored, current) {
			return false, nil
		}
		return true, t.set(keySecret, next)
	})
}

// sweepRegularly removes what has expired until the store is closed.
func (s *Store) sweepRegularly() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			// A file that cannot be written shows in the next call that needs it.
			_ = s.sweep()
		case <-s.stop:
			return
		}
	}
}

// sweep removes every handshake, entry and claim that has expired.
func (s *Store) sweep() error {
	s.handshakes.sweep(s.now())
	for {
		more, err := update(context.Background(), s, func(t *transaction) (bool, error) {
			return t.expire(sweepSize)
		})
		if err != nil || !more {
			return err
		}
	}
}

// admit is update for calls that return a record or refuse.
func admit(ctx context.Context, s *Store, do func(*transaction) (activation.Record, bool, error)) (activation.Record, bool, error) {
	a, err := update(ctx, s, func(t *transaction) (admitted, error) {
		r, ok, err := do(t)
		return admitted{r, ok}, err
	})
	return a.record, a.ok, err
}

// admitted is a record and whether what was asked for was admitted.
type admitted struct {
	record activation.Record
	ok     bool
}

// written makes do write in any case: whether there was anything to change must
// not show in the time that a proof takes.
func written[T any](do func(*transaction) (T, error)) func(*transaction) (T, error) {
	return func(t *transaction) (T, error) {
		result, err := do(t)
		if err == nil {
			err = t.touch()
		}
		return result, err
	}
}

// giveBack keeps what change did to an entry of that generation, if it tells that
// it did anything.
func (s *Store) giveBack(ctx context.Context, identifier string, generation activation.Generation, change func(*entry) bool) error {
	_, err := update(ctx, s, func(t *transaction) (struct{}, error) {
		e, err := t.entry(identifier)
		if err != nil || e == nil || e.generation != generation || !change(e) {
			return struct{}{}, err
		}
		return struct{}{}, t.put(identifier, e)
	})
	return err
}

func isSimulated(e *entry) bool { return e.kind == activation.KindSimulated }

// hasExchange reports whether an exchange with e can succeed.
func hasExchange(e *entry) bool {
	return e.kind == activation.KindMDL || e.kind == activation.KindStandard
}

// checkIdentifier refuses what cannot be a key of the file.
func checkIdentifier(identifier string) error {
	if identifier == "" || len(identifier) > maxIdentifier {
		return unavailable(fmt.Errorf("identifier of %d bytes, want 1 to %d", len(identifier), maxIdentifier))
	}
	return nil
}

// unavailable marks err as the store's.
func unavailable(err error) error {
	if errors.Is(err, errCorrupt) {
		return fmt.Errorf("%w: embedded store: %w", activation.ErrDamaged, err)
	}
	return fmt.Errorf("%w: embedded store: %w", activation.ErrUnavailable, err)
}

var _ activation.Store = (*Store)(nil)
