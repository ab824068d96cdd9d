package redis

import "time"

// The limits of changes that are delayed.
const (
	MaxGathered = maxGathered
	MaxBatches  = maxBatches
)

// SettleAtOnce has s not wait for releases that other nodes delay.
func (s *Store) SettleAtOnce() { s.settle = 0 }

// StopClock stops the clock of s.
func (s *Store) StopClock() {
	now := s.now()
	s.now = func() time.Time { return now }
}

// ExpireWrites advances the clock of s so far that earlier writes are no evidence any more
// that the server accepts writes.
func (s *Store) ExpireWrites() {
	now := s.now
	s.now = func() time.Time { return now().Add(writeValidity) }
}
