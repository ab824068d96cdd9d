package seal_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Derived keys are others for each purpose, follow the order of the keys, and report what they
// open as the keyring does.
func TestDerive(t *testing.T) {
	t.Parallel()
	older, newer := bytes.Repeat([]byte{1, 2}, 16), bytes.Repeat([]byte{3, 4}, 16)
	ring := func(keys ...[]byte) *seal.Keyring {
		k, err := seal.NewKeyring(keys...)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	derive := func(k *seal.Keyring, purpose string) *seal.Keyring {
		d, err := k.Derive(purpose)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	label := seal.Label{Kind: "kind", Identifier: "identifier"}
	root := ring(older)
	record, err := derive(root, "a").Seal(label, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]*seal.Keyring{"root": root, "other purpose": derive(root, "b"), "other key": derive(ring(newer), "a")} {
		if _, err := k.Open(label, record); !errors.Is(err, seal.ErrUnopened) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	rotated := ring(newer, older)
	var opened []bool
	rotated.Opened = func(first bool) { opened = append(opened, first) }
	d := derive(rotated, "a")
	if text, err := d.Open(label, record); err != nil || string(text) != "text" || fmt.Sprint(opened) != "[false]" {
		t.Errorf("%q, error %v, opened %v", text, err, opened)
	}
	digest := d.Digest("a", "b")
	if digest != d.Digest("a", "b") || digest == d.Digest("ab") || digest == d.Digest("ab", "") || digest == root.Digest("a", "b") {
		t.Error("digests do not tell calls apart")
	}
	if text := fmt.Sprintf("%+v %#v", d, root); bytes.Contains([]byte(text), []byte("1, 2, 1, 2")) || bytes.Contains([]byte(text), []byte("1 2 1 2")) {
		t.Error("a keyring prints its keys")
	}
}

// A digest is the HMAC-SHA-256 that is documented, however often one was made before: nodes of
// several versions find each other's entries by it.
func TestDigest(t *testing.T) {
	t.Parallel()
	sealing := bytes.Repeat([]byte{1, 2}, 16)
	k, err := seal.NewKeyring(sealing)
	if err != nil {
		t.Fatal(err)
	}
	key, err := hkdf.Key(sha256.New, sealing, nil, "dsapp-gateway digest", 32)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			for n := range 40 {
				long := strings.Repeat("x", 10*n)
				h := hmac.New(sha256.New, key)
				h.Reset()
				var size [4]byte
				for _, part := range []string{"ab", "", long} {
					binary.BigEndian.PutUint32(size[:], uint32(len(part)))
					h.Write(append(size[:], part...))
				}
				if got := k.Digest("ab", "", long); !bytes.Equal(got[:], h.Sum(nil)) {
					t.Errorf("digest with %d bytes is %x", len(long), got)
				}
			}
		})
	}
	done.Wait()
}
