package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

const (
	// spacePerRecord is the most bytes that one Create adds to the file: its record, and
	// the other records of its page, which bbolt copies.
	spacePerRecord = 4 * activation.MaxRecord
	// spacePerTransaction is the most bytes that the rest of a transaction adds to the
	// file: other pages, and the removal of expired entries.
	spacePerTransaction = 1 << 20
	// spaceStep is how many more bytes than needed are allocated at once, so that not
	// every reservation and transaction has to allocate.
	spaceStep = 1 << 18
	// maxReserved is how many records can have space reserved at the same time.
	maxReserved = 256
	// writeValidity is how long a successful write counts as evidence that the disk
	// accepts the next one.
	writeValidity = time.Second
)

// errTooManyReserved is returned if maxReserved records have space reserved.
var errTooManyReserved = errors.New("too many registrations at once")

// space is the disk space behind the pages that bbolt uses. The file is sparse: it has
// blocks of the disk only where something was written. On a full disk, a transaction fails
// where it writes to a part without blocks. Writing filler bytes there in advance allocates
// the blocks, and the pages that are written later use them.
type space struct {
	file *os.File
	// filler is what is written. It is random, because file systems may store zeros
	// without blocks.
	filler []byte

	mu sync.Mutex
	// records is the number of records that have space reserved.
	records int64
	// allocated is the offset up to which the file has blocks, or 0 if it is unknown.
	allocated int64
	// lastDurableWrite is when the last successful write began. It is zero if a write has
	// failed since.
	lastDurableWrite time.Time

	writes atomic.Pointer[writes]
}

func newSpace(file *os.File, now time.Time) *space {
	sp := &space{file: file, filler: make([]byte, spacePerRecord)}
	sp.writes.Store(&writes{since: now})
	_, _ = rand.Read(sp.filler) // never fails
	return sp
}

// Reserve implements activation.Store. It reserves disk space behind the pages in use.
func (s *Store) Reserve(ctx context.Context) (release func(), err error) {
	defer s.observe.Begin(ctx, "reserve").End(nil, &err)
	var abandoned bool
	var granted int64
	release = sync.OnceFunc(func() {
		s.space.mu.Lock()
		defer s.space.mu.Unlock()
		s.space.records -= granted
		abandoned = true
	})
	_, err = update(ctx, s, func(t *transaction) (struct{}, error) {
		s.space.mu.Lock()
		defer s.space.mu.Unlock()
		if abandoned {
			return struct{}{}, context.Canceled
		}
		if s.space.records >= maxReserved {
			return struct{}{}, errTooManyReserved
		}
		if err := s.space.check(t.tx.Size(), s.space.records+1, t.now); err != nil {
			return struct{}{}, err
		}
		granted = 1
		s.space.records++
		return struct{}{}, nil
	})
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// check allocates space for so many records behind the pages in use, which end at size, and
// returns an error unless the disk accepted a write within writeValidity. The caller holds
// mu.
func (sp *space) check(size, records int64, now time.Time) error {
	if err := sp.allocate(size, records, now); err != nil {
		return err
	}
	if age := now.Sub(sp.lastDurableWrite); age >= 0 && age < writeValidity {
		return nil
	}
	return sp.write(size, size+spacePerRecord, now)
}

// maintain allocates the space that is reserved again, if the pages in use, which end at
// size, have grown into it. If it fails, only records that have space reserved may be
// written.
func (sp *space) maintain(size int64, now time.Time) error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.records == 0 {
		return nil
	}
	return sp.allocate(size, sp.records, now)
}

// allocate allocates the space that so many records need: for themselves, for the
// transaction that writes them, and for one more transaction before it. The caller holds
// mu.
func (sp *space) allocate(size, records int64, now time.Time) error {
	end := size + 2*spacePerTransaction + records*spacePerRecord
	if end <= sp.allocated {
		return nil
	}
	return sp.write(max(size, sp.allocated), end+spaceStep, now)
}

// write writes filler bytes between two offsets and syncs the file. The caller holds mu.
func (sp *space) write(from, to int64, now time.Time) error {
	var err error
	for at := from; at < to && err == nil; {
		var n int
		n, err = sp.file.WriteAt(sp.filler[:min(int64(len(sp.filler)), to-at)], at)
		at += int64(n)
	}
	if err == nil {
		err = sp.file.Sync()
	}
	sp.ended(err, now)
	if err != nil {
		sp.forget()
		return err
	}
	sp.allocated, sp.lastDurableWrite = max(sp.allocated, to), now
	return nil
}

// forget forgets what is known about the file, after a write that failed. The caller holds
// mu.
func (sp *space) forget() { sp.allocated, sp.lastDurableWrite = 0, time.Time{} }

// committed records how the commit of a transaction ended that began at now.
func (sp *space) committed(err error, now time.Time) {
	sp.ended(err, now)
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if err != nil {
		sp.forget()
		return
	}
	sp.lastDurableWrite = now
}

// writes says whether the last write of the file succeeded, or why not, and since when that
// has been so.
type writes struct {
	err   error
	since time.Time
}

// ended records how a write ended that began at now.
func (sp *space) ended(err error, now time.Time) {
	last := sp.writes.Load()
	if (err == nil) != (last.err == nil) {
		sp.writes.CompareAndSwap(last, &writes{err, now})
	}
}

// Ready returns an error if the file is damaged or if the last write of it failed. since is
// when the present state began. Ready neither reads nor writes the file, and does not wait
// for those that do.
func (s *Store) Ready() (since time.Time, err error) {
	w := s.space.writes.Load()
	if damage := s.damage.Load(); damage != nil {
		return w.since, *damage
	}
	return w.since, w.err
}
