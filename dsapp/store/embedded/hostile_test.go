package embedded_test

import (
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

// Whatever a key file holds: 64 hexadecimal digits, with or without the end of
// their line, are the key that they write, and nothing else is one. No error
// repeats what the file holds.
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
