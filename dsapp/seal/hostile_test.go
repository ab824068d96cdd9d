package seal

import (
	"bytes"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/internal/alteration"
)

// A record opens as it was sealed, and neither altered, nor under another label,
// nor without the key it was sealed with, whichever plaintext, label and keys.
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
		// Labels that are as near as can be.
		shifted := Label{l.Kind + l.Identifier, "", l.Generation}
		if shifted != l {
			refused("shifted label", all, shifted, record)
		}
		// With the identifier of another key, the record is that key's to open.
		claimed := bytes.Clone(record)
		copy(claimed[1:headerSize], others.first[:])
		refused("other key id", all, l, claimed)
	})
}

// Exactly 64 hexadecimal digits that are not one byte repeated are a key: the
// number that they write. No error repeats any of them.
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
