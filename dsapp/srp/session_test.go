package srp

import (
	"bytes"
	"crypto/aes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/internal/alteration"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

var items = []seal.Item{seal.LicenseActivationMessage, seal.ActivationCode, seal.EventReactivationCounter}

// vectorExchange returns K, A and B of the known answers below.
func vectorExchange() (key, a, b []byte) {
	key, a, b = make([]byte, 32), make([]byte, 256), make([]byte, 256)
	for i := range key {
		key[i] = byte(i)
	}
	for i := range 253 {
		a[3+i] = byte(i*7 + 1)
	}
	for i := range b {
		b[i] = byte(i*5 + 9)
	}
	return key, a, b
}

// Open agrees with known answers that were computed outside Go: by Python's hmac and hashlib
// for the keys and the MAC, and by OpenSSL for AES-256-CTR.
func TestSessionVectors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		item                 seal.Item
		plaintext, data, mac string
	}{
		{
			seal.LicenseActivationMessage, strings.Repeat("0123456789ABCDEF", 4) + "00FF",
			"120b2294751eacec6eef2a5f76e8ccbc170a9649ea650ec2b4b1b22969a8dc7bbd97bdf03604cc330c3705aa3c58299b276423d1e9d71944efcdb02f64224153f4a15588",
			"0dc4130d3b43aeb448b76426b8c0f9083f827a11c8e69fc1f6879f2c2c9a41cd",
		},
		{seal.ActivationCode, "A1", "ba83", "032405c443b9b4e5f46f4d13a902e06673e4f72a12a78ce11e29dbf6f6f78603"},
		{seal.EventReactivationCounter, "1234567", "ed456ce967ea29", "b62c4672f7c5651ac9ea34bd84fca01fd4892d90d3207eb34e5b4603910650f9"},
	} {
		t.Run(string(c.item), func(t *testing.T) {
			t.Parallel()
			got, err := NewSession(vectorExchange()).Open(c.item, seal.Ciphertext{Data: digits.Decode(t, c.data), Counter: digits.Decode(t, "F0F1F2F3F4F5F6F7"), MAC: digits.Decode(t, c.mac)})
			if err != nil || string(got) != c.plaintext {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// oracleHMAC computes HMAC-SHA-256 by the definition of RFC 2104, for keys of at most 64
// bytes.
func oracleHMAC(key, message []byte) []byte {
	var inner, outer [64]byte
	copy(inner[:], key)
	copy(outer[:], key)
	for i := range inner {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	h := sha256.Sum256(append(inner[:], message...))
	h = sha256.Sum256(append(outer[:], h[:]...))
	return h[:]
}

// oracleOpen computes plaintext and MAC by the definitions of HKDF (RFC 5869) and CTR (NIST SP
// 800-38A).
func oracleOpen(tb testing.TB, key, a, b []byte, item seal.Item, c seal.Ciphertext) (plaintext, mac []byte) {
	tb.Helper()
	salt := sha256.Sum256(slices.Concat(a, b))
	prk := oracleHMAC(salt[:], key)
	kenc := oracleHMAC(prk, []byte("DSAPP-SRP v1 "+string(item)+" encryption\x01"))
	kmac := oracleHMAC(prk, []byte("DSAPP-SRP v1 "+string(item)+" mac\x01"))
	block, err := aes.NewCipher(kenc)
	if err != nil {
		tb.Fatal(err)
	}
	plaintext = bytes.Clone(c.Data)
	for i := range plaintext {
		stream := binary.BigEndian.AppendUint64(bytes.Clone(c.Counter), uint64(i/16))
		block.Encrypt(stream, stream)
		plaintext[i] ^= stream[i%16]
	}
	return plaintext, oracleHMAC(kmac, slices.Concat(c.Counter, c.Data))
}

// Seal agrees with the oracle for random exchanges and lengths.
func TestSessionAgainstOracle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		bytesOf := func(name string, n int) []byte { return rapid.SliceOfN(rapid.Byte(), n, n).Draw(r, name) }
		size := rapid.SampledFrom([]int{256, 384, 512}).Draw(r, "size")
		key, a, b := bytesOf("key", 32), bytesOf("A", size), bytesOf("B", size)
		item := rapid.SampledFrom(items).Draw(r, "item")
		want := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(r, "plaintext")

		c, err := NewSession(key, a, b).Seal(item, want)
		if err != nil {
			r.Fatal(err)
		}
		if len(c.Counter) != 8 || len(c.MAC) != 32 || len(c.Data) != len(want) {
			r.Fatalf("sizes %d, %d, %d", len(c.Counter), len(c.MAC), len(c.Data))
		}
		got, mac := oracleOpen(t, key, a, b, item, c)
		if !bytes.Equal(got, want) || !bytes.Equal(mac, c.MAC) {
			r.Fatalf("got %x with MAC %x, sealed %x with MAC %x", got, mac, want, c.MAC)
		}
		opened, err := NewSession(key, a, b).Open(item, c)
		if err != nil || !bytes.Equal(opened, want) {
			r.Fatalf("opened to %x, %v", opened, err)
		}
	})
}

// Every single flipped bit of each part is refused, all with the same error and
// without plaintext.
func TestAlteredCiphertext(t *testing.T) {
	t.Parallel()
	tr := NewSession(vectorExchange())
	c, err := tr.Seal(seal.ActivationCode, []byte("activation code 17"))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]func(*seal.Ciphertext) *[]byte{
		"data":    func(c *seal.Ciphertext) *[]byte { return &c.Data },
		"counter": func(c *seal.Ciphertext) *[]byte { return &c.Counter },
		"mac":     func(c *seal.Ciphertext) *[]byte { return &c.MAC },
	}
	for name, part := range parts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused := func(change func([]byte) []byte) {
				t.Helper()
				altered := c
				p := part(&altered)
				*p = change(bytes.Clone(*p))
				if got, err := tr.Open(seal.ActivationCode, altered); !same(err, seal.ErrUnopened) || got != nil {
					t.Errorf("got %q, %v", got, err)
				}
			}
			for i := range 8 * len(*part(&c)) {
				refused(func(b []byte) []byte { b[i/8] ^= 1 << (i % 8); return b })
			}
			refused(func(b []byte) []byte { return b[:len(b)-1] })
			refused(func(b []byte) []byte { return append(b, 0) })
			refused(func([]byte) []byte { return nil })
		})
	}
}

// Bytes cannot be moved between counter and data.
func TestCounterBoundary(t *testing.T) {
	t.Parallel()
	tr := NewSession(vectorExchange())
	c, err := tr.Seal(seal.ActivationCode, []byte("activation code"))
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(c.Counter, c.Data)
	for _, n := range []int{7, 9} {
		if _, err := tr.Open(seal.ActivationCode, seal.Ciphertext{Counter: all[:n], Data: all[n:], MAC: c.MAC}); !same(err, seal.ErrUnopened) {
			t.Errorf("boundary at %d: %v", n, err)
		}
	}
}

// A ciphertext only opens as its item, with its key and in its exchange.
func TestCiphertextBinding(t *testing.T) {
	t.Parallel()
	key, a, b := vectorExchange()
	c, err := NewSession(key, a, b).Seal(seal.ActivationCode, []byte("code"))
	if err != nil {
		t.Fatal(err)
	}
	other := func(v []byte) []byte { v = bytes.Clone(v); v[len(v)-1] ^= 1; return v }
	for _, x := range []struct {
		name string
		tr   *Session
		item seal.Item
	}{
		{"other item", NewSession(key, a, b), seal.EventReactivationCounter},
		{"unknown item", NewSession(key, a, b), "activationcode"},
		{"other key", NewSession(other(key), a, b), seal.ActivationCode},
		{"other client value", NewSession(key, other(a), b), seal.ActivationCode},
		{"other server value", NewSession(key, a, other(b)), seal.ActivationCode},
		{"swapped values", NewSession(key, b, a), seal.ActivationCode},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			if _, err := x.tr.Open(x.item, c); !same(err, seal.ErrUnopened) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// All derived keys differ, between purposes, items, keys and exchanges.
func TestKeysDiffer(t *testing.T) {
	t.Parallel()
	key, a, b := vectorExchange()
	seen := make(map[string]string)
	for name, tr := range map[string]*Session{"first": NewSession(key, a, b), "swapped": NewSession(key, b, a), "other key": NewSession(a[:32], a, b)} {
		for _, item := range items {
			encryption, authentication, err := tr.keys(item)
			if err != nil {
				t.Fatal(err)
			}
			for purpose, k := range map[string][]byte{"encryption": encryption, "mac": authentication} {
				where := name + " " + string(item) + " " + purpose
				if before, ok := seen[string(k)]; ok {
					t.Errorf("%s and %s share a key", before, where)
				}
				seen[string(k)] = where
			}
		}
	}
}

// same reports whether err is want and has the same text.
func same(err, want error) bool {
	return errors.Is(err, want) && err.Error() == want.Error()
}

// A session seals each item once, even if called concurrently.
func TestSealOnce(t *testing.T) {
	t.Parallel()
	tr := NewSession(vectorExchange())
	for _, item := range items {
		var sealed atomic.Int32
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				switch _, err := tr.Seal(item, []byte("x")); {
				case err == nil:
					sealed.Add(1)
				case !same(err, ErrSealedBefore):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := sealed.Load(); n != 1 {
			t.Errorf("%s was sealed %d times", item, n)
		}
	}
}

// Seal refuses unknown items and empty plaintexts, which do not use up an item.
func TestSealErrors(t *testing.T) {
	t.Parallel()
	tr := NewSession(vectorExchange())
	if _, err := tr.Seal("serialNumber", []byte("x")); !same(err, ErrUnknownItem) {
		t.Errorf("unknown item: %v", err)
	}
	if _, err := tr.Seal(seal.ActivationCode, nil); !same(err, ErrEmpty) {
		t.Errorf("empty plaintext: %v", err)
	}
	if _, err := tr.Seal(seal.ActivationCode, []byte("x")); err != nil {
		t.Errorf("a refused call used the item up: %v", err)
	}
}

// Counters are random: two sessions of one exchange do not use the same one.
func TestCounterIsRandom(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 1000 {
		c, err := NewSession(vectorExchange()).Seal(seal.ActivationCode, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(c.Counter)] {
			t.Fatal("counter repeated")
		}
		seen[string(c.Counter)] = true
	}
}

// An item opens to its plaintext. It does not open if a part is altered, as another item, or
// in another exchange. This holds for any plaintext and exchange.
func TestCiphertextOpensOnlyAsSealed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		blob := func(name string, n int) []byte { return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, name) }
		size := rapid.SampledFrom([]int{256, 384, 512}).Draw(t, "size")
		exchange := [3][]byte{blob("key", 32), blob("A", size), blob("B", size)}
		session := func(e [3][]byte) *Session { return NewSession(e[0], e[1], e[2]) }
		item := rapid.SampledFrom(items).Draw(t, "item")
		plaintext := rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "plaintext")
		c, err := session(exchange).Seal(item, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := session(exchange).Open(item, c); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("opened to %x, %v", got, err)
		}
		refused := func(what string, tr *Session, item seal.Item, c seal.Ciphertext) {
			if got, err := tr.Open(item, c); !same(err, seal.ErrUnopened) || got != nil {
				t.Fatalf("%s: opened to %x, %v", what, got, err)
			}
		}
		refused("altered data", session(exchange), item, seal.Ciphertext{Data: alteration.Draw(t, "data", c.Data), Counter: c.Counter, MAC: c.MAC})
		refused("altered counter", session(exchange), item, seal.Ciphertext{Data: c.Data, Counter: alteration.Draw(t, "counter", c.Counter), MAC: c.MAC})
		refused("altered MAC", session(exchange), item, seal.Ciphertext{Data: c.Data, Counter: c.Counter, MAC: alteration.Draw(t, "MAC", c.MAC)})
		for _, other := range items {
			if other != item {
				refused("other item", session(exchange), other, c)
			}
		}
		part := rapid.IntRange(0, 2).Draw(t, "part of the exchange")
		another := exchange
		another[part] = bytes.Clone(exchange[part])
		bit := rapid.IntRange(0, 8*len(another[part])-1).Draw(t, "bit of the exchange")
		another[part][bit/8] ^= 1 << (bit % 8)
		refused("other exchange", session(another), item, c)
	})
}

// Only ciphertexts with the right MAC open, and none makes Open panic.
func FuzzSessionOpen(f *testing.F) {
	key, a, b := vectorExchange()
	genuine, err := NewSession(key, a, b).Seal(seal.ActivationCode, []byte("code"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("activationCode", genuine.Data, genuine.Counter, genuine.MAC)
	f.Add("eventReactivationCounter", genuine.Data, genuine.Counter, genuine.MAC)
	f.Add("", []byte(nil), []byte(nil), []byte(nil))
	f.Add("activationCode", []byte{1}, make([]byte, 16), make([]byte, 32))
	f.Fuzz(func(t *testing.T, item string, data, counter, mac []byte) {
		c := seal.Ciphertext{Data: data, Counter: counter, MAC: mac}
		got, err := NewSession(key, a, b).Open(seal.Item(item), c)
		if err != nil {
			if !same(err, seal.ErrUnopened) || got != nil {
				t.Fatalf("got %x, %v", got, err)
			}
			return
		}
		want, wantMAC := oracleOpen(t, key, a, b, seal.Item(item), c)
		if !bytes.Equal(mac, wantMAC) || !bytes.Equal(got, want) {
			t.Fatalf("opened %s to %x", hex.EncodeToString(data), got)
		}
	})
}

func BenchmarkSessionSeal(b *testing.B) {
	key, x, y := vectorExchange()
	plaintext := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewSession(key, x, y).Seal(seal.LicenseActivationMessage, plaintext); err != nil {
			b.Fatal(err)
		}
	}
}
