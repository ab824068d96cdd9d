// Package embedded stores registrations and the ownership of requests in one bbolt file, for
// a gateway with a single node and no other server.
//
// # Buckets
//
// The file has these buckets:
//
//	meta           the format of the file and the simulation secret
//	registrations  what changes of every registration, by its identifier
//	sealed         the sealed parts of registrations by the time of their removal
//	simulated      simulated registrations by the time of their removal
//	removals       registrations of an earlier format by the time of their removal
//	claims         every claim that is older than some minutes, by kind and key of its request
//	ends           every one of these by its end
//	pending        those of each device by their end
//	answers        the answers of registrations, for calls with idempotency keys
//	repeats        the marks and outcomes of calls that may be repeated, of earlier versions
//	repeat_ends    every one of these by its end
//
// What is known about calls that may be repeated is in two more files, with .calls0 and .calls1
// appended to the name, and the claims of the last minutes are in those with .claims0 and .claims1. See
// the types calls and claims.
//
// Everything secret that is given to the Store is sealed already.
//
// # Removal
//
// bbolt writes the list of the free pages with every transaction, and the file never shrinks. What
// has ended is therefore removed only while there are few free pages: then the list stays short,
// and what ends later gives its pages to what comes later. Until then it lies in the file and
// counts as removed, as the free pages do that bbolt does not overwrite either. The calls that write
// remove it in small steps, as much as they need, so that the end of a million registrations costs
// them no more than the end of one. See the type removal.
//
// # Atomicity and durability
//
// Every method for registrations is one transaction. Methods that write return when the transaction is
// synced to disk; methods that are called meanwhile share the next transaction. Claims, releases, and marks
// and outcomes of calls are written to the segments and not synced: they survive the end of the process, but
// a power failure can undo those of the last seconds. A claim is then missing, or is there again until it
// ends: the authentication server decides in the end. Handshakes are kept in memory only and do not survive
// a restart: the phone then repeats the first call.
//
// # Damaged files
//
// Open reads the whole file and refuses a damaged one. If the file is damaged while it is
// open, all calls fail until Close. A single entry that cannot be decoded makes the calls
// fail that read it, until the time comes to remove it. A segment ends where a record of it is damaged.
//
// # Reserved disk space
//
// A registration must not fail after the authentication server has made its part of it.
// Reserve therefore allocates blocks of the disk at the end of the file, and only Create may
// use them. See the type space.
package embedded

import (
	"bytes"
	"cmp"
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
	// maxIdentifier is the greatest length in bytes of an identifier.
	maxIdentifier = 1024
	// sweepInterval is the time between two sweeps.
	sweepInterval = time.Second
	// retryInterval is the time between two attempts to write again after a failure.
	retryInterval = 30 * time.Second
	// sweepSteps is how many steps of the removal a sweep makes at most. Calls wait for one.
	sweepSteps = 4
	// enoughPages is how many free pages are enough: their list takes two pages.
	enoughPages = 1000
)

// Options are the options of a Store. The zero value means the defaults.
type Options struct {
	// MaxSimulated is the greatest number of simulated records and, counted separately,
	// of handshakes of identifiers without a registration. Beyond it, those that end first
	// are removed. Default: DefaultMaxSimulated.
	MaxSimulated int
	// Now returns the current time. Default: time.Now.
	Now func() time.Time
	// Observe is called at the end of each call of the Store. Default: nothing is called.
	Observe activation.StoreObserver

	// sweepInterval is set by tests. Default: sweepInterval.
	sweepInterval time.Duration
}

// Store stores registrations and claims in a file. It implements activation.Store and
// ownership.Store. Its methods can be called concurrently. The errors of these interfaces'
// methods wrap activation.ErrUnavailable.
type Store struct {
	db           *bolt.DB
	file         *os.File
	now          func() time.Time
	handshakes   *handshakes
	calls        *calls
	claims       *claims
	maxSimulated int
	observe      activation.StoreObserver
	queue        queue
	space        *space
	// simulated is the number of simulated records. Only the goroutine of the write
	// transaction uses it.
	simulated int
	// registrations is the number of other records, as of the last write transaction.
	registrations atomic.Int64
	// used is the size of the pages that were ever used, as of the last write transaction. Only
	// the goroutine of the write transaction uses it.
	used    int64
	removal removal

	// damage is the error of all calls once the file is damaged.
	damage atomic.Pointer[error]
	// boltLocked says that bbolt panicked with its locks held.
	boltLocked atomic.Bool

	stop    chan struct{}
	sweeper sync.WaitGroup
	closing func() error
}

// Open opens the file at path. If there is none, it creates the file, with missing folders
// and readable by its owner only. It waits up to 5 s for another process that has the file
// open. If the file is damaged or belongs to another program, Open does not change it and
// returns an error that wraps a *FileError.
func Open(path string, opts Options) (*Store, error) {
	db, file, contents, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening embedded store %s: %w", path, err)
	}
	s := &Store{
		db:           db,
		file:         file,
		now:          opts.Now,
		maxSimulated: opts.MaxSimulated,
		observe:      opts.Observe,
		stop:         make(chan struct{}),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.maxSimulated <= 0 {
		s.maxSimulated = DefaultMaxSimulated
	}
	if s.calls, err = openCalls(path, s.now); err != nil {
		return nil, fmt.Errorf("opening embedded store: %w", errors.Join(err, db.Close()))
	}
	if s.claims, err = openClaims(path, s.now); err != nil {
		return nil, fmt.Errorf("opening embedded store: %w", errors.Join(err, s.calls.close(), db.Close()))
	}
	if err := s.read(s.calls.adopt); err != nil {
		return nil, fmt.Errorf("opening embedded store: %w", errors.Join(err, s.claims.close(), s.calls.close(), s.closeFile()))
	}
	s.space = newSpace(file, s.now())
	s.handshakes = newHandshakes(s.maxSimulated)
	s.simulated = contents.Simulated
	s.registrations.Store(int64(contents.Registrations))
	s.closing = sync.OnceValue(func() error {
		close(s.stop)
		s.sweeper.Wait()
		s.queue.close()
		return errors.Join(s.claims.close(), s.calls.close(), s.closeFile())
	})
	s.queue.start(s.write)
	s.sweeper.Go(func() { s.sweepRegularly(cmp.Or(opts.sweepInterval, sweepInterval)) })
	return s, nil
}

// Close waits for running calls and closes the file. Later calls fail with
// activation.ErrUnavailable. Calling Close again does nothing.
func (s *Store) Close() error {
	return s.closing()
}

// Usage returns the number of registrations without the simulated ones, including those that
// have expired and are not removed yet, and the size of the file in bytes.
func (s *Store) Usage() (registrations int, size int64, err error) {
	info, err := s.file.Stat()
	if err != nil {
		return 0, 0, err
	}
	return int(s.registrations.Load()), info.Size(), nil
}

// Create implements activation.Store.
func (s *Store) Create(ctx context.Context, r activation.Record, replaces activation.Generation) (_ activation.Record, created bool, err error) {
	defer s.observe.Begin(ctx, "create").End(&created, &err)
	if err := checkIdentifier(r.Identifier); err != nil {
		return activation.Record{}, false, err
	}
	// The caller may change its slices when it stops waiting, before this is written.
	next := entry{
		generation: r.Generation,
		kind:       r.Kind,
		parts:      parts{facts: bytes.Clone(r.Facts), verifier: bytes.Clone(r.Verifier), data: bytes.Clone(r.Data)},
	}
	answer := bytes.Clone(r.Answer)
	a, err := enqueue(ctx, s, true, func(t *transaction) (recordResult, error) {
		e, err := t.whole(r.Identifier)
		if err != nil {
			return recordResult{}, err
		}
		if e != nil && !isSimulated(e) {
			if e.generation == r.Generation {
				return recordResult{ok: true}, nil
			}
			if e.generation != replaces {
				existing := e.record(r.Identifier, t.now)
				existing.Verifier = e.verifier
				return recordResult{record: existing}, nil
			}
		}
		next.expires = t.now.Add(r.Lifetime).UnixNano()
		s.handshakes.forget(r.Identifier)
		if err := t.setAnswer(r.Identifier, answer); err != nil {
			return recordResult{}, err
		}
		return recordResult{ok: true}, t.put(r.Identifier, &next)
	})
	return a.record, a.ok, err
}

// Load implements activation.Store.
func (s *Store) Load(ctx context.Context, identifier string) (_ activation.Record, _ bool, err error) {
	defer s.observe.Begin(ctx, "load").End(nil, &err)
	now := s.now()
	e, err := view(ctx, s, func(tx *bolt.Tx) (*entry, error) {
		return lookupWhole(tx, identifier, now)
	})
	if err != nil || e == nil {
		return activation.Record{}, false, err
	}
	r := e.record(identifier, now)
	r.Verifier = e.verifier
	return r, true, nil
}

// PutHandshake implements activation.Store.
func (s *Store) PutHandshake(ctx context.Context, identifier string, h activation.Handshake) (_ bool, err error) {
	defer s.observe.Begin(ctx, "put_handshake").End(nil, &err)
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
	// h.Simulated does not matter: the cap applies to identifiers without a registration.
	return s.handshakes.put(identifier, h, e != nil && !isSimulated(e), now), nil
}

// Take implements activation.Store.
func (s *Store) Take(
	ctx context.Context, identifier string, token activation.Token, source activation.Tag, maxAttempts int,
) (_ activation.Handshake, taken bool, err error) {
	defer s.observe.Begin(ctx, "take").End(&taken, &err)
	if err := checkIdentifier(identifier); err != nil {
		return activation.Handshake{}, false, err
	}
	// The handshake is removed even if the attempt is refused.
	h, err := update(ctx, s, alwaysWrite(func(t *transaction) (*activation.Handshake, error) {
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
func (s *Store) Settle(ctx context.Context, identifier string, x activation.Settlement) (_ activation.Record, settled bool, err error) {
	defer s.observe.Begin(ctx, "settle").End(&settled, &err)
	a, err := update(ctx, s, alwaysWrite(func(t *transaction) (recordResult, error) {
		e, err := t.whole(identifier)
		if err != nil || e == nil || e.generation != x.Generation {
			return recordResult{}, err
		}
		r := e.record(identifier, t.now)
		r.Verifier, r.Data = e.verifier, e.data
		i := slices.Index(e.inFlight, x.Token)
		if i < 0 {
			if e.settled && e.last == x.Token && e.proven && !e.burned {
				return recordResult{r, true}, nil
			}
			return recordResult{}, nil
		}
		e.inFlight = slices.Delete(e.inFlight, i, i+1)
		e.settled, e.last = true, x.Token
		e.proven = x.Proven && !e.burned && int64(e.activations) < int64(x.MaxActivations) && e.live(t.now) && hasExchange(e)
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
		return recordResult{r, e.proven}, t.put(identifier, e)
	}))
	return a.record, a.ok, err
}

// AdmitDevice implements activation.Store.
func (s *Store) AdmitDevice(ctx context.Context, identifier string, maxAttempts int) (_ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "admit_device").End(&admitted, &err)
	return admit(ctx, s, func(t *transaction) (activation.Record, bool, error) {
		return t.admitDevice(identifier, maxAttempts)
	})
}

func (t *transaction) admitDevice(identifier string, maxAttempts int) (activation.Record, bool, error) {
	e, err := t.whole(identifier)
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
}

// ReturnDevice implements activation.Store.
func (s *Store) ReturnDevice(ctx context.Context, identifier string, generation activation.Generation) (err error) {
	defer s.observe.Begin(ctx, "return_device").End(nil, &err)
	return s.giveBack(ctx, identifier, generation, func(e *entry) bool {
		switch {
		case e.kind == activation.KindAffinity && e.devices > 0:
			e.devices--
		// There is at most one right for each activation.
		case e.kind == activation.KindMDL && e.devices < e.activations:
			e.devices++
		default:
			return false
		}
		return true
	})
}

// AdmitConfirmation implements activation.Store.
func (s *Store) AdmitConfirmation(ctx context.Context, identifier string, maxAttempts int, kinds ...activation.Kind) (_ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "admit_confirmation").End(&admitted, &err)
	kinds = slices.Clone(kinds)
	return admit(ctx, s, func(t *transaction) (activation.Record, bool, error) {
		return t.admitConfirmation(identifier, maxAttempts, kinds)
	})
}

func (t *transaction) admitConfirmation(identifier string, maxAttempts int, kinds []activation.Kind) (activation.Record, bool, error) {
	e, err := t.whole(identifier)
	if err != nil || e == nil || !e.live(t.now) || !slices.Contains(kinds, e.kind) {
		return activation.Record{}, false, err
	}
	if int64(e.confirmations) >= int64(maxAttempts) || e.activations == 0 && e.kind != activation.KindAffinity {
		return activation.Record{}, false, nil
	}
	e.confirmations++
	return e.record(identifier, t.now), true, t.put(identifier, e)
}

// ReturnConfirmation implements activation.Store.
func (s *Store) ReturnConfirmation(ctx context.Context, identifier string, generation activation.Generation) (err error) {
	defer s.observe.Begin(ctx, "return_confirmation").End(nil, &err)
	return s.giveBack(ctx, identifier, generation, func(e *entry) bool {
		if e.confirmations == 0 {
			return false
		}
		e.confirmations--
		return true
	})
}

// Inspect implements activation.Store.
func (s *Store) Inspect(ctx context.Context, identifier string) (activation.State, bool, error) {
	now := s.now()
	e, err := view(ctx, s, func(tx *bolt.Tx) (*entry, error) {
		return lookupWhole(tx, identifier, now)
	})
	if err != nil || e == nil {
		return activation.State{}, false, err
	}
	return activation.State{
		Record: e.record(identifier, now), Burned: e.burned,
		Attempts: int(e.reserved), InFlight: len(e.inFlight), Activations: int(e.activations),
		Devices: int(e.devices), Confirmations: int(e.confirmations),
	}, true, nil
}

// Burn implements activation.Store.
func (s *Store) Burn(ctx context.Context, identifier string, maxAttempts int) (activation.Record, bool, error) {
	return admit(ctx, s, func(t *transaction) (activation.Record, bool, error) {
		e, err := t.whole(identifier)
		if err != nil || e == nil || isSimulated(e) {
			return activation.Record{}, false, err
		}
		e.burned, e.verifier, e.data = true, nil, nil
		e.reserved = max(e.reserved, uint32(maxAttempts))
		if hasExchange(e) {
			e.activations, e.devices = 0, 0
		} else {
			e.devices, e.confirmations = activation.MaxCounter, activation.MaxCounter
		}
		s.handshakes.forget(identifier)
		return e.record(identifier, t.now), true, t.put(identifier, e)
	})
}

// Remove implements activation.Store.
func (s *Store) Remove(ctx context.Context, identifier string, generation activation.Generation) (err error) {
	defer s.observe.Begin(ctx, "remove").End(nil, &err)
	return s.remove(ctx, identifier, generation)
}

func (s *Store) remove(ctx context.Context, identifier string, generation activation.Generation) error {
	return change(ctx, s, func(t *transaction) error {
		e, err := t.entry(identifier)
		if err != nil || e == nil || e.generation != generation {
			return err
		}
		s.handshakes.forget(identifier)
		return t.delete(identifier)
	})
}

// SimulationSecret implements activation.Store.
func (s *Store) SimulationSecret(ctx context.Context, candidate []byte) (_ []byte, err error) {
	defer s.observe.Begin(ctx, "simulation_secret").End(nil, &err)
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
		return candidate, t.setMeta(keySecret, candidate)
	})
}

// ReplaceSimulationSecret implements activation.Store.
func (s *Store) ReplaceSimulationSecret(ctx context.Context, current, next []byte) (replaced bool, err error) {
	defer s.observe.Begin(ctx, "replace_simulation_secret").End(&replaced, &err)
	current, next = bytes.Clone(current), bytes.Clone(next)
	return update(ctx, s, func(t *transaction) (bool, error) {
		stored := secret(t.tx)
		if stored == nil || !bytes.Equal(stored, current) {
			return false, nil
		}
		return true, t.setMeta(keySecret, next)
	})
}

// sweepRegularly removes what has expired until the store is closed.
func (s *Store) sweepRegularly(interval time.Duration) {
	tick, retry := time.NewTicker(interval), time.NewTicker(retryInterval)
	defer tick.Stop()
	defer retry.Stop()
	for {
		select {
		case <-tick.C:
			// If the file cannot be written, the next call that writes returns the error.
			_ = s.sweep(sweepSteps)
			_ = s.archiveClaims()
		case <-retry.C:
			s.retryWrite()
		case <-s.stop:
			return
		}
	}
}

// sweep removes all handshakes that have expired, and makes up to so many steps of the removal
// while there are pages that are needed. Calls that write make such steps, too.
func (s *Store) sweep(steps int) error {
	s.handshakes.sweep(s.now())
	for range steps {
		more, err := update(context.Background(), s, func(t *transaction) (bool, error) {
			if !t.needsPages {
				return false, nil
			}
			err := t.step()
			return !t.removal.done, err
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// retryWrite tries to write if the last write failed, so that Ready finds out that writes
// succeed again when nothing else is written.
func (s *Store) retryWrite() {
	if _, err := s.Ready(); err == nil {
		return
	}
	if release, err := s.Reserve(context.Background()); err == nil {
		release()
	}
}

// change is update for functions without a result.
func change(ctx context.Context, s *Store, do func(*transaction) error) error {
	_, err := update(ctx, s, func(t *transaction) (struct{}, error) { return struct{}{}, do(t) })
	return err
}

// admit is update for functions that return a record or refuse.
func admit(ctx context.Context, s *Store, do func(*transaction) (activation.Record, bool, error)) (activation.Record, bool, error) {
	a, err := update(ctx, s, func(t *transaction) (recordResult, error) {
		r, ok, err := do(t)
		return recordResult{r, ok}, err
	})
	return a.record, a.ok, err
}

// recordResult is a record and whether the call succeeded. If not, it was refused.
type recordResult struct {
	record activation.Record
	ok     bool
}

// alwaysWrite returns do with a write added for when do changes nothing, so that the transaction is
// synced in every case: the time that a proof takes must not tell an outsider whether anything changed.
func alwaysWrite[T any](do func(*transaction) (T, error)) func(*transaction) (T, error) {
	return func(t *transaction) (T, error) {
		before := t.changed
		result, err := do(t)
		if err == nil && t.changed == before {
			err = t.touch()
		}
		return result, err
	}
}

// giveBack calls change with the entry of that generation and stores the entry if change
// returns true.
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

// hasExchange reports whether e is of a kind with an exchange.
func hasExchange(e *entry) bool {
	return e.kind == activation.KindMDL || e.kind == activation.KindStandard
}

// checkIdentifier returns an error for an identifier that cannot be a key of a bucket.
func checkIdentifier(identifier string) error {
	if identifier == "" || len(identifier) > maxIdentifier {
		return unavailable(fmt.Errorf("identifier of %d bytes, want 1 to %d", len(identifier), maxIdentifier))
	}
	return nil
}

// unavailable returns err wrapped in activation.ErrUnavailable, or in activation.ErrDamaged if
// an entry cannot be decoded.
func unavailable(err error) error {
	if errors.Is(err, errCorrupt) {
		return fmt.Errorf("%w: embedded store: %w", activation.ErrDamaged, err)
	}
	return fmt.Errorf("%w: embedded store: %w", activation.ErrUnavailable, err)
}

var _ activation.Store = (*Store)(nil)
