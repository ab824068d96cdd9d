package embedded

import (
	"context"

	bolt "go.etcd.io/bbolt"
)

// Sweep runs what otherwise a timer runs.
func (s *Store) Sweep() error { return s.sweep() }

// DB is the file, for tests that look at what lies in it.
func (s *Store) DB() *bolt.DB { return s.db }

// Handshakes counts the handshakes in memory.
func (s *Store) Handshakes() int {
	s.handshakes.mu.Lock()
	defer s.handshakes.mu.Unlock()
	return s.handshakes.genuine.size + s.handshakes.simulated.size
}

// Waiting counts the calls that wait for a transaction, and tells whether others
// have been taken into one.
func (s *Store) Waiting() (n int, running bool) {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return len(s.queue.waiting), s.queue.running
}

// Update runs f in a write transaction of the store.
func (s *Store) Update(ctx context.Context, f func()) error {
	_, err := update(ctx, s, func(*transaction) (struct{}, error) {
		f()
		return struct{}{}, nil
	})
	return err
}
