package srp

import "math/bits"

// Kernels read exponents in digits of windowBits bits.
const (
	windowBits  = 4
	windowSize  = 1 << windowBits
	windowCount = PrivateSize * 8 / windowBits
)

// digit returns digit i of e in base 16. Digit 0 is the least significant one.
func digit(e *[PrivateSize]byte, i int) uint {
	return uint(e[PrivateSize-1-i/2]) >> (i % 2 * windowBits) % windowSize
}

// window holds 16 powers with consecutive exponents, such as g^(j*16^i) for one i and
// every digit j. The words of equal significance are next to each other, so that reading
// one power accesses memory in order, over all powers.
type window [][windowSize]uint

// read sets dst to power j of w, or to zeros if j is from 16 to 31. It loads every word of
// every power and selects by masks, so that neither branches nor addresses depend on j.
func (w window) read(dst []uint, j uint) {
	var mask [windowSize]uint
	for i := range mask {
		// All ones where i == j: only 0-1 has its top bit set.
		mask[i] = -(((uint(i) ^ j) - 1) >> (bits.UintSize - 1))
	}
	dst = dst[:len(w)]
	for l := range w {
		row := &w[l]
		dst[l] = row[0]&mask[0] | row[1]&mask[1] | row[2]&mask[2] | row[3]&mask[3] |
			row[4]&mask[4] | row[5]&mask[5] | row[6]&mask[6] | row[7]&mask[7] |
			row[8]&mask[8] | row[9]&mask[9] | row[10]&mask[10] | row[11]&mask[11] |
			row[12]&mask[12] | row[13]&mask[13] | row[14]&mask[14] | row[15]&mask[15]
	}
}
