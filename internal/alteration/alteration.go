// Package alteration draws what is almost the same as it should be.
package alteration

import (
	"bytes"

	"pgregory.net/rapid"
)

// Draw draws b with one bit flipped, cut short, prolonged, or with two of its bytes
// exchanged; never b itself.
func Draw(t *rapid.T, name string, b []byte) []byte {
	return rapid.Custom(func(t *rapid.T) []byte {
		altered := bytes.Clone(b)
		switch rapid.IntRange(0, 3).Draw(t, "way") {
		case 0:
			altered = altered[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]
		case 1:
			altered = append(altered, rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "more")...)
		case 2:
			i, j := rapid.IntRange(0, len(b)-1).Draw(t, "i"), rapid.IntRange(0, len(b)-1).Draw(t, "j")
			altered[i], altered[j] = altered[j], altered[i]
		default:
			bit := rapid.IntRange(0, 8*len(b)-1).Draw(t, "bit")
			altered[bit/8] ^= 1 << (bit % 8)
		}
		return altered
	}).Filter(func(altered []byte) bool { return !bytes.Equal(altered, b) }).Draw(t, name)
}
