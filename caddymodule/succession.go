package caddymodule

import (
	"slices"
	"sync"
)

// succession is a list of what started and was not stopped, of one kind for each
// configuration. The latest counts; one that could not be started completely
// thereby leaves the one before.
type succession[T comparable] struct {
	mu      sync.Mutex
	members []T
}

func (s *succession[T]) add(member T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = append(s.members, member)
}

func (s *succession[T]) remove(member T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = slices.DeleteFunc(s.members, func(other T) bool { return other == member })
}

// last is the latest, the zero value if there is none.
func (s *succession[T]) last() (latest T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.members); n > 0 {
		latest = s.members[n-1]
	}
	return latest
}
