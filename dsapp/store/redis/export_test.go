package redis

import "time"

// MaxGathered is how many changes are sent together.
const MaxGathered = maxGathered

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
