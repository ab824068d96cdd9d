package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/internal/alteration"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

var testLabel = Label{Kind: "verifier", Identifier: "e3wfISG9", Generation: [16]byte{1, 2, 3}}

// xaes is XAES-256-GCM for one nonce. What it seals is compared with the vectors of the
// specification.
func xaes(tb testing.TB, key, nonce []byte) cipher.AEAD {
	tb.Helper()
	derive, err := newXAES(key)
	if err != nil {
		tb.Fatal(err)
	}
	return gcm(tb, derive(salt(nonce)))
}

// gcm is AES-GCM.
func gcm(tb testing.TB, key []byte) cipher.AEAD {
	tb.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		tb.Fatal(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// openXAES opens what XAES-256-GCM sealed, as a Keyring does.
func openXAES(tb testing.TB, key, nonce, sealed, aad []byte) ([]byte, error) {
	tb.Helper()
	k, err := newSealingKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	r, err := k.record(versionXAES, salt(nonce))
	if err != nil {
		tb.Fatal(err)
	}
	return r.Open(nil, nil, slices.Concat(nonce[saltSize:], sealed), aad)
}

// Records are sealed with C2SP XAES-256-GCM: that specification's vectors, whose subkeys begin with
// either bit.
func TestXAESVectors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, aad, derived, want string
		key                      byte
	}{
		{
			"without associated data", "", "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
			"ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271", 1,
		},
		{
			"with associated data", "c2sp.org/XAES-256-GCM", "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
			"986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d", 3,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const nonce, plaintext = "ABCDEFGHIJKLMNOPQRSTUVWX", "XAES-256-GCM"
			key := bytes.Repeat([]byte{c.key}, 32)
			derive, err := newXAES(key)
			if err != nil {
				t.Fatal(err)
			}
			if got := derive(salt([]byte(nonce))); hex.EncodeToString(got) != c.derived {
				t.Errorf("derived key %x, want %s", got, c.derived)
			}
			if got := xaes(t, key, []byte(nonce)).Seal(nil, []byte(nonce[12:]), []byte(plaintext), []byte(c.aad)); hex.EncodeToString(got) != c.want {
				t.Errorf("sealed to %x, want %s", got, c.want)
			}
			if got, err := openXAES(t, key, []byte(nonce), digits.Decode(t, c.want), []byte(c.aad)); err != nil || string(got) != plaintext {
				t.Errorf("opened to %q, %v", got, err)
			}
		})
	}
}

// The accumulated test vector of the specification: 10000 random keys, nonces, messages and
// associated data result in the published digest, and all of them open.
func TestXAESAccumulated(t *testing.T) {
	t.Parallel()
	source, digest := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	draw := func(n int) []byte {
		b := make([]byte, n)
		source.Read(b)
		return b
	}
	for range 10_000 {
		key, nonce := draw(32), draw(24)
		plaintext := draw(int(draw(1)[0]))
		aad := draw(int(draw(1)[0]))
		sealed := xaes(t, key, nonce).Seal(nil, nonce[12:], plaintext, aad)
		digest.Write(sealed)
		if got, err := openXAES(t, key, nonce, sealed, aad); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("key %x, nonce %x: got %x, %v", key, nonce, got, err)
		}
	}
	got := make([]byte, 32)
	digest.Read(got)
	if want := "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"; hex.EncodeToString(got) != want {
		t.Errorf("got %x, want %s", got, want)
	}
}

// A record has the documented layout: code that knows only the layout and XAES-256-GCM opens
// it.
func TestRecordLayout(t *testing.T) {
	t.Parallel()
	key := testKey(0)
	k := ring(t, key)
	k.version = versionXAES
	record := mustSeal(t, k, testLabel, []byte("plaintext"))
	if want := 9 + Overhead; len(record) != want {
		t.Fatalf("record has %d bytes, want %d", len(record), want)
	}
	if record[0] != 1 {
		t.Errorf("version %d", record[0])
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte("dsapp-gateway sealing key id"))
	if want := h.Sum(nil)[:8]; !bytes.Equal(record[1:9], want) {
		t.Errorf("key id %x, want %x", record[1:9], want)
	}
	aad := slices.Concat([]byte{1, 0, 0, 0, 8}, []byte("verifier"), []byte{0, 0, 0, 8}, []byte("e3wfISG9"), testLabel.Generation[:])
	nonce := record[9:33]
	got, err := xaes(t, key, nonce).Open(nil, nonce[12:], record[33:], aad)
	if err != nil || string(got) != "plaintext" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A record of FIPS 140-3 mode has the documented layout: code that knows only the layout, HKDF and
// AES-GCM opens it.
func TestRecordLayoutInFIPSMode(t *testing.T) {
	t.Parallel()
	key := testKey(0)
	k := ring(t, key)
	k.version = versionHKDF
	record := mustSeal(t, k, testLabel, []byte("plaintext"))
	if want := 9 + Overhead; len(record) != want || record[0] != 2 || !bytes.Equal(record[1:9], k.first[:]) {
		t.Fatalf("record %x, want %d bytes", record, want)
	}
	salt, nonce, sealed := record[9:21], record[21:33], record[33:]
	derived, err := hkdf.Key(sha256.New, key, salt, "dsapp-gateway sealed record", 32)
	if err != nil {
		t.Fatal(err)
	}
	aad := slices.Concat([]byte{2, 0, 0, 0, 8}, []byte("verifier"), []byte{0, 0, 0, 8}, []byte("e3wfISG9"), testLabel.Generation[:])
	if got, err := gcm(t, derived).Open(nil, nonce, sealed, aad); err != nil || string(got) != "plaintext" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Keyrings of both modes open each other's records, with the label only, and each of them takes
// those of the other for records to be sealed anew. A record does not open as one of the other
// version.
func TestModesOpenEachOthersRecords(t *testing.T) {
	t.Parallel()
	modes := []*Keyring{ring(t, testKey(0)), ring(t, testKey(0))}
	modes[0].version, modes[1].version = versionXAES, versionHKDF
	for i, k := range modes {
		record := mustSeal(t, k, testLabel, []byte("plaintext"))
		for j, other := range modes {
			if got, err := other.Open(testLabel, record); err != nil || string(got) != "plaintext" {
				t.Errorf("version %d opens %d: %q, %v", other.version, k.version, got, err)
			}
			if current := other.Current(record); current != (i == j) {
				t.Errorf("%d is current for %d: %v", k.version, other.version, current)
			}
			if _, err := other.Open(Label{Kind: "other"}, record); !same(err, ErrUnopened) {
				t.Errorf("another label: %v", err)
			}
			forged := bytes.Clone(record)
			forged[0] = modes[1-i].version
			if _, err := other.Open(testLabel, forged); !same(err, ErrUnopened) {
				t.Errorf("another version: %v", err)
			}
		}
	}
}

// The id of a key must never change. The expected id was computed outside Go with
// HMAC-SHA-256.
func TestKeyID(t *testing.T) {
	t.Parallel()
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	if got := keyIDOf(key); hex.EncodeToString(got[:]) != "32f9b2dd70b71f76" {
		t.Errorf("got %x", got)
	}
}

// A record with a flipped bit, a truncated and an extended record are refused.
func TestAlteredRecord(t *testing.T) {
	t.Parallel()
	k := ring(t, testKey(0), testKey(1))
	record := mustSeal(t, k, testLabel, []byte("forty two"))
	refused := func(what string, n int, r []byte) {
		t.Helper()
		if got, err := k.Open(testLabel, r); !same(err, ErrUnopened) || got != nil {
			t.Errorf("%s %d: got %q, %v", what, n, got, err)
		}
	}
	for i := range 8 * len(record) {
		r := bytes.Clone(record)
		r[i/8] ^= 1 << (i % 8)
		refused("flipped bit", i, r)
	}
	for i := range record {
		refused("cut to", i, record[:i])
	}
	refused("extended by", 1, append(bytes.Clone(record), 0))
}

// A record opens with its own label only. Labels whose concatenated parts are equal are
// different labels.
func TestLabel(t *testing.T) {
	t.Parallel()
	k := ring(t, testKey(0))
	l := Label{Kind: "facts", Identifier: "abcd", Generation: [16]byte{7}}
	record := mustSeal(t, k, l, []byte("x"))
	for _, other := range []Label{
		{Kind: "data", Identifier: "abcd", Generation: l.Generation},
		{Kind: "facts", Identifier: "abce", Generation: l.Generation},
		{Kind: "facts", Identifier: "ABCD", Generation: l.Generation},
		{Kind: "facts", Identifier: "abcd", Generation: [16]byte{8}},
		{Kind: "facts", Identifier: "abcd"},
		{Kind: "fact", Identifier: "sabcd", Generation: l.Generation},
		{Kind: "factsa", Identifier: "bcd", Generation: l.Generation},
		{Kind: "", Identifier: "factsabcd", Generation: l.Generation},
		{Kind: "factsabcd", Identifier: "", Generation: l.Generation},
		{},
	} {
		if _, err := k.Open(other, record); !same(err, ErrUnopened) {
			t.Errorf("label %+v: %v", other, err)
		}
	}
}

// Different labels never have the same encoding.
func TestLabelEncodingIsInjective(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		label := func(name string) Label {
			s := rapid.StringMatching(`[ab\x00\x01]{0,3}`)
			return Label{
				Kind: s.Draw(t, name+" kind"), Identifier: s.Draw(t, name+" identifier"),
				Generation: [16]byte{rapid.Byte().Draw(t, name+" generation")},
			}
		}
		a, b := label("a"), label("b")
		if (a == b) != bytes.Equal(a.associatedData(versionXAES), b.associatedData(versionXAES)) {
			t.Fatalf("%+v and %+v", a, b)
		}
	})
}

// Rotation: a new key is added at the end, moved to the front, and the old key is removed. At
// each step the records of the steps before and after open, until their key is removed.
func TestRotation(t *testing.T) {
	t.Parallel()
	old, next := testKey(0), testKey(1)
	before, added, moved, removed := ring(t, old), ring(t, old, next), ring(t, next, old), ring(t, next)
	ofOld, ofNext := mustSeal(t, added, testLabel, []byte("old")), mustSeal(t, moved, testLabel, []byte("next"))

	for _, c := range []struct {
		name                       string
		k                          *Keyring
		opensOld, opensNext        bool
		currentIsOld, currentIsNew bool
	}{
		{"before", before, true, false, true, false},
		{"added", added, true, true, true, false},
		{"moved", moved, true, true, false, true},
		{"removed", removed, false, true, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			check := func(record []byte, want string, opens, current bool) {
				got, err := c.k.Open(testLabel, record)
				if opens && (err != nil || string(got) != want) || !opens && !same(err, ErrUnopened) {
					t.Errorf("record of %s: got %q, %v", want, got, err)
				}
				if c.k.Current(record) != current {
					t.Errorf("record of %s: current is %t", want, !current)
				}
			}
			check(ofOld, "old", c.opensOld, c.currentIsOld)
			check(ofNext, "next", c.opensNext, c.currentIsNew)
		})
	}
}

// Current is false for anything but a record of the first key.
func TestCurrentOfNonsense(t *testing.T) {
	t.Parallel()
	k := ring(t, testKey(0))
	record := mustSeal(t, k, testLabel, nil)
	otherVersion := bytes.Clone(record)
	otherVersion[0] = 3
	for _, r := range [][]byte{nil, {1}, record[:len(record)-1], otherVersion} {
		if k.Current(r) {
			t.Errorf("%x is current", r)
		}
	}
}

// Every record has a nonce of its own. Records share a salt, but not for ever, and those of both
// versions and of every salt open.
func TestSaltsAndNonces(t *testing.T) {
	t.Parallel()
	for _, version := range []byte{versionXAES, versionHKDF} {
		k := ring(t, testKey(0))
		k.version = version
		nonces, salts := make(map[string]bool), make(map[string]int)
		for i := range 1000 {
			if i == 600 {
				k.keys[k.first].last.Load().uses.Store(saltUses - 100)
			}
			record := mustSeal(t, k, testLabel, []byte("same"))
			nonces[string(record[9:33])] = true
			salts[string(record[9:21])]++
			for _, reader := range []*Keyring{k, ring(t, testKey(0))} {
				if got, err := reader.Open(testLabel, record); err != nil || string(got) != "same" {
					t.Fatalf("version %d, record %d: got %q, %v", version, i, got, err)
				}
			}
		}
		if uses := slices.Sorted(maps.Values(salts)); len(nonces) != 1000 || !slices.Equal(uses, []int{300, 700}) {
			t.Errorf("version %d: %d nonces, salts used %d times", version, len(nonces), uses)
		}
	}
}

// A record opens to its plaintext with any order of the keys. It does not open if it is
// altered, with another label, or without its key. This holds for any plaintext, label and
// keys.
func TestRecordOpensOnlyAsSealed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOfNDistinct(rapid.Byte(), 2, 4, rapid.ID[byte]).Draw(t, "keys")
		keys := make([][]byte, 0, len(numbers))
		for _, n := range numbers {
			keys = append(keys, testKey(n))
		}
		ring := func(keys ...[]byte) *Keyring {
			k, err := NewKeyring(keys...)
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		text := rapid.StringN(0, 12, -1)
		label := rapid.Custom(func(t *rapid.T) Label {
			return Label{text.Draw(t, "kind"), text.Draw(t, "identifier"), [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "generation"))}
		})
		l, plaintext := label.Draw(t, "label"), rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "plaintext")
		all, others := ring(keys...), ring(keys[1:]...)
		record, err := all.Seal(l, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		if !all.Current(record) || len(record) != len(plaintext)+Overhead {
			t.Fatalf("record %x for %d bytes", record, len(plaintext))
		}
		if got, err := ring(append(keys[1:], keys[0])...).Open(l, record); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("opened to %x, %v", got, err)
		}
		refused := func(what string, k *Keyring, l Label, record []byte) {
			if got, err := k.Open(l, record); !same(err, ErrUnopened) || got != nil {
				t.Fatalf("%s: opened to %x, %v", what, got, err)
			}
		}
		refused("altered", all, l, alteration.Draw(t, "altered", record))
		refused("other keys", others, l, record)
		refused("other label", all, label.Filter(func(x Label) bool { return x != l }).Draw(t, "other label"), record)
		// The most similar label.
		shifted := Label{l.Kind + l.Identifier, "", l.Generation}
		if shifted != l {
			refused("shifted label", all, shifted, record)
		}
		// The record claims to be sealed with another key.
		claimed := bytes.Clone(record)
		copy(claimed[1:headerSize], others.first[:])
		refused("other key id", all, l, claimed)
	})
}

// The caller may wipe its keys after NewKeyring.
func TestKeyringOwnsItsKeys(t *testing.T) {
	t.Parallel()
	key := testKey(0)
	k := ring(t, key)
	record := mustSeal(t, k, testLabel, []byte("x"))
	clear(key)
	if _, err := k.Open(testLabel, record); err != nil {
		t.Error(err)
	}
	if _, err := ring(t, testKey(0)).Open(testLabel, mustSeal(t, k, testLabel, []byte("x"))); err != nil {
		t.Error(err)
	}
}

// The errors about keys name the index of the key.
func TestNewKeyringErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		keys [][]byte
		want string
	}{
		{"none", nil, "no sealing key"},
		{"short", [][]byte{testKey(0), make([]byte, 31)}, "keys[1]: has 31 bytes, need 32"},
		{"long", [][]byte{make([]byte, 33)}, "keys[0]: has 33 bytes, need 32"},
		{"duplicate", [][]byte{testKey(0), testKey(1), testKey(0)}, "keys[2]: is the same as an earlier key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := NewKeyring(c.keys...); err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// ParseKey accepts 64 hex digits in either case, and no error quotes the key.
func TestParseKey(t *testing.T) {
	t.Parallel()
	const digits = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
	got, err := ParseKey(digits)
	if err != nil || hex.EncodeToString(got) != strings.ToLower(digits) {
		t.Errorf("got %x, %v", got, err)
	}
	for _, bad := range []string{"", digits[:63], digits[:62], digits + "0", digits + "00", "zzz" + digits[3:], digits[:63] + "G", " " + digits[1:], "0x" + digits[2:]} {
		if got, err := ParseKey(bad); err == nil {
			t.Errorf("%q gave %x", bad, got)
		} else if s := err.Error(); strings.Contains(s, "zz") || strings.Contains(s, "G") || strings.Contains(s, "0011") {
			t.Errorf("error quotes the key: %s", s)
		}
	}
	for _, weak := range []string{"00", "7F", "ff"} {
		if got, err := ParseKey(strings.Repeat(weak, 32)); err == nil || !strings.Contains(err.Error(), "all bytes are the same") {
			t.Errorf("32 times %s gave %x, %v", weak, got, err)
		}
	}
}

// A key is exactly 64 hexadecimal digits that are not one byte repeated. No error contains
// a digit of the key.
func FuzzParseKey(f *testing.F) {
	const digits = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
	for _, s := range []string{
		"", "0", digits, digits[1:], digits + "0", digits + "00", " " + digits[1:], digits[1:] + "\n", "0x" + digits[2:], "-" + digits[1:], "+" + digits[1:],
		digits[:32] + "_" + digits[33:], strings.Repeat("0", 64), strings.Repeat("f", 64), strings.Repeat("fF", 32), strings.Repeat("0", 63) + "1", strings.Repeat("01", 32),
		strings.Repeat("é", 32), strings.Repeat("０", 21) + "0", strings.Repeat("\x00", 64), digits[:63] + "g", digits[:63] + "/", digits[:63] + ":", digits[:63] + "@",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		hexadecimal := len(s) == 64 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
		want := new(big.Int)
		if hexadecimal {
			want.SetString(s, 16)
		}
		repeated := hexadecimal && strings.EqualFold(s, strings.Repeat(s[:2], 32))
		key, err := ParseKey(s)
		if accepted := hexadecimal && !repeated; accepted != (err == nil) {
			t.Fatalf("%q: %v, want it accepted: %t", s, err, accepted)
		}
		if err == nil {
			if len(key) != 32 || new(big.Int).SetBytes(key).Cmp(want) != 0 {
				t.Fatalf("%q became %x", s, key)
			}
			if _, err := NewKeyring(key); err != nil {
				t.Fatal(err)
			}
			return
		}
		if key != nil || !slices.Contains([]string{"must have 64 hex digits", "must consist of hex digits", "must be random: all bytes are the same"}, err.Error()) {
			t.Fatalf("%q: key %s, error %v", s, hex.EncodeToString(key), err)
		}
	})
}

// Opened tells of each opened record whether the first key sealed it.
func TestOpened(t *testing.T) {
	t.Parallel()
	old := mustSeal(t, ring(t, testKey(1)), testLabel, []byte("old"))
	k := ring(t, testKey(0), testKey(1))
	var got []bool
	k.Opened = func(first bool) { got = append(got, first) }
	for _, record := range [][]byte{old, mustSeal(t, k, testLabel, []byte("new")), old[:40]} {
		_, _ = k.Open(testLabel, record)
	}
	if !slices.Equal(got, []bool{false, true}) {
		t.Errorf("told %v", got)
	}
}

// Only bytes that the Keyring has sealed open, and no bytes make Open panic.
func FuzzKeyringOpen(f *testing.F) {
	key := testKey(0)
	k, err := NewKeyring(key)
	if err != nil {
		f.Fatal(err)
	}
	// With a fixed nonce, so that all worker processes use the same record.
	nonce := bytes.Repeat([]byte{7}, saltSize+nonceSize)
	genuine := slices.Concat([]byte{versionXAES}, k.first[:], nonce,
		xaes(f, key, nonce).Seal(nil, nonce[12:], []byte("genuine"), testLabel.associatedData(versionXAES)))
	f.Add([]byte(nil))
	f.Add(genuine)
	f.Add(genuine[:33])
	f.Add(append(bytes.Clone(genuine), 0))
	f.Fuzz(func(t *testing.T, record []byte) {
		got, err := k.Open(testLabel, record)
		if err == nil && !bytes.Equal(record, genuine) {
			t.Fatalf("%x opened to %x", record, got)
		}
		if err != nil && !same(err, ErrUnopened) {
			t.Fatalf("unexpected error %v", err)
		}
	})
}

// BenchmarkKeyringSeal measures records that are sealed one after the other.
func BenchmarkKeyringSeal(b *testing.B) {
	k := ring(b, testKey(0))
	plaintext := make([]byte, 304)
	b.ReportAllocs()
	for b.Loop() {
		mustSeal(b, k, testLabel, plaintext)
	}
}

func BenchmarkKeyringOpen(b *testing.B) {
	k := ring(b, testKey(0))
	record := mustSeal(b, k, testLabel, make([]byte, 304))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Open(testLabel, record); err != nil {
			b.Fatal(err)
		}
	}
}

func testKey(n byte) []byte {
	sum := sha256.Sum256([]byte{n})
	return sum[:]
}

func ring(tb testing.TB, keys ...[]byte) *Keyring {
	tb.Helper()
	k, err := NewKeyring(keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func mustSeal(tb testing.TB, k *Keyring, l Label, plaintext []byte) []byte {
	tb.Helper()
	record, err := k.Seal(l, plaintext)
	if err != nil {
		tb.Fatal(err)
	}
	return record
}

// same reports whether err is want and says no more than want.
func same(err, want error) bool {
	return errors.Is(err, want) && err.Error() == want.Error()
}

// The id of a record is that of the key that sealed it, and reveals no key.
func TestKeyIDs(t *testing.T) {
	t.Parallel()
	first, second := bytes.Repeat([]byte{1, 2}, 16), bytes.Repeat([]byte{3, 4}, 16)
	both, err := NewKeyring(first, second)
	if err != nil {
		t.Fatal(err)
	}
	ids := both.KeyIDs()
	if len(ids) != 2 || ids[0] == ids[1] || len(ids[0]) != 16 {
		t.Fatalf("ids %q", ids)
	}
	for i, key := range [][]byte{first, second} {
		r, err := NewKeyring(key)
		if err != nil {
			t.Fatal(err)
		}
		record, err := r.Seal(Label{Kind: "kind"}, []byte("text"))
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := KeyID(record); !ok || id != ids[i] {
			t.Errorf("record of key %d has id %q, %v, want %q", i, id, ok, ids[i])
		}
	}
	if _, ok := KeyID([]byte("no record")); ok {
		t.Error("a text has the id of a key")
	}
}
