package embedded

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	bolt "go.etcd.io/bbolt"
)

// KeySize is the length of a key in bytes.
const KeySize = 32

// KeyPath returns the path of the key file that belongs to the store at path.
func KeyPath(path string) string { return path + ".key" }

// LoadKey reads the key of the store at path and reports whether there is a key file. It
// creates nothing. The key file has 64 hex digits and a newline. If others than its owner
// have access to it, LoadKey returns an error.
func LoadKey(path string) ([]byte, bool, error) {
	name := KeyPath(path)
	key, err := readKey(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading key file %s: %w", name, err)
	}
	return key, true, nil
}

// LoadOrCreateKey reads the key of the store. If there is no key file, it creates one with a
// random key and syncs it to disk. Concurrent calls return the same key. If the store already
// has sealed values, a new key could not open them; LoadOrCreateKey then returns an error
// instead of creating a key file.
func (s *Store) LoadOrCreateKey(ctx context.Context) ([]byte, error) {
	// What leaves the segments is in the archive already.
	used := s.claims.used()
	path, err := view(ctx, s, func(tx *bolt.Tx) (string, error) {
		// The simulation secret is stored before the first registration. Checking both
		// does not rely on that.
		entry, _ := bucket(tx, bucketEntries).Cursor().First()
		claim, _ := bucket(tx, bucketClaims).Cursor().First()
		used = used || entry != nil || claim != nil || secret(tx) != nil
		return tx.DB().Path(), nil
	})
	if err != nil {
		return nil, err
	}
	key, found, err := LoadKey(path)
	if err != nil || found {
		return key, err
	}
	name := KeyPath(path)
	if used {
		return nil, fmt.Errorf("key file %s is missing, and %s holds values that need their key: "+
			"restore the key file or configure the key they were sealed with, or move %[2]s, %[2]s.claims0 and %[2]s.claims1 away to begin with an empty store", name, path)
	}
	if err := createKey(name); err != nil {
		return nil, fmt.Errorf("creating key file %s: %w", name, err)
	}
	if key, err = readKey(name); err != nil {
		return nil, fmt.Errorf("reading key file %s: %w", name, err)
	}
	return key, nil
}

func readKey(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	// Windows has no such bits.
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("group or others have access (mode %04o), want mode 0600", mode)
	}
	digits, err := io.ReadAll(io.LimitReader(f, 2*KeySize+2))
	defer clear(digits)
	if err != nil {
		return nil, err
	}
	line := bytes.TrimSuffix(digits, []byte("\n"))
	if len(line) != 2*KeySize {
		return nil, fmt.Errorf("want %d hex digits and a newline", 2*KeySize)
	}
	key := make([]byte, KeySize)
	if _, err := hex.Decode(key, line); err != nil {
		// The error of hex.Decode would contain a digit.
		return nil, fmt.Errorf("want %d hex digits and a newline", 2*KeySize)
	}
	return key, nil
}

// createKey creates the key file unless there is one. It writes and syncs a file of another
// name first, so that a crash cannot leave an incomplete key file.
func createKey(name string) error {
	folder := filepath.Dir(name)
	f, err := os.CreateTemp(folder, filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(writeKey(f), f.Close()); err != nil {
		return err
	}
	// Unlike a rename, a link does not replace a file that another process has created.
	if err := os.Link(f.Name(), name); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(folder)
}

func writeKey(f *os.File) error {
	key := make([]byte, KeySize)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	line := append(hex.AppendEncode(nil, key), '\n')
	defer clear(key)
	defer clear(line)
	if _, err := f.Write(line); err != nil {
		return err
	}
	return f.Sync()
}
