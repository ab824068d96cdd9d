package caddymodule

import (
	"slices"
	"sync"
)

// startedList holds one value of each configuration that has started and not stopped,
// oldest first. The latest one is in force. If a configuration fails during its start,
// it is removed and the one before it is the latest again.
type startedList[T comparable] struct {
	mu     sync.Mutex
	values []T
}

func (s *startedList[T]) add(value T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = append(s.values, value)
}

func (s *startedList[T]) remove(value T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = slices.DeleteFunc(s.values, func(v T) bool { return v == value })
}

// latest returns the value that was added last, or the zero value if the list is empty.
func (s *startedList[T]) latest() (latest T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.values); n > 0 {
		latest = s.values[n-1]
	}
	return latest
}
