package embedded

import (
	"context"
	"math"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// WithoutSweeps returns the options of a Store that sweeps only when it is told to.
func (o Options) WithoutSweeps() Options {
	o.sweepInterval = time.Hour
	return o
}

// Sweep removes everything that has expired while its pages are needed.
func (s *Store) Sweep() error {
	s.removal = removal{}
	return s.sweep(math.MaxInt)
}

// Archive moves all claims to the file of bbolt.
func (s *Store) Archive() error {
	for range 2 {
		if err := s.claims.archive(s.archive); err != nil {
			return err
		}
		if err := s.claims.turn(); err != nil {
			return err
		}
	}
	return nil
}

// DB returns the database.
func (s *Store) DB() *bolt.DB { return s.db }

// Fill stores n registrations like r and n claims with that owner, in few transactions, and writes
// them to disk.
func (s *Store) Fill(n int, name func() string, r activation.Record, owner []byte) error {
	s.db.NoSync = true
	defer func() { s.db.NoSync = false }()
	for n > 0 {
		// The last transactions are small, so that they leave few free pages, as calls do.
		batch := min(n, max(32, min(10_000, n/10)))
		err := s.db.Update(func(tx *bolt.Tx) error {
			t := &transaction{tx: tx, maxSimulated: s.maxSimulated}
			for range batch {
				t.now = s.now()
				id, ends := name(), t.now.Add(r.Lifetime).UnixNano()
				e := &entry{kind: r.Kind, expires: ends, parts: parts{facts: r.Facts, verifier: r.Verifier, data: r.Data}}
				copy(e.generation[:], id)
				if err := t.put(id, e); err != nil {
					return err
				}
				id = name()
				c := claim{token: ownership.Token([]byte(id)), ends: ends, serialNumber: "VDS" + id, owner: owner}
				if err := t.putClaim(&request{c, ownership.Signature, id}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.registrations.Add(int64(batch))
		n -= batch
	}
	return s.db.Sync()
}

// Handshakes returns the number of handshakes in memory.
func (s *Store) Handshakes() int {
	s.handshakes.mu.Lock()
	defer s.handshakes.mu.Unlock()
	return s.handshakes.genuine.size + s.handshakes.simulated.size
}

// Waiting returns the number of calls that wait for a transaction, and whether a transaction
// with other calls is running.
func (s *Store) Waiting() (n int, running bool) {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return len(s.queue.waiting), s.queue.running
}

// Update calls f in a write transaction.
func (s *Store) Update(ctx context.Context, f func()) error {
	_, err := update(ctx, s, func(*transaction) (struct{}, error) {
		f()
		return struct{}{}, nil
	})
	return err
}

// RetryWrite does what the sweeper does after a write that failed.
func (s *Store) RetryWrite() { s.retryWrite() }
