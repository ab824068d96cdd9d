package redis

import "time"

// Stop lets no time pass for s any more.
func (s *Store) Stop() {
	now := s.now()
	s.now = func() time.Time { return now }
}

// Later lets so much time pass for s that what it wrote before proves nothing any
// more.
func (s *Store) Later() {
	now := s.now
	s.now = func() time.Time { return now().Add(proofLifetime) }
}
