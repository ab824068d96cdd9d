// Package digits decodes the hexadecimal digits that tests are written with.
package digits

import (
	"encoding/hex"
	"testing"
)

// Decode returns the bytes of hexadecimal digits.
func Decode(tb testing.TB, digits string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
