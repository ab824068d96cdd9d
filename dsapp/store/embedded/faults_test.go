package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

func openTemporary(t *testing.T) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s, path
}

// checkUnlocked fails the test if the file at path is locked or cannot be opened.
func checkUnlocked(t *testing.T, path string) {
	t.Helper()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A panic in a read transaction makes only that call fail. The error contains no key of the file.
func TestPanicInRead(t *testing.T) {
	t.Parallel()
	s, path := openTemporary(t)
	_, err := view(t.Context(), s, func(*bolt.Tx) (int, error) { panic("misplaced bucket header: 61 -> 736563726574") })
	if !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "misplaced bucket header") ||
		strings.Contains(err.Error(), "736563726574") || s.Damaged() {
		t.Errorf("error %v, damaged %t", err, s.Damaged())
	}
	if _, err := s.Reserve(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	checkUnlocked(t, path)
}

// If bbolt panics while it holds its locks, nothing waits for them: calls fail, the store is
// damaged, Close returns, and the file is not locked.
func TestPanicWithLocks(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(t *testing.T, s *Store) error{
		"reading": func(t *testing.T, s *Store) error {
			t.Helper()
			_, _, err := s.Load(t.Context(), "id-1")
			return err
		},
		"writing": func(t *testing.T, s *Store) error {
			t.Helper()
			_, err := s.Reserve(t.Context())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, path := openTemporary(t)
			other, otherPath := openTemporary(t)
			// The check before the transaction reads the other, sound file, as if this one
			// were truncated after the check.
			mapped := s.file
			s.file = other.file
			sound, err := os.ReadFile(otherPath)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := begin(t, s); !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "a part of it cannot be read any more; move the file aside") {
					t.Errorf("error %v", err)
				}
			}
			if _, err := s.Reserve(t.Context()); !errors.Is(err, activation.ErrUnavailable) || !s.Damaged() {
				t.Errorf("error %v, damaged %t", err, s.Damaged())
			}
			s.file = mapped
			if err := errors.Join(s.Close(), other.Close()); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(path, sound, 0o600); err != nil {
				t.Fatal(err)
			}
			checkUnlocked(t, path)
		})
	}
}

// If the file is truncated during a transaction, its call and all later calls fail, and nothing is
// written to the file any more.
func TestTruncatedDuringTransaction(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(t *testing.T, s *Store, path string) error{
		"reading": func(t *testing.T, s *Store, path string) error {
			t.Helper()
			_, err := view(t.Context(), s, func(tx *bolt.Tx) ([]byte, error) {
				err := os.Truncate(path, int64(2*os.Getpagesize()))
				return secret(tx), err
			})
			return err
		},
		"writing": func(t *testing.T, s *Store, path string) error {
			t.Helper()
			_, err := update(t.Context(), s, func(tx *transaction) (struct{}, error) {
				err := tx.touch()
				return struct{}{}, errors.Join(err, os.Truncate(path, int64(2*os.Getpagesize())))
			})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, path := openTemporary(t)
			if _, err := s.Reserve(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := cut(t, s, path)
			if !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), path) ||
				!strings.Contains(err.Error(), "a part of it cannot be read any more; move the file aside") || !s.Damaged() {
				t.Errorf("error %v, damaged %t", err, s.Damaged())
			}
			if _, err := s.Ready(); err == nil {
				t.Error("a damaged store is ready")
			}
			if _, err := s.Reserve(t.Context()); !errors.Is(err, activation.ErrUnavailable) {
				t.Errorf("error %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if info, err := os.Stat(path); err != nil || info.Size() != int64(2*os.Getpagesize()) {
				t.Errorf("the file was written: %v, error %v", info.Size(), err)
			}
		})
	}
}

// After a panic in Open the file is closed and not locked.
func TestPanicInOpen(t *testing.T) {
	t.Parallel()
	s, path := openTemporary(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, file, err := openBolt(path, bolt.Options{}, func(db *bolt.DB, _ *os.File) error {
		return db.View(func(*bolt.Tx) error { panic("invalid page type") })
	})
	if err == nil || !strings.Contains(err.Error(), "invalid page type; move the file aside") {
		t.Errorf("error %v", err)
	}
	if _, err := file.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file is open: %v", err)
	}
	checkUnlocked(t, path)
}
