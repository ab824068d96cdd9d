package embedded

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// Damaged reports whether the file was found damaged while it was open, as one that
// somebody cut. Every call fails then; after Close, Open tells what there is.
func (s *Store) Damaged() bool { return s.lost.Load() != nil }

// lose has all further calls fail with err if that is about a damaged file: what they
// would write could spoil what is left of it.
func (s *Store) lose(err error) error {
	if _, ok := errors.AsType[*FileError](err); ok {
		err = fmt.Errorf("%s: %w", s.file.Name(), err)
		s.lost.CompareAndSwap(nil, &err)
	}
	return err
}

// begin begins a transaction. The caller has faults panic.
func (s *Store) begin(writable bool) (tx *bolt.Tx, err error) {
	if lost := s.lost.Load(); lost != nil {
		return nil, *lost
	}
	// If bbolt panics here it keeps its locks. What it would panic with shows before.
	if _, err := readMeta(s.file); err != nil {
		return nil, s.lose(err)
	}
	defer func() {
		if cause := recover(); cause != nil {
			err = s.abandon(cause)
		}
	}()
	return s.db.Begin(writable)
}

// abandon gives bbolt up, which keeps locks that nobody can free.
func (s *Store) abandon(cause any) error {
	s.stuck.Store(true)
	return s.lose(damaged("%s", describe(cause)))
}

// recovered ends a transaction that panicked, as bbolt does on a damaged page.
func (s *Store) recovered(cause any, tx *bolt.Tx) (err error) {
	defer func() {
		if again := recover(); again != nil {
			err = s.abandon(again)
		}
	}()
	if isFault(cause) {
		err = s.lose(damaged("%s", describe(cause)))
	} else {
		err = fmt.Errorf("transaction failed: %s", describe(cause))
	}
	return errors.Join(err, tx.Rollback())
}

// read runs do in a read transaction.
func (s *Store) read(do func(*bolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	tx, err := s.begin(false)
	if err != nil {
		return err
	}
	defer func() {
		if cause := recover(); cause != nil {
			err = s.recovered(cause, tx)
			return
		}
		err = errors.Join(err, tx.Rollback())
	}()
	return do(tx)
}

// closeFile closes the file and frees its lock.
func (s *Store) closeFile() error {
	if s.stuck.Load() {
		// bbolt would wait for its locks.
		return abandonFile(s.file)
	}
	return s.db.Close()
}

// isFault reports whether cause is that mapped memory could not be read.
func isFault(cause any) bool {
	_, ok := cause.(interface {
		runtime.Error
		Addr() uintptr
	})
	return ok
}

// describe tells what bbolt panicked with, without the keys that one of its messages
// repeats.
func describe(cause any) string {
	if isFault(cause) {
		return "a part of it cannot be read any more"
	}
	text, _, _ := strings.Cut(fmt.Sprint(cause), " -> ")
	return text
}
