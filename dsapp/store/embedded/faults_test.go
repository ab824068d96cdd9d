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

// free fails if the file at path is locked, or cannot be opened.
func free(t *testing.T, path string) {
	t.Helper()
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A panic in a read transaction fails that call: neither the process nor any other
// call is concerned, and no key of the file is in the error.
func TestPanicInRead(t *testing.T) {
	t.Parallel()
	s, path := openTemporary(t)
	_, err := view(t.Context(), s, func(*bolt.Tx) (int, error) { panic("misplaced bucket header: 61 -> 736563726574") })
	if !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "misplaced bucket header") ||
		strings.Contains(err.Error(), "736563726574") || s.Damaged() {
		t.Errorf("error %v, lost %t", err, s.Damaged())
	}
	if _, err := s.Reserve(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	free(t, path)
}

// When bbolt panics with its locks in hand, nothing waits for them: calls fail at
// once, the store is lost, Close returns, and the file is not locked.
func TestLocksOfAPanicBlockNothing(t *testing.T) {
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
			// What is looked at beforehand is sound, as if the file were cut only then.
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
				t.Errorf("error %v, lost %t", err, s.Damaged())
			}
			s.file = mapped
			if err := errors.Join(s.Close(), other.Close()); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(path, sound, 0o600); err != nil {
				t.Fatal(err)
			}
			free(t, path)
		})
	}
}

// A file that is cut amid a transaction fails that call, and every later one until the
// store is closed: nothing more is written to the file.
func TestCutAmidTransaction(t *testing.T) {
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
				t.Errorf("error %v, lost %t", err, s.Damaged())
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

// A panic while a file is opened leaves it unlocked and closed.
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
	free(t, path)
}
