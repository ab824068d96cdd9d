package embedded_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

// LoadOrCreateKey creates the key file once, in the documented form, and reads it afterwards.
func TestKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "folder", "dsapp.db")
	if key, found, err := embedded.LoadKey(path); err != nil || found || key != nil {
		t.Fatalf("load before creation: %v, error %v", found, err)
	}
	if _, err := os.Stat(filepath.Dir(path)); err == nil {
		t.Fatal("loading made a folder")
	}
	s := open(t, path, embedded.Options{})
	key, err := s.LoadOrCreateKey(t.Context())
	if err != nil || len(key) != embedded.KeySize {
		t.Fatalf("key of %d bytes, error %v", len(key), err)
	}
	content, err := os.ReadFile(path + ".key")
	if err != nil || string(content) != hex.EncodeToString(key)+"\n" {
		t.Fatalf("file of %d bytes does not hold the key as hex digits, error %v", len(content), err)
	}
	info, err := os.Stat(path + ".key")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, error %v", info.Mode(), err)
	}
	if again, err := s.LoadOrCreateKey(t.Context()); err != nil || !bytes.Equal(again, key) {
		t.Fatalf("another key, error %v", err)
	}
	if loaded, found, err := embedded.LoadKey(path); err != nil || !found || !bytes.Equal(loaded, key) {
		t.Fatalf("load: %v, error %v", found, err)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 6 {
		t.Fatalf("%d files, error %v, want the store, its key, two for calls and two for claims", len(files), err)
	}
}

// LoadOrCreateKey creates no key file if the store has sealed values, which a new key could not
// open. It creates one for an empty store, such as after a crash.
func TestKeyIsNotReplaced(t *testing.T) {
	t.Parallel()
	for name, seal := range map[string]func(ctx context.Context, s *embedded.Store) error{
		"secret": func(ctx context.Context, s *embedded.Store) error {
			_, err := s.SimulationSecret(ctx, []byte("sealed"))
			return err
		},
		"registration": func(ctx context.Context, s *embedded.Store) error {
			_, _, err := s.Create(ctx, record("id", 1), activation.Generation{})
			return err
		},
		"claim": func(ctx context.Context, s *embedded.Store) error {
			_, err := s.Claim(ctx, ownership.Login, claim("1", 1), "device-1", time.Hour)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := temporary(t)
			s, ctx := open(t, path, embedded.Options{}), t.Context()
			if _, err := s.Reserve(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := s.LoadOrCreateKey(ctx); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(path + ".key"); err != nil {
				t.Fatal(err)
			}
			key, err := s.LoadOrCreateKey(ctx)
			if err != nil {
				t.Fatalf("an empty store gets no key: %v", err)
			}
			if err := seal(ctx, s); err != nil {
				t.Fatal(err)
			}
			if again, err := s.LoadOrCreateKey(ctx); err != nil || !bytes.Equal(again, key) {
				t.Fatalf("another key, error %v", err)
			}

			if err := os.Rename(path+".key", path+".lost"); err != nil {
				t.Fatal(err)
			}
			_, err = s.LoadOrCreateKey(ctx)
			if err == nil || !strings.Contains(err.Error(), path+".key is missing") || !strings.Contains(err.Error(), "restore the key file") {
				t.Fatalf("error %v", err)
			}
			if _, err := os.Stat(path + ".key"); !os.IsNotExist(err) {
				t.Fatalf("a key was made: %v", err)
			}
			if err := os.Rename(path+".lost", path+".key"); err != nil {
				t.Fatal(err)
			}
			if again, err := s.LoadOrCreateKey(ctx); err != nil || !bytes.Equal(again, key) {
				t.Fatalf("another key after it was restored, error %v", err)
			}
		})
	}
}

// Concurrent calls return the same key.
func TestKeyIsCreatedOnce(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	keys := make([][]byte, 16)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			key, err := s.LoadOrCreateKey(t.Context())
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	wg.Wait()
	for _, key := range keys {
		if !bytes.Equal(key, keys[0]) {
			t.Fatal("two keys")
		}
	}
}

// A key file that others have access to, or that has another form, is refused. The error contains
// the name of the file and nothing from it.
func TestKeyRefused(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("5a", 32)
	tests := []struct {
		name    string
		content string
		mode    os.FileMode
		want    string
	}{
		{"readable by the group", good + "\n", 0o640, "mode 0640"},
		{"readable by others", good + "\n", 0o604, "mode 0604"},
		{"writable by others", good + "\n", 0o602, "mode 0602"},
		{"empty", "", 0o600, "64 hex digits"},
		{"half", good[:32], 0o600, "64 hex digits"},
		{"one digit short", good[:63] + "\n", 0o600, "64 hex digits"},
		{"too long", good + "5a\n", 0o600, "64 hex digits"},
		{"two lines", good + "\n\n", 0o600, "64 hex digits"},
		{"no hex digits", good[:62] + "zz\n", 0o600, "64 hex digits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := temporary(t)
			if err := os.WriteFile(path+".key", []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path+".key", tt.mode); err != nil {
				t.Fatal(err)
			}
			_, found, err := embedded.LoadKey(path)
			_, createErr := open(t, path, embedded.Options{}).LoadOrCreateKey(t.Context())
			for _, err := range []error{err, createErr} {
				if err == nil || found || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path+".key") {
					t.Fatalf("error %v, want one with %q", err, tt.want)
				}
				if strings.Contains(err.Error(), "5a") || strings.Contains(err.Error(), "'z'") {
					t.Fatalf("error %v shows what lies in the file", err)
				}
			}
			if content, err := os.ReadFile(path + ".key"); err != nil || string(content) != tt.content {
				t.Fatalf("the file was changed, error %v", err)
			}
		})
	}
	t.Run("a folder", func(t *testing.T) {
		t.Parallel()
		path := temporary(t)
		if err := os.Mkdir(path+".key", 0o700); err != nil {
			t.Fatal(err)
		}
		if _, _, err := embedded.LoadKey(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Fatalf("error %v", err)
		}
	})
	t.Run("no newline", func(t *testing.T) {
		t.Parallel()
		path := temporary(t)
		if err := os.WriteFile(path+".key", []byte(strings.ToUpper(good)), 0o400); err != nil {
			t.Fatal(err)
		}
		key, found, err := embedded.LoadKey(path)
		if err != nil || !found || !bytes.Equal(key, bytes.Repeat([]byte{0x5a}, 32)) {
			t.Fatalf("load: %v, error %v", found, err)
		}
	})
}

// LoadKey accepts 64 hex digits with or without a newline and nothing else. Its errors do not
// contain anything from the file.
func FuzzKeyFile(f *testing.F) {
	const digits = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
	for _, content := range []string{
		"", "\n", digits, digits + "\n", digits + "\r\n", digits + "\n\n", digits + " ", digits + "0", digits + "\n0", digits[1:], digits[1:] + "\n", "\n" + digits, "\ufeff" + digits,
		digits[:63] + "g", digits[:63] + "\n", "0x" + digits[2:], strings.Repeat("\x00", 64), strings.Repeat("é", 32), digits[:32] + "\n" + digits[32:], strings.Repeat(digits, 100),
	} {
		f.Add([]byte(content))
	}
	accepted := regexp.MustCompile(`\A([0-9A-Fa-f]{64})\n?\z`)
	path := filepath.Join(f.TempDir(), "dsapp.db")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(embedded.KeyPath(path), content, 0o600); err != nil {
			t.Fatal(err)
		}
		key, found, err := embedded.LoadKey(path)
		match := accepted.FindSubmatch(content)
		if match == nil {
			if err == nil || key != nil || !strings.HasSuffix(err.Error(), "want 64 hex digits and a newline") {
				t.Fatalf("%q: %x, found %t, error %v", content, key, found, err)
			}
			return
		}
		want, _ := new(big.Int).SetString(string(match[1]), 16)
		if err != nil || !found || len(key) != embedded.KeySize || new(big.Int).SetBytes(key).Cmp(want) != 0 {
			t.Fatalf("%q: %x, found %t, error %v", content, key, found, err)
		}
	})
}
