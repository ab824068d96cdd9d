package embedded

import (
	"context"
	"time"

	bolt "go.etcd.io/bbolt"
)

// WithoutSweeps returns the options of a Store that sweeps only when it is told to.
func (o Options) WithoutSweeps() Options {
	o.sweepInterval = time.Hour
	return o
}

// Sweep removes everything that has expired.
func (s *Store) Sweep() error { return s.sweep() }

// DB returns the database.
func (s *Store) DB() *bolt.DB { return s.db }

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
