package embedded_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

// checkSound fails the test unless bbolt finds no damage in the file.
func checkSound(t *testing.T, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			// Unreferenced pages do no harm.
			if !strings.HasSuffix(err.Error(), "unreachable unfreed") {
				t.Errorf("bbolt says: %v", err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Check counts the contents of a file and does not change it. For every kind of file that cannot
// be used, its error says what it is.
func TestCheck(t *testing.T) {
	t.Parallel()
	content := realFile(t)
	t.Run("sound", func(t *testing.T) {
		t.Parallel()
		path := temporary(t)
		if err := os.WriteFile(path, content, 0o400); err != nil {
			t.Fatal(err)
		}
		got, err := embedded.Check(path)
		want := embedded.Contents{Registrations: members, Simulated: members, Claims: members, Size: int64(len(content))}
		if err != nil || got != want {
			t.Errorf("%+v, error %v", got, err)
		}
		checkSound(t, path)
	})
	t.Run("recent claims", func(t *testing.T) {
		t.Parallel()
		path := temporary(t)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := embedded.Open(path, embedded.Options{}.WithoutSweeps())
		if err != nil {
			t.Fatal(err)
		}
		mustClaim(t, s, claim("new", 1), "device-1", time.Hour)
		mustClaim(t, s, claim("released", 1), "device-1", time.Hour)
		err = errors.Join(
			s.Release(t.Context(), ownership.Login, "released", ownership.Token{1}, "device-1"),
			s.Release(t.Context(), ownership.Login, member(7).Identifier, ownership.Token{7}, "device-7"),
			s.Close(),
		)
		if err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(path + ".claims0")
		got, err := embedded.Check(path)
		if err != nil || got.Claims != members {
			t.Errorf("%d claims, error %v, want one more and one less than %d", got.Claims, err, members)
		}
		if after, _ := os.ReadFile(path + ".claims0"); string(after) != string(before) {
			t.Error("the segment was changed")
		}
		if err := os.WriteFile(path+".claims1", []byte(strings.Repeat("text\n", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := embedded.Check(path); err == nil || !strings.Contains(err.Error(), path+".claims1: the file holds something else") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("in use", func(t *testing.T) {
		t.Parallel()
		path := temporary(t)
		open(t, path, embedded.Options{})
		if _, err := embedded.Check(path); err == nil || !strings.Contains(err.Error(), "another process has the file open: stop it first") {
			t.Errorf("error %v", err)
		}
	})
	for name, c := range map[string]struct {
		change func(path string) error
		want   string
	}{
		"missing": {os.Remove, "no such file"},
		"folder":  {func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "is a directory"},
		"empty":   {func(path string) error { return os.Truncate(path, 0) }, ""},
		"cut":     {func(path string) error { return os.Truncate(path, 50*pageSize) }, "204800 bytes long where it should have"},
		"text":    {func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("text\n", 5000)), 0o600) }, "neither of its first two pages is valid"},
		"foreign": {func(path string) error {
			return errors.Join(os.Remove(path), update(path, nil, func(tx *bolt.Tx) error {
				_, err := tx.CreateBucket([]byte("things"))
				return err
			}))
		}, "not a store of this program"},
		"nested buckets": {func(path string) error {
			return update(path, nil, func(tx *bolt.Tx) error {
				_, err := tx.Bucket([]byte("meta")).CreateBucket([]byte("things"))
				return err
			})
		}, "not a store of this program"},
		"newer": {func(path string) error {
			return update(path, nil, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte{0, 0, 0, 3}) })
		}, "format 3, this program knows formats 1 and 2: run the version that wrote it"},
		"no list of free pages": {func(path string) error {
			return update(path, &bolt.Options{NoFreelistSync: true}, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("k"), nil) })
		}, "it has no list of free pages"},
		"first key of a page": {func(path string) error {
			return rewrite(path, func(content []byte, root int) { clear(keyIn(below(content, root, 1), 0)) })
		}, "has keys that are not in order"},
		"last key of a page": {func(path string) error {
			return rewrite(path, func(content []byte, root int) {
				first := below(content, root, 0)
				key := keyIn(first, int(binary.NativeEndian.Uint16(first[10:]))-1)
				copy(key, bytes.Repeat([]byte{0xFF}, len(key)))
			})
		}, "has keys that are not in order"},
		"damaged entry": {func(path string) error {
			return update(path, nil, func(tx *bolt.Tx) error {
				return tx.Bucket([]byte("registrations")).Put([]byte(member(0).Identifier), []byte("not an entry"))
			})
		}, "1 of 450 registrations and claims cannot be decoded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := temporary(t)
			if err := errors.Join(os.WriteFile(path, content, 0o600), c.change(path)); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			_, err := embedded.Check(path)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
}

// rewrite changes the bytes of a file. change gets the number of the root of the registrations, too.
func rewrite(path string, change func(content []byte, root int)) error {
	var root int
	err := update(path, nil, func(tx *bolt.Tx) error {
		root = int(tx.Bucket([]byte("registrations")).Root())
		return nil
	})
	if err != nil {
		return err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	change(content, root)
	return os.WriteFile(path, content, 0o600)
}

// below returns child i of a branch.
func below(content []byte, branch, i int) []byte {
	return content[binary.NativeEndian.Uint64(content[branch*pageSize+16*(i+1)+8:])*pageSize:]
}

// keyIn returns the key of element i of a leaf.
func keyIn(leaf []byte, i int) []byte {
	element := leaf[16*(i+1):]
	position, length := binary.NativeEndian.Uint32(element[4:]), binary.NativeEndian.Uint32(element[8:])
	return element[position:][:length]
}

// update changes a file with bbolt alone.
func update(path string, options *bolt.Options, change func(tx *bolt.Tx) error) error {
	db, err := bolt.Open(path, 0o600, options)
	if err != nil {
		return err
	}
	return errors.Join(db.Update(change), db.Close())
}

// For a file with any part overwritten, and with correct checksums, Check returns and does not
// panic. bbolt finds no damage in a file that Check accepts.
func FuzzPages(f *testing.F) {
	path := filepath.Join(f.TempDir(), "base.db")
	s, err := embedded.Open(path, embedded.Options{})
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	err = update(path, nil, func(tx *bolt.Tx) error {
		for _, bucket := range []string{"pending", "simulated"} {
			for i := range 400 {
				if err := tx.Bucket([]byte(bucket)).Put(binary.BigEndian.AppendUint64([]byte("12345678"), uint64(i)), []byte("value")); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	base, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	for page := range 12 {
		for _, place := range []int{0, 8, 10, 12, 16, 20, 24, 28, 32, 48, 56, 2000} {
			for _, patch := range []string{"\x00", "\x02", "\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\xff"} {
				f.Add(uint32(page*pageSize+place), []byte(patch), uint32(len(base)))
			}
		}
	}
	for page := range 12 {
		for _, other := range []int{page, 2, 3, 11} {
			// The first element of a branch, the root of a file or of a bucket, or a free page.
			for _, place := range []int{16, 24, 32, 48} {
				f.Add(uint32(page*pageSize+place), binary.NativeEndian.AppendUint64(nil, uint64(other)), uint32(len(base)))
			}
		}
	}
	f.Add(uint32(0), []byte{}, uint32(pageSize))
	f.Fuzz(func(t *testing.T, offset uint32, patch []byte, size uint32) {
		content := append([]byte(nil), base[:min(int(size), len(base))]...)
		if int(offset) < len(content) {
			copy(content[offset:], patch)
		}
		for i := 0; i < 2 && (i+1)*pageSize <= len(content); i++ {
			meta := content[i*pageSize+16:]
			if string(meta[:8]) != string(base[16:24]) {
				// bbolt ignores this page, but its check reads the header.
				copy(content[i*pageSize:], base[i*pageSize:][:16])
			}
			checksum := fnv.New64a()
			checksum.Write(meta[:56])
			binary.NativeEndian.PutUint64(meta[56:], checksum.Sum64())
		}
		path := filepath.Join(t.TempDir(), "dsapp.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := embedded.Check(path); err == nil && len(content) > 0 {
			checkSound(t, path)
		}
	})
}
