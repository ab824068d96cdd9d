package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

const (
	// roomPerRecord is what one Create can add to the file: its record and the others
	// of its page, which are written anew. roomPerTransaction is for the rest of a
	// transaction: other pages, and what it removes on the way.
	roomPerRecord      = 4 * activation.MaxRecord
	roomPerTransaction = 1 << 20
	// roomStep is how much more is written than is needed, so that not every record and
	// every transaction writes to the room.
	roomStep = 1 << 18
	// maxReserved is how many records can have room reserved at once.
	maxReserved = 256
	// proofLifetime is how long a write proves that the disk takes the next one.
	proofLifetime = time.Second
)

// errReserved tells that maxReserved records have room reserved.
var errReserved = errors.New("too many registrations at once")

// room is the part of the file behind the pages in use. A file is as large as it says,
// and has blocks of the disk only where something was written: a transaction on a full
// disk fails where the file has none. Writing to the room gives it blocks, which the
// pages find that come to lie there.
type room struct {
	file *os.File
	// noise is what is written. File systems store zeros without blocks.
	noise []byte

	mu sync.Mutex
	// held counts the records that have room reserved.
	held int64
	// end is up to where the file has blocks, 0 if that is not known.
	end int64
	// proven is when the last write began that succeeded, zero after one that failed.
	proven time.Time
}

func newRoom(file *os.File) *room {
	r := &room{file: file, noise: make([]byte, roomPerRecord)}
	_, _ = rand.Read(r.noise) // never fails
	return r
}

// Reserve implements activation.Store. What it reserves are blocks of the disk behind the
// pages in use.
func (s *Store) Reserve(ctx context.Context) (release func(), err error) {
	var abandoned bool
	var granted int64
	release = sync.OnceFunc(func() {
		s.room.mu.Lock()
		defer s.room.mu.Unlock()
		s.room.held -= granted
		abandoned = true
	})
	_, err = update(ctx, s, func(t *transaction) (struct{}, error) {
		s.room.mu.Lock()
		defer s.room.mu.Unlock()
		if abandoned {
			return struct{}{}, context.Canceled
		}
		if s.room.held >= maxReserved {
			return struct{}{}, errReserved
		}
		if err := s.room.prove(t.tx.Size(), s.room.held+1, t.now); err != nil {
			return struct{}{}, err
		}
		granted = 1
		s.room.held++
		return struct{}{}, nil
	})
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// prove makes sure that records have room behind the pages in use, which end at size, and
// that the disk took a write of that kind a moment ago. The caller holds mu.
func (r *room) prove(size, records int64, now time.Time) error {
	if err := r.reserve(size, records, now); err != nil {
		return err
	}
	if age := now.Sub(r.proven); age >= 0 && age < proofLifetime {
		return nil
	}
	return r.write(size, size+roomPerRecord, now)
}

// keep makes sure that what is reserved still has room behind the pages in use. If that
// fails, only records that have room reserved may be written.
func (r *room) keep(size int64, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == 0 {
		return nil
	}
	return r.reserve(size, r.held, now)
}

// reserve writes to what has no blocks yet of the room for records: theirs, that of the
// transaction which writes them, and that of another one before it.
func (r *room) reserve(size, records int64, now time.Time) error {
	end := size + 2*roomPerTransaction + records*roomPerRecord
	if end <= r.end {
		return nil
	}
	return r.write(max(size, r.end), end+roomStep, now)
}

func (r *room) write(from, to int64, now time.Time) error {
	var err error
	for at := from; at < to && err == nil; {
		var n int
		n, err = r.file.WriteAt(r.noise[:min(int64(len(r.noise)), to-at)], at)
		at += int64(n)
	}
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		r.doubt()
		return err
	}
	r.end, r.proven = max(r.end, to), now
	return nil
}

// doubt forgets what is known, after a write that failed. The caller holds mu.
func (r *room) doubt() { r.end, r.proven = 0, time.Time{} }

// committed takes note of how a transaction ended.
func (r *room) committed(err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.doubt()
		return
	}
	r.proven = now
}
