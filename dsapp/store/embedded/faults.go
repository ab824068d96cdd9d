package embedded

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// bbolt maps the file into memory. If the file is damaged while it is open, reading a page
// can fault, and bbolt panics on pages that it cannot decode. The functions here turn both
// into errors.

// Damaged reports whether the file was found damaged while it was open, such as one that
// was truncated. Every call fails from then on. After Close, Open returns what is wrong
// with the file.
func (s *Store) Damaged() bool { return s.damage.Load() != nil }

// recordDamage makes all later calls fail with err if it is a *FileError, because writing
// to a damaged file could destroy what is left of it. It returns err.
func (s *Store) recordDamage(err error) error {
	if _, ok := errors.AsType[*FileError](err); ok {
		err = fmt.Errorf("%s: %w", s.file.Name(), err)
		if s.damage.CompareAndSwap(nil, &err) {
			s.space.ended(err, s.now())
		}
	}
	return err
}

// begin begins a transaction. The caller has set debug.SetPanicOnFault.
func (s *Store) begin(writable bool) (tx *bolt.Tx, err error) {
	if damage := s.damage.Load(); damage != nil {
		return nil, *damage
	}
	// A panic in Begin leaves bbolt's locks held. Most damage that would cause one is found
	// here before.
	if _, err := readMeta(s.file); err != nil {
		return nil, s.recordDamage(err)
	}
	defer func() {
		if cause := recover(); cause != nil {
			err = s.abandonBolt(cause)
		}
	}()
	return s.db.Begin(writable)
}

// abandonBolt records that bbolt panicked with its locks held. They cannot be released.
func (s *Store) abandonBolt(cause any) error {
	s.boltLocked.Store(true)
	return s.recordDamage(damaged("%s", describe(cause)))
}

// endPanicked rolls a transaction back in which cause was recovered from a panic.
func (s *Store) endPanicked(cause any, tx *bolt.Tx) (err error) {
	defer func() {
		if again := recover(); again != nil {
			err = s.abandonBolt(again)
		}
	}()
	if isFault(cause) {
		err = s.recordDamage(damaged("%s", describe(cause)))
	} else {
		err = fmt.Errorf("transaction failed: %s", describe(cause))
	}
	return errors.Join(err, tx.Rollback())
}

// read calls do in a read transaction.
func (s *Store) read(do func(*bolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	tx, err := s.begin(false)
	if err != nil {
		return err
	}
	defer func() {
		if cause := recover(); cause != nil {
			err = s.endPanicked(cause, tx)
			return
		}
		err = errors.Join(err, tx.Rollback())
	}()
	return do(tx)
}

// closeFile closes the file and releases its lock.
func (s *Store) closeFile() error {
	if s.boltLocked.Load() {
		// bbolt's Close would wait for its locks.
		return abandonFile(s.file)
	}
	return s.db.Close()
}

// isFault reports whether a panic was caused by mapped memory that could not be read.
func isFault(cause any) bool {
	_, ok := cause.(interface {
		runtime.Error
		Addr() uintptr
	})
	return ok
}

// describe returns the text of a panic. It removes the keys that one of bbolt's messages
// contains.
func describe(cause any) string {
	if isFault(cause) {
		return "a part of it cannot be read any more"
	}
	text, _, _ := strings.Cut(fmt.Sprint(cause), " -> ")
	return text
}
